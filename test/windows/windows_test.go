// Package windows holds what must be so at every moment: no forbidden packet
// arrives and no allowed one is lost, whatever the agent goes through.
package windows

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/brindle-net/brindle/internal/testenv"
	"github.com/brindle-net/brindle/test/labtest"
)

// world is a lab, and what these tests do in it.
type world struct {
	*labtest.World
	lanes []lane
}

// Ports of the two kinds of stream.
const (
	open   = 9001
	closed = 9002
)

// policy lets everybody reach the open port of workloads and nothing else; salt
// changes the documents without changing what they mean.
func policy(salt int) string {
	rules := []string{
		"{action: Allow, protocol: UDP, destination: {ports: [9001]}}",
		"{action: Allow, protocol: UDP, source: {selector: all()}, destination: {ports: [\"8999:9001\"]}}",
		"{action: Allow, protocol: UDP, source: {notNets: [192.0.2.0/24]}, destination: {ports: [9001]}}",
	}
	return fmt.Sprintf(`
apiVersion: projectcalico.org/v3
kind: GlobalNetworkPolicy
metadata: {name: only-open}
spec:
  tier: windows
  selector: projectcalico.org/orchestrator == 'lab' || has(projectcalico.org/namespace)
  types: [Ingress]
  ingress:
  - %s
  - %s
`, rules[salt%3], rules[(salt+1)%2])
}

func tier(action string) string {
	return `
apiVersion: projectcalico.org/v3
kind: Tier
metadata: {name: windows}
spec: {order: 10, defaultAction: ` + action + `}
`
}

// denyAll is what stands behind the tier when it passes.
const denyAll = `
apiVersion: projectcalico.org/v3
kind: GlobalNetworkPolicy
metadata: {name: deny-all}
spec: {selector: has(projectcalico.org/namespace), types: [Ingress]}
`

// blocked is a set of networks from which nothing may come, with so many
// members, and the policy that says so. No address of the lab is in it.
func blocked(members int) string {
	nets := make([]string, members)
	for i := range nets {
		nets[i] = fmt.Sprintf("198.%d.%d.%d/32", 18+i>>16, i>>8&255, i&255)
	}
	return `
apiVersion: projectcalico.org/v3
kind: GlobalNetworkSet
metadata: {name: blocked, labels: {blocked: "yes"}}
spec: {nets: [` + strings.Join(nets, ", ") + `]}
---
apiVersion: projectcalico.org/v3
kind: GlobalNetworkPolicy
metadata: {name: block}
spec:
  tier: windows
  order: 1
  selector: has(projectcalico.org/namespace)
  types: [Ingress]
  ingress:
  - {action: Deny, source: {selector: blocked == 'yes'}}
`
}

// pair is the allowed and the forbidden stream of a lane.
type pair struct {
	lane               lane
	allowed, forbidden *labtest.Stream
	good, bad          *labtest.Ear
}

// traffic is the streams of all lanes.
type traffic struct {
	w      *world
	pairs  []pair
	before int // our drop counters
}

// flow starts the streams.
func (w *world) flow() *traffic {
	w.T.Helper()
	f := &traffic{w: w, before: w.Drops()}
	for _, l := range w.lanes {
		from, to := w.NS(l.from), w.NS(l.to)
		p := pair{lane: l, good: w.Listen(to, l.family, open), bad: w.Listen(to, l.family, closed)}
		p.allowed = w.SendSlowly("allowed, "+l.name, from, l.target(w, open), 16)
		p.forbidden = w.Send("forbidden, "+l.name, from, l.target(w, closed), 64)
		f.pairs = append(f.pairs, p)
	}
	return f
}

// count is what became of the packets of all streams.
type count struct {
	allowed, lost                 int
	forbidden, delivered, dropped int
}

// end stops all streams and counts.
func (f *traffic) end() count {
	f.w.T.Helper()
	var c count
	for _, p := range f.pairs {
		p.allowed.End()
		p.forbidden.End()
		for _, s := range []*labtest.Stream{p.allowed, p.forbidden} {
			if s.Fails > 0 {
				f.w.T.Errorf("%s: %d packets could not be sent", s.Name, s.Fails)
			}
		}
		// The last ones are on their way.
		err := p.good.Arrives(int(p.allowed.Sent))
		c.allowed += int(p.allowed.Sent)
		c.forbidden += int(p.forbidden.Sent)
		if err != nil {
			f.w.T.Logf("%s: %d of %d arrived", p.allowed.Name, p.good.Heard(), p.allowed.Sent)
		}
		c.lost += int(p.allowed.Sent) - p.good.Heard()
		if n := p.bad.Heard(); n > 0 {
			f.w.T.Logf("%s: %d of %d arrived", p.forbidden.Name, n, p.forbidden.Sent)
			c.delivered += n
		}
		p.good.Close()
		p.bad.Close()
	}
	c.dropped = f.w.Drops() - f.before
	return c
}

