package cli

import (
	"context"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/spf13/cobra"

	v3 "github.com/brindle-net/brindle/api/v3"
	"github.com/brindle-net/brindle/internal/client"
)

// calicoctlFlags are the commands of calicoctl with their flags, as scripts
// write them. Every pair of the two must stand in a line of parityCases.
var calicoctlFlags = map[string]string{
	"create":                         "-f --filename -R --recursive -n --namespace -c --config --skip-empty --skip-exists --context",
	"apply":                          "-f --filename -R --recursive -n --namespace -c --config --skip-empty --context",
	"replace":                        "-f --filename -R --recursive -n --namespace -c --config --skip-empty --context",
	"delete":                         "-f --filename -R --recursive -n --namespace -c --config --skip-empty -s --skip-not-exists --context",
	"patch":                          "-p --patch -n --namespace -c --config -t --type --context",
	"get":                            "-f --filename -R --recursive -n --namespace -c --config -o --output -A --all-namespaces -a --export --context",
	"label":                          "-n --namespace -c --config --overwrite --remove --context",
	"validate":                       "-f --filename -R --recursive -n --namespace --skip-empty",
	"cluster diags":                  "-c --config --since --max-logs --max-parallelism --focus-nodes --skip-temp-dir-cleanup",
	"convert":                        "-f --filename -o --output --ignore-validation",
	"ipam show":                      "-c --config --ip --show-blocks --show-borrowed --show-configuration",
	"ipam check":                     "-c --config --show-all-ips --show-problem-ips -o --output --kubeconfig",
	"ipam release":                   "-c --config --ip --from-report --force",
	"ipam split":                     "-c --config --cidr --name",
	"ipam configure":                 "-c --config --strictaffinity --max-blocks-per-host --kubevirt-ip-persistence --ip-cooldown-seconds",
	"datastore migrate lock":         "-c --config",
	"datastore migrate unlock":       "-c --config",
	"datastore migrate export":       "-c --config",
	"datastore migrate import":       "-f --filename -c --config",
	"datastore migrate-policy-names": "-c --config",
	"node run":                       "--ip --ip6 --as --name --ip-autodetection-method --ip6-autodetection-method --log-dir --node-image --backend --dryrun --init-system --no-default-ippools --felix-config -c --config",
	"version":                        "-c --config --poll --client",
}

// parityCase is one command line with what its caller sees. Words in braces
// are files: see parityWorld.
type parityCase struct {
	in     string
	status int
	stdout string // a pattern for all of it
	stderr string // a pattern for a part of it; "": it is empty
}

const anything = `(?s).*`

