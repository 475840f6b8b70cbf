package agent

import (
	"context"
	"errors"
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
	err     error
}

func (c *connections) List(family int) ([]conntrack.Entry, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.lists++
	if family == 6 {
		return nil, c.err
	}
	return slices.Clone(c.entries), c.err
}

func (c *connections) SetMark(entries []conntrack.Entry, value, mask uint32) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, e := range entries {
		c.entries[slices.Index(c.entries, e)].Mark = e.Mark&^mask | value
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
	d := newPolicyDoc(b, flows.Config{
		Table: c, Mark: 1, Host: func() ([]netip.Addr, error) { return nil, nil },
		Allows: func(p flows.Packet) bool { return !denied[p.Dst.String()] },
	}, keep, slog.New(slog.DiscardHandler))
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
			if got := len(c.entries) - 1; got != tt.left {
				t.Errorf("%d connections left, want %d", got, tt.left)
			}
		})
	}
}

// TestSecondLook: a packet that the old rules let pass enters the table after
// the first look.
func TestSecondLook(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d, _, c := document(false, map[string]bool{"10.0.0.1": true}, connection("10.9.0.1", "10.0.0.1"))
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- d.lookAgain(ctx) }()
		d.Take(set("cali1", endpoint("a", "10.0.0.1")))
		if err := d.Sync(ctx, true); err != nil {
			t.Fatal(err)
		}
		if c.entries[0].Mark != 1 {
			t.Error("not cut at once")
		}
		c.mu.Lock()
		c.entries = append(c.entries, connection("10.9.0.2", "10.0.0.1"))
		c.mu.Unlock()
		time.Sleep(2 * grace)
		c.mu.Lock()
		if c.entries[1].Mark != 1 {
			t.Error("not cut at the second look")
		}
		lists := c.lists
		c.mu.Unlock()
		time.Sleep(time.Hour)
		c.mu.Lock()
		if c.lists != lists {
			t.Error("looked again without a reason")
		}
		c.mu.Unlock()
		cancel()
		<-done
	})
}

func TestConnectionsAreKeptWhereAsked(t *testing.T) {
	d, _, c := document(true, map[string]bool{"10.0.0.1": true}, connection("10.9.0.1", "10.0.0.1"))
	d.Take(set("cali1", endpoint("a", "10.0.0.1")))
	if err := d.Sync(t.Context(), true); err != nil || c.entries[0].Mark != 0 {
		t.Errorf("%v, %+v", err, c.entries)
	}
}

// TestUnreadableConnectionsAreJudgedLater: policy is in force, and that old
// connections could not be judged is not forgotten.
func TestUnreadableConnectionsAreJudgedLater(t *testing.T) {
	d, _, c := document(false, map[string]bool{"10.0.0.1": true}, connection("10.9.0.1", "10.0.0.1"))
	c.err = errors.New("no memory")
	d.Take(set("cali1", endpoint("a", "10.0.0.1")))
	if err := d.Sync(t.Context(), true); !errors.Is(err, c.err) {
		t.Fatalf("error %v", err)
	}
	c.err = nil
	if err := d.Sync(t.Context(), false); err != nil || c.entries[0].Mark != 1 {
		t.Errorf("%v, %+v", err, c.entries)
	}
}
