package agent

import (
	"context"
	"maps"
	"testing"

	v3 "github.com/brindle-net/brindle/api/v3"
	"github.com/brindle-net/brindle/internal/client"
	"github.com/brindle-net/brindle/internal/ipam"
	"github.com/brindle-net/brindle/internal/selector"
	"github.com/brindle-net/brindle/internal/store/mem"
)

// TestPoolsSelectNamespaces: a pool is for the namespaces that its
// namespaceSelector selects, by the labels in their profiles.
func TestPoolsSelectNamespaces(t *testing.T) {
	db := mem.New()
	c := client.New(db, client.Config{})
	settings := func(ctx context.Context) (*ipam.Settings, error) { return ipam.ReadSettings(ctx, db) }
	labels := namespaceLabels(c, settings)
	profile := &v3.Profile{Spec: v3.ProfileSpec{LabelsToApply: map[string]string{"pcns.team": "a", "pcsa.x": "y", "z": "z"}}}
	profile.Name = "kns.shop"
	pool := func(name, cidr, selects string) {
		p := &v3.IPPool{Spec: v3.IPPoolSpec{CIDR: cidr, NamespaceSelector: selects}}
		p.Name = name
		if _, err := client.Create(t.Context(), c, p); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := client.Create(t.Context(), c, profile); err != nil {
		t.Fatal(err)
	}
	pool("all", "10.1.0.0/16", "")
	if got, err := labels(t.Context(), "shop"); err != nil || got != nil {
		t.Errorf("read %v, %v although no pool asks", got, err)
	}
	pool("team", "10.2.0.0/16", "team == 'a'")
	pool("named", "10.3.0.0/16", "projectcalico.org/name == 'office'")
	m := ipam.New(ipam.Config{Driver: db, Settings: settings})
	for namespace, want := range map[string]map[string]string{
		"shop":   {"team": "a", nameLabel: "shop"},
		"office": {nameLabel: "office"},
	} {
		got, err := labels(t.Context(), namespace)
		if err != nil || !maps.Equal(got, want) {
			t.Errorf("%s: %v, %v, want %v", namespace, got, err, want)
		}
		for requested, fits := range map[string]bool{"10.2.0.0/16": namespace == "shop", "10.3.0.0/16": namespace == "office"} {
			s, err := settings(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			for _, p := range s.Pools {
				if p.CIDR.String() == requested && p.NamespaceSelector.Matches(selector.Map(got)) != fits {
					t.Errorf("%s and pool %s: not %v", namespace, requested, fits)
				}
			}
		}
		r, err := m.AutoAssign(t.Context(), ipam.AssignArgs{Host: "h1", Handle: namespace, Num4: 1, NamespaceLabels: got, Use: v3.UseWorkload})
		if err != nil || len(r.V4) != 1 {
			t.Errorf("%s: %v, %v", namespace, r, err)
		}
	}
}
