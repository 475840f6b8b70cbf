package client_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"testing/synctest"

	v3 "github.com/brindle-net/brindle/api/v3"
	"github.com/brindle-net/brindle/internal/client"
	"github.com/brindle-net/brindle/internal/store"
)

// Pages hands over what List has, in its order; what cannot be read is told at
// the end; a reader's error ends it.
func TestPages(t *testing.T) {
	c, d := newClient()
	ctx := t.Context()
	for i := range 1100 {
		must[store.Revision](t)(d.Create(ctx, fmt.Sprintf("/calico/resources/v3/projectcalico.org/networksets/default/s%04d", i), []byte(`{"spec":{}}`)))
	}
	must[store.Revision](t)(d.Create(ctx, "/calico/resources/v3/projectcalico.org/networksets/default/bad", []byte(`{"spec":7}`)))
	for _, name := range []string{"NetworkSet", "Profile", "Tier"} {
		kind, _ := v3.LookupKind(name)
		want, wantErr := c.List(ctx, kind, "")
		var got client.Listing
		called := 0
		err := c.Pages(ctx, kind, "", func(l client.Listing) error {
			called++
			got.Objects, got.Revision = append(got.Objects, l.Objects...), l.Revision
			return nil
		})
		same := slices.EqualFunc(got.Objects, want.Objects, func(a, b v3.Object) bool { return a.Meta().Name == b.Meta().Name })
		if !same || got.Revision != want.Revision || fmt.Sprint(err) != fmt.Sprint(wantErr) {
			t.Errorf("%s: %d objects at %q, error %v: want %d at %q, error %v", name, len(got.Objects), got.Revision, err, len(want.Objects), want.Revision, wantErr)
		}
		if name == "NetworkSet" && (called < 3 || !errors.Is(err, client.ErrUnreadable)) {
			t.Errorf("%d pages, error %v", called, err)
		}
		enough := errors.New("enough")
		if err := c.Pages(ctx, kind, "", func(client.Listing) error { return enough }); !errors.Is(err, enough) {
			t.Errorf("%s: the reader's error came back as %v", name, err)
		}
	}
	block, _ := v3.LookupKind("IPAMBlock")
	wantError(t, "pages of blocks", c.Pages(ctx, block, "", nil), "see the ipam commands")
	wantError(t, "follow blocks", c.Follow(ctx, block, "", nil, store.FollowConfig{}), "see the ipam commands")
}

// Names lists by prefix, and stops when it has enough.
func TestNames(t *testing.T) {
	c, d := newClient()
	ctx := t.Context()
	for i := range 1100 {
		must[store.Revision](t)(d.Create(ctx, fmt.Sprintf("/calico/resources/v3/projectcalico.org/networksets/default/s%04d", i), []byte(`{"spec":{}}`)))
	}
	must[store.Revision](t)(d.Create(ctx, "/calico/resources/v3/projectcalico.org/networksets/shop/s1", []byte(`{"spec":7}`)))
	must[store.Revision](t)(d.Create(ctx, "/calico/resources/v3/projectcalico.org/profiles/a", []byte(`{}`)))
	for _, tt := range []struct {
		kind, namespace, prefix string
		most                    int
		want                    string
	}{
		{"NetworkSet", "default", "s109", 100, "[s1090 s1091 s1092 s1093 s1094 s1095 s1096 s1097 s1098 s1099]"},
		{"NetworkSet", "default", "", 3, "[s0000 s0001 s0002]"},
		{"NetworkSet", "shop", "", 3, "[s1]"},
		{"NetworkSet", "other", "", 3, "[]"},
		{"Profile", "", "", 3, "[a projectcalico-default-allow]"},
		{"Profile", "", "p", 3, "[projectcalico-default-allow]"},
		{"IPAMConfiguration", "", "d", 3, "[]"},
	} {
		kind, _ := v3.LookupKind(tt.kind)
		if got := must[[]string](t)(c.Names(ctx, kind, tt.namespace, tt.prefix, tt.most)); fmt.Sprint(got) != tt.want {
			t.Errorf("%+v: %v", tt, got)
		}
	}
	block, _ := v3.LookupKind("IPAMBlock")
	_, err := c.Names(ctx, block, "", "", 3)
	wantError(t, "names of blocks", err, "see the ipam commands")
}

func TestFollow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, _ := newClient()
		ctx, cancel := context.WithCancel(t.Context())
		kind, _ := v3.LookupKind("NetworkSet")
		must[v3.Object](t)(c.Create(ctx, netset("a")))
		var seen []string
		done := make(chan error)
		go func() {
			done <- c.Follow(ctx, kind, "default", func(u client.Changes) {
				for _, e := range u.Events {
					seen = append(seen, fmt.Sprintf("%s/%s %t", e.Namespace, e.Name, e.Object != nil))
				}
				if u.InSync {
					seen = append(seen, "in sync")
				}
			}, store.FollowConfig{})
		}()
		synctest.Wait()
		if err := c.Delete(ctx, kind, "default", "a", client.Preconditions{}); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Errorf("it ended with %v", err)
		}
		if want := []string{"default/a true", "in sync", "default/a false"}; !slices.Equal(seen, want) {
			t.Errorf("got %q, want %q", seen, want)
		}
	})
}