var parityCases = []parityCase{
	// What every script begins with: create, apply, replace, delete, get.
	{"create -f {sets}", 0, `Successfully created 2 'GlobalNetworkSet' resource\(s\)\n`, ""},
	{"create --filename {sets}", 0, `Successfully created 2 'GlobalNetworkSet' resource\(s\)\n`, ""},
	{"create -f {mixed}", 0, `Successfully created 2 resource\(s\)\n`, ""},
	{"create -f {stored}", 1, ``, `failed to create 1 of 1 'Tier' resource\(s\):\n.*resource already exists: Tier\(security\)\n`},
	{"create -f {stored} -f {sets}", 1, `Partial success: created 2 out of 3 resources\n`, `resource already exists: Tier\(security\)`},
	{"create -f {stored} --skip-exists", 0, `Successfully created 1 'Tier' resource\(s\)\n`, ""},
	{"create -f {folder}", 0, `Successfully created 2 'GlobalNetworkSet' resource\(s\)\n`, ""},
	{"create -f {folder} -R", 0, `Successfully created 3 'GlobalNetworkSet' resource\(s\)\n`, ""},
	{"create -f {folder} --recursive", 0, `Successfully created 3 'GlobalNetworkSet' resource\(s\)\n`, ""},
	{"create -f {netset} -n shop", 0, `Successfully created 1 'NetworkSet' resource\(s\)\n`, ""},
	{"create -f {netset} --namespace shop", 0, `Successfully created 1 'NetworkSet' resource\(s\)\n`, ""},
	{"create -f {sets} -c {config}", 0, anything, ""},
	{"create -f {sets} --config {config}", 0, anything, ""},
	{"create -f {sets} --context lab", 0, anything, ""},
	{"create -f {empty}", 1, ``, `no resources specified`},
	{"create -f {empty} --skip-empty", 0, `No resources specified\n`, ""},
	{"create", 1, ``, `no file given`},
	{"create -f {unknown}", 1, ``, `spec\.ordr`},
	{"create -f {readonly}", 1, ``, `ClusterInformation`},
	{"create -f {mirror}", 1, ``, `mirrors a policy of Kubernetes`},

	{"apply -f {sets}", 0, `Successfully applied 2 'GlobalNetworkSet' resource\(s\)\n`, ""},
	{"apply --filename {stored}", 0, `Successfully applied 1 'Tier' resource\(s\)\n`, ""},
	{"apply -f {list}", 0, `Successfully applied 2 'GlobalNetworkSet' resource\(s\)\n`, ""},
	{"apply -f {folder} -R", 0, `Successfully applied 3 'GlobalNetworkSet' resource\(s\)\n`, ""},
	{"apply -f {folder} --recursive", 0, `Successfully applied 3 'GlobalNetworkSet' resource\(s\)\n`, ""},
	{"apply -f {netset} -n shop", 0, `Successfully applied 1 'NetworkSet' resource\(s\)\n`, ""},
	{"apply -f {shopset} --namespace other", 1, ``, `metadata\.namespace.*differs from -n other`},
	{"apply -f {spaced}", 1, ``, `metadata\.namespace.*belongs to no namespace`},
	{"apply -f {sets} -c {config}", 0, anything, ""},
	{"apply -f {sets} --config {nofile}", 1, ``, `no such file`},
	{"apply -f {sets} --context lab", 0, anything, ""},
	{"apply -f {empty} --skip-empty", 0, `No resources specified\n`, ""},
	{"apply -f {stale}", 1, ``, `update conflict`},
	{"apply -f {nofile}", 1, ``, `no such file`},
	{"apply -f {sets} --allow-version-mismatch", 0, anything, ""},

	{"replace -f {stored}", 0, `Successfully replaced 1 'Tier' resource\(s\)\n`, ""},
	{"replace --filename {sets}", 1, ``, `resource does not exist: GlobalNetworkSet\(a\)`},
	{"replace -f {stored} -f {sets}", 1, `Partial success: replaced 1 out of 3 resources\n`, `resource does not exist`},
	{"replace -f {folder} -R", 1, ``, `failed to replace 3 of 3`},
	{"replace -f {folder} --recursive", 1, ``, `failed to replace 3 of 3`},
	{"replace -f {office} -n default", 0, anything, ""},
	{"replace -f {office} --namespace shop", 1, ``, `resource does not exist: NetworkSet\(shop/office\)`},
	{"replace -f {stored} -c {config}", 0, anything, ""},
	{"replace -f {stored} --config {config}", 0, anything, ""},
	{"replace -f {stored} --context lab", 0, anything, ""},
	{"replace -f {empty} --skip-empty", 0, `No resources specified\n`, ""},

	{"delete networkset office -n default", 0, `Successfully deleted 1 'NetworkSet' resource\(s\)\n`, ""},
	{"delete networkset office --namespace shop", 1, ``, `resource does not exist: NetworkSet\(shop/office\)`},
	{"delete ippool pool-v6 pool-vxlan", 0, `Successfully deleted 2 'IPPool' resource\(s\)\n`, ""},
	{"delete ippool pool-v6 nosuch", 1, `Partial success: deleted 1 out of 2 'IPPool' resources\n`, `resource does not exist: IPPool\(nosuch\)`},
	{"delete ippool nosuch -s", 0, anything, ""},
	{"delete ippool nosuch --skip-not-exists", 0, anything, ""},
	{"delete -f {office}", 0, `Successfully deleted 1 'NetworkSet' resource\(s\)\n`, ""},
	{"delete --filename {office} -c {config}", 0, anything, ""},
	{"delete -f {folder} -R", 1, ``, `failed to delete 3 of 3`},
	{"delete -f {folder} --recursive -s", 0, anything, ""},
	{"delete -f {office} --config {config} --context lab", 1, ``, `cannot be given together`},
	{"delete -f {empty} --skip-empty", 0, `No resources specified\n`, ""},
	{"delete clusterinformation default", 1, ``, `not by users`},
	{"delete node", 1, ``, `which Node`},

	{"patch ippool pool-vxlan -p {patch}", 0, `Successfully patched 1 'IPPool' resource\n`, ""},
	{"patch ippool pool-vxlan --patch {patch} -t strategic", 0, anything, ""},
	{"patch ippool pool-vxlan -p {patch} -t merge", 0, anything, ""},
	{"patch ippool pool-vxlan -p {operations} --type json", 0, anything, ""},
	{"patch ippool pool-vxlan -p {patch} -t other", 1, ``, `must be strategic, merge or json`},
	{"patch networkset office -p {labels} -n default", 0, anything, ""},
	{"patch networkset office -p {labels} --namespace shop", 1, ``, `failed to patch 'NetworkSet' resource: resource does not exist`},
	{"patch ippool pool-vxlan -p {patch} -c {config}", 0, anything, ""},
	{"patch ippool pool-vxlan -p {patch} --config {config}", 0, anything, ""},
	{"patch ippool pool-vxlan -p {patch} --context lab", 0, anything, ""},
	{"patch ippool pool-vxlan", 1, ``, `no patch given`},

	{"get ippools", 0, `NAME +CIDR +SELECTOR\n` + anything, ""},
	{"get pool", 0, `NAME +CIDR +SELECTOR\n` + anything, ""},
	{"get IPPool pool-v6", 0, `NAME +CIDR +SELECTOR\npool-v6 .*\n`, ""},
	{"get -f {stored}", 0, `NAME +ORDER\nsecurity +100\n`, ""},
	{"get --filename {stored} -o ps", 0, `NAME +ORDER\nsecurity +100\n`, ""},
	{"get -f {folder} -R", 1, ``, `resource does not exist: GlobalNetworkSet\(c\)`},
	{"get -f {folder} --recursive", 1, ``, `resource does not exist: GlobalNetworkSet\(c\)`},
	{"get networksets -A", 0, `NAMESPACE +NAME\ndefault +office\n`, ""},
	{"get networksets --all-namespaces -o wide", 0, `NAMESPACE +NAME +NETS\ndefault .*\n`, ""},
	{"get networksets -a", 0, `NAMESPACE +NAME\ndefault +office\n`, ""},
	{"get networksets -n default", 0, `NAMESPACE +NAME\ndefault +office\n`, ""},
	{"get networksets --namespace shop", 0, `NAMESPACE +NAME\n`, ""},
	{"get networksets -A -n default", 1, ``, `-A and -n`},
	{"get networkset office -A", 1, ``, `cannot be given with names`},
	{"get nodes -c {config}", 0, anything, ""},
	{"get nodes --config {nofile}", 1, ``, `no such file`},
	{"get nodes --context lab", 0, anything, ""},
	{"get nodes --context nosuch", 1, ``, `no context`},
	{"get nodes -o wide", 0, `NAME +ASN +IPV4 +IPV6\n` + anything, ""},
	{"get nodes --output yaml", 0, `apiVersion: projectcalico.org/v3\nitems:\n` + anything + `kind: NodeList\n` + anything, ""},
	{"get nodes -o yml", 0, `apiVersion: ` + anything, ""},
	{"get nodes -o json", 0, `\{\n  "kind": "NodeList",\n` + anything, ""},
	{"get node n1 -o json", 0, `\{\n  "kind": "Node",\n` + anything, ""},
	{"get node n1 n2 -o json", 0, `\[\n  \{\n    "kind": "Node",\n` + anything, ""},
	{"get nodes -o custom-columns=NAME,ASN", 0, `NAME +ASN\nn1 +64512\nn2 +\(64512\)\n`, ""},
	{"get nodes -o custom-columns=NAME,AGE", 1, ``, `Node has NAME, ASN, IPV4, IPV6`},
	{"get nodes -o go-template={{range.}}{{.Kind}}{{end}}", 0, `NodeList`, ""},
	{"get nodes -o go-template-file={template}", 0, `n1 n2 \n`, ""},
	{"get nodes -o go-template-file={nofile}", 1, ``, `no such file`},
	{"get nodes -o xml", 1, ``, `output format "xml"`},
	{"get ippool pool-v6 -o yaml --export", 0, `apiVersion: projectcalico.org/v3\nkind: IPPool\nmetadata:\n  name: pool-v6\nspec:\n` + anything, ""},
	{"get ippools -o yaml --export", 0, anything + `uid:` + anything, ""},
	{"get ippool nosuch", 1, ``, `resource does not exist: IPPool\(nosuch\)`},
	{"get node n1 n9", 1, `NAME\nn1\n`, `resource does not exist: Node\(n9\)`},
	{"get nosuchkind", 1, ``, `no kind "nosuchkind"`},
	{"get blockaffinities", 1, ``, `ipam commands`},
	{"get", 1, ``, `which kind`},

	{"label nodes n1 disk=ssd", 0, `Successfully set label disk on nodes n1\n`, ""},
	{"label nodes n1 rack=r1", 0, `Successfully set label rack on nodes n1\n`, ""},
	{"label nodes n1 rack=r9", 1, ``, `rack`},
	{"label nodes n1 rack=r9 --overwrite", 0, `Successfully updated label rack on nodes n1\n`, ""},
	{"label nodes n1 rack --remove", 0, `Successfully removed label rack on nodes n1\n`, ""},
	{"label nodes n1 rack-", 0, `Successfully removed label rack on nodes n1\n`, ""},
	{"label nodes n1 nosuch --remove", 1, ``, `nosuch`},
	{"label networkset office a=b -n default", 0, anything, ""},
	{"label networkset office a=b --namespace shop", 1, ``, `resource does not exist`},
	{"label nodes n1 a=b -c {config}", 0, anything, ""},
	{"label nodes n1 a=b --config {config}", 0, anything, ""},
	{"label nodes n1 a=b --context lab", 0, anything, ""},

	{"validate -f {sets}", 0, `Successfully validated 2 'GlobalNetworkSet' resource\(s\)\n`, ""},
	{"validate --filename {mixed}", 0, `Successfully validated 2 resource\(s\)\n`, ""},
	{"validate -f {folder} -R", 0, `Successfully validated 3 .*\n`, ""},
	{"validate -f {folder} --recursive", 0, `Successfully validated 3 .*\n`, ""},
	{"validate -f {netset} -n shop", 0, anything, ""},
	{"validate -f {shopset} --namespace other", 1, ``, `differs from -n`},
	{"validate -f {empty}", 1, ``, `no resources specified`},
	{"validate -f {empty} --skip-empty", 0, `No resources specified\n`, ""},
	{"validate -f {unknown}", 1, ``, `spec\.ordr: unknown field`},

	{"cluster diags -c {config} --since 1h --max-logs 2 --max-parallelism 1 --focus-nodes n1,n2 --file {bundle}", 0, `Wrote .*\n.*\n`, ""},
	{"cluster diags --config {config} --skip-temp-dir-cleanup --file {bundle2} --socket /nonexistent", 0, `Wrote .*\n.*\n`, `not needed`},
	{"cluster diags --max-logs 0", 1, ``, `must be 1 or more`},

	{"convert -f {v1}", 0, `apiVersion: projectcalico.org/v3\nkind: GlobalNetworkPolicy\nmetadata:\n  name: a\n` + anything, ""},
	{"convert --filename {v1} -o yaml", 0, `apiVersion: ` + anything, ""},
	{"convert -f {v1} --output json --ignore-validation", 0, `\{\n` + anything, ""},
	{"convert -f {unknown}", 1, ``, `spec\.ordr`},
	{"convert", 1, ``, `no file given`},

	{"ipam show", 0, `\+-+\+` + anything + `\| GROUPING \| CIDR +\|` + anything, ""},
	{"ipam show --show-blocks", 0, anything + `\| Block +\|` + anything, ""},
	{"ipam show --ip 192.168.40.128", 0, `IP 192\.168\.40\.128 is in use\nHandle ID: ` + anything, ""},
	{"ipam show --ip=192.168.99.1", 0, `192\.168\.99\.1 is not assigned\n`, ""},
	{"ipam show --ip x", 1, ``, `must be an IPv4 or IPv6 address`},
	{"ipam show --ip 192.168.40.128 --show-blocks", 0, `IP 192\.168\.40\.128 is in use\n` + anything, ""},
	{"ipam show --show-borrowed", 0, anything + `BORROWING-NODE` + anything, ""},
	{"ipam show --show-borrowed --show-configuration", 0, anything + `BORROWING-NODE` + anything, ""},
	{"ipam show --show-configuration -c {config}", 0, anything + `\| StrictAffinity +\| false +\|` + anything, ""},
	{"ipam show --config {config}", 0, anything, ""},
	{"ipam check", 0, anything + `Check complete; found \d+ problems?\.\n`, ""},
	{"ipam check --show-all-ips -c {config}", 0, anything, ""},
	{"ipam check --show-problem-ips --config {config}", 0, anything, ""},
	{"ipam check -o {report}", 0, anything, ""},
	{"ipam check --output {report} --kubeconfig /nonexistent", 0, anything, `--kubeconfig is not needed`},
	{"ipam release --ip 192.168.40.128 --force", 0, anything, ""},
	{"ipam release --ip 192.168.40.128", 1, ``, `is in use by`},
	{"ipam release --ip 192.168.99.1 -c {config}", 1, ``, `192\.168\.99\.1 is not assigned`},
	{"ipam release --from-report {nofile} --config {config}", 1, ``, `no such file`},
	{"ipam release --from-report {nofile} --force", 1, ``, `no such file`},
	{"ipam release", 1, ``, `--ip`},
	{"ipam split 2 --name pool-vxlan", 1, ``, `not locked`},
	{"ipam split 2 --name pool-vxlan -c {config}", 1, ``, `not locked`},
	{"ipam split 2 --cidr 10.99.0.0/16 --config {config}", 1, ``, `.`},
	{"ipam configure --strictaffinity true", 0, `Successfully set StrictAffinity to: true\n`, ""},
	{"ipam configure --strictaffinity=perhaps -c {config}", 1, ``, `must be true or false`},
	{"ipam configure --strictaffinity=true --max-blocks-per-host 4 --config {config}", 0, `Successfully set StrictAffinity to: true\nSuccessfully set MaxBlocksPerHost to: 4\n`, ""},
	{"ipam configure --kubevirt-ip-persistence Enabled", 0, `Successfully set KubeVirtVMAddressPersistence to: Enabled\n`, `not honoured`},
	{"ipam configure --ip-cooldown-seconds 60", 0, `Successfully set IPCooldownSeconds to: 60\n`, ""},
	{"ipam configure", 1, ``, `nothing to set`},

	{"datastore migrate lock -c {config}", 0, `Datastore locked\.\n`, ""},
	{"datastore migrate lock --config {config}", 0, `Datastore locked\.\n`, ""},
	{"datastore migrate unlock -c {config}", 0, `Datastore unlocked\.\n`, ""},
	{"datastore migrate unlock --config {config}", 0, `Datastore unlocked\.\n`, ""},

	{"datastore migrate export -c {config}", 1, ``, `not locked`},
	{"datastore migrate export --config {config}", 1, ``, `not locked`},
	{"datastore migrate import -f {export} -c {config}", 1, ``, `not empty`},
	{"datastore migrate import --filename {sets} --config {config}", 1, ``, `is no export of a datastore`},
	{"datastore migrate import", 1, ``, `no file given`},

	{"datastore migrate-policy-names -c {config}", 0, `Renamed 0 policies\.\n`, ""},
	{"datastore migrate-policy-names --config {config}", 0, anything, ""},
	{"datastore migrate-policy-names --config {nofile}", 1, ``, `no such file`},

	{"node run --dryrun --name h1 --ip 192.0.2.1 --ip6 autodetect --as 64513 --ip-autodetection-method first-found --ip6-autodetection-method first-found", 0, anything + `brindle agent .*--node=h1 --ip=192\.0\.2\.1 .*\n`, ""},
	{"node run --dryrun --backend none --no-default-ippools --felix-config {nofile} -c {config}", 0, anything + `--bgp=none --no-default-pools\n`, `password`},
	{"node run --dryrun --init-system --log-dir /x --node-image quay.io/calico/node:latest", 0, anything + `brindle agent.*\n`, `--node-image is not needed`},
	{"node run --name h1 --config {config}", 1, ``, `nothing was started`},
	{"node run --backend gobgp", 1, ``, `must be bird or none`},

	{"version", 0, `Client Version: +v1\.2\.3\nGit commit: .*\nCluster Version: .*\nCluster Type: .*\n`, ""},
	{"version --client", 0, `Client Version: +v1\.2\.3\nGit commit: .*\n`, ""},
	{"version -c {config}", 0, anything, ""},
	{"version --config {config} --poll=0", 0, anything, ""},
	{"version --poll=-1s", 1, ``, `must not be negative`},
}

