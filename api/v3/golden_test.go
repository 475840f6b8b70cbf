package v3

import (
	"bytes"
	"encoding/json"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// storedResources returns the resources that Calico's own programs wrote to
// etcd, by key below the resources' prefix.
func storedResources(t testing.TB) map[string]json.RawMessage {
	t.Helper()
	data, err := os.ReadFile("testdata/calico/etcd.json")
	if err != nil {
		t.Fatal(err)
	}
	var all map[string]json.RawMessage
	if err := json.Unmarshal(data, &all); err != nil {
		t.Fatal(err)
	}
	const prefix = "/calico/resources/v3/projectcalico.org/"
	found := map[string]json.RawMessage{}
	for k, v := range all {
		if rest, ok := strings.CutPrefix(k, prefix); ok {
			found[rest] = v
		}
	}
	if len(found) < 25 {
		t.Fatalf("only %d resources in the recording", len(found))
	}
	return found
}

// generic reads JSON without losing digits.
func generic(t testing.TB, data []byte) any {
	t.Helper()
	d := json.NewDecoder(bytes.NewReader(data))
	d.UseNumber()
	var v any
	if err := d.Decode(&v); err != nil {
		t.Fatalf("%v in %s", err, data)
	}
	return v
}

func TestStoredResourcesRoundTrip(t *testing.T) {
	for key, value := range storedResources(t) {
		t.Run(key, func(t *testing.T) {
			plural, _, _ := strings.Cut(key, "/")
			k, ok := LookupKind(plural)
			if !ok {
				t.Fatalf("no kind for %s", plural)
			}
			o := k.New()
			d := json.NewDecoder(bytes.NewReader(value))
			d.DisallowUnknownFields()
			if err := d.Decode(o); err != nil {
				t.Fatal(err)
			}
			if o.Type().Kind != k.Kind || o.Meta().UID == "" {
				t.Errorf("got kind %q uid %q", o.Type().Kind, o.Meta().UID)
			}
			again, err := json.Marshal(o)
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(generic(t, value), generic(t, again)); d != "" {
				t.Errorf("read and written again (-stored +ours):\n%s", d)
			}
		})
	}
}
