package client

import (
	"context"
	"fmt"
	"reflect"

	v3 "github.com/brindle-net/brindle/api/v3"
)

// Pointer is satisfied by the pointer to each kind's struct. Callers never
// name it: Get[v3.IPPool](…) is enough.
type Pointer[T any] interface {
	*T
	v3.Object
}

// kindOf returns the kind of a struct of api/v3.
func kindOf[T any, P Pointer[T]]() (v3.KindInfo, error) {
	name := reflect.TypeFor[T]().Name()
	kind, ok := v3.LookupKind(name)
	if !ok {
		return v3.KindInfo{}, fmt.Errorf("kind %q: %w", name, v3.ErrUnknownKind)
	}
	return kind, nil
}

// Get reads one object: Get[v3.IPPool](ctx, c, "", "pool"). namespace is empty
// for kinds without one.
func Get[T any, P Pointer[T]](ctx context.Context, c *Client, namespace, name string) (*T, error) {
	kind, err := kindOf[T, P]()
	if err != nil {
		return nil, err
	}
	o, err := c.Get(ctx, kind, namespace, name)
	return typed[T](o), err
}

// List reads all objects of a kind, or with a namespace those in it, sorted by
// namespace and name. Objects that cannot be read are left out and named in an
// error that is ErrUnreadable; the others are returned beside it.
func List[T any, P Pointer[T]](ctx context.Context, c *Client, namespace string) ([]*T, error) {
	kind, err := kindOf[T, P]()
	if err != nil {
		return nil, err
	}
	list, err := c.List(ctx, kind, namespace)
	out := make([]*T, 0, len(list.Objects))
	for _, o := range list.Objects {
		out = append(out, typed[T](o))
	}
	return out, err
}

// Create is Client.Create for a known kind. Kind and apiVersion are set here.
func Create[T any, P Pointer[T]](ctx context.Context, c *Client, obj *T) (*T, error) {
	o, err := withKind[T, P](obj)
	if err != nil {
		return nil, err
	}
	o, err = c.Create(ctx, o)
	return typed[T](o), err
}

// Update is Client.Update for a known kind. Kind and apiVersion are set here.
func Update[T any, P Pointer[T]](ctx context.Context, c *Client, obj *T) (*T, error) {
	o, err := withKind[T, P](obj)
	if err != nil {
		return nil, err
	}
	o, err = c.Update(ctx, o)
	return typed[T](o), err
}

// Apply is Client.Apply for a known kind. Kind and apiVersion are set here.
func Apply[T any, P Pointer[T]](ctx context.Context, c *Client, obj *T) (*T, Outcome, error) {
	o, err := withKind[T, P](obj)
	if err != nil {
		return nil, Unchanged, err
	}
	o, did, err := c.Apply(ctx, o)
	return typed[T](o), did, err
}

// Modify is Client.Modify for a known kind: the kind is that of edit's
// parameter.
func Modify[T any, P Pointer[T]](ctx context.Context, c *Client, namespace, name string, edit func(*T) error) (*T, error) {
	kind, err := kindOf[T, P]()
	if err != nil {
		return nil, err
	}
	o, err := c.Modify(ctx, kind, namespace, name, func(o v3.Object) error { return edit(typed[T](o)) })
	return typed[T](o), err
}

// Delete is Client.Delete for a known kind.
func Delete[T any, P Pointer[T]](ctx context.Context, c *Client, namespace, name string, pre Preconditions) error {
	kind, err := kindOf[T, P]()
	if err != nil {
		return err
	}
	return c.Delete(ctx, kind, namespace, name, pre)
}

// withKind returns a shallow copy of an object that says its kind.
func withKind[T any, P Pointer[T]](obj *T) (v3.Object, error) {
	kind, err := kindOf[T, P]()
	if err != nil {
		return nil, err
	}
	c := *obj
	p := P(&c)
	*p.Type() = v3.TypeMeta{Kind: kind.Kind, APIVersion: v3.Group}
	return p, nil
}

// typed returns the struct behind an object, nil for none. The kind has
// decided which it is.
func typed[T any](o v3.Object) *T {
	t, _ := any(o).(*T)
	return t
}