// parityFiles are what the words in braces stand for.
var parityFiles = map[string]string{
	"sets.yaml":     set("GlobalNetworkSet", "a") + "---\n" + set("GlobalNetworkSet", "b"),
	"mixed.yaml":    set("GlobalNetworkSet", "a") + "---\n" + set("NetworkSet", "a"),
	"stored.yaml":   set("Tier", "security") + "spec: {order: 100}\n",
	"netset.yaml":   set("NetworkSet", "a"),
	"shopset.yaml":  "apiVersion: projectcalico.org/v3\nkind: NetworkSet\nmetadata: {name: a, namespace: shop}\n",
	"office.yaml":   set("NetworkSet", "office"),
	"spaced.yaml":   "apiVersion: projectcalico.org/v3\nkind: Tier\nmetadata: {name: a, namespace: shop}\nspec: {order: 5}\n",
	"stale.yaml":    "apiVersion: projectcalico.org/v3\nkind: Tier\nmetadata: {name: security, resourceVersion: \"1\"}\nspec: {order: 5}\n",
	"unknown.yaml":  set("Tier", "a") + "spec: {ordr: 5}\n",
	"readonly.yaml": set("ClusterInformation", "default"),
	"mirror.yaml":   set("NetworkPolicy", "knp.default.a") + "spec: {selector: all()}\n",
	"empty.yaml":    "# nothing\n",
	"list.yaml":     "apiVersion: projectcalico.org/v3\nkind: GlobalNetworkSetList\nitems:\n- {apiVersion: projectcalico.org/v3, kind: GlobalNetworkSet, metadata: {name: a}}\n- {apiVersion: projectcalico.org/v3, kind: GlobalNetworkSet, metadata: {name: b}}\n",

	"folder/a.yaml":       set("GlobalNetworkSet", "a"),
	"folder/b.json":       `{"apiVersion":"projectcalico.org/v3","kind":"GlobalNetworkSet","metadata":{"name":"b"}}`,
	"folder/notes.txt":    "no resource",
	"folder/below/c.yaml": set("GlobalNetworkSet", "c"),

	"v1.yaml": "apiVersion: v1\nkind: policy\nmetadata: {name: a}\n",
	"export":  "===\n{\"kind\": \"ClusterInformation\", \"apiVersion\": \"projectcalico.org/v3\", \"metadata\": {\"name\": \"default\"}, \"spec\": {}}\n===\n{}\n",

	"template": "{{range .}}{{range .Items}}{{.Name}} {{end}}{{end}}\n",
	"config":   apiConfig,
	"contexts": "apiVersion: brindle.net/v1\nkind: ClientConfig\ncontexts: [{name: lab, etcdEndpoints: \"http://192.0.2.20:1\"}]\n",
}

