package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/brindle-net/brindle/internal/store"
)

const resources = "/calico/resources/v3/projectcalico.org/"

// network is ten documents in an order in which they could not be written.
func network(t *testing.T) []string {
	t.Helper()
	docs := []string{"kind: NetworkPolicy\nmetadata: {name: security.a, namespace: shop}\nspec: {tier: security, selector: all()}\n"}
	for i := range 8 {
		docs = append(docs, fmt.Sprintf("kind: NetworkSet\nmetadata: {name: s%d}\nspec: {nets: [198.51.100.%d/32]}\n", i, i))
	}
	docs = append(docs, "kind: Tier\nmetadata: {name: security}\nspec: {order: 5}\n")
	for i := range docs {
		docs[i] = "apiVersion: projectcalico.org/v3\n" + docs[i]
	}
	return docs
}

func joined(docs []string) string { return strings.Join(docs, "---\n") }

// The tier comes last in the file, and is written first.
func TestWriteWholeFile(t *testing.T) {
	for _, verb := range []struct{ name, past string }{{"apply", "applied"}, {"create", "created"}} {
		t.Run(verb.name, func(t *testing.T) {
			w := newWorld(t)
			got := w.run(verb.name, "-f", w.file("n.yaml", joined(network(t))))
			if got.status != 0 || got.stdout != "Successfully "+verb.past+" 10 resource(s)\n" {
				t.Fatalf("%+v", got)
			}
			if keys := w.keys(resources + "networksets/"); len(keys) != 8 || keys[0] != "default/s0" {
				t.Errorf("stored %q", keys)
			}
			if keys := w.keys(resources + "tiers/"); !slices.Contains(keys, "security") || !slices.Contains(keys, "default") {
				t.Errorf("stored %q: the built-in tiers and the new one should be there", keys)
			}
		})
	}
}

// One document among ten is wrong: nothing is written, whatever is wrong.
func TestOneBadDocumentChangesNothing(t *testing.T) {
	for _, c := range []struct {
		name string
		bad  string
		want []string // in the message
	}{
		{"syntax", "kind: [", []string{"n.yaml: document 5: "}},
		{"unknown field", "kind: NetworkSet\nmetadata: {name: x}\nspec: {net: [192.0.2.1/32]}\n", []string{"n.yaml: document 5: NetworkSet x: spec.net", "nets"}},
		{"wrong type", "kind: NetworkSet\nmetadata: {name: x}\nspec: {nets: 7}\n", []string{"n.yaml: document 5: NetworkSet x: spec.nets"}},
		{"unknown kind", "kind: NetworkSat\nmetadata: {name: x}\n", []string{"document 5", "NetworkSet"}},
		{"bad value", "kind: NetworkSet\nmetadata: {name: x}\nspec: {nets: [192.0.2.300/32]}\n", []string{"document 5: NetworkSet default/x: spec.nets[0]"}},
		{"bad name", "kind: NetworkSet\nmetadata: {name: X_Y}\n", []string{"document 5", "metadata.name"}},
		{"both encapsulations", "kind: IPPool\nmetadata: {name: x}\nspec: {cidr: 10.0.0.0/16, ipipMode: Always, vxlanMode: Always}\n", []string{"document 5"}},
		{"tier that is not there", "kind: GlobalNetworkPolicy\nmetadata: {name: nope.x}\nspec: {tier: nope, selector: all()}\n", []string{"document 5", "nope"}},
		{"namespace where there is none", "kind: Tier\nmetadata: {name: x, namespace: y}\nspec: {order: 5}\n", []string{"document 5", "metadata.namespace"}},
		{"the same twice", "kind: NetworkSet\nmetadata: {name: s0}\n", []string{"document 5: NetworkSet default/s0: metadata.name", "n.yaml: document 2"}},
		{"not a user's kind", "kind: ClusterInformation\nmetadata: {name: default}\n", []string{"document 5", "written by Brindle itself"}},
	} {
		for _, verb := range []string{"apply", "create", "replace", "validate"} {
			t.Run(c.name+"/"+verb, func(t *testing.T) {
				if verb == "validate" && c.name == "not a user's kind" {
					return // a document may be right although nobody may write it
				}
				docs := network(t)
				docs[4] = "apiVersion: projectcalico.org/v3\n" + c.bad
				w := newWorld(t)
				got := w.run(verb, "-f", w.file("n.yaml", joined(docs)))
				if got.status != 1 || got.stdout != "" {
					t.Errorf("exit status %d, stdout %q", got.status, got.stdout)
				}
				for _, want := range c.want {
					if !strings.Contains(got.stderr, want) {
						t.Errorf("stderr lacks %q: %s", want, got.stderr)
					}
				}
				if keys := w.keys("/"); len(keys) > 0 {
					t.Errorf("stored all the same: %q", keys)
				}
			})
		}
	}
}

