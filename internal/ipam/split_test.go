package ipam

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/brindle-net/brindle/internal/store"
)

func TestSplitPool(t *testing.T) {
	bothFamilies(t, func(t *testing.T, f Family) {
		old, _, nth := movingPools(f)
		for _, oneByOne := range []bool{false, true} {
			w := newWorld(t)
			w.m = New(Config{Driver: w.db, Now: func() time.Time { return w.now }})
			if oneByOne {
				w.single()
			}
			doc := fmt.Sprintf(`{"kind":"IPPool","apiVersion":"projectcalico.org/v3","metadata":{"name":"old","uid":"u1","labels":{"a":"b"},`+
				`"creationTimestamp":"2020-01-01T00:00:00Z"},"spec":{"cidr":%q,"blockSize":%d,"natOutgoing":true,"later":[1]},"status":{"conditions":[]}}`, old.CIDR, old.BlockSize)
			if _, err := w.db.Create(t.Context(), key(pluralPools, "old"), []byte(doc)); err != nil {
				t.Fatal(err)
			}
			w.mustAssignIP(nth(0), "n1", "h0")
			w.mustAssignIP(nth(200), "n1", "h1")
			before := w.keys()
			cut := &cutOff{Driver: single{w.db}, after: 3}
			if oneByOne { // is interrupted first
				if _, err := New(Config{Driver: cut, Now: w.m.now}).SplitPool(t.Context(), "old", 4); !errors.Is(err, errLost) {
					t.Fatal(err)
				}
			}
			parts, err := w.m.SplitPool(t.Context(), old.CIDR.String(), 4)
			if err != nil || len(parts) != 4 || parts[3].Name != "split-old-3" || parts[3].CIDR.Addr() != nth(192) {
				t.Fatalf("%v, %v", parts, err)
			}
			if got := w.keys(); !slices.Equal(got, before) {
				t.Errorf("blocks and affinities: %q, before %q", got, before)
			}
			list, err := w.db.List(t.Context(), store.ResourcePrefix(pluralPools, ""))
			if err != nil || len(list.KVs) != 4 {
				t.Fatalf("%v, %v", list, err)
			}
			seen := map[string]bool{}
			for i, kv := range list.KVs {
				var o map[string]map[string]any
				_ = json.Unmarshal(kv.Value, &o) // the first two fields are none
				meta, spec := o["metadata"], o["spec"]
				got := fmt.Sprintf("%v %v %v %v %v", meta["name"], meta["labels"], meta["creationTimestamp"], spec, o["status"])
				want := fmt.Sprintf("split-old-%d map[a:b] %s map[blockSize:%d cidr:%s later:[1] natOutgoing:true] map[]",
					i, w.now.UTC().Format(time.RFC3339), old.BlockSize, parts[i].CIDR)
				if got != want || seen[fmt.Sprint(meta["uid"])] || meta["uid"] == "u1" {
					t.Errorf("got  %s\nwant %s", got, want)
				}
				seen[fmt.Sprint(meta["uid"])] = true
			}
			// Addresses are found and released as before.
			if err := w.m.ReleaseByHandle(t.Context(), "h1"); err != nil {
				t.Error(err)
			}
			w.mustAssignIP(nth(200), "n1", "h2")
		}
	})
}

func (w *world) mustAssignIP(a netip.Addr, host, handle string) {
	w.t.Helper()
	if _, err := w.m.AssignIP(w.t.Context(), AssignIPArgs{Addr: a, Host: host, Handle: handle}); err != nil {
		w.t.Fatal(err)
	}
}

func TestSplitPoolRefuses(t *testing.T) {
	bothFamilies(t, func(t *testing.T, f Family) {
		old, _, nth := movingPools(f)
		w := newWorld(t, old)
		w.give(nth(0), "n1", "h", nil)
		doc := fmt.Sprintf(`{"kind":"IPPool","apiVersion":"projectcalico.org/v3","metadata":{"name":"old"},"spec":{"cidr":%q}}`, old.CIDR)
		for k, v := range map[string]string{key(pluralPools, "old"): doc, key(pluralPools, "split-old-1"): `{"spec":{"cidr":"192.0.2.0/24"}}`} {
			if _, err := w.db.Create(t.Context(), k, []byte(v)); err != nil {
				t.Fatal(err)
			}
		}
		for _, tc := range []struct {
			name string
			n    int
			want error
		}{
			{"old", 0, ErrInvalid}, {"old", 1, ErrInvalid}, {"old", 3, ErrInvalid}, {"old", -2, ErrInvalid}, {"old", 8192, ErrInvalid},
			{"old", 128, ErrInvalid}, // a part would be smaller than a block
			{"nosuch", 2, ErrNoPool}, {"old", 4, store.ErrExists},
		} {
			if _, err := w.m.SplitPool(t.Context(), tc.name, tc.n); !errors.Is(err, tc.want) {
				t.Errorf("%s into %d: error %v, want %v", tc.name, tc.n, err, tc.want)
			}
		}
	})
}

func TestPartNames(t *testing.T) {
	long := strings.Repeat("a", 245) + ".b" + strings.Repeat("c", 6)
	for in, want := range map[string]string{"p": "split-p-12", long: "split-" + long[:244] + "-12", strings.Repeat("a", 243) + "." + long: "split-" + strings.Repeat("a", 243) + "-12"} {
		if got := partName(in, 12); got != want || len(got) > maxName {
			t.Errorf("%s: %s, want %s", in, got, want)
		}
	}
}
