package cli

import (
	"slices"
	"strings"
	"testing"
)

func TestGet(t *testing.T) {
	w := newWorld(t)
	w.loadRecording()
	for _, c := range []struct {
		name string
		in   []string
		want string
	}{
		{"kind and name in one", line("get ippool/pool-v6"), "NAME      CIDR              SELECTOR\npool-v6   fd00:10:20::/64   all()\n"},
		{"several in one", line("get no/n1 nodes/n2"), "NAME\nn1\nn2\n"},
		{"kind in any case", line("get IPPool pool-v6 -o name"), "ippool.projectcalico.org/pool-v6\n"},
		{"short name", line("get ipp -o name"), "ippool.projectcalico.org/ippool-cross-subnet-1\nippool.projectcalico.org/pool-v6\nippool.projectcalico.org/pool-vxlan\n"},
		{"label", line("get nodes -l rack=r1"), "NAME\nn1\n"},
		{"label twice", line("get nodes -l rack==r1,zone=b"), "NAME\n"},
		{"not the label", line("get nodes -l rack!=r1"), "NAME\nn2\n"},
		{"has the label", line("get nodes -l rack"), "NAME\nn1\nn2\n"},
		{"has not the label", line("get nodes -l !rack"), "NAME\n"},
		{"selector", []string{"get", "nodes", "-l", "rack in {'r2', 'r3'}"}, "NAME\nn2\n"},
		{"another namespace", line("get networksets -n shop"), "NAMESPACE   NAME\n"},
		{"namespace of a kind without", line("get nodes n1 -n shop"), "NAME\nn1\n"},
		{"default namespace", line("get np"), "NAME        TIER\nallow-web   default\n"},
		{"table by its name", line("get no n1 -o ps"), "NAME\nn1\n"},
		{"columns by paths", line("get wep -A -o custom-columns=NODE,on:.spec.node,none:.spec.nothing.there"), "NODE   ON   NONE\nn1     n1   <none>\nn1     n1   <none>\nn2     n2   <none>\n"},
		{"columns of one's own", line("get wep -A -o custom-columns=node,NAMESPACE"), "NODE   NAMESPACE\nn1     default\nn1     default\nn2     default\n"},
		{"template", []string{"get", "no", "n1", "n2", "-o", "go-template={{range .}}{{.ObjectMeta.Name}} {{config \"asnumber\"}};{{end}}"}, "n1 64512;n2 64512;"},
		{"template with lists", []string{"get", "gns", "bad-ips", "-o", `go-template={{range .}}{{join .Spec.Nets "|"}} {{joinAndTruncate .Spec.Nets "," 9}}{{end}}`},
			"203.0.113.0/24|198.51.100.7/32|2001:db8::/32 203.0...."},
		{"exported", line("get no n2 -o yaml --export"), "apiVersion: projectcalico.org/v3\nkind: Node\nmetadata:\n  labels:\n    rack: r2\n  name: n2\nspec:\n  bgp:\n    ipv4Address: 172.30.0.12/16\n    routeReflectorClusterID: 244.0.0.1\nstatus: {}\n"},
		{"empty listing", line("get bgppeers -l a=b -o json"), "{\n  \"kind\": \"BGPPeerList\",\n  \"apiVersion\": \"projectcalico.org/v3\",\n  \"metadata\": {\n    \"resourceVersion\": \"X\"\n  },\n  \"items\": []\n}\n"},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := w.in(t)
			got := w.ok(c.in...)
			if c.name == "empty listing" {
				before, after, _ := strings.Cut(got, `"resourceVersion": "`)
				_, after, _ = strings.Cut(after, `"`)
				got = before + `"resourceVersion": "X"` + after
			}
			if got != c.want {
				t.Errorf("got:\n%s\nwant:\n%s", got, c.want)
			}
		})
	}
}

