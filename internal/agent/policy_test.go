package agent

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/brindle-net/brindle/internal/conntrack"
	"github.com/brindle-net/brindle/internal/dataplane/flows"
	"github.com/brindle-net/brindle/internal/desired"
)

// backEnd is a dataplane.Driver in memory.
type backEnd struct {
	fail  error
	calls []string
	have  map[string]*desired.Endpoint
}

func (b *backEnd) Sync(_ context.Context, want *desired.Policy, changed *desired.PolicyPatch) error {
	kind := "patch"
	if changed == nil {
		kind = "all"
	}
	b.calls = append(b.calls, kind)
	if b.fail != nil {
		return b.fail
	}
	b.have = maps.Clone(want.Endpoints)
	return nil
}

func (b *backEnd) Close() error { return nil }

// connections is a flows.Table in memory.
type connections struct {
	mu      sync.Mutex // fake time orders events but not memory
	entries []conntrack.Entry
	lists   int
	missed  int // how many of the first a glance does not see
	err     error
}

func (c *connections) Glance() ([]conntrack.Entry, error) {
	all, err := c.List()
	return all[c.missed:], err
}

func (c *connections) List() ([]conntrack.Entry, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.lists++
	return slices.Clone(c.entries), c.err
}

func (c *connections) SetMark(entries []conntrack.Entry, value, mask uint32) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, e := range entries {
		// What is gone is no error. A connection is known by its two ends.
		if i := slices.IndexFunc(c.entries, func(x conntrack.Entry) bool { return x.Orig == e.Orig }); i >= 0 {
			c.entries[i].Mark = c.entries[i].Mark&^mask | value
		}
	}
	return nil
}

func (c *connections) Delete(entries []conntrack.Entry) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.entries = slices.DeleteFunc(c.entries, func(e conntrack.Entry) bool { return slices.Contains(entries, e) })
	return nil
}

func connection(src, dst string) conntrack.Entry {
	o := conntrack.Tuple{Src: netip.MustParseAddr(src), Dst: netip.MustParseAddr(dst), Protocol: 6, SrcPort: 9, DstPort: 80}
	return conntrack.Entry{Orig: o, Reply: conntrack.Tuple{Src: o.Dst, Dst: o.Src, Protocol: 6, SrcPort: 80, DstPort: 9}}
}

// document returns a policy document over a back end and a table in memory.
// What reaches an address of denied is denied.
func document(keep bool, denied map[string]bool, entries ...conntrack.Entry) (*policyDoc, *backEnd, *connections) {
	b, c := &backEnd{}, &connections{entries: entries}
	d := newPolicyDoc(b, flowConfig{
		table: c, mark: 1, keep: keep, host: func([]netip.Addr) (map[netip.Addr]bool, error) { return nil, nil },
		allows: func(p flows.Packet) bool { return !denied[p.Dst.String()] },
	}, slog.New(slog.DiscardHandler))
	return d, b, c
}

func endpoint(name string, addrs ...string) *desired.Endpoint {
	e := &desired.Endpoint{Name: name}
	for _, a := range addrs {
		e.Addrs = append(e.Addrs, netip.MustParseAddr(a))
	}
	return e
}

func set(iface string, e *desired.Endpoint) desired.PolicyPatch {
	return desired.PolicyPatch{Endpoints: desired.Patch[string, *desired.Endpoint]{Set: map[string]*desired.Endpoint{iface: e}}}
}

func gone(iface string) desired.PolicyPatch {
	return desired.PolicyPatch{Endpoints: desired.Patch[string, *desired.Endpoint]{Delete: []string{iface}}}
}

