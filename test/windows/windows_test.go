// Package windows holds what must be so at every moment: no forbidden packet
// arrives and no allowed one is lost, whatever the agent goes through.
package windows

import (
	"fmt"
	"net"
	"strconv"
	"strings"
	"testing"

	"github.com/brindle-net/brindle/internal/testenv"
	"github.com/brindle-net/brindle/test/labtest"
)

// world is a lab, and what these tests do in it.
type world struct{ *labtest.World }

func up(t *testing.T, name string) *world { return &world{labtest.Up(t, name)} }

// Ports of the two kinds of stream.
const (
	open   = 9001
	closed = 9002
)

// policy lets everybody reach the open port of w3 and nothing else; salt
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

// pair is the allowed and the forbidden stream of one family between w1 and w3.
type pair struct {
	allowed, forbidden *labtest.Stream
	good, bad          *labtest.Ear
}

// traffic is both families' streams.
type traffic struct {
	w      *world
	pairs  []pair
	before int // our drop counters
}

// flow starts the streams.
func (w *world) flow() *traffic {
	w.T.Helper()
	from, to := w.NS("w1"), w.NS("w3")
	f := &traffic{w: w, before: w.Drops()}
	for _, family := range []int{4, 6} {
		a, v := w.Addr("w3", family), fmt.Sprint(" IPv", family)
		p := pair{good: w.Listen(to, family, open), bad: w.Listen(to, family, closed)}
		p.allowed = w.Send("allowed"+v, from, net.JoinHostPort(a, strconv.Itoa(open)), 16)
		p.forbidden = w.Send("forbidden"+v, from, net.JoinHostPort(a, strconv.Itoa(closed)), 64)
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
		c.delivered += p.bad.Heard()
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
	if err := bare.pairs[0].bad.Arrives(10); err != nil {
		w.T.Fatalf("without policy: %v", err)
	}
	if c := bare.end(); c.lost != 0 || c.delivered == 0 {
		w.T.Fatalf("without policy: %+v", c)
	}
	w.Apply(tier("Deny") + "---" + policy(0) + "---" + denyAll)
	w.settled()
	// An agent that has taken the policy in denies; it does so from one moment
	// on. All of them have when a probe's answer is missing on each path.
	for _, family := range []int{4, 6} {
		w.denied("w1", "w3", family)
	}
}

// denied waits until the forbidden port of a workload is out of reach.
func (w *world) denied(from, to string, family int) {
	w.T.Helper()
	e := w.Listen(w.NS(to), family, closed)
	defer e.Close()
	testenv.Until(w.T, labtest.Patience, func() error {
		before := e.Heard()
		s := w.Send("probe", w.NS(from), net.JoinHostPort(w.Addr(to, family), strconv.Itoa(closed)), 8)
		_ = e.Arrives(before + 1)
		s.End()
		if e.Heard() > before {
			return fmt.Errorf("%s still reaches the forbidden port of %s", from, to)
		}
		return nil
	})
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
			if err := p.good.Arrives(100); err != nil {
				t.Fatalf("the allowed stream does not start: %v", err)
			}
		}
		happen()
		for _, p := range f.pairs { // and what comes right after it
			if err := p.good.Arrives(p.good.Heard() + 200); err != nil {
				t.Errorf("the allowed stream stopped: %v", err)
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

// TestThreat15NoWindow runs both families at once: they are told apart by stream.
func TestThreat15NoWindow(t *testing.T) {
	w := up(t, "windows")
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
}

// TestThreat25AddressUsedAgain gives the address of a workload that everybody could
// reach to another that nobody may, while its flows go on.
func TestThreat25AddressUsedAgain(t *testing.T) {
	w := up(t, "reuse")
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
	w.Run("lab", "workload", "add", "first", "--host", "h2", "-l", "welcome=yes")
	w.Learn()
	var flows []*labtest.Stream
	for _, family := range []int{4, 6} {
		e := w.Listen(w.NS("first"), family, open)
		flows = append(flows, w.Send(fmt.Sprint("IPv", family), w.NS("w1"), net.JoinHostPort(w.Addr("first", family), strconv.Itoa(open)), 16))
		if err := e.Arrives(100); err != nil {
			t.Fatalf("IPv%d: the allowed stream does not start: %v", family, err)
		}
		e.Close()
	}
	v4, v6 := w.Addr("first", 4), w.Addr("first", 6)
	w.Run("lab", "workload", "rm", "first")
	w.Run("lab", "workload", "add", "second", "--host", "h2", "--ip", v4, "--ip", v6)
	w.Learn()
	if w.Addr("second", 4) != v4 || w.Addr("second", 6) != v6 {
		t.Fatalf("the second workload has %v", w.Work["second"].Addresses)
	}
	before := w.Drops()
	ears := []*labtest.Ear{w.Listen(w.NS("second"), 4, open), w.Listen(w.NS("second"), 6, open)}
	testenv.Until(t, labtest.Patience, func() error { // a thousand packets are dropped by us
		if n := w.Drops() - before; n < 1000 {
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