func set(kind, name string) string {
	return "apiVersion: projectcalico.org/v3\nkind: " + kind + "\nmetadata: {name: " + name + "}\n"
}

// parityWorld is the recorded datastore beside the files, in a folder.
func parityWorld(t *testing.T, folder string) *world {
	w := newWorld(t)
	w.loadRecording()
	c := client.New(w.db, client.Config{Component: true})
	if _, err := c.Bootstrap(t.Context(), client.BootstrapConfig{}); err != nil {
		t.Fatal(err)
	}
	w.env["BRINDLE_CONFIG"] = filepath.Join(folder, "contexts")
	return w
}

// words are the words of a command line, with files for the names in braces.
func (c parityCase) words(folder string) []string {
	values := map[string]string{
		"patch": `{"spec":{"natOutgoing":false}}`, "labels": `{"metadata":{"labels":{"a":"b"}}}`,
		"operations": `[{"op":"replace","path":"/spec/natOutgoing","value":false}]`,
	}
	out := strings.Fields(c.in)
	for i, word := range out {
		before, name, ok := strings.Cut(word, "{")
		name, ok2 := strings.CutSuffix(name, "}")
		if !ok || !ok2 || strings.ContainsAny(name, "{}") {
			continue
		}
		value := values[name]
		if value == "" {
			value = filepath.Join(folder, name)
			if _, err := os.Stat(value + ".yaml"); err == nil {
				value += ".yaml"
			}
		}
		out[i] = before + value
	}
	return out
}

