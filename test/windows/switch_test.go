package windows

import (
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/brindle-net/brindle/internal/testenv"
	"github.com/brindle-net/brindle/test/labtest"
)

// switching is who may do what while modes are switched: pings, talks and
// nothing else.
const switching = `
apiVersion: projectcalico.org/v3
kind: GlobalNetworkPolicy
metadata: {name: switching}
spec:
  selector: has(projectcalico.org/namespace)
  types: [Ingress]
  ingress:
  - {action: Allow, protocol: ICMP, icmp: {type: 8}}
  - {action: Allow, protocol: ICMPv6, icmp: {type: 128}}
  - {action: Allow, protocol: TCP, destination: {ports: [7001]}}
`

// talking is the port of talks.
const talking = 7001

// tour walks from the first of so many places, by each way from each to each
// once, and ends there.
func tour(places int) []int {
	next := make([]int, places) // by place: how many ways were taken already
	stack, out := []int{0}, []int{}
	for len(stack) > 0 {
		at := stack[len(stack)-1]
		if next[at] == places-1 {
			out, stack = append(out, at), stack[:len(stack)-1]
			continue
		}
		next[at]++
		stack = append(stack, (at+next[at])%places)
	}
	slices.Reverse(out)
	return out
}

func TestTour(t *testing.T) {
	for _, n := range []int{2, 3, 5, 6} {
		walk, seen := tour(n), map[[2]int]bool{}
		for i, at := range walk[1:] {
			seen[[2]int{walk[i], at}] = walk[i] != at
		}
		if len(walk) != n*(n-1)+1 || len(seen) != n*(n-1) || walk[0] != 0 || walk[len(walk)-1] != 0 {
			t.Errorf("the tour of %d places is %v", n, walk)
		}
	}
}

// march is a lab whose pools' modes are switched under load.
type march struct {
	*world
	pingers []*labtest.Pinger
	talks   []*labtest.Talk
	traffic *traffic
}

// TestSwitchModes takes the pools of both families through every ordered pair
// of modes, on three hosts of which two share a subnet. Pings at a thousand a
// second lose nothing, connections with data in both directions go on, and of
// what is forbidden, as often, nothing arrives. The workloads keep the MTU with
// which they began, which is that of no encapsulation: what does not fit has to
// be found out, through policy. After each switch the kernels have what the
// oracle says.
func TestSwitchModes(t *testing.T) {
	w := &world{World: labtest.Up(t, "switch", "subnets", "--hosts", "3", "--workloads", "1", "--vxlan", "Never")}
	m := &march{world: w}
	for i, host := range []string{"172.30.1.11", "172.30.1.12", "172.30.2.13"} {
		six := []string{"fd00:172:30:1::b", "fd00:172:30:1::c", "fd00:172:30:2::d"}[i]
		name := fmt.Sprintf("w%d", i+1)
		w.On("r1", "ip", "-4", "route", "add", w.Addr(name, 4), "via", host)
		w.On("r1", "ip", "-6", "route", "add", w.Addr(name, 6), "via", six)
	}
	for _, to := range []string{"w2", "w3"} {
		for _, family := range []int{4, 6} {
			w.lanes = append(w.lanes, lane{fmt.Sprintf("w1 to %s, IPv%d", to, family), "w1", to, family})
		}
	}
	bare := w.flow()
	for _, p := range bare.pairs {
		if err := p.bad.Arrives(100); err != nil {
			t.Fatalf("without policy: %s: %v", p.forbidden.Name, err)
		}
	}
	bare.end()
	w.Apply(switching)
	w.denied()
	m.load()
	walks := [2][]int{tour(len(modes(4))), tour(len(modes(6)))}
	for i := range walks[0][1:] {
		m.step(walks, i+1)
	}
	m.end()
}

// load starts all that goes on meanwhile.
func (m *march) load() {
	m.T.Helper()
	for _, family := range []int{4, 6} {
		to := map[string]string{}
		for _, name := range []string{"w2", "w3"} {
			to[fmt.Sprintf("w1 to %s, IPv%d", name, family)] = m.Addr(name, family)
			m.talks = append(m.talks, m.Talk("w1", name, family, talking))
		}
		m.pingers = append(m.pingers, m.Ping(m.NS("w1"), to))
	}
	f := &traffic{w: m.world, before: m.Drops()}
	for _, l := range m.lanes {
		f.pairs = append(f.pairs, pair{
			lane: l, bad: m.Listen(m.NS(l.to), l.family, closed),
			forbidden: m.Send("forbidden, "+l.name, m.NS(l.from), net.JoinHostPort(m.Addr(l.to, l.family), strconv.Itoa(closed)), 64),
		})
	}
	m.traffic = f
	m.goesOn("at the start")
}