func TestPolicyIsReadBackAfterAFailure(t *testing.T) {
	d, b, _ := document(false, nil)
	d.Take(set("cali1", endpoint("a", "10.0.0.1")))
	sync := func(all bool, fails error) {
		t.Helper()
		b.fail = fails
		if err := d.Sync(t.Context(), all); !errors.Is(err, fails) {
			t.Errorf("error %v, want %v", err, fails)
		}
	}
	broken := errors.New("no space")
	sync(false, nil) // the first time nobody knows what is there
	d.Take(set("cali2", endpoint("b", "10.0.0.2")))
	sync(false, nil)
	sync(true, broken)
	sync(true, nil)
	if want := []string{"all", "patch", "all", "all"}; !slices.Equal(b.calls, want) || len(b.have) != 2 {
		t.Errorf("calls %v, have %v", b.calls, b.have)
	}
}

// TestConnectionsOfAddressesThatLeft: who gets an address next inherits
// nothing, and a workload that only changed loses nothing.
func TestConnectionsOfAddressesThatLeft(t *testing.T) {
	tests := []struct {
		name  string
		patch []desired.PolicyPatch
		left  int
	}{
		{"workload gone", []desired.PolicyPatch{gone("cali1")}, 0},
		{"another label", []desired.PolicyPatch{set("cali1", endpoint("a", "10.0.0.1"))}, 1},
		{"another address", []desired.PolicyPatch{set("cali1", endpoint("a", "10.0.0.7"))}, 0},
		{"another workload", []desired.PolicyPatch{set("cali1", endpoint("z", "10.0.0.1"))}, 0},
		{"another interface has it", []desired.PolicyPatch{gone("cali1"), set("cali2", endpoint("z", "10.0.0.1"))}, 0},
		{"gone and back", []desired.PolicyPatch{gone("cali1"), set("cali1", endpoint("a", "10.0.0.1"))}, 0},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			d, _, c := document(true, nil, connection("10.9.0.1", "10.0.0.1"), connection("10.9.0.1", "10.0.0.99"))
			d.Take(set("cali1", endpoint("a", "10.0.0.1")))
			if err := d.Sync(t.Context(), true); err != nil {
				t.Fatal(err)
			}
			for _, p := range tt.patch {
				d.Take(p)
			}
			if err := d.Sync(t.Context(), false); err != nil {
				t.Fatal(err)
			}
			if used := tt.patch[len(tt.patch)-1].Endpoints.Set; tt.left == 0 && len(d.left) > 0 == (used != nil && tt.name != "another address") {
				t.Errorf("%v left to forget", d.left) // before an address is used again, not after
			}
			if _, err := d.lookOnce(t.Context(), nil, false); err != nil {
				t.Fatal(err)
			}
			if got := len(c.entries) - 1; got != tt.left {
				t.Errorf("%d connections left, want %d", got, tt.left)
			}
		})
	}
}

// looking runs the looks of a document until the test ends.
func looking(t *testing.T, d *policyDoc) {
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- d.look(ctx) }()
	t.Cleanup(func() {
		cancel()
		<-done
	})
}

// marks are the marks of all connections, and how often they were read.
func (c *connections) marks() (marks []uint32, lists int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, e := range c.entries {
		marks = append(marks, e.Mark)
	}
	return marks, c.lists
}

// TestSecondLook: a packet that the old rules let pass enters the table after
// the first look.
func TestSecondLook(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d, _, c := document(false, map[string]bool{"10.0.0.1": true}, connection("10.9.0.1", "10.0.0.1"))
		looking(t, d)
		d.Take(set("cali1", endpoint("a", "10.0.0.1")))
		if err := d.Sync(t.Context(), true); err != nil {
			t.Fatal(err)
		}
		time.Sleep(settled)
		synctest.Wait()
		if marks, _ := c.marks(); !slices.Equal(marks, []uint32{1}) {
			t.Errorf("not cut at once: %v", marks)
		}
		c.mu.Lock()
		c.entries = append(c.entries, connection("10.9.0.2", "10.0.0.1"))
		c.mu.Unlock()
		time.Sleep(2 * grace)
		marks, lists := c.marks()
		if !slices.Equal(marks, []uint32{1, 1}) || lists != 2 {
			t.Errorf("not cut at the second look: %v after %d", marks, lists)
		}
		time.Sleep(time.Hour)
		if _, later := c.marks(); later != lists {
			t.Error("looked again without a reason")
		}
	})
}

