package threats

import (
	"fmt"
	"testing"
	"time"

	"github.com/brindle-net/brindle/internal/dataplane/rules"
	"github.com/brindle-net/brindle/internal/desired"
	"github.com/brindle-net/brindle/internal/testenv"
)

// TestThreat03WrongInterface forges the address of a known host on a network
// where that host is not. Where the interface is strict nothing comes out of
// its wrapping, and it is counted and told; elsewhere, and from where the host
// is, packets pass.
func TestThreat03WrongInterface(t *testing.T) {
	b := newBurrow(t)
	b.ip(b.host, `link add aside type veth peer name beyond
		link set beyond up
		link set aside up
		route add 192.168.0.2 dev aside
		route add 2001:db8::2 dev aside`)
	b.settle() // nobody asks
	for _, family := range families {
		b.policy.Strict[desired.LinkFamily{Interface: "eth0", Family: family}] = struct{}{}
	}
	b.sync(config())
	for i, family := range families {
		outer := packet{src: addr([]string{"192.168.0.2", "2001:db8::2"}[i]), dst: b.hosts[i]}
		for counter, prefix := range map[string]string{
			rules.CounterUnknownVXLAN: "brindle: VXLAN by the wrong interface: ", rules.CounterUnknownIPIP: "brindle: IP in IP by the wrong interface: ",
		} {
			mark, before := cookie(), b.counted(counter)
			in := outer
			in.proto, in.payload = protoUDP, udp(5000, ourPort, vxlan(ourVNI, b.forged(family, mark)))
			if counter == rules.CounterUnknownIPIP {
				in.proto, in.payload = protoIPIP, b.forged(4, mark)
			}
			b.deliver(in)
			testenv.Until(t, 10*time.Second, func() error {
				b.mu.Lock()
				defer b.mu.Unlock()
				if n := b.counted(counter) - before; n != 1 || b.lines[prefix] == 0 {
					return fmt.Errorf("IPv%d: %s counted %d, told %d times", family, counter, n, b.lines[prefix])
				}
				return nil
			})
			if n := b.victim.count(mark) + b.raw4.count(mark) + b.raw6.count(mark); n > 0 {
				t.Errorf("IPv%d, %s: got through", family, counter)
			}
		}
	}
	// IPv4 by either of two ways; of IPv6 the kernel looks at one of them.
	b.ip(b.host, `route replace 192.168.0.2 nexthop dev aside nexthop dev eth0
		route replace 2001:db8::2 dev eth0`)
	b.settle()
}
