package ipam

import (
	"errors"
	"fmt"
	"net/netip"
	"testing"

	"github.com/brindle-net/brindle/internal/prefix"
	"github.com/brindle-net/brindle/internal/store"
)

func bothFamilies(t *testing.T, run func(t *testing.T, f Family)) {
	for _, f := range []Family{IPv4, IPv6} {
		t.Run(f.String(), func(t *testing.T) { run(t, f) })
	}
}

// Somebody who remembers an address as assigned that another process has
// released meanwhile takes nothing from its handle.
func TestReleasedByAnotherProcess(t *testing.T) {
	bothFamilies(t, func(t *testing.T, f Family) {
		w := newWorld(t, pool("p4", "10.0.0.0/24", 30), pool("p6", "fd00::/120", 126))
		n4, n6 := 2, 0
		if f == IPv6 {
			n4, n6 = 0, 2
		}
		addrs := w.mustAssign("n1", "h", n4, n6)
		o := ReleaseOptions{Addr: addrs[0], Handle: "h"}
		if err := w.manager().Release(t.Context(), o); err != nil {
			t.Fatal(err)
		}
		if err := w.m.Release(t.Context(), o); !errors.Is(err, ErrNotAssigned) {
			t.Errorf("error %v, want ErrNotAssigned", err)
		}
		block := prefix.BlockOf(addrs[0], addrs[0].BitLen()-2)
		kv, err := w.db.Get(t.Context(), store.HandleKey("h"))
		if want := fmt.Sprintf(`{"block":{%q:1},"deleted":false}`, block); err != nil || string(kv.Value) != want {
			t.Errorf("the handle is %s (%v), want %s", kv.Value, err, want)
		}
	})
}

// What a handle turns out not to have in a block is looked into by a write: an
// assignment that its author gave up, and that comes late, then comes too late.
func TestReleaseByHandleFencesLateWrites(t *testing.T) {
	bothFamilies(t, func(t *testing.T, f Family) {
		w := newWorld(t, pool("p4", "10.0.0.0/24", 30), pool("p6", "fd00::/120", 126))
		n4, n6 := 1, 0
		if f == IPv6 {
			n4, n6 = 0, 1
		}
		block := prefix.BlockOf(w.mustAssign("n1", "other", n4, n6)[0], map[Family]int{IPv4: 30, IPv6: 126}[f])
		late, err := w.db.Get(t.Context(), store.BlockKey(block))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := w.db.Create(t.Context(), store.HandleKey("h"), (&handle{blocks: map[netip.Prefix]int{block: 1}}).encode()); err != nil {
			t.Fatal(err)
		}
		if err := w.m.ReleaseByHandle(t.Context(), "h"); err != nil {
			t.Fatal(err)
		}
		if _, err := w.db.Update(t.Context(), late); !errors.Is(err, store.ErrConflict) {
			t.Errorf("the late write: %v", err)
		}
	})
}