func TestGetRefuses(t *testing.T) {
	w := newWorld(t)
	w.loadRecording()
	for _, c := range []struct {
		name string
		in   []string
		want string
	}{
		{"no kind", line("get"), "which kind?"},
		{"unknown kind", line("get nosuchkind"), `there is no kind "nosuchkind"`},
		{"mistyped kind", line("get ipool"), "did you mean IPPool?"},
		{"mistyped kind of a name", line("get nod/n1"), "did you mean Node?"},
		{"missing", line("get ippool nosuch"), "resource does not exist: IPPool(nosuch)\n"},
		{"missing in a namespace", line("get networkset nosuch -n shop"), "resource does not exist: NetworkSet(shop/nosuch)\n"},
		{"unknown format", line("get nodes -o xml"), `output format "xml"`},
		{"format with a value", line("get nodes -o yaml=x"), `output format "yaml=x"`},
		{"no columns", line("get nodes -o custom-columns="), "output format"},
		{"unknown column", line("get nodes -o custom-columns=NAME,AGE"), `custom column "AGE": Node has NAME, ASN, IPV4, IPV6`},
		{"a path that is none", line("get wep -A -o custom-columns=A:.spec[x]"), "[x] is neither a number nor *"},
		{"bad template", line("get nodes -o go-template={{"), "-o go-template"},
		{"template of nothing", line("get nodes -o go-template={{.Nonsense}}"), "-o go-template"},
		{"no template file", line("get nodes -o go-template-file=/nonexistent"), "/nonexistent"},
		{"all and one namespace", line("get np -A -n shop"), "-A and -n"},
		{"all namespaces and a name", line("get np allow-web -A"), "-A and -l"},
		{"label and a name", line("get np allow-web -l a=b"), "-A and -l"},
		{"file and kind", line("get np -f x.yaml"), "with -f the files say"},
		{"other kinds in one", line("get np/a pool/b"), "every argument must be of the same kind"},
		{"name without kind behind one with", line("get np/a b"), "every argument must be of the same kind"},
		{"no name behind a slash", line("get np/"), "is empty"},
		{"bad selector", []string{"get", "np", "-l", "a in {"}, "-l: "},
		{"hidden kind", line("get blockaffinities"), "see the ipam commands"},
		{"unknown flag", line("get np --nosuch"), "unknown flag: --nosuch: see `brindle get --help`"},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := w.in(t)
			w.fails(c.want, c.in...)
		})
	}
}

// What exists is printed although something else is missing.
func TestGetPrintsWhatThereIs(t *testing.T) {
	w := newWorld(t)
	w.loadRecording()
	got := w.run(line("get nodes n1 n9 n2")...)
	if got.status != 1 || got.stdout != "NAME\nn1\nn2\n" || got.stderr != "brindle: resource does not exist: Node(n9)\n" {
		t.Errorf("%+v", got)
	}
	if _, err := w.db.Create(t.Context(), "/calico/resources/v3/projectcalico.org/nodes/n3", []byte(`{"spec": 7}`)); err != nil {
		t.Fatal(err)
	}
	got = w.run(line("get nodes")...)
	if got.status != 1 || got.stdout != "NAME\nn1\nn2\n" || !strings.Contains(got.stderr, `"n3"`) {
		t.Errorf("%+v", got)
	}
}

// A file of several kinds shows each kind's table, or one document.
func TestGetFromFile(t *testing.T) {
	w := newWorld(t)
	w.loadRecording()
	file := w.file("a.yaml", `kind: IPPool
apiVersion: projectcalico.org/v3
metadata: {name: pool-v6}
---
kind: IPPool
apiVersion: projectcalico.org/v3
metadata: {name: pool-vxlan}
---
kind: NetworkSet
apiVersion: projectcalico.org/v3
metadata: {name: shop}
`)
	got := w.run("get", "-f", file)
	want := "NAME         CIDR              SELECTOR\npool-v6      fd00:10:20::/64   all()\npool-vxlan   10.20.0.0/16      rack == 'r1'\n"
	if got.status != 1 || got.stdout != want || got.stderr != "brindle: resource does not exist: NetworkSet(default/shop)\n" {
		t.Errorf("%+v", got)
	}
	w.stdin = "kind: Node\napiVersion: projectcalico.org/v3\nmetadata: {name: n1}\n---\nkind: Tier\napiVersion: projectcalico.org/v3\nmetadata: {name: security}\n"
	if got := w.ok("get", "-f", "-"); got != "NAME\nn1\n\nNAME       ORDER\nsecurity   100\n" {
		t.Errorf("%s", got)
	}
	if got := w.ok("get", "-f", "-", "-o", "name"); got != "node.projectcalico.org/n1\ntier.projectcalico.org/security\n" {
		t.Errorf("%s", got)
	}
	if got := w.ok("get", "-f", "-", "-o", "yaml"); !strings.HasPrefix(got, "- apiVersion") || strings.Count(got, "kind: ") != 2 {
		t.Errorf("%s", got)
	}
}

func TestKinds(t *testing.T) {
	w := newWorld(t)
	if got := w.ok("kinds"); !strings.Contains(got, "\nIPPool ") || len(w.opened) != 0 {
		t.Errorf("%s", got)
	}
}

func TestCompletion(t *testing.T) {
	w := newWorld(t)
	for shell, want := range map[string]string{"bash": "complete ", "zsh": "#compdef brindle", "fish": "complete -c brindle", "powershell": "Register-ArgumentCompleter"} {
		if got := w.ok("completion", shell); !strings.Contains(got, want) {
			t.Errorf("completion %s lacks %q", shell, want)
		}
	}
	got := w.run("__complete", "get", "ippo")
	if !strings.HasPrefix(got.stdout, "ippools\n") {
		t.Errorf("%+v", got)
	}
	if !strings.Contains(w.ok("--help"), "\n  completion ") {
		t.Error("the help does not name completion")
	}
}

