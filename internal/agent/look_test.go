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

// taking returns what puts a change in force, and lets time pass.
func taking(t *testing.T, d *policyDoc) func(desired.PolicyPatch, time.Duration) {
	return func(p desired.PolicyPatch, wait time.Duration) {
		t.Helper()
		d.Take(p)
		if err := d.Sync(t.Context(), false); err != nil {
			t.Fatal(err)
		}
		time.Sleep(wait)
		synctest.Wait()
	}
}

// TestGlancesMissAgainAndAgain: what all glances miss is found in time, however
// fast changes that deny follow each other, and each of them is looked at once
// more when it is late.
func TestGlancesMissAgainAndAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		denied := map[string]bool{}
		d, _, table := document(false, denied, connection("10.9.0.1", "10.0.0.1"), connection("10.9.0.2", "10.0.0.2"))
		d.flows.barrier = func() error { return nil }
		looking(t, d)
		take := taking(t, d)
		a := endpoint("a", "10.0.0.1")
		a.Ingress = []desired.Tier{{Policies: []string{"p"}}}
		d.Take(policyOf(desired.Allow))
		d.Take(set("cali1", a))
		take(set("cali2", endpoint("b", "10.0.0.2")), time.Minute)
		table.missed = 2
		denied["10.0.0.1"] = true
		take(policyOf(desired.Deny), time.Second)
		for began := time.Now(); time.Since(began) < late; { // of another workload
			take(set("cali2", endpoint("b", "10.0.0.2")), time.Second)
		}
		if marks, _ := table.marks(); !slices.Equal(marks, []uint32{1, 0}) {
			t.Errorf("late, the marks are %v", marks)
		}
		denied["10.0.0.2"] = true
		take(set("cali2", endpoint("b", "10.0.0.2")), late)
		if marks, _ := table.marks(); !slices.Equal(marks, []uint32{1, 1}) {
			t.Errorf("in the end the marks are %v", marks)
		}
		time.Sleep(time.Minute)
		_, lists := table.marks()
		time.Sleep(time.Hour)
		if _, later := table.marks(); later != lists {
			t.Error("looked again without a reason")
		}
	})
}

// TestGlanceMissesWhatIsCut: a connection that is cut stays known though a
// glance misses it, and goes on when it is allowed again.
func TestGlanceMissesWhatIsCut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		denied := map[string]bool{"10.0.0.1": true}
		d, _, table := document(false, denied, connection("10.9.0.1", "10.0.0.1"), connection("10.9.0.2", "10.0.0.2"))
		d.flows.barrier = func() error { return nil }
		looking(t, d)
		take := taking(t, d)
		a := endpoint("a", "10.0.0.1")
		a.Ingress = []desired.Tier{{Policies: []string{"p"}}}
		d.Take(policyOf(desired.Deny))
		d.Take(set("cali1", a))
		take(set("cali2", endpoint("b", "10.0.0.2")), time.Minute)
		table.missed = 1
		take(set("cali2", endpoint("b", "10.0.0.2")), grace)
		delete(denied, "10.0.0.1")
		take(policyOf(), grace)
		if marks, _ := table.marks(); !slices.Equal(marks, []uint32{0, 0}) {
			t.Errorf("allowed again, the marks are %v", marks)
		}
	})
}