// Every fault of every file is told at once.
func TestAllFaultsAtOnce(t *testing.T) {
	w := newWorld(t)
	one := w.file("one.yaml", "apiVersion: projectcalico.org/v3\nkind: Tier\nmetadata: {name: a}\nspec: {ordr: 5}\n")
	two := w.file("two.yaml", "apiVersion: projectcalico.org/v3\nkind: NetworkSet\nmetadata: {name: b}\nspec: {ned: []}\n---\napiVersion: v4\nkind: Tier\nmetadata: {name: c}\n")
	got := w.run("apply", "-f", one, "-f", two)
	for _, want := range []string{"spec.ordr", "spec.ned", "apiVersion"} {
		if strings.Count(got.stderr, want) != 1 {
			t.Errorf("stderr has %q not once: %s", want, got.stderr)
		}
	}
}

func TestInputs(t *testing.T) {
	w := newWorld(t)
	folder := t.TempDir()
	set := func(name string) string {
		return "apiVersion: projectcalico.org/v3\nkind: GlobalNetworkSet\nmetadata: {name: " + name + "}\n"
	}
	for name, content := range map[string]string{
		"a.yaml": set("a"), "b.yml": set("b"), "c.json": `{"apiVersion":"projectcalico.org/v3","kind":"GlobalNetworkSet","metadata":{"name":"c"}}`,
		"notes.txt": "no resource", "below/d.yaml": set("d"), "below/further/e.yaml": set("e"), "empty.yaml": "",
	} {
		path := filepath.Join(folder, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	list := `{"apiVersion":"projectcalico.org/v3","kind":"GlobalNetworkSetList","items":[{"apiVersion":"projectcalico.org/v3","kind":"GlobalNetworkSet","metadata":{"name":"l"}}]}`
	for _, c := range []struct {
		name  string
		in    []string
		stdin string
		want  []string // names stored
	}{
		{"folder", []string{"-f", folder}, "", []string{"a", "b", "c"}},
		{"folder with all below", []string{"-f", folder, "-R"}, "", []string{"a", "b", "c", "d", "e"}},
		{"several", []string{"-f", filepath.Join(folder, "a.yaml"), "-f", filepath.Join(folder, "below")}, "", []string{"a", "d"}},
		{"standard input", []string{"-f", "-"}, set("x") + "---\n" + set("z"), []string{"x", "z"}},
		{"list", []string{"-f", "-"}, list, []string{"l"}},
		{"nothing, skipped", []string{"-f", "-", "--skip-empty"}, "# nothing\n", nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t)
			w.stdin = c.stdin
			got := w.ok(append([]string{"apply"}, c.in...)...)
			if names := w.keys(resources + "globalnetworksets/"); !slices.Equal(names, c.want) {
				t.Errorf("stored %q, want %q", names, c.want)
			}
			want := fmt.Sprintf("Successfully applied %d 'GlobalNetworkSet' resource(s)\n", len(c.want))
			if len(c.want) == 0 {
				want = "No resources specified\n"
			}
			if got != want {
				t.Errorf("got %q, want %q", got, want)
			}
		})
	}
	w.fails("no file given", "apply")
	w.fails("no such file", "apply", "-f", "/nonexistent.yaml")
	w.fails("no resources specified", "apply", "-f", "-")
	w.fails("no resources specified", "apply", "-f", t.TempDir())
}