// Where the datastore is: flags, then a file that was named, then the
// environment.
func TestDatastoreSettings(t *testing.T) {
	w := newWorld(t)
	file := w.file("cfg", "apiVersion: projectcalico.org/v3\nkind: CalicoAPIConfig\nmetadata:\nspec:\n  datastoreType: etcdv3\n  etcdEndpoints: http://192.0.2.7:1,http://192.0.2.8:1\n  etcdUsername: fred\n  etcdPassword: secret\n")
	for _, c := range []struct {
		name string
		env  map[string]string
		in   []string
		want []string
	}{
		{"environment", map[string]string{"ETCD_ENDPOINTS": "http://192.0.2.1:1"}, line("get nodes"), []string{"http://192.0.2.1:1"}},
		{"with the prefix", map[string]string{"ETCD_ENDPOINTS": "http://192.0.2.1:1", "CALICO_ETCD_ENDPOINTS": "http://192.0.2.2:1"}, line("get nodes"), []string{"http://192.0.2.2:1"}},
		{"file", map[string]string{"BRINDLE_ETCD_ENDPOINTS": "http://192.0.2.1:1"}, []string{"get", "nodes", "-c", file}, []string{"http://192.0.2.7:1", "http://192.0.2.8:1", "fred"}},
		{"flag", map[string]string{"BRINDLE_ETCD_ENDPOINTS": "http://192.0.2.1:1"}, []string{"get", "nodes", "-c", file, "--etcd-endpoints", "http://192.0.2.9:1"}, []string{"http://192.0.2.9:1", "fred"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t)
			w.env = c.env
			w.ok(c.in...)
			got := w.opened[0].Endpoints
			if w.opened[0].Username != "" {
				got = append(got, w.opened[0].Username)
			}
			if !slices.Equal(got, c.want) {
				t.Errorf("got %q, want %q", got, c.want)
			}
		})
	}
	for _, c := range []struct {
		name string
		env  map[string]string
		in   []string
		want string
	}{
		{"no file", nil, line("get nodes -c /nonexistent"), "/nonexistent"},
		{"another kind of file", nil, []string{"get", "nodes", "-c", w.file("x", "kind: Pod")}, "must be CalicoAPIConfig"},
		{"no YAML", nil, []string{"get", "nodes", "-c", w.file("x", "\t:")}, "x: "},
		{"another datastore", nil, line("get nodes --datastore-type kubernetes"), "DATASTORE_TYPE"},
		{"no URL", nil, line("get nodes --etcd-endpoints 192.0.2.1"), "no URL"},
		{"no server here", map[string]string{}, line("get nodes --etcd-endpoints unix:///nonexistent/etcd.sock"), "there is no socket"},
		{"nothing said", map[string]string{}, line("get nodes"), "no datastore is configured"},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t)
			if c.env != nil {
				w.env = c.env
			}
			if got := w.fails(c.want, c.in...); len(w.opened) > 0 {
				t.Errorf("it connected all the same: %s", got)
			}
		})
	}
}

func TestVersion(t *testing.T) {
	w := newWorld(t)
	w.loadRecording()
	for _, c := range []struct {
		name, in, want string
	}{
		{"client", "version --client", "Client Version:    v1.2.3\nGit commit:        unknown\n"},
		{"both", "version", "Client Version:    v1.2.3\nGit commit:        unknown\nCluster Version:   unknown\nCluster Type:      unknown\n"},
		{"JSON", "version --client -o json", "{\n  \"clientVersion\": \"v1.2.3\"\n}\n"},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := w.in(t)
			if got := w.ok(line(c.in)...); got != c.want {
				t.Errorf("got %q, want %q", got, c.want)
			}
		})
	}
	w.fails("output format", line("version -o yaml")...)
	w.db = broken{}
	if got := w.run("version"); got.status != 1 || got.stdout != "Client Version:    v1.2.3\nGit commit:        unknown\n" || !strings.Contains(got.stderr, "connection refused") {
		t.Errorf("%+v", got)
	}
	if got := w.run("get", "nodes"); got.status != 1 || got.stdout != "" || !strings.Contains(got.stderr, "connection refused") {
		t.Errorf("%+v", got)
	}
}

func TestCommitOf(t *testing.T) {
	for build, want := range map[string]string{
		"v1.2.3": "", "dev": "", "dev (go1.26.8)": "", "v1.2.3-4-gabcdef0 (go1.26)": "abcdef0", "v1.2.3-4-gabcdef0-dirty": "abcdef0",
		"abcdef0123": "abcdef0123", "abcdef0-dirty (go1.26)": "abcdef0", "v1-gx": "", "": "",
	} {
		if got := commitOf(build); got != want {
			t.Errorf("%q: %q, want %q", build, got, want)
		}
	}
}