// step switches to the i-th modes of the walks and waits until all hosts have.
func (m *march) step(walks [2][]int, i int) {
	m.T.Helper()
	var now [2]mode
	var what []string
	for k, family := range []int{4, 6} {
		walk, all := walks[k], modes(family)
		from, to := all[walk[(i-1)%(len(walk)-1)]], all[walk[1+(i-1)%(len(walk)-1)]]
		now[k] = to
		what = append(what, fmt.Sprintf("IPv%d from %s to %s", family, from.name, to.name))
	}
	m.T.Run(strings.Join(what, ", "), func(t *testing.T) {
		outer := m.T
		m.T = t
		defer func() { m.T = outer }()
		for k, family := range []int{4, 6} {
			m.Run("patch", "ippool", fmt.Sprintf("lab-v%d", family), "-p",
				fmt.Sprintf(`{"spec":{"ipipMode":%q,"vxlanMode":%q}}`, now[k].ipip, now[k].vxlan))
		}
		testenv.Until(t, labtest.Patience, func() error { return m.arrived(now) })
		testenv.Until(t, labtest.Patience, m.Agree)
		m.goesOn("afterwards")
	})
}

// arrived sees that packets travel between all hosts as the modes say.
func (m *march) arrived(now [2]mode) error {
	paths, err := m.Paths()
	if err != nil {
		return err
	}
	near := map[string]bool{"h1": true, "h2": true}
	for _, p := range paths {
		want := now[0]
		if p.Family == "v6" {
			want = now[1]
		}
		form := want.far
		if near[p.From] && near[p.To] {
			form = want.near
		}
		if p.Form != form {
			return fmt.Errorf("packets from %s to %s, %s, travel %s, want %s", p.From, p.To, p.Family, p.Form, form)
		}
	}
	if len(paths) != 12 {
		return fmt.Errorf("%d ways, want 12", len(paths))
	}
	return nil
}

// goesOn sees that nothing was lost so far, and that all goes on.
func (m *march) goesOn(when string) {
	m.T.Helper()
	for _, p := range m.pingers {
		if err := p.Answered(100); err != nil {
			m.T.Errorf("%s: %v", when, err)
		}
		lost, sent := p.Lost()
		for _, l := range lost {
			m.T.Errorf("%s: %s", when, l)
		}
		if len(lost) > 0 {
			m.whereLost()
		}
		m.T.Logf("%d pings", sent)
	}
	for _, k := range m.talks {
		if err := k.GoesOn(64 << 10); err != nil {
			m.T.Errorf("%s: %v", when, err)
		}
	}
	for _, p := range m.traffic.pairs {
		if n := p.bad.Heard(); n > 0 {
			m.T.Errorf("%s: %s: %d were delivered", when, p.forbidden.Name, n)
		}
	}
}

// whereLost tells what may have dropped a packet.
func (m *march) whereLost() {
	m.T.Helper()
	for _, h := range []string{"h1", "h2", "h3"} {
		m.T.Logf("%s: %s", h, strings.Join(m.Metrics(h, "brindle_ipip_packets_total"), "\n"))
		m.T.Logf("%s: dropped by our rules: %v", h, m.DropsOf(h))
	}
	for _, member := range []string{"h1", "h2", "h3", "r1"} {
		m.T.Logf("%s: %s", member, m.On(member, "sh", "-c", "ip -s -s link; cat /proc/net/softnet_stat; nstat -az | grep -iE 'drop|discard|err|noroute|fail' | grep -v ' 0 *0.0'; true"))
	}
}

// end ends all, looks at the sums, and sees that what was forbidden arrives
// without enforcement.
func (m *march) end() {
	m.T.Helper()
	for _, k := range m.talks {
		if err := k.End(); err != nil {
			m.T.Error(err)
		}
		client, server := k.Heard()
		m.T.Logf("%s: %d and %d bytes", k.Name, client, server)
	}
	sent := 0
	for _, p := range m.traffic.pairs {
		p.forbidden.End()
		sent += int(p.forbidden.Sent)
		if p.forbidden.Fails > 0 {
			m.T.Errorf("%s: %d could not be sent", p.forbidden.Name, p.forbidden.Fails)
		}
	}
	testenv.Until(m.T, labtest.Patience, func() error { // the last are on their way
		if n := m.Drops() - m.traffic.before; n < sent {
			return fmt.Errorf("our counters saw %d of %d forbidden packets", n, sent)
		}
		return nil
	})
	for _, p := range m.traffic.pairs {
		if n := p.bad.Heard(); n > 0 {
			m.T.Errorf("%s: %d were delivered", p.forbidden.Name, n)
		}
		p.bad.Close()
	}
	m.T.Logf("%d forbidden packets", sent)
	for _, h := range []string{"h2", "h3"} {
		m.exposed(h)
	}
	f := m.flow()
	for _, p := range f.pairs {
		if err := p.bad.Arrives(100); err != nil {
			m.T.Errorf("without enforcement: %s: %v", p.forbidden.Name, err)
		}
	}
	f.end()
}
