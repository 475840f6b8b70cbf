package threats

import (
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/brindle-net/brindle/internal/netns"
	"github.com/brindle-net/brindle/internal/testenv"
	"github.com/brindle-net/brindle/test/labtest"
)

// quarantine denies w3's closed port to everybody, and to the new workload all
// but its open port.
const quarantine = `
apiVersion: projectcalico.org/v3
kind: GlobalNetworkPolicy
metadata: {name: threats-new}
spec:
  selector: new == 'yes'
  types: [Ingress, Egress]
  ingress:
  - {action: Allow, protocol: UDP, destination: {ports: [9001]}}
  egress:
  - {action: Allow, protocol: UDP, destination: {ports: [9001]}}
`

// TestThreat16FirstPackets has a new workload send and be sent to from the
// first moment that its namespace exists. Agents that start, stop, crash and
// change, which is the other half of threats 15 and 16, are in test/windows.
func TestThreat16FirstPackets(t *testing.T) {
	r := newRig(t)
	r.with(quarantine + "---" + onlyOpen)
	r.enforced()
	r.Run("lab", "workload", "add", "scout", "--host", "h1") // to learn free addresses
	r.Learn()
	v4, v6 := r.Addr("scout", 4), r.Addr("scout", 6)
	r.Run("lab", "workload", "rm", "scout")

	inMark, inOpen, outMark, outOpen := cookie(), cookie(), cookie(), cookie()
	stop := make(chan struct{})
	defer close(stop)
	// w1 and w3 call the address before anybody has it.
	for _, from := range []string{"w1", "w3"} {
		for _, to := range []string{v4, v6} {
			for port, mark := range map[int][]byte{closedPort: inMark, openPort: inOpen} {
				r.shout(r.NS(from), net.JoinHostPort(to, strconv.Itoa(port)), mark, stop)
			}
		}
	}
	heard := make(chan *sniffer, 1)
	go func() { // the workload's own first instruction, and one who listens there
		tick := time.NewTicker(time.Millisecond) // the race is the test's subject
		defer tick.Stop()
		for {
			select {
			case <-stop:
				return
			case <-tick.C:
			}
			ns, err := netns.Open("brindle-" + r.Name + "-fresh")
			if err != nil {
				continue
			}
			var fd int
			err = netns.Do(ns, func() (err error) { fd, err = openPacket("eth0"); return err })
			if err != nil {
				ns.Close()
				continue
			}
			t.Cleanup(func() { unix.Close(fd); ns.Close() })
			s := listenTo(t, fd)
			for _, family := range families {
				for port, mark := range map[int][]byte{closedPort: outMark, openPort: outOpen} {
					for _, to := range []string{"w2", "w3"} {
						r.shout(ns, net.JoinHostPort(r.Addr(to, family), strconv.Itoa(port)), mark, stop)
					}
				}
			}
			heard <- s
			return
		}
	}()
	r.Run("lab", "workload", "add", "fresh", "--host", "h1", "--ip", v4, "--ip", v6, "-l", "new=yes")
	defer r.Run("lab", "workload", "rm", "fresh")
	var s *sniffer
	select {
	case s = <-heard:
	case <-time.After(labtest.Patience):
		t.Fatal("the new workload never got a link")
	}
	testenv.Until(t, labtest.Patience, func() error {
		for what, n := range map[string]int{"into the new workload": s.count(inOpen), "to its neighbour": r.ears["w2"].count(outOpen), "to another host": r.ears["w3"].count(outOpen)} {
			if n < 200 {
				return fmt.Errorf("%d allowed packets %s", n, what)
			}
		}
		return nil
	})
	if n := s.count(inMark); n > 0 {
		t.Errorf("%d forbidden packets reached the new workload", n)
	}
	for _, to := range []string{"w2", "w3", "h2"} {
		if n := r.ears[to].count(outMark); n > 0 {
			t.Errorf("%d forbidden packets of the new workload reached %s", n, to)
		}
	}
}

// shout sends datagrams without pause until stop. Errors are those of a
// namespace that is not ready, or of one that nobody answers.
func (r *rig) shout(ns *netns.NS, to string, mark []byte, stop <-chan struct{}) {
	go func() {
		var c net.Conn
		tick := time.NewTicker(time.Millisecond) // the pace is the test's subject
		defer tick.Stop()
		for {
			select {
			case <-stop:
				if c != nil {
					c.Close()
				}
				return
			case <-tick.C:
			}
			if c == nil {
				_ = netns.Do(ns, func() (err error) { c, err = net.Dial("udp", to); return err })
				continue
			}
			_, _ = c.Write(mark)
		}
	}()
}