// The rules for namespaces: the file's, else -n, else default.
func TestNamespaces(t *testing.T) {
	set := "apiVersion: projectcalico.org/v3\nkind: NetworkSet\nmetadata: {name: a%s}\n"
	for _, c := range []struct {
		name, namespace string
		flags           []string
		want            string
	}{
		{"neither", "", nil, "default/a"},
		{"flag", "", []string{"-n", "shop"}, "shop/a"},
		{"file", "shop", nil, "shop/a"},
		{"both the same", "shop", []string{"-n", "shop"}, "shop/a"},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t)
			doc := fmt.Sprintf(set, "")
			if c.namespace != "" {
				doc = fmt.Sprintf(set, ", namespace: "+c.namespace)
			}
			w.stdin = doc
			w.ok(append([]string{"apply", "-f", "-"}, c.flags...)...)
			if got := w.keys(resources + "networksets/"); !slices.Equal(got, []string{c.want}) {
				t.Errorf("stored %q", got)
			}
		})
	}
	w := newWorld(t)
	w.stdin = fmt.Sprintf(set, ", namespace: shop")
	w.fails("differs from -n office", line("apply -f - -n office")...)
}

func TestReports(t *testing.T) {
	w := newWorld(t)
	docs := "apiVersion: projectcalico.org/v3\nkind: GlobalNetworkSet\nmetadata: {name: a}\n---\napiVersion: projectcalico.org/v3\nkind: GlobalNetworkSet\nmetadata: {name: b}\n"
	file := w.file("s.yaml", docs)
	if got := w.ok("validate", "-f", file); got != "Successfully validated 2 'GlobalNetworkSet' resource(s)\n" || len(w.opened) > 0 {
		t.Errorf("%q", got)
	}
	if got := w.fails("failed to replace 2 of 2 'GlobalNetworkSet' resource(s)", "replace", "-f", file); !strings.Contains(got, "s.yaml: document 2: resource does not exist: GlobalNetworkSet(b)\n") {
		t.Errorf("%q", got)
	}
	w.stdin = strings.Split(docs, "---\n")[0]
	if got := w.ok("create", "-f", "-"); got != "Successfully created 1 'GlobalNetworkSet' resource(s)\n" {
		t.Errorf("%q", got)
	}
	got := w.run("create", "-f", file)
	if got.status != 1 || got.stdout != "Partial success: created 1 out of 2 'GlobalNetworkSet' resources\n" ||
		!strings.HasSuffix(got.stderr, "s.yaml: document 1: resource already exists: GlobalNetworkSet(a)\n") {
		t.Errorf("%+v", got)
	}
	if got := w.ok("create", "-f", file, "--skip-exists"); got != "Successfully created 2 'GlobalNetworkSet' resource(s)\n" {
		t.Errorf("%q", got)
	}
	if got := w.ok("replace", "-f", file); got != "Successfully replaced 2 'GlobalNetworkSet' resource(s)\n" {
		t.Errorf("%q", got)
	}
	if got := w.ok("delete", "gns", "a"); got != "Successfully deleted 1 'GlobalNetworkSet' resource(s)\n" {
		t.Errorf("%q", got)
	}
	got = w.run("delete", "-f", file)
	if got.status != 1 || got.stdout != "Partial success: deleted 1 out of 2 'GlobalNetworkSet' resources\n" {
		t.Errorf("%+v", got)
	}
	w.fails("resource does not exist: GlobalNetworkSet(a)", line("delete gns a")...)
	for _, flag := range []string{"--skip-not-exists", "-s", "--ignore-not-found"} {
		w.ok("delete", "-f", file, flag)
	}
}