// settled waits until a policy is in force.
func (w *world) settled() {
	w.T.Helper()
	testenv.Until(w.T, labtest.Patience, func() error {
		for _, h := range []string{"h1", "h2"} {
			if _, err := w.Try("", "lab", "exec", h, "--", "brindle", "node", "status"); err != nil {
				return err
			}
		}
		return nil
	})
}

// prepare puts the policy in force and sees that it is: the forbidden stream
// got through before, which shows that the measurement can fail, and does not
// any more.
func (w *world) prepare() {
	w.T.Helper()
	bare := w.flow()
	for _, p := range bare.pairs {
		if err := p.bad.Arrives(10); err != nil {
			w.T.Fatalf("without policy: %s: %v", p.forbidden.Name, err)
		}
	}
	if c := bare.end(); c.lost != 0 || c.delivered == 0 {
		w.T.Fatalf("without policy: %+v", c)
	}
	w.Apply(tier("Deny") + "---" + policy(0) + "---" + denyAll)
	w.settled()
	w.denied()
}

// denied waits until the forbidden ports of all lanes are out of reach: our
// counters see what is sent there, and none of it arrives.
func (w *world) denied() {
	w.T.Helper()
	var ears []*labtest.Ear
	var probes []*labtest.Stream
	for _, l := range w.lanes {
		ears = append(ears, w.Listen(w.NS(l.to), l.family, closed))
		probes = append(probes, w.Send("probe", w.NS(l.from), l.target(w, closed), 8))
	}
	testenv.Until(w.T, labtest.Patience, func() error {
		before := make([]int, len(ears))
		for i, e := range ears {
			before[i] = e.Heard()
		}
		drops := w.Drops()
		testenv.Until(w.T, labtest.Patience, func() error {
			if n := w.Drops() - drops; n < 50*len(w.lanes) {
				return fmt.Errorf("%d packets dropped", n)
			}
			return nil
		})
		for i, e := range ears {
			if e.Heard() > before[i] {
				return fmt.Errorf("%s: the forbidden port is still reached", w.lanes[i].name)
			}
		}
		return nil
	})
	for i := range ears {
		probes[i].End()
		ears[i].Close()
	}
}

// during runs traffic while something happens, and holds it to the promise.
func (w *world) during(what string, happen func()) {
	w.T.Helper()
	w.T.Run(what, func(t *testing.T) {
		outer := w.T
		w.T = t
		defer func() { w.T = outer }()
		f := w.flow()
		for _, p := range f.pairs {
			if err := p.good.Arrives(50); err != nil {
				t.Fatalf("%s does not start: %v", p.allowed.Name, err)
			}
		}
		happen()
		for _, p := range f.pairs { // and what comes right after it
			if err := p.good.Arrives(p.good.Heard() + 50); err != nil {
				t.Errorf("%s stopped: %v", p.allowed.Name, err)
			}
		}
		c := f.end()
		t.Logf("%+v", c)
		if c.delivered > 0 {
			t.Errorf("%d of %d forbidden packets were delivered", c.delivered, c.forbidden)
		}
		if c.lost > 0 {
			t.Errorf("%d of %d allowed packets were lost", c.lost, c.allowed)
		}
		if c.dropped < c.forbidden {
			t.Errorf("our counters saw %d of %d forbidden packets", c.dropped, c.forbidden)
		}
	})
}

