package oracle_test

import (
	"fmt"
	"testing"

	"github.com/brindle-net/brindle/internal/model"
	"github.com/brindle-net/brindle/internal/oracle"
)

// BenchmarkThousandPolicies asks a thousand questions of a cluster with a
// thousand policies, as a suite of assertions does: a hundred of the policies
// are for the endpoint that is asked about.
func BenchmarkThousandPolicies(b *testing.B) {
	t := &testing.T{}
	s := oracle.Snapshot{}
	put(s, deny("default", 1e6))
	for n := range 10 {
		ns := fmt.Sprintf("ns%d", n)
		put(s, kns(ns, nil))
		for i := range 10 {
			put(s, pod(ns, fmt.Sprintf("p%d", i), map[string]string{"role": fmt.Sprint(i)}, fmt.Sprintf("10.65.%d.%d", n, i)))
		}
		for i := range 100 {
			put(s, policy(t, "NetworkPolicy", ns, fmt.Sprintf("p%d", i), "default",
				from(t, model.Allow, fmt.Sprintf("role == '%d'", 10+i)), tcp(model.Allow, uint16(1000+i)),
				tcp(model.Deny, uint16(2000+i)), tcp(model.Allow, uint16(3000+i)), tcp(model.Deny, uint16(4000+i))))
		}
	}
	for _, bb := range []struct {
		name string
		ask  func(*oracle.View, model.Flow) oracle.Verdict
	}{{"Outcome", (*oracle.View).Outcome}, {"Verdict", (*oracle.View).Verdict}} {
		b.Run(bb.name, func(b *testing.B) {
			for b.Loop() {
				v := oracle.NewView(s)
				for i := range 1000 {
					bb.ask(v, web(fmt.Sprintf("10.65.%d.%d", i%10, i/10%10), fmt.Sprintf("10.65.%d.%d", (i+3)%10, i/100%10)))
				}
			}
		})
	}
}
