package paths

import (
	"net/netip"
	"testing"
	"time"

	"github.com/brindle-net/brindle/internal/testenv"
)

// TestKernelAnswered asks a host by two links, of which one leads to it: echoes
// alone, TCP alone, and neither.
func TestKernelAnswered(t *testing.T) {
	t.Parallel()
	testenv.NeedRoot(t)
	for family, x := range map[int]struct{ own, wrong, far, drop string }{
		4: {"192.0.2.1", "198.51.100.1", "192.0.2.2", "ip protocol icmp drop"},
		6: {"2001:db8::1", "2001:db8:1::1", "2001:db8::2", "icmpv6 type echo-request drop"},
	} {
		a, b := testenv.NetNS(t), testenv.NetNS(t)
		length := map[int]string{4: "/24", 6: "/64"}[family]
		testenv.Run(t, a, "ip", "link", "add", "eth1", "type", "veth", "peer", "name", "away")
		testenv.Run(t, a, "ip", "link", "add", "eth0", "type", "veth", "peer", "name", "eth0", "netns", b.Path())
		for _, dev := range []string{"eth0", "eth1", "away"} {
			testenv.Run(t, a, "ip", "link", "set", dev, "up")
		}
		testenv.Run(t, b, "ip", "link", "set", "eth0", "up")
		add := func(addr, dev string) []string { return []string{"ip", "addr", "add", addr + length, "dev", dev} }
		if family == 6 {
			add = func(addr, dev string) []string {
				return []string{"ip", "addr", "add", addr + length, "dev", dev, "nodad"}
			}
		}
		testenv.Run(t, a, add(x.own, "eth0")...)
		testenv.Run(t, a, add(x.wrong, "eth1")...)
		testenv.Run(t, b, add(x.far, "eth0")...)
		ask := Ask{NS: a, From: netip.MustParseAddr(x.own), To: netip.MustParseAddr(x.far), Port: DefaultPort, Wait: time.Second}
		if !ask.Answered(t.Context()) {
			t.Errorf("IPv%d: no answer", family)
		}
		wrong := ask
		wrong.From, wrong.Device = netip.MustParseAddr(x.wrong), "eth1"
		wrong.Wait = 100 * time.Millisecond
		if wrong.Answered(t.Context()) {
			t.Errorf("IPv%d: an answer by a link that leads nowhere", family)
		}
		testenv.Run(t, b, "nft", "add table inet t; add chain inet t c { type filter hook input priority 0; }; add rule inet t c "+x.drop)
		if !ask.Answered(t.Context()) {
			t.Errorf("IPv%d: no answer where echoes are dropped", family)
		}
		testenv.Run(t, b, "nft", "add rule inet t c tcp dport 4797 drop")
		ask.Wait = 100 * time.Millisecond
		if ask.Answered(t.Context()) {
			t.Errorf("IPv%d: an answer where all is dropped", family)
		}
	}
}