// TestThreat15NoWindow runs all modes of pools and both families at once: they
// are told apart by stream.
func TestThreat15NoWindow(t *testing.T) {
	w := upModes(t, "windows")
	w.prepare()
	w.during("nothing", func() {})
	w.during("restart", func() {
		for _, h := range []string{"h1", "h2"} {
			w.Run("lab", "host", "stop", h)
			w.Run("lab", "host", "start", h)
		}
		w.settled()
	})
	w.during("SIGKILL", func() {
		for _, h := range []string{"h1", "h2"} {
			w.Run("lab", "host", "kill", h)
			w.Run("lab", "host", "start", h)
		}
		w.settled()
	})
	w.during("full resync", func() {
		for _, h := range []string{"h1", "h2"} {
			// Something of nobody's in our table makes the agent read back all of it.
			w.Run("lab", "exec", h, "--", "nft", "add", "chain", "inet", "brindle", "stranger")
			testenv.Until(w.T, labtest.Patience, func() error {
				if out := w.Run("lab", "exec", h, "--", "nft", "list", "chains"); strings.Contains(out, "stranger") {
					return fmt.Errorf("%s still has the strange chain", h)
				}
				return nil
			})
		}
	})
	w.during("policy replacement", func() {
		for salt := range 12 {
			w.Apply(policy(salt))
		}
	})
	w.during("a set grows to 10,000 members", func() {
		for _, n := range []int{0, 10, 1000, 10000, 0} {
			w.Apply(blocked(n))
		}
	})
	w.during("default of a tier", func() {
		for range 4 {
			w.Apply(tier("Pass"))
			w.Apply(tier("Deny"))
		}
	})
	w.during("labels and neighbours", func() {
		w.Run("lab", "workload", "add", "extra", "--host", "h2", "-l", "a=b")
		w.Run("lab", "workload", "rm", "extra")
	})
	testenv.Until(t, labtest.Patience, w.travel)
	testenv.Until(t, labtest.Patience, w.Agree)

	// Without enforcement, all lanes deliver what is forbidden.
	for _, h := range []string{"h1", "h2"} {
		w.exposed(h)
	}
	f := w.flow()
	for _, p := range f.pairs {
		if err := p.bad.Arrives(10); err != nil {
			t.Errorf("without enforcement: %s: %v", p.forbidden.Name, err)
		}
	}
	f.end()
}

// TestThreat25AddressUsedAgain gives the addresses of workloads that everybody
// could reach to others that nobody may, while flows to them go on, in pools of
// all modes.
func TestThreat25AddressUsedAgain(t *testing.T) {
	w := upModes(t, "reuse")
	w.Apply(`
apiVersion: projectcalico.org/v3
kind: GlobalNetworkPolicy
metadata: {name: welcome}
spec:
  selector: welcome == 'yes'
  types: [Ingress]
  ingress: [{action: Allow}]
---
apiVersion: projectcalico.org/v3
kind: GlobalNetworkPolicy
metadata: {name: others}
spec: {order: 5000, selector: has(projectcalico.org/namespace), types: [Ingress]}
`)
	again := map[string][2]string{} // by the workload that shall be gone
	for i := range modes(4) {
		one, two := addresses(10+i, i, i%len(modes(6)))
		name := fmt.Sprintf("first%d", i)
		w.guide(one, two)
		w.add(name, "h2", two, "-l", "welcome=yes")
		again[name] = two
	}
	w.Learn()
	var flows []*labtest.Stream
	for _, name := range slices.Sorted(maps.Keys(again)) {
		for _, family := range []int{4, 6} {
			l := lane{name, "from" + strings.TrimPrefix(name, "first"), name, family}
			e := w.Listen(w.NS(name), family, open)
			flows = append(flows, w.Send(fmt.Sprintf("%s, IPv%d", name, family), w.NS(l.from), l.target(w, open), 16))
			if err := e.Arrives(100); err != nil {
				t.Fatalf("%s, IPv%d: the allowed stream does not start: %v", name, family, err)
			}
			e.Close()
		}
	}
	for _, name := range slices.Sorted(maps.Keys(again)) {
		w.Run("lab", "workload", "rm", name)
		w.add(strings.Replace(name, "first", "second", 1), "h2", again[name])
	}
	w.Learn()
	before := w.Drops()
	var ears []*labtest.Ear
	for _, name := range slices.Sorted(maps.Keys(again)) {
		second := strings.Replace(name, "first", "second", 1)
		for i, family := range []int{4, 6} {
			if got := w.Addr(second, family); got != again[name][i] {
				t.Fatalf("%s has %s, want %s", second, got, again[name][i])
			}
			ears = append(ears, w.Listen(w.NS(second), family, open))
		}
	}
	testenv.Until(t, labtest.Patience, func() error { // a thousand packets of each are dropped by us
		if n := w.Drops() - before; n < 1000*len(flows) {
			return fmt.Errorf("%d packets dropped", n)
		}
		return nil
	})
	for _, s := range flows {
		s.End()
	}
	for i, e := range ears {
		if n := e.Heard(); n > 0 {
			t.Errorf("%s: %d packets reached the new workload", flows[i].Name, n)
		}
		e.Close()
	}
}
