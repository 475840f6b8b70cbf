package nflog

import (
	"context"
	"errors"
	"net"
	"testing"
	"time"

	"github.com/brindle-net/brindle/internal/testenv"
)

// TestLoggedPacketsAreHeard logs what a rule of the nft program logs to a
// group.
func TestLoggedPacketsAreHeard(t *testing.T) {
	testenv.NeedRoot(t)
	testenv.NeedProgram(t, "nft")
	testenv.EachFamily(t, func(t *testing.T, f testenv.Family) {
		ns := testenv.NetNS(t)
		testenv.Run(t, ns, "nft", `table inet test { chain in { type filter hook input priority 0;
			meta l4proto { udp, icmp, ipv6-icmp } log prefix "calico-packet: " group 7; }; }`)
		ctx, cancel := context.WithCancel(t.Context())
		heard, done := make(chan Packet, 64), make(chan error, 1)
		go func() {
			done <- Listen(ctx, ns, 7, func(p Packet) { heard <- p }, func() { t.Error("lost") })
		}()
		expect := func(send func(), want Packet) {
			t.Helper()
			testenv.Until(t, 20*time.Second, func() error {
				send()
				for {
					select {
					case p := <-heard:
						p.SrcPort, p.In = 0, "" // the kernel's choice; a number of another namespace
						if p == want {
							return nil
						}
					default:
						return errors.New("not heard yet")
					}
				}
			})
		}
		check := func(a string, icmp, kind uint8, over int) {
			p := Packet{Prefix: "calico-packet: ", Src: addr(a), Dst: addr(a), Protocol: 17, DstPort: 9, Length: over + 8 + 5}
			expect(func() {
				testenv.Do(t, ns, func() error {
					c, err := net.Dial("udp", net.JoinHostPort(a, "9"))
					if err != nil {
						return err
					}
					defer c.Close()
					_, err = c.Write([]byte("hello"))
					return err
				})
			}, p)
			ping := Packet{Prefix: "calico-packet: ", Src: addr(a), Dst: addr(a), Protocol: icmp, Type: kind, Length: over + 8 + 56}
			expect(func() { testenv.Run(t, ns, "ping", "-c", "1", a) }, ping)
		}
		if f.HasV4() {
			check("127.0.0.1", 1, 8, 20)
		}
		if f.HasV6() {
			check("::1", 58, 128, 40)
		}
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
	})
}
