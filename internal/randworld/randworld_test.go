package randworld_test

import (
	"reflect"
	"slices"
	"testing"

	"github.com/brindle-net/brindle/internal/model"
	"github.com/brindle-net/brindle/internal/randworld"
)

// TestSameSeedSameWorld: a failure can be played again from its seed alone.
func TestSameSeedSameWorld(t *testing.T) {
	for seed := range uint64(50) {
		a, b := randworld.New(seed), randworld.New(seed)
		for range 3 {
			if x, y := a.Events(), b.Events(); !reflect.DeepEqual(x, y) {
				t.Fatalf("seed %d: events differ", seed)
			}
			for range 20 {
				if x, y := a.Flow(), b.Flow(); x != y {
					t.Fatalf("seed %d: flow %v and %v", seed, x, y)
				}
			}
			if x, y := a.Change(), b.Change(); !reflect.DeepEqual(x, y) {
				t.Fatalf("seed %d: changes differ", seed)
			}
		}
	}
}

// TestChangesTell: who hears of the changes knows the world.
func TestChangesTell(t *testing.T) {
	for seed := range uint64(50) {
		w, heard := randworld.New(seed), map[model.ID]model.Value{}
		hear := func(events []model.Event) {
			for _, e := range events {
				if heard[e.ID] = e.Value; e.Value == nil {
					delete(heard, e.ID)
				}
			}
		}
		hear(w.Events())
		for range 50 {
			hear(w.Change())
		}
		now := map[model.ID]model.Value{}
		for _, e := range w.Events() {
			now[e.ID] = e.Value
		}
		if !reflect.DeepEqual(heard, now) {
			t.Fatalf("seed %d: heard of %d objects, there are %d", seed, len(heard), len(now))
		}
	}
}

// TestFlowsMakeSense: addresses are of one family, and could be a packet's.
func TestFlowsMakeSense(t *testing.T) {
	for seed := range uint64(500) {
		w := randworld.New(seed)
		for range 20 {
			f := w.Flow()
			if f.Source.Is4() != f.Dest.Is4() || f.Source.IsUnspecified() || f.Dest.IsMulticast() || f.Protocol == 0 {
				t.Fatalf("seed %d: %+v", seed, f)
			}
		}
	}
}

// TestWorldsHaveEverything: every kind of object and every oddity that the
// package promises is there often.
func TestWorldsHaveEverything(t *testing.T) {
	seen := map[string]int{}
	for seed := range uint64(1000) {
		events := randworld.New(seed).Events()
		profiles, tiers := map[string]bool{}, map[string]bool{}
		for _, e := range events {
			seen[e.ID.Kind.String()]++
			switch v := e.Value.(type) {
			case *model.Profile:
				profiles[v.Name] = true
			case *model.Tier:
				tiers[v.Name] = true
				if v.Lost {
					seen["lost tier"]++
				}
			}
		}
		orders := map[float64]bool{}
		for _, e := range events {
			switch v := e.Value.(type) {
			case *model.Workload:
				if slices.ContainsFunc(v.Profiles, func(p string) bool { return !profiles[p] && p != model.DefaultAllow }) {
					seen["missing profile"]++
				}
			case *model.Policy:
				seen[v.APIKind]++
				if !tiers[v.Tier] {
					seen["missing tier"]++
				}
				if orders[v.Order] {
					seen["order tie"]++
				}
				orders[v.Order] = true
				if v.Order > 50_000 && v.Order < 100_000 {
					seen["large order"]++
				}
				if v.Ingress.Applies && v.Ingress.Rules == nil {
					seen["nil rules"]++
				} else if v.Ingress.Applies && len(v.Ingress.Rules) == 0 {
					seen["empty rules"]++
				}
			}
		}
	}
	for _, k := range []string{
		"Node", "WorkloadEndpoint", "HostEndpoint", "Profile", "Tier", "Policy", "NetworkSet", "Service",
		"NetworkPolicy", "GlobalNetworkPolicy", "KubernetesNetworkPolicy", "KubernetesClusterNetworkPolicy",
		"StagedNetworkPolicy", "StagedGlobalNetworkPolicy", "missing profile", "missing tier", "lost tier", "order tie", "large order",
		"nil rules", "empty rules",
	} {
		if seen[k] < 100 {
			t.Errorf("%s: seen %d times in 1,000 worlds", k, seen[k])
		}
	}
}

// TestSameSeedSameNetwork is TestSameSeedSameWorld for networks.
func TestSameSeedSameNetwork(t *testing.T) {
	for seed := range uint64(50) {
		a, b := randworld.NewNetwork(seed), randworld.NewNetwork(seed)
		for range 10 {
			if x, y := a.Events(), b.Events(); !reflect.DeepEqual(x, y) {
				t.Fatalf("seed %d: events differ", seed)
			}
			if x, y := a.Overlay(), b.Overlay(); !reflect.DeepEqual(x, y) {
				t.Fatalf("seed %d: configurations differ", seed)
			}
			if x, y := a.Change(), b.Change(); !reflect.DeepEqual(x, y) {
				t.Fatalf("seed %d: changes differ", seed)
			}
		}
	}
}
