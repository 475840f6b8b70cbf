package cli

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/brindle-net/brindle/internal/store"
	"github.com/brindle-net/brindle/internal/store/mem"
)

// Whatever is done as if, what is stored stays, byte for byte.
func TestDryRunWritesNothing(t *testing.T) {
	w := newWorld(t)
	w.loadRecording()
	stored := func() string {
		list, err := w.db.List(t.Context(), "/")
		if err != nil {
			t.Fatal(err)
		}
		return fmt.Sprint(list)
	}
	before := stored()
	file := w.file("n.yaml", joined(network(t)))
	tier := w.file("t.yaml", "apiVersion: projectcalico.org/v3\nkind: Tier\nmetadata: {name: security}\nspec: {order: 5}\n")
	for _, c := range []struct {
		name   string
		in     []string
		stdout string // "…" stands for anything
		stderr string // in it
	}{
		{"apply, alone", []string{"apply", "-f", file, "--dry-run"}, "Successfully applied 10 resource(s) (client dry run)\n", ""},
		{"apply, client", []string{"apply", "-f", file, "--dry-run=client"}, "Successfully applied 10 resource(s) (client dry run)\n", ""},
		{"apply, server", []string{"apply", "-f", file, "--dry-run=server"}, "Successfully applied 10 resource(s) (server dry run)\n", ""},
		{"create, server: one is there", []string{"create", "-f", file, "--dry-run=server"}, "Partial success: created 9 out of 10 resources (server dry run)\n", "resource already exists: Tier(security)"},
		{"create, client: nobody is asked", []string{"create", "-f", tier, "--dry-run=client"}, "Successfully created 1 'Tier' resource(s) (client dry run)\n", ""},
		{"replace, server: most are not there", []string{"replace", "-f", file, "--dry-run=server"}, "Partial success: replaced 1 out of 10 resources (server dry run)\n", "resource does not exist"},
		{"delete, server", []string{"delete", "-f", tier, "--dry-run=server"}, "", "still in use"},
		{"delete, server, in order", line("delete pool pool-v6 --dry-run=server"), "Successfully deleted 1 'IPPool' resource(s) (server dry run)\n", ""},
		{"delete, client", line("delete pool nosuch --dry-run=client"), "Successfully deleted 1 'IPPool' resource(s) (client dry run)\n", ""},
		{"delete, server: not there", line("delete pool nosuch --dry-run=server"), "", "does not exist"},
		{"delete as names", line("delete pool pool-v6 --dry-run=server -o name"), "ippool.projectcalico.org/pool-v6\n", ""},
		{"patch", line("patch pool pool-v6 --dry-run=server -p {\"spec\":{\"natOutgoing\":true}}"), "Successfully patched 1 'IPPool' resource (server dry run)\n", ""},
		{"patch, printed", line("patch pool pool-v6 --dry-run=server -o yaml -p {\"spec\":{\"natOutgoing\":true}}"), "…\n  natOutgoing: true\n…", ""},
		{"patch, impossible", line("patch pool pool-v6 --dry-run=server -p {\"spec\":{\"blockSize\":99}}"), "", "spec.blockSize"},
		{"label", line("label node n1 a=b --dry-run=server"), "Successfully set label a on node n1 (server dry run)\n", ""},
		{"label, printed", line("label node n1 a=b --dry-run=client -o json"), "…\"a\": \"b\"…", ""},
		{"printed", []string{"apply", "-f", tier, "--dry-run=server", "-o", "name"}, "tier.projectcalico.org/security\n", ""},
		{"printed, without a revision", []string{"apply", "-f", tier, "--dry-run=client", "-o", "yaml"}, "apiVersion: projectcalico.org/v3\nkind: Tier\nmetadata:\n  name: security\nspec:\n…", ""},
		{"unknown", []string{"apply", "-f", tier, "--dry-run=maybe"}, "", `--dry-run "maybe"`},
		{"unknown of patch", line("patch pool pool-v6 -p {} --dry-run=maybe"), "", `--dry-run "maybe"`},
		{"unknown format", []string{"apply", "-f", tier, "-o", "wide"}, "", `output format "wide": must be yaml, json, name`},
		{"unknown format of delete", []string{"delete", "-f", tier, "-o", "yaml"}, "", `output format "yaml": must be name`},
		{"invalid", []string{"apply", "-f", w.file("x.yaml", "apiVersion: projectcalico.org/v3\nkind: Tier\nmetadata: {name: X}\n"), "--dry-run"}, "", "metadata.name"},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := w.in(t).run(c.in...)
			rest := got.stdout
			for i, part := range strings.Split(c.stdout, "…") {
				at := strings.Index(rest, part)
				if at < 0 || i == 0 && at > 0 {
					t.Fatalf("%+v lacks %q", got, part)
				}
				rest = rest[at+len(part):]
			}
			if !strings.HasSuffix(c.stdout, "…") && rest != "" || (c.stderr == "") != (got.status == 0) || !strings.Contains(got.stderr, c.stderr) {
				t.Errorf("%+v", got)
			}
			if strings.Contains(got.stdout, dryRevision) {
				t.Errorf("a revision that no datastore has is printed: %s", got.stdout)
			}
			if after := stored(); after != before {
				t.Errorf("it wrote:\n%s\nbefore:\n%s", after, before)
			}
		})
	}
	// Nobody is asked by the client's dry run of files.
	w = newWorld(t)
	w.db = broken{}
	if w.ok("apply", "-f", file, "--dry-run=client"); len(w.opened) > 0 {
		t.Error("it opened a datastore")
	}
}