// TestLateLook: with a barrier the second look is late, one that reads the
// table at once does not take its place. A change while the barrier is waited
// for makes it worthless.
func TestLateLook(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d, _, c := document(false, map[string]bool{"10.0.0.1": true}, connection("10.9.0.1", "10.0.0.1"))
		meanwhile, barriers := func() {}, 0
		var mu sync.Mutex // guards both
		d.flows.barrier = func() error {
			mu.Lock()
			barriers++
			f := meanwhile
			mu.Unlock()
			f()
			return nil
		}
		looking(t, d)
		e := endpoint("a", "10.0.0.1")
		e.Ingress = []desired.Tier{{Policies: []string{"p"}}}
		after := func(wait time.Duration, p desired.PolicyPatch) (looks int) {
			t.Helper()
			_, before := c.marks()
			if !p.Empty() {
				d.Take(p)
				if err := d.Sync(t.Context(), false); err != nil {
					t.Error(err)
				}
			}
			time.Sleep(wait)
			synctest.Wait()
			_, looks = c.marks()
			return looks - before
		}
		again := func() {
			d.Take(policyOf(desired.Deny))
			if err := d.Sync(t.Context(), false); err != nil {
				t.Error(err)
			}
		}
		d.Take(policyOf(desired.Deny))
		after(time.Minute, set("cali1", e))
		for _, step := range []struct {
			name      string
			patch     desired.PolicyPatch
			meanwhile func()
			wait      time.Duration
			looks     int
		}{
			{"denies: a look at once", policyOf(desired.Deny, desired.Deny), nil, grace, 1},
			{"nothing yet", desired.PolicyPatch{}, nil, late / 2, 0},
			{"late: one more", desired.PolicyPatch{}, nil, late, 1},
			{"and that is all", desired.PolicyPatch{}, nil, time.Hour, 0},
			{"denies", policyOf(desired.Deny), nil, grace, 0}, // fewer that deny: only those that are cut
			{"denies again", policyOf(desired.Pass), nil, grace, 1},
			{"allows: the table is not read", policyOf(desired.Pass, desired.Allow), nil, late / 2, 0},
			{"late all the same", desired.PolicyPatch{}, nil, late, 1},
			{"denies once more", policyOf(desired.Pass), nil, grace, 1},
			{"denies, which does not put off the late look", policyOf(desired.Pass, desired.Pass), nil, late - 1, 2},
			{"late for that one", desired.PolicyPatch{}, nil, time.Hour, 1},
			{"a change comes while it waits", policyOf(desired.Pass), again, 3 * grace, 2},
		} {
			var once sync.Once
			mu.Lock()
			if meanwhile = func() {}; step.meanwhile != nil {
				meanwhile = func() { once.Do(step.meanwhile) }
			}
			mu.Unlock()
			if looks := after(step.wait, step.patch); looks != step.looks {
				t.Errorf("%s: %d looks, want %d", step.name, looks, step.looks)
			}
		}
		mu.Lock()
		defer mu.Unlock()
		if marks, _ := c.marks(); !slices.Equal(marks, []uint32{1}) || barriers == 0 {
			t.Errorf("marks %v, %d barriers", marks, barriers)
		}
	})
}

// policyOf is a patch that gives the policy of cali1 these rules.
func policyOf(actions ...desired.Action) desired.PolicyPatch {
	l := &desired.RuleList{}
	for i, a := range actions {
		l.Rules = append(l.Rules, desired.PolicyRule{Index: i, Action: a, IPv4: true, Protocol: uint8(i + 1)})
	}
	var p desired.PolicyPatch
	p.Rules.Set = map[desired.RulesID]*desired.RuleList{{Owner: "p"}: l}
	return p
}

