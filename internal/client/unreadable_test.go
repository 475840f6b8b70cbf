package client_test

import (
	"errors"
	"testing"

	v3 "github.com/brindle-net/brindle/api/v3"
	"github.com/brindle-net/brindle/internal/client"
	"github.com/brindle-net/brindle/internal/store"
	"github.com/brindle-net/brindle/internal/store/mem"
)

// TestApplyOverWhatNobodyCanRead: it is mended by writing it anew, without
// being away in between.
func TestApplyOverWhatNobodyCanRead(t *testing.T) {
	for _, stored := range []string{"{", `{"kind":"FelixConfiguration","apiVersion":"projectcalico.org/v3","metadata":{"name":"default","uid":"u"},"spec":{"vxlanMTU":"wide"}}`} {
		db, ctx := mem.New(), t.Context()
		c := client.New(db, client.Config{})
		key := store.ResourceID{Plural: "felixconfigurations", Name: "default"}.Key()
		if _, err := db.Create(ctx, key, []byte(stored)); err != nil {
			t.Fatal(err)
		}
		mtu := 1400
		felix := &v3.FelixConfiguration{}
		felix.Name, felix.Spec.VXLANMTU = "default", &mtu
		stale := *felix
		stale.ResourceVersion = "77"
		if _, _, err := client.Apply(ctx, c, &stale); !errors.Is(err, store.ErrConflict) {
			t.Errorf("over another version: %v", err)
		}
		bad := *felix
		wide := 70000
		bad.Spec.VXLANMTU = &wide
		if _, _, err := client.Apply(ctx, c, &bad); err == nil {
			t.Error("what is wrong was written")
		}
		o, did, err := client.Apply(ctx, c, felix)
		if err != nil || did != client.Changed {
			t.Fatalf("%v, %v", did, err)
		}
		is, err := client.Get[v3.FelixConfiguration](ctx, c, "", "default")
		if err != nil || is.Spec.VXLANMTU == nil || *is.Spec.VXLANMTU != 1400 || is.UID == "" || is.CreationTimestamp == nil || is.ResourceVersion != o.ResourceVersion {
			t.Errorf("%+v, %v", is, err)
		}
	}
}
