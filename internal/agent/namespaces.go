package agent

import (
	"context"
	"fmt"
	"slices"
	"strings"

	v3 "github.com/brindle-net/brindle/api/v3"
	"github.com/brindle-net/brindle/internal/client"
	"github.com/brindle-net/brindle/internal/ipam"
)

// What a namespace is like stands in its profile, "kns." and its name: each
// label behind "pcns." (documented Calico behaviour).
const (
	namespaceProfile = "kns."
	namespaceLabel   = "pcns."
	// nameLabel is the label that says a namespace's own name.
	nameLabel = "projectcalico.org/name"
)

// namespaceLabels returns how to find the labels of a namespace. Nothing is
// read while no pool asks for them: an add has no time to give away.
func namespaceLabels(c *client.Client, settings func(context.Context) (*ipam.Settings, error)) func(context.Context, string) (map[string]string, error) {
	return func(ctx context.Context, namespace string) (map[string]string, error) {
		s, err := settings(ctx)
		if err != nil {
			return nil, err
		}
		if !slices.ContainsFunc(s.Pools, func(p ipam.Pool) bool { return !p.NamespaceSelector.MatchesAll() }) {
			return nil, nil
		}
		labels := map[string]string{nameLabel: namespace}
		profile, err := client.Get[v3.Profile](ctx, c, "", namespaceProfile+namespace)
		if client.IsNotFound(err) {
			return labels, nil
		}
		if err != nil {
			return nil, fmt.Errorf("labels of namespace %s, which pools ask for: %w", namespace, err)
		}
		for k, v := range profile.Spec.LabelsToApply {
			if name, ok := strings.CutPrefix(k, namespaceLabel); ok {
				labels[name] = v
			}
		}
		return labels, nil
	}
}