// TestAllowedAgainWithoutALook: a change that denies nothing needs no look at
// connections: those that are cut are known, and go on. It is the same for
// addresses of both families.
func TestAllowedAgainWithoutALook(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		denied := map[string]bool{}
		d, _, c := document(false, denied, connection("10.9.0.1", "10.0.0.1"), connection("fd09::1", "fd00::1"), connection("10.9.0.1", "10.0.0.2"))
		looking(t, d)
		change := func(p desired.PolicyPatch, deny bool) (marks []uint32, looks int) {
			t.Helper()
			_, before := c.marks()
			d.Take(p)
			d.mu.Lock()
			denied["10.0.0.1"], denied["fd00::1"] = deny, deny
			d.mu.Unlock()
			if err := d.Sync(t.Context(), false); err != nil {
				t.Fatal(err)
			}
			time.Sleep(time.Minute)
			marks, after := c.marks()
			return marks, after - before
		}
		e := endpoint("a", "10.0.0.1", "fd00::1")
		e.Ingress = []desired.Tier{{Policies: []string{"p"}}}
		d.Take(policyOf(desired.Allow))
		change(set("cali1", e), false)
		for _, step := range []struct {
			name  string
			patch desired.PolicyPatch
			deny  bool
			marks []uint32
			looks int
		}{
			{"allows more, and none is cut", policyOf(desired.Allow, desired.Allow), false, []uint32{0, 0, 0}, 0},
			{"denies", policyOf(desired.Allow), true, []uint32{1, 1, 0}, 2},
			{"allows more, but not them", policyOf(desired.Allow, desired.Allow), true, []uint32{1, 1, 0}, 0},
			{"allows them", policyOf(desired.Allow, desired.Allow, desired.Allow), false, []uint32{0, 0, 0}, 0},
			{"denies again", policyOf(desired.Deny), true, []uint32{1, 1, 0}, 2},
			{"denies no more", policyOf(), false, []uint32{0, 0, 0}, 0},
			{"logs", policyOf(desired.Log), false, []uint32{0, 0, 0}, 0},
			{"passes on", policyOf(desired.Log, desired.Pass), true, []uint32{1, 1, 0}, 2},
		} {
			if marks, looks := change(step.patch, step.deny); !slices.Equal(marks, step.marks) || looks != step.looks {
				t.Errorf("%s: marks %v after %d looks, want %v after %d", step.name, marks, looks, step.marks, step.looks)
			}
		}
		// Those that are cut are not known any more: the table is read.
		d.mu.Lock()
		d.known = false
		d.mu.Unlock()
		if marks, looks := change(policyOf(desired.Log, desired.Pass, desired.Allow), false); !slices.Equal(marks, []uint32{0, 0, 0}) || looks != 1 {
			t.Errorf("unknown: marks %v after %d looks", marks, looks)
		}
	})
}

// TestLooksAreGathered: reading the table costs the same for one change, or one
// workload that comes, as for a thousand.
func TestLooksAreGathered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d, _, c := document(false, nil, connection("10.9.0.1", "10.0.0.1"))
		looking(t, d)
		d.Take(set("cali1", endpoint("a", "10.0.0.1")))
		if err := d.Sync(t.Context(), true); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute)
		_, before := c.marks()
		for i := range 1000 {
			d.Take(set(fmt.Sprint("cali1", i), endpoint("b", fmt.Sprintf("10.1.%d.%d", i/250, i%250))))
			if err := d.Sync(t.Context(), false); err != nil {
				t.Fatal(err)
			}
			time.Sleep(time.Millisecond)
		}
		_, lists := c.marks()
		if lists-before > 4 {
			t.Errorf("%d looks in a second of workloads that came", lists-before)
		}
		time.Sleep(time.Minute)
		_, before = c.marks()
		for range 1000 {
			d.Take(set("cali1", endpoint("a", "10.0.0.1")))
			if err := d.Sync(t.Context(), false); err != nil {
				t.Fatal(err)
			}
			time.Sleep(time.Millisecond)
		}
		if _, lists := c.marks(); lists-before > 4 {
			t.Errorf("%d looks in a second of changes", lists-before)
		}
	})
}

