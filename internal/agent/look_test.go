package agent

import (
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/brindle-net/brindle/internal/desired"
)

// TestGlanceMisses: what the glance after a change misses is cut by the late
// look, or by the look after the next change.
func TestGlanceMisses(t *testing.T) {
	for _, c := range []struct {
		name string
		next bool // another change comes before it is late
	}{{"late", false}, {"the next change", true}} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				denied := map[string]bool{}
				d, _, table := document(false, denied, connection("10.9.0.1", "10.0.0.1"), connection("10.9.0.2", "10.0.0.1"))
				d.flows.barrier = func() error { return nil }
				looking(t, d)
				take := func(p desired.PolicyPatch) {
					t.Helper()
					d.Take(p)
					if err := d.Sync(t.Context(), false); err != nil {
						t.Fatal(err)
					}
				}
				e := endpoint("a", "10.0.0.1")
				e.Ingress = []desired.Tier{{Policies: []string{"p"}}}
				d.Take(policyOf(desired.Allow))
				take(set("cali1", e))
				time.Sleep(time.Minute) // all is known: from now on a glance will do
				synctest.Wait()
				table.missed = 1
				denied["10.0.0.1"] = true
				take(policyOf(desired.Deny))
				time.Sleep(grace)
				synctest.Wait()
				if marks, _ := table.marks(); !slices.Equal(marks, []uint32{0, 1}) {
					t.Fatalf("after a glance the marks are %v", marks)
				}
				wait := late
				if c.next {
					table.missed, wait = 0, grace
					take(policyOf(desired.Pass))
				}
				time.Sleep(wait)
				synctest.Wait()
				if marks, _ := table.marks(); !slices.Equal(marks, []uint32{1, 1}) {
					t.Errorf("in the end the marks are %v", marks)
				}
			})
		})
	}
}
