package workload

import (
	"errors"
	"fmt"
	"reflect"
	"testing"
	"time"

	"github.com/brindle-net/brindle/internal/agentapi"
	"github.com/brindle-net/brindle/internal/ipam"
)

// maxSteps is more than any call has.
const maxSteps = 200

// everyFault runs f with each step of a call broken in turn, before and after
// it took effect. f reports whether the call got as far.
func everyFault(t *testing.T, crash bool, f func(t *testing.T, broken *faults) bool) {
	t.Helper()
	for _, orchestrator := range []string{"before", "after"} {
		for at := 1; ; at++ {
			if at > maxSteps {
				t.Fatal("the call does not end")
			}
			broken := &faults{at: at, done: orchestrator == "after", crash: crash}
			more := true
			t.Run(fmt.Sprintf("%s step %d", orchestrator, at), func(t *testing.T) { more = f(t, broken) })
			if !more {
				break
			}
		}
	}
}

// eachKind runs f for every orchestrator and family.
func eachKind(t *testing.T, f func(t *testing.T, req agentapi.AddRequest)) {
	for _, o := range []string{"cni", "k8s", "lab"} {
		for name, fam := range families() {
			t.Run(o+" "+name, func(t *testing.T) { f(t, request(o, "container-1", fam[0], fam[1])) })
		}
	}
}

// wantOne fails the test unless exactly one attachment stands, whole.
func (w *world) wantOne(req agentapi.AddRequest, got agentapi.Workload) {
	w.t.Helper()
	n := 0
	if req.AssignIPv4 {
		n++
	}
	if req.AssignIPv6 {
		n++
	}
	s := w.state()
	if len(got.Addresses) != n || len(s.Addresses) != n || len(s.Endpoints) != 1 || len(s.Handles) != 1 || len(s.Wires) != 1 || len(s.Records) != 1 {
		w.t.Errorf("got %+v, and the world is %+v", got, s)
	}
}

func TestAddCrashesAnywhereAndIsDoneAgain(t *testing.T) {
	eachKind(t, func(t *testing.T, req agentapi.AddRequest) {
		everyFault(t, true, func(t *testing.T, broken *faults) bool {
			w := newWorld(t)
			if _, err := w.start(broken).Add(t.Context(), req); err == nil {
				return false
			}
			m := w.start(nil)
			got, err := m.Add(t.Context(), req)
			if err != nil {
				t.Fatal(err)
			}
			w.wantOne(req, got)
			if err := m.Remove(t.Context(), refOf(req)); err != nil {
				t.Fatal(err)
			}
			w.wantEmpty("after the removal")
			return true
		})
	})
}

func TestAddCrashesAnywhereAndIsRemoved(t *testing.T) {
	eachKind(t, func(t *testing.T, req agentapi.AddRequest) {
		everyFault(t, true, func(t *testing.T, broken *faults) bool {
			w := newWorld(t)
			if _, err := w.start(broken).Add(t.Context(), req); err == nil {
				return false
			}
			if err := w.start(nil).Remove(t.Context(), refOf(req)); err != nil {
				t.Fatal(err)
			}
			w.wantEmpty("after the removal")
			return true
		})
	})
}

func TestRemoveCrashesAnywhereAndIsDoneAgain(t *testing.T) {
	eachKind(t, func(t *testing.T, req agentapi.AddRequest) {
		everyFault(t, true, func(t *testing.T, broken *faults) bool {
			w := newWorld(t)
			if _, err := w.start(nil).Add(t.Context(), req); err != nil {
				t.Fatal(err)
			}
			if err := w.start(broken).Remove(t.Context(), refOf(req)); err == nil {
				return false
			}
			if err := w.start(nil).Remove(t.Context(), refOf(req)); err != nil {
				t.Fatal(err)
			}
			w.wantEmpty("after the second removal")
			return true
		})
	})
}

func TestAddThatFailsAnywhereLeavesNothing(t *testing.T) {
	eachKind(t, func(t *testing.T, req agentapi.AddRequest) {
		everyFault(t, false, func(t *testing.T, broken *faults) bool {
			w := newWorld(t)
			got, err := w.start(broken).Add(t.Context(), req)
			broken.mu.Lock()
			reached := broken.steps >= broken.at
			broken.mu.Unlock()
			switch {
			case err == nil && reached: // it was tried again inside
				w.wantOne(req, got)
			case errors.Is(err, errFault):
				w.wantEmpty("after the failure")
			case err != nil:
				t.Fatal(err)
			}
			return reached
		})
	})
}

// TestWhatACrashLeavesIsCollected: the runtime never comes back, and the
// workload's namespace dies, with the wire into it.
func TestWhatACrashLeavesIsCollected(t *testing.T) {
	eachKind(t, func(t *testing.T, req agentapi.AddRequest) {
		everyFault(t, true, func(t *testing.T, broken *faults) bool {
			w := newWorld(t)
			if _, err := w.start(broken).Add(t.Context(), req); err == nil {
				return false
			}
			atCrash := w.state()
			m := w.start(nil)
			var now time.Duration
			cfg := m.collectorConfig()
			cfg.Grace, cfg.Uptime = time.Minute, func() time.Duration { return now }
			c := ipam.NewCollector(cfg)
			scan := func(at time.Duration) {
				t.Helper()
				now = at
				if _, err := c.Scan(t.Context()); err != nil {
					t.Fatal(err)
				}
			}
			scan(0)
			scan(2 * time.Minute)
			before := w.state()
			if len(before.Wires) > 0 && !reflect.DeepEqual(before.Addresses, atCrash.Addresses) {
				t.Errorf("released while the interface was there: %+v", before)
			}
			clear(w.cables.laid) // the namespace is gone
			scan(3 * time.Minute)
			if after := w.state(); len(before.Wires) > 0 && !reflect.DeepEqual(after.Addresses, before.Addresses) {
				t.Errorf("released at once: %+v", after)
			}
			scan(5 * time.Minute)
			scan(6 * time.Minute) // sees that nothing is left of the handle
			s := w.state()
			if len(s.Endpoints) == 0 && len(s.Addresses)+len(s.Records) > 0 {
				t.Errorf("not collected: %+v", s)
			}
			if len(s.Endpoints) > 0 && len(s.Addresses) == 0 {
				t.Errorf("an endpoint lost its addresses: %+v", s)
			}
			return true
		})
	})
}