func TestConnectionsAreKeptWhereAsked(t *testing.T) {
	d, _, c := document(true, map[string]bool{"10.0.0.1": true}, connection("10.9.0.1", "10.0.0.1"))
	d.Take(set("cali1", endpoint("a", "10.0.0.1")))
	if err := d.Sync(t.Context(), true); err != nil {
		t.Fatal(err)
	}
	if _, err := d.lookOnce(t.Context(), nil, false); err != nil || c.entries[0].Mark != 0 || c.lists != 0 {
		t.Errorf("%v, %+v after %d looks", err, c.entries, c.lists)
	}
}

// TestUnreadableConnectionsAreJudgedLater: policy is in force; that connections
// could not be judged is told and not forgotten, and costs ever less.
func TestUnreadableConnectionsAreJudgedLater(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d, _, c := document(false, map[string]bool{"10.0.0.1": true}, connection("10.9.0.1", "10.0.0.1"))
		broken := errors.New("no memory")
		c.err = broken
		looking(t, d)
		d.Take(set("cali1", endpoint("a", "10.0.0.1")))
		if err := d.Sync(t.Context(), true); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Hour)
		if _, lists := c.marks(); !errors.Is(d.trouble(), broken) || lists < 200 || lists > 300 {
			t.Errorf("%v after %d looks in an hour", d.trouble(), lists)
		}
		c.mu.Lock()
		c.err = nil
		c.mu.Unlock()
		time.Sleep(time.Minute)
		if marks, _ := c.marks(); d.trouble() != nil || !slices.Equal(marks, []uint32{1}) {
			t.Errorf("%v, %v", d.trouble(), marks)
		}
	})
}

// TestConnectionsBehindAWorkload: what a workload may send from is asked for
// by route, also once it may no longer, and an answer that fails is no answer.
func TestConnectionsBehindAWorkload(t *testing.T) {
	far, other := connection("198.51.100.7", "10.0.0.1"), connection("203.0.113.7", "10.0.0.1")
	d, _, c := document(false, nil, far, other)
	broken := errors.New("no answer")
	var asked []string
	var fails error
	d.behind.route = func(a netip.Addr) (string, error) {
		asked = append(asked, a.String())
		return "cali2", fails
	}
	denied := false
	d.flows.allows = func(p flows.Packet) bool { return !denied || p.From != "cali2" }
	gateway := endpoint("b", "10.0.0.2")
	gateway.Sources = []netip.Prefix{netip.MustParsePrefix("198.51.100.0/24")}
	step := func(e *desired.Endpoint, want ...uint32) {
		t.Helper()
		d.Take(set("cali2", e))
		if err := d.Sync(t.Context(), false); err != nil {
			t.Fatal(err)
		}
		if _, err := d.lookOnce(t.Context(), nil, false); !errors.Is(err, fails) {
			t.Errorf("error %v, want %v", err, fails)
		}
		var marks []uint32
		for _, e := range c.entries {
			marks = append(marks, e.Mark)
		}
		if !slices.Equal(marks, want) {
			t.Errorf("marks %v, want %v", marks, want)
		}
	}
	d.Take(set("cali1", endpoint("a", "10.0.0.1")))
	step(gateway, 0, 0)
	denied = true
	step(endpoint("b", "10.0.0.2"), 1, 0) // it may not send from there any more
	if slices.Contains(asked, "203.0.113.7") || !slices.Contains(asked, "198.51.100.7") {
		t.Errorf("asked for the routes to %v", asked)
	}
	denied, fails = false, broken
	step(gateway, 1, 0) // nobody knows whose it is: it is looked at again
	if d.known || !errors.Is(d.trouble(), broken) {
		t.Error("that a route could not be asked for is not told")
	}
}