// TestThreat20Precedence lets policies overlap: the order decides, not which
// network is narrower, nor how large or small the numbers are.
func TestThreat20Precedence(t *testing.T) {
	r := newRig(t)
	policy := func(name, order, action string, nets ...string) string {
		return fmt.Sprintf(`
apiVersion: projectcalico.org/v3
kind: GlobalNetworkPolicy
metadata: {name: threats-%s}
spec:
  order: %s
  selector: name == 'w1'
  types: [Egress]
  egress:
  - {action: Allow, protocol: UDP, destination: {ports: [9999]}}
  - {action: %s, destination: {nets: [%s]}}
  - {action: %s, destination: {nets: [%s]}}
`, name, order, action, nets[0], action, nets[1])
	}
	narrow := []string{r.Addr("w3", 4) + "/32", r.Addr("w3", 6) + "/128"}
	wide := []string{"10.0.0.0/8", "fd00::/8"}
	for _, c := range []struct {
		name, orderNarrow, orderWide string
		allowNarrow                  bool
		want                         bool
	}{
		{"a narrow allow first", "10", "20", true, true},
		{"a wide deny first", "20", "10", true, false},
		{"a narrow deny first", "10", "20", false, false},
		{"a wide allow first", "20", "10", false, true},
		{"beyond 16 bits", "65536", "1", true, false},
		{"about 16 bits", "65535", "65537", true, true},
		{"beyond 32 bits", "4294967297", "2", true, false},
		{"fractions", "1.5", "1.25", true, false},
		{"below zero", "-1", "0", true, true},
		{"far below zero", "-100000.5", "-100001", true, false},
		{"no order is the last", "null", "1e30", true, false},
		{"the same: the name decides", "7", "7", true, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			narrowAction, wideAction := "Allow", "Deny"
			if !c.allowNarrow {
				narrowAction, wideAction = "Deny", "Allow"
			}
			documents := policy("a-narrow", c.orderNarrow, narrowAction, narrow...) + "---" + policy("b-wide", c.orderWide, wideAction, wide...)
			r := rigOf(t, r.With(t))
			r.Apply(documents)
			defer r.Remove(documents)
			for _, family := range families {
				testenv.Until(t, labtest.Patience, func() error {
					mark := cookie()
					p := packet{src: r.ip("w1", family), dst: r.ip("w3", family), proto: protoUDP, payload: udp(openPort, openPort, mark)}
					r.throw(r.out(p.bytes()))
					r.flush()
					if got := r.ears["w3"].count(mark) > 0; got != c.want {
						return fmt.Errorf("IPv%d: arrives: %v, want %v", family, got, c.want)
					}
					return nil
				})
			}
		})
	}
}

// TestThreat18BorrowedLabels has a workload carry labels that are not its own
// to give: those that say in which namespace it is.
func TestThreat18BorrowedLabels(t *testing.T) {
	r := newRig(t)
	r.with(`
apiVersion: projectcalico.org/v3
kind: Profile
metadata: {name: kns.trusted}
spec: {labelsToApply: {pcns.role: trusted}, ingress: [{action: Allow}], egress: [{action: Allow}]}
---
apiVersion: projectcalico.org/v3
kind: GlobalNetworkPolicy
metadata: {name: threats-trusted}
spec:
  selector: name == 'w2'
  types: [Ingress]
  ingress:
  - {action: Allow, protocol: UDP, destination: {ports: [9999]}}
  - {action: Allow, source: {namespaceSelector: role == 'trusted'}}
  - {action: Allow, source: {namespaceSelector: projectcalico.org/name == 'trusted'}}
---
apiVersion: projectcalico.org/v3
kind: NetworkPolicy
metadata: {name: threats-escape, namespace: trusted}
spec:
  selector: "all()"
  types: [Ingress]
`)
	testenv.Until(t, labtest.Patience, func() error {
		mark := cookie()
		p := packet{src: r.ip("w1", 4), dst: r.ip("w2", 4), proto: protoUDP, payload: udp(openPort, openPort, mark)}
		r.throw(r.out(p.bytes()))
		r.flush()
		if r.ears["w2"].count(mark) > 0 {
			return errors.New("the policy is not in force")
		}
		return nil
	})
	for _, labels := range []string{"projectcalico.org/namespace=trusted", "pcns.role=trusted", "pcns.projectcalico.org/name=trusted", "projectcalico.org/orchestrator=k8s"} {
		t.Run(labels, func(t *testing.T) {
			r := rigOf(t, r.With(t))
			if _, err := r.Try("", "lab", "workload", "add", "liar", "--host", "h1", "-n", "elsewhere", "-l", labels); err != nil {
				if !strings.Contains(err.Error(), "label") {
					t.Fatal(err)
				}
				return // refused
			}
			defer r.Run("lab", "workload", "rm", "liar")
			r.Learn()
			mark := cookie()
			stop := make(chan struct{})
			defer close(stop)
			allowed := cookie()
			for _, family := range families {
				r.shout(r.NS("liar"), net.JoinHostPort(r.Addr("w2", family), strconv.Itoa(openPort)), mark, stop)
				r.shout(r.NS("liar"), net.JoinHostPort(r.Addr("w2", family), strconv.Itoa(sentinel)), allowed, stop)
			}
			testenv.Until(t, labtest.Patience, func() error {
				if n := r.ears["w2"].count(allowed); n < 200 {
					return fmt.Errorf("%d allowed packets", n)
				}
				return nil
			})
			if n := r.ears["w2"].count(mark); n > 0 {
				t.Errorf("%d packets arrived that only the namespace may send", n)
			}
		})
	}
}