func TestDeleteRefuses(t *testing.T) {
	w := newWorld(t)
	w.loadRecording()
	for _, c := range []struct{ name, in, want string }{
		{"nothing said", "delete", "no file given"},
		{"kind without name", "delete node", "which Node?"},
		{"mistyped kind", "delete nod n1", "did you mean Node?"},
		{"both ways", "delete node n1 -f x", "not both"},
		{"built in", "delete tier default", "always exists"},
		{"tier with policies", "delete tier security", "still in use"},
		{"written by Brindle", "delete clusterinformation default", "not by users"},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := w.in(t)
			w.fails(c.want, line(c.in)...)
		})
	}
}

// The file that built a network takes it down: the tier goes when it is empty.
func TestDeleteInOrder(t *testing.T) {
	w := newWorld(t)
	docs := network(t)
	slices.Reverse(docs)
	file := w.file("n.yaml", joined(docs))
	if got := w.run("apply", "-f", file); got.status != 0 {
		t.Fatalf("%+v", got)
	}
	w.ok("delete", "-f", file)
	for _, plural := range []string{"networksets/", "networkpolicies/"} {
		if keys := w.keys(resources + plural); len(keys) > 0 {
			t.Errorf("left: %q", keys)
		}
	}
	if slices.Contains(w.keys(resources+"tiers/"), "security") {
		t.Error("the tier is left")
	}
}

// Fields that nothing comes of are named, and so are host endpoints.
func TestWarnings(t *testing.T) {
	docs := "apiVersion: projectcalico.org/v3\nkind: FelixConfiguration\nmetadata: {name: default}\nspec: {vxlanMTU: 1400, wireguardEnabled: true}\n---\n" +
		"apiVersion: projectcalico.org/v3\nkind: HostEndpoint\nmetadata: {name: a}\nspec: {node: h1, interfaceName: eth0}\n---\n" +
		"apiVersion: projectcalico.org/v3\nkind: NetworkPolicy\nmetadata: {name: a}\nspec: {selector: all(), ingress: [{action: Allow, http: {methods: [GET]}}]}\n"
	for _, verb := range []string{"apply", "validate"} {
		w := newWorld(t)
		w.stdin = docs
		got := w.run(verb, "-f", "-")
		if got.status != 0 || strings.Contains(got.stdout, "warning") {
			t.Errorf("%+v", got)
		}
		for _, want := range []string{
			"warning: standard input: document 1: FelixConfiguration(default): accepted and stored, but not honoured by this version: spec.wireguardEnabled\n",
			"warning: standard input: document 2: HostEndpoint(a): not enforced by this version: ",
			"warning: standard input: document 3: NetworkPolicy(default/a): accepted and stored, but not honoured by this version: spec.ingress[].http.methods\n",
		} {
			if !strings.Contains(got.stderr, want) {
				t.Errorf("%s: stderr lacks %q: %s", verb, want, got.stderr)
			}
		}
	}
}

// stopping is a datastore that stops answering after some writes.
type stopping struct {
	store.Driver
	left *int
}

func (s stopping) Create(ctx context.Context, key string, value []byte) (store.Revision, error) {
	if strings.Contains(key, "networksets/") {
		if *s.left--; *s.left < 0 {
			return "", fmt.Errorf("no answer: %w", context.DeadlineExceeded)
		}
	}
	return s.Driver.Create(ctx, key, value)
}

// A datastore that does not answer is not waited for again and again.
func TestDatastoreStopsAnswering(t *testing.T) {
	w := newWorld(t)
	left := 3
	w.db = stopping{w.db, &left}
	got := w.run("apply", "-f", w.file("n.yaml", joined(network(t))))
	if got.status != 1 || got.stdout != "Partial success: applied 5 out of 10 resources\n" || strings.Count(got.stderr, "no answer") != 1 ||
		!strings.HasSuffix(got.stderr, "\n  4 not tried\n") {
		t.Errorf("%+v", got)
	}
}

// An interrupt stops the writing, not what was being written.
func TestInterrupted(t *testing.T) {
	w := newWorld(t)
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(errors.New("interrupted"))
	got := w.runContext(ctx, "delete", "gns", "a", "b")
	if got.status != 1 || got.stdout != "" || !strings.HasSuffix(got.stderr, "2 not tried\n") {
		t.Errorf("%+v", got)
	}
}
