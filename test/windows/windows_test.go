package windows

import (
	"fmt"
	"net"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/brindle-net/brindle/internal/testenv"
)

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
	allowed, forbidden *stream
	good, bad          *ear
}

// traffic is both families' streams.
type traffic struct {
	w      *world
	pairs  []pair
	before int // our drop counters
}

// flow starts the streams.
func (w *world) flow() *traffic {
	w.t.Helper()
	from, to := w.ns("w1"), w.ns("w3")
	f := &traffic{w: w, before: w.drops()}
	for _, family := range []int{4, 6} {
		a, v := w.addr("w3", family), fmt.Sprint(" IPv", family)
		p := pair{good: w.listen(to, family, open), bad: w.listen(to, family, closed)}
		p.allowed = w.send("allowed"+v, from, net.JoinHostPort(a, strconv.Itoa(open)), 16)
		p.forbidden = w.send("forbidden"+v, from, net.JoinHostPort(a, strconv.Itoa(closed)), 64)
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
	f.w.t.Helper()
	var c count
	for _, p := range f.pairs {
		p.allowed.end()
		p.forbidden.end()
		for _, s := range []*stream{p.allowed, p.forbidden} {
			if s.fails > 0 {
				f.w.t.Errorf("%s: %d packets could not be sent", s.name, s.fails)
			}
		}
		// The last ones are on their way.
		err := arrives(p.good, int(p.allowed.sent))
		c.allowed += int(p.allowed.sent)
		c.forbidden += int(p.forbidden.sent)
		if err != nil {
			f.w.t.Logf("%s: %d of %d arrived", p.allowed.name, p.good.heard(), p.allowed.sent)
		}
		c.lost += int(p.allowed.sent) - p.good.heard()
		c.delivered += p.bad.heard()
		p.good.close()
		p.bad.close()
	}
	c.dropped = f.w.drops() - f.before
	return c
}

// arrives waits a moment for the last packets of a stream.
func arrives(e *ear, all int) error {
	deadline := time.NewTimer(2 * time.Second)
	defer deadline.Stop()
	look := time.NewTicker(10 * time.Millisecond)
	defer look.Stop()
	for e.heard() < all {
		select {
		case <-look.C:
		case <-deadline.C:
			return fmt.Errorf("%d of %d arrived", e.heard(), all)
		}
	}
	return nil
}

// settled waits until a policy is in force.
func (w *world) settled() {
	w.t.Helper()
	testenv.Until(w.t, patience, func() error {
		for _, h := range []string{"h1", "h2"} {
			if _, err := w.try("", "lab", "exec", h, "--", "brindle", "node", "status"); err != nil {
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
	w.t.Helper()
	bare := w.flow()
	if err := arrives(bare.pairs[0].bad, 10); err != nil {
		w.t.Fatalf("without policy: %v", err)
	}
	if c := bare.end(); c.lost != 0 || c.delivered == 0 {
		w.t.Fatalf("without policy: %+v", c)
	}
	w.apply(tier("Deny") + "---" + policy(0) + "---" + denyAll)
	w.settled()
	// An agent that has taken the policy in denies; it does so from one moment
	// on. All of them have when a probe's answer is missing on each path.
	for _, family := range []int{4, 6} {
		w.denied("w1", "w3", family)
	}
}

// denied waits until the forbidden port of a workload is out of reach.
func (w *world) denied(from, to string, family int) {
	w.t.Helper()
	e := w.listen(w.ns(to), family, closed)
	defer e.close()
	testenv.Until(w.t, patience, func() error {
		before := e.heard()
		s := w.send("probe", w.ns(from), net.JoinHostPort(w.addr(to, family), strconv.Itoa(closed)), 8)
		_ = arrives(e, before+1)
		s.end()
		if e.heard() > before {
			return fmt.Errorf("%s still reaches the forbidden port of %s", from, to)
		}
		return nil
	})
}

// during runs traffic while something happens, and holds it to the promise.
func (w *world) during(what string, happen func()) {
	w.t.Helper()
	w.t.Run(what, func(t *testing.T) {
		outer := w.t
		w.t = t
		defer func() { w.t = outer }()
		f := w.flow()
		for _, p := range f.pairs {
			if err := arrives(p.good, 100); err != nil {
				t.Fatalf("the allowed stream does not start: %v", err)
			}
		}
		happen()
		for _, p := range f.pairs { // and what comes right after it
			if err := arrives(p.good, p.good.heard()+200); err != nil {
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

// TestNoWindow runs both families at once: they are told apart by stream.
func TestNoWindow(t *testing.T) {
	w := up(t, "windows")
	w.prepare()
	w.during("nothing", func() {})
	w.during("restart", func() {
		for _, h := range []string{"h1", "h2"} {
			w.run("lab", "host", "stop", h)
			w.run("lab", "host", "start", h)
		}
		w.settled()
	})
	w.during("SIGKILL", func() {
		for _, h := range []string{"h1", "h2"} {
			w.run("lab", "host", "kill", h)
			w.run("lab", "host", "start", h)
		}
		w.settled()
	})
	w.during("full resync", func() {
		for _, h := range []string{"h1", "h2"} {
			// Something of nobody's in our table makes the agent read back all of it.
			w.run("lab", "exec", h, "--", "nft", "add", "chain", "inet", "brindle", "stranger")
			testenv.Until(w.t, patience, func() error {
				if out := w.run("lab", "exec", h, "--", "nft", "list", "chains"); strings.Contains(out, "stranger") {
					return fmt.Errorf("%s still has the strange chain", h)
				}
				return nil
			})
		}
	})
	w.during("policy replacement", func() {
		for salt := range 12 {
			w.apply(policy(salt))
		}
	})
	w.during("a set grows to 10,000 members", func() {
		for _, n := range []int{0, 10, 1000, 10000, 0} {
			w.apply(blocked(n))
		}
	})
	w.during("default of a tier", func() {
		for range 4 {
			w.apply(tier("Pass"))
			w.apply(tier("Deny"))
		}
	})
	w.during("labels and neighbours", func() {
		w.run("lab", "workload", "add", "extra", "--host", "h2", "-l", "a=b")
		w.run("lab", "workload", "rm", "extra")
	})
}

// TestAddressUsedAgain gives the address of a workload that everybody could
// reach to another that nobody may, while its flows go on.
func TestAddressUsedAgain(t *testing.T) {
	w := up(t, "reuse")
	w.apply(`
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
	w.run("lab", "workload", "add", "first", "--host", "h2", "-l", "welcome=yes")
	w.learn()
	var flows []*stream
	for _, family := range []int{4, 6} {
		e := w.listen(w.ns("first"), family, open)
		flows = append(flows, w.send(fmt.Sprint("IPv", family), w.ns("w1"), net.JoinHostPort(w.addr("first", family), strconv.Itoa(open)), 16))
		if err := arrives(e, 100); err != nil {
			t.Fatalf("IPv%d: the allowed stream does not start: %v", family, err)
		}
		e.close()
	}
	v4, v6 := w.addr("first", 4), w.addr("first", 6)
	w.run("lab", "workload", "rm", "first")
	w.run("lab", "workload", "add", "second", "--host", "h2", "--ip", v4, "--ip", v6)
	w.learn()
	if w.addr("second", 4) != v4 || w.addr("second", 6) != v6 {
		t.Fatalf("the second workload has %v", w.work["second"].Addresses)
	}
	before := w.drops()
	ears := []*ear{w.listen(w.ns("second"), 4, open), w.listen(w.ns("second"), 6, open)}
	testenv.Until(t, patience, func() error { // a thousand packets are dropped by us
		if n := w.drops() - before; n < 1000 {
			return fmt.Errorf("%d packets dropped", n)
		}
		return nil
	})
	for _, s := range flows {
		s.end()
	}
	for i, e := range ears {
		if n := e.heard(); n > 0 {
			t.Errorf("%s: %d packets reached the new workload", flows[i].name, n)
		}
		e.close()
	}
}
