package client

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	v3 "github.com/brindle-net/brindle/api/v3"
	"github.com/brindle-net/brindle/internal/store"
)

// kubernetesPolicy starts the names of policies that mirror Kubernetes' own.
const kubernetesPolicy = "knp.default."

// disableBeforeDelete is how long a pool stays disabled before its blocks are
// taken back, so that every host has heard of it (documented Calico behaviour).
const disableBeforeDelete = 500 * time.Millisecond

// virtual returns an object that exists without being stored, nil if it is
// none.
func virtual(id ident) v3.Object {
	if id.kind.Kind != kindProfile || id.name != v3.ProfileDefaultAllow {
		return nil
	}
	p := &v3.Profile{}
	*p.Type() = v3.TypeMeta{Kind: kindProfile, APIVersion: v3.Group}
	p.Name = v3.ProfileDefaultAllow
	p.Spec.Ingress = []v3.Rule{{Action: v3.ActionAllow}}
	p.Spec.Egress = []v3.Rule{{Action: v3.ActionAllow}}
	return p
}

// withVirtual adds what exists without being stored to a sorted list.
func withVirtual(kind v3.KindInfo, list []v3.Object) []v3.Object {
	o := virtual(ident{kind: kind, name: v3.ProfileDefaultAllow})
	if o == nil {
		return list
	}
	i, found := slices.BinarySearchFunc(list, o.Meta().Name, func(o v3.Object, name string) int {
		return strings.Compare(o.Meta().Name, name)
	})
	if found { // somebody stored one: what everybody enforces is the virtual one
		list[i] = o
		return list
	}
	return slices.Insert(list, i, o)
}

// readTier fills in what readers take for granted in stored policies of older
// releases.
func readTier(o v3.Object) {
	var tier *string
	switch p := o.(type) {
	case *v3.NetworkPolicy:
		tier = &p.Spec.Tier
	case *v3.GlobalNetworkPolicy:
		tier = &p.Spec.Tier
	case *v3.StagedNetworkPolicy:
		tier = &p.Spec.Tier
	case *v3.StagedGlobalNetworkPolicy:
		tier = &p.Spec.Tier
	default:
		return
	}
	if *tier == "" {
		*tier = v3.TierDefault
	}
	m := o.Meta()
	if m.Labels[v3.LabelTier] == "" {
		if m.Labels == nil {
			m.Labels = map[string]string{}
		}
		m.Labels[v3.LabelTier] = v3.TierDefault
	}
}

// mayWrite says whether this client may write an object.
func (c *Client) mayWrite(id ident) error {
	if err := id.check(); err != nil {
		return err
	}
	switch {
	case virtual(id) != nil:
		return fmt.Errorf("%w: it always exists", ErrReadOnly)
	case c.cfg.Component:
		return nil
	case id.kind.ReadOnly:
		return ErrReadOnly
	case id.kind.Kind == kindNetworkPolicy && strings.HasPrefix(id.name, kubernetesPolicy):
		return fmt.Errorf("%w: it mirrors a policy of Kubernetes", ErrReadOnly)
	}
	return nil
}

// mayDelete says whether this client may delete an object.
func (c *Client) mayDelete(id ident) error {
	if err := c.mayWrite(id); err != nil {
		return err
	}
	if id.kind.Kind == kindTier && slices.Contains([]string{v3.TierDefault, v3.TierKubeAdmin, v3.TierKubeBaseline}, id.name) {
		return fmt.Errorf("%w: it always exists", ErrReadOnly)
	}
	return nil
}

// beforeDelete does what must be done first. It returns the document as it is
// to be deleted.
func (c *Client) beforeDelete(ctx context.Context, doc document) (document, error) {
	switch doc.id.kind.Kind {
	case kindTier:
		return doc, c.checkTierEmpty(ctx, doc.id.name)
	case kindIPPool:
		return c.retirePool(ctx, doc)
	}
	return doc, nil
}

// checkTierEmpty refuses to go on while a policy is in a tier.
func (c *Client) checkTierEmpty(ctx context.Context, tier string) error {
	for _, name := range []string{"NetworkPolicy", "GlobalNetworkPolicy", "StagedNetworkPolicy", "StagedGlobalNetworkPolicy"} {
		kind, _ := v3.LookupKind(name)
		list, err := c.driver.List(ctx, store.ResourcePrefix(kind.Plural, ""))
		if err != nil {
			return err
		}
		for _, kv := range list.KVs {
			// Only the tier is read, so that no other fault hides a policy.
			var p struct{ Spec struct{ Tier string } }
			id, ok := ident{kind: kind}.parse(kv.Key)
			if err := json.Unmarshal(kv.Value, &p); err != nil && ok {
				return fmt.Errorf("%s may be in this tier: %w: %w", id, ErrUnreadable, err)
			}
			if ok && p.Spec.Tier == tier {
				return fmt.Errorf("%w: %s is in this tier", ErrInUse, id)
			}
		}
	}
	return nil
}

// retirePool disables a pool and has its blocks taken back.
func (c *Client) retirePool(ctx context.Context, doc document) (document, error) {
	pool, ok := doc.object.(*v3.IPPool)
	if !ok || pool.Spec.CIDR == "" {
		return doc, nil // it could not be read; nothing was ever taken from it
	}
	if !pool.Spec.Disabled {
		o, err := copyOf(doc.id.kind, pool)
		if err != nil {
			return doc, err
		}
		o.(*v3.IPPool).Spec.Disabled = true
		if o, _, err = c.put(ctx, doc, o); err != nil { // valid or not, it has to go
			return doc, err
		}
		timer := time.NewTimer(disableBeforeDelete)
		defer timer.Stop()
		select {
		case <-timer.C:
		case <-ctx.Done():
			return doc, ctx.Err()
		}
		kv, err := c.driver.Get(ctx, doc.kv.Key)
		if err != nil {
			return doc, bare(err)
		}
		if string(kv.Revision) != o.Meta().ResourceVersion {
			return doc, store.ErrConflict
		}
		doc = document{id: doc.id, object: o, kv: kv}
		pool = o.(*v3.IPPool)
	}
	if c.cfg.ReleasePool == nil {
		return doc, nil
	}
	return doc, c.cfg.ReleasePool(ctx, pool)
}

// checkLegacy refuses a second policy beside one that an older release stored
// under another name.
func (c *Client) checkLegacy(ctx context.Context, id ident) error {
	old, ok := id.legacy()
	if !ok {
		return nil
	}
	_, err := c.driver.Get(ctx, old.key())
	switch {
	case err == nil:
		return store.ErrExists
	case errors.Is(err, store.ErrNotFound):
		return nil
	}
	return err
}
