package client

import (
	"context"
	"encoding/json"
	"errors"
	"slices"

	v3 "github.com/brindle-net/brindle/api/v3"
	"github.com/brindle-net/brindle/internal/store"
)

// world shows the datastore to validation, which asks only for what the object
// at hand depends on. The first failure is kept: what could not be listed must
// not pass for what does not exist.
type world struct {
	ctx    context.Context
	client *Client
	files  bool // what is asked for is what files replace
	err    error
}

// List implements v3.World.
func (w *world) List(kind string) []v3.Object {
	if w.err != nil {
		return nil
	}
	if kind == "IPAMBlock" {
		return w.blocks()
	}
	info, ok := v3.LookupKind(kind)
	if !ok {
		return nil
	}
	list, err := w.client.List(w.ctx, info, "")
	if w.err = err; w.files && kind != "IPPool" && kind != "Tier" && errors.Is(err, ErrUnreadable) {
		w.err = nil // nothing else depends on it, and a file may have it anew
	}
	return list.Objects
}

// blocks returns the blocks as far as pools care. They have a form of their own
// in etcd; the key has the CIDR.
func (w *world) blocks() []v3.Object {
	list, err := w.client.driver.List(w.ctx, store.BlockRoot)
	w.err = err
	var out []v3.Object
	for _, kv := range list.KVs {
		cidr, ok := store.ParseBlockKey(kv.Key)
		if !ok {
			continue
		}
		var value struct{ Deleted bool }
		_ = json.Unmarshal(kv.Value, &value) // what cannot be read counts as there
		b := &v3.IPAMBlock{Spec: v3.IPAMBlockSpec{CIDR: cidr.String(), Deleted: value.Deleted}}
		b.Name = cidr.String()
		out = append(out, b)
	}
	return out
}

// checkNew validates an object that is to be created, as its writer gave it.
func (c *Client) checkNew(ctx context.Context, o v3.Object) error {
	w := &world{ctx: ctx, client: c}
	wrong := v3.ValidateCreate(o, w)
	if w.err != nil {
		return w.err
	}
	return wrong.Err()
}

// checkChange validates a change of an object. What was wrong before does not
// stand in the way of changing the rest: others may have stored it, and an
// agent must still be able to write its part. Pools are held to every rule.
func (c *Client) checkChange(ctx context.Context, before, after v3.Object) error {
	w := &world{ctx: ctx, client: c}
	wrong := v3.ValidateUpdate(before, after, w)
	if w.err != nil {
		return w.err
	}
	if _, isPool := after.(*v3.IPPool); !isPool && len(wrong) > 0 {
		old := v3.Validate(before)
		wrong = slices.DeleteFunc(wrong, func(e v3.FieldError) bool { return slices.Contains(old, e) })
	}
	return wrong.Err()
}

// View returns the datastore as validation of a whole file wants it
// (v3.ValidateSet), and a function that returns why it could not be read, to be
// asked afterwards. An object that cannot be read stands in the way of those that
// depend on it: pools, and policies in a tier.
func (c *Client) View(ctx context.Context) (v3.World, func() error) {
	w := &world{ctx: ctx, client: c, files: true}
	return w, func() error { return w.err }
}