func TestParity(t *testing.T) {
	folder := t.TempDir()
	for name, content := range parityFiles {
		path := filepath.Join(folder, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range parityCases {
		t.Run(c.in, func(t *testing.T) {
			got := parityWorld(t, folder).run(c.words(folder)...)
			if got.status != c.status {
				t.Errorf("exit status %d, want %d", got.status, c.status)
			}
			if !regexp.MustCompile(`^(?:` + c.stdout + `)$`).MatchString(got.stdout) {
				t.Errorf("stdout %q, want %s", got.stdout, c.stdout)
			}
			if c.stderr == "" && got.stderr != "" || !regexp.MustCompile(c.stderr).MatchString(got.stderr) {
				t.Errorf("stderr %q, want %s", got.stderr, c.stderr)
			}
			if got.status != 0 && strings.Contains(got.stdout, "rror") {
				t.Errorf("an error is among the data: %q", got.stdout)
			}
		})
	}
}

// Every flag that calicoctl has is there, and in a line of the table; so is
// every command.
func TestParityIsWhole(t *testing.T) {
	root := newRoot(quietEnv())
	for name, flags := range calicoctlFlags {
		cmd, rest, err := root.Find(strings.Fields(name))
		if err != nil || len(rest) > 0 {
			t.Errorf("there is no command %s: %v", name, err)
			continue
		}
		for flag := range strings.FieldsSeq(flags) {
			if !hasFlag(cmd, flag) {
				t.Errorf("%s has no flag %s", name, flag)
			}
			if !slices.ContainsFunc(parityCases, func(c parityCase) bool {
				return strings.HasPrefix(c.in, name+" ") && slices.ContainsFunc(strings.Fields(c.in), func(word string) bool {
					word, _, _ = strings.Cut(word, "=")
					return word == flag
				})
			}) {
				t.Errorf("no line of the table tries %s with %s", name, flag)
			}
		}
		for _, status := range []int{0, 1} {
			if !slices.ContainsFunc(parityCases, func(c parityCase) bool {
				return (c.in == name || strings.HasPrefix(c.in, name+" ")) && c.status == status
			}) && !slices.Contains([]string{"ipam check 1", "ipam split 0", "datastore migrate lock 1", "datastore migrate unlock 1", "datastore migrate export 0", "datastore migrate import 0"}, name+" "+string(rune('0'+status))) {
				t.Errorf("no line of the table has %s with exit status %d", name, status)
			}
		}
	}
}

// hasFlag reports whether a command has -x or --word.
func hasFlag(c *cobra.Command, flag string) bool {
	if name, long := strings.CutPrefix(flag, "--"); long {
		return c.Flags().Lookup(name) != nil
	}
	return c.Flags().ShorthandLookup(flag[1:]) != nil
}

// calicoctlKinds are its kinds with all their names, and the columns of their
// tables; those behind a bar are wide ones.
const calicoctlKinds = `
bgpconfiguration bgpconfigurations bgpconfig: NAME LOGSEVERITY MESHENABLED ASNUMBER
bgpfilter bgpfilters bgpf bf: NAME NUMEXPORTV4 NUMIMPORTV4 NUMEXPORTV6 NUMIMPORTV6
bgppeer bgppeers bgpp bp: NAME PEERIP NODE ASN
caliconodestatus nodestatus: NAME NODE | NAME NODE CLASSES
clusterinformation clusterinformations clusterinfo: NAME CLUSTERGUID CLUSTERTYPE CALICOVERSION DATASTOREREADY
felixconfiguration felixconfigurations felixconfig: NAME
globalnetworkpolicy globalnetworkpolicies gnp: NAME TIER | NAME TIER ORDER SELECTOR
globalnetworkset globalnetworksets gnetsets: NAME | NAME NETS
hostendpoint hostendpoints hep: NAME NODE | NAME NODE INTERFACE IPS PROFILES
ipamconfiguration ipamconfigurations ipamconfig: NAME STRICTAFFINITY AUTOALLOCATEBLOCKS | NAME STRICTAFFINITY AUTOALLOCATEBLOCKS MAXBLOCKSPERHOST
ippool ippools ipp pool: NAME CIDR SELECTOR | NAME CIDR NAT IPIPMODE VXLANMODE DISABLED DISABLEBGPEXPORT SELECTOR ASSIGNMENTMODE
ipreservation ipreservations reservation: NAME | NAME CIDRS
kubecontrollersconfiguration kubecontrollersconfigurations kubecontrollersconfig: NAME
networkpolicy networkpolicies policy np pol: NAME TIER | NAME TIER ORDER SELECTOR
networkset networksets netsets: NAME | NAME NETS
node nodes no: NAME | NAME ASN IPV4 IPV6
profile profiles pro: NAME | NAME LABELS
stagedglobalnetworkpolicy stagedglobalnetworkpolicies sgnp: NAME TIER | NAME TIER ORDER SELECTOR
stagedkubernetesnetworkpolicy stagedkubernetesnetworkpolicies stagedkubernetespolicy sknp skpol: NAME | NAME PODSELECTOR
stagednetworkpolicy stagednetworkpolicies stagedpolicy snp spol: NAME TIER | NAME TIER ORDER SELECTOR
tier tiers: NAME ORDER
workloadendpoint workloadendpoints wep: WORKLOAD NODE NETWORKS INTERFACE | NAME WORKLOAD NODE NETWORKS INTERFACE PROFILES NATS`

// Every name of every kind prints the columns that calicoctl prints, with the
// namespace before them when one is given, and custom columns of those names.
func TestParityOfKinds(t *testing.T) {
	w := newWorld(t)
	w.loadRecording()
	header := func(args ...string) string {
		first, _, _ := strings.Cut(w.ok(args...), "\n")
		return strings.Join(strings.Fields(first), " ")
	}
	kinds := 0
	for l := range strings.SplitSeq(strings.TrimSpace(calicoctlKinds), "\n") {
		names, columns, _ := strings.Cut(l, ": ")
		plain, wide, has := strings.Cut(columns, " | ")
		if !has {
			wide = plain
		}
		kinds++
		for i, name := range strings.Fields(names) {
			kind, ok := v3.LookupKind(name)
			if !ok {
				t.Errorf("there is no kind %s", name)
				continue
			}
			if got := header("get", strings.ToUpper(name)); got != plain {
				t.Errorf("%s: %s, want %s", name, got, plain)
			}
			if i > 0 {
				continue
			}
			if got := header("get", name, "-o", "wide"); got != wide {
				t.Errorf("%s: %s, want %s", name, got, wide)
			}
			if got := header("get", name, "-o", "custom-columns="+strings.ReplaceAll(wide, " ", ",")); got != wide {
				t.Errorf("%s: %s, want %s", name, got, wide)
			}
			want := plain
			if kind.Namespaced {
				want = "NAMESPACE " + want
			}
			if got := header("get", name, "-n", "default"); got != want {
				t.Errorf("%s in a namespace: %s, want %s", name, got, want)
			}
		}
	}
	if kinds != 22 {
		t.Errorf("%d kinds", kinds)
	}
}

// version --poll goes on with what changes.
func TestVersionPoll(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.loadRecording()
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan outcome)
		go func() { done <- w.runContext(ctx, line("version --poll 10s")...) }()
		c := client.New(w.db, client.Config{Component: true})
		if _, err := c.Bootstrap(t.Context(), client.BootstrapConfig{}); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		time.Sleep(11 * time.Second)
		synctest.Wait()
		if _, err := client.Modify(t.Context(), c, "", v3.DefaultName, func(o *v3.ClusterInformation) error {
			o.Spec.CalicoVersion = "v3.31.0"
			return nil
		}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(11 * time.Second)
		synctest.Wait()
		cancel()
		if got := <-done; got.status != 0 || !strings.HasSuffix(got.stdout, "Cluster Version:   v3.31.0\nCluster Type:      unknown\n") || strings.Count(got.stdout, "Cluster Type") > 3 {
			t.Errorf("%+v", got)
		}
	})
}