// What is written is printed as it is stored, and nothing else with it.
func TestWritersPrint(t *testing.T) {
	w := newWorld(t)
	file := w.file("n.yaml", joined(network(t)))
	if got := strings.Fields(w.ok("apply", "-f", file, "-o", "name")); len(got) != 10 || got[0] != "tier.projectcalico.org/security" {
		t.Errorf("%q", got)
	}
	var list []struct {
		Metadata struct{ UID, ResourceVersion string }
	}
	if err := json.Unmarshal([]byte(w.ok("replace", "-f", file, "-o", "json")), &list); err != nil || len(list) != 10 || list[0].Metadata.UID == "" || list[0].Metadata.ResourceVersion == "" {
		t.Errorf("%v: %+v", err, list)
	}
	if got := w.ok("delete", "-f", file, "-o", "name"); !strings.HasSuffix(got, "tier.projectcalico.org/security\n") {
		t.Errorf("%q", got)
	}
}

// The store behind a dry run is, to who writes to it, the datastore itself.
func TestDryStore(t *testing.T) {
	ctx := t.Context()
	below := mem.New()
	for _, key := range []string{"/a", "/b", "/c"} {
		if _, err := below.Create(ctx, key, []byte("1")); err != nil {
			t.Fatal(err)
		}
	}
	d := newDryStore(below)
	was, err := d.Get(ctx, "/a")
	if err != nil {
		t.Fatal(err)
	}
	wants := func(what string, err, want error) {
		t.Helper()
		if !errors.Is(err, want) {
			t.Errorf("%s: %v, want %v", what, err, want)
		}
	}
	_, err = d.Create(ctx, "/a", nil)
	wants("create what is there", err, store.ErrExists)
	_, err = d.Update(ctx, store.KV{Key: "/a", Value: []byte("2"), Revision: was.Revision})
	wants("update", err, nil)
	_, err = d.Update(ctx, store.KV{Key: "/a", Value: []byte("3"), Revision: was.Revision})
	wants("update again", err, store.ErrConflict)
	wants("delete", d.Delete(ctx, "/b", ""), nil)
	wants("delete again", d.Delete(ctx, "/b", ""), store.ErrNotFound)
	_, err = d.Get(ctx, "/b")
	wants("get what is deleted", err, store.ErrNotFound)
	_, err = d.Update(ctx, store.KV{Key: "/b"})
	wants("update what is deleted", err, store.ErrNotFound)
	_, err = d.Create(ctx, "/d", []byte("4"))
	wants("create", err, nil)
	list, err := d.List(ctx, "/")
	wants("list", err, nil)
	var got []string
	for _, kv := range list.KVs {
		got = append(got, kv.Key+"="+string(kv.Value))
	}
	if want := []string{"/a=2", "/c=1", "/d=4"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}
