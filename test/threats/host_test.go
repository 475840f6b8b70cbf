package threats

import (
	"errors"
	"net"
	"testing"
	"time"

	"github.com/brindle-net/brindle/internal/conntrack"
	"github.com/brindle-net/brindle/internal/testenv"
	"github.com/brindle-net/brindle/test/labtest"
)

// TestThreat23ErrorsAboutOthers lets a workload send errors that speak of a
// connection between two others on its host.
func TestThreat23ErrorsAboutOthers(t *testing.T) {
	r := newRig(t)
	r.Run("lab", "workload", "add", "w5", "--host", "h1")
	defer r.Run("lab", "workload", "rm", "w5")
	r.Learn()
	r.with(onlyOpen)
	r.enforced()
	for _, family := range families {
		s := spec{proto: "udp", family: family, who: clientFirst, from: r.NS("w2"), at: r.NS("w5"), to: r.Addr("w5", family), port: closedPort}
		k := s.start(t)
		talks{k}.goOn(t, 2)
		var own conntrack.Tuple
		table, err := conntrack.Open(r.NS("h1"))
		if err != nil {
			t.Fatal(err)
		}
		defer table.Close()
		entries, err := table.List()
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range entries {
			if e.Orig.Src == r.ip("w2", family) && e.Orig.Dst == r.ip("w5", family) && e.Orig.DstPort == closedPort {
				own = e.Orig
			}
		}
		proto, kinds := protoICMP, []int{3, 4, 5, 11, 12}
		if family == 6 {
			proto, kinds = protoICMPv6, []int{1, 2, 3, 4, 137}
		}
		for _, kind := range kinds {
			mark := cookie()
			about := packet{src: own.Src, dst: own.Dst, proto: protoUDP, payload: udp(int(own.SrcPort), int(own.DstPort), mark)}
			p := packet{src: r.ip("w1", family), dst: r.ip("w2", family), proto: proto, payload: icmp(kind, 0, about.bytes())}
			r.throw(r.out(p.bytes()))
			r.flush()
			if r.ears["w2"].count(mark) > 0 {
				t.Errorf("IPv%d: an error of type %d about a connection of others arrived", family, kind)
			}
		}
		k.end()
	}
}

// TestThreat29Localnet reaches for 127.0.0.0/8 of the host, also where others
// have switched on that it is routed. IPv6 has no such switch; the kernel
// refuses ::1 from outside.
func TestThreat29Localnet(t *testing.T) {
	r := newRig(t)
	r.with(`
apiVersion: projectcalico.org/v3
kind: FelixConfiguration
metadata: {name: node.h1}
spec: {defaultEndpointToHostAction: Accept}
`)
	ns := r.NS("h1")
	heard := make(chan string, 100)
	for _, to := range []string{"127.0.0.1:7777", "[::1]:7777", "172.30.0.11:7778"} {
		var c net.PacketConn
		labtest.Inside(t, ns, func() (err error) { c, err = net.ListenPacket("udp", to); return err })
		t.Cleanup(func() { c.Close() })
		go func() {
			buf := make([]byte, 100)
			for {
				n, _, err := c.ReadFrom(buf)
				if err != nil {
					return
				}
				heard <- string(buf[:n])
			}
		}()
	}
	r.On("h1", "sysctl", "-q", "-w", "net.ipv4.conf.all.route_localnet=1")
	defer r.On("h1", "sysctl", "-q", "-w", "net.ipv4.conf.all.route_localnet=0")
	ask := func(dst string, port int, text string) []byte {
		a := addr(dst)
		p := packet{src: r.ip("w1", map[bool]int{true: 4, false: 6}[a.Is4()]), dst: a, proto: protoUDP, payload: udp(1000, port, []byte(text))}
		return r.out(p.bytes())
	}
	// When the allowed one arrives, the others before it have been judged.
	testenv.Until(t, labtest.Patience, func() error {
		r.throw(ask("127.0.0.1", 7777, "forbidden"), ask("::1", 7777, "forbidden"), ask("172.30.0.11", 7778, "allowed"))
		select {
		case text := <-heard:
			if text == "allowed" {
				return nil
			}
			t.Error("a workload reached the host's loopback")
			return nil
		case <-time.After(100 * time.Millisecond):
			return errors.New("the host's own address is not reached")
		}
	})
}
