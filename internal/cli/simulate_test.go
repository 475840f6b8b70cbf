package cli

import (
	"bytes"
	"encoding/json"
	"os"
	"regexp"
	"strings"
	"testing"
)

const (
	simBase = "testdata/simulate/cluster.yaml"
	simPool = "testdata/simulate/pool.yaml"
)

// reasons are the oracle's words, which its own tests hold true.
var reasons = regexp.MustCompile(`"why": ".+"`)

// TestSimulateGolden compares what is printed with recorded files.
func TestSimulateGolden(t *testing.T) {
	w := newWorld(t)
	w.stdin = `
apiVersion: projectcalico.org/v3
kind: IPPool
metadata: {name: pool-a}
spec: {cidr: 10.0.0.0/16, ipipMode: Always}
---
apiVersion: projectcalico.org/v3
kind: IPPool
metadata: {name: pool-six}
spec: {cidr: "fd00:10::/48", vxlanMode: Always}
---
apiVersion: projectcalico.org/v3
kind: FelixConfiguration
metadata: {name: node.h3}
spec: {vxlanVNI: 7, vxlanMTUV6: 1400}
`
	cluster, err := os.ReadFile(simBase)
	if err != nil {
		t.Fatal(err)
	}
	vxlan := w.file("vxlan.yaml", strings.Replace(string(cluster), "natOutgoing: true", "vxlanMode: Always", 1))
	for _, c := range []struct{ name, args string }{
		{"cross-subnet.txt", "--base " + simBase + " -f " + simPool},
		{"cross-subnet.json", "--base " + simBase + " --host h2 -o json -f " + simPool},
		{"host.txt", "--base " + simBase + " --host h3 -f " + simPool},
		{"both.txt", "--base " + simBase + " -f -"},
		{"back.txt", "--base " + vxlan + " -f testdata/simulate/plain.yaml"},
		{"modes.txt", "--base " + vxlan + " -f testdata/simulate/ipip.yaml"},
		{"no-bgp.txt", "--bgp off --base " + simBase + " -f " + simPool},
		{"nothing.txt", "--base " + simBase + " -f " + simBase},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := w.in(t).run(append([]string{"simulate", "--routes"}, line(c.args)...)...)
			if got.status != 0 {
				t.Fatalf("exit status %d: %s", got.status, got.stderr)
			}
			got.stdout = reasons.ReplaceAllString(got.stdout, `"why": "…"`)
			path := "testdata/simulate/golden/" + c.name
			if *update {
				if err := os.WriteFile(path, []byte(got.stdout), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(path)
			if err != nil || !bytes.Equal(want, []byte(got.stdout)) {
				t.Errorf("%v\n%s\nwant:\n%s", err, got.stdout, want)
			}
		})
	}
}

// TestSimulateDatastore takes the datastore as the cluster, writes nothing,
// and foresees what is so once the files have been applied.
func TestSimulateDatastore(t *testing.T) {
	w := newWorld(t)
	if got := w.run("apply", "-f", simBase); got.status != 0 {
		t.Fatal(got.stderr)
	}
	everything := func() string {
		list, err := w.db.List(t.Context(), "/")
		if err != nil {
			t.Fatal(err)
		}
		data, err := json.Marshal(list.KVs)
		if err != nil {
			t.Fatal(err)
		}
		return string(data)
	}
	printed := w.ok("get", "ippool", "pool-a", "-o", "yaml")
	before := everything()
	got := w.run("simulate", "--routes", "-f", simPool)
	for _, want := range []string{
		"h1\n  + tunnel vxlan.calico: VXLAN from 198.51.100.1, VNI 4096, port 4789, MAC 66:ac:4a:e9:72:85, address 10.0.",
		"  h1 → h3: direct → VXLAN (pool-a)\n", "  h1 → h2: direct, routes by BGP → by agent (pool-a)\n",
		"\n3 of 3 hosts change. Tunnels: 3 appear, ",
	} {
		if got.status != 0 || !strings.Contains(got.stdout, want) {
			t.Errorf("exit status %d, want %q in\n%s%s", got.status, want, got.stdout, got.stderr)
		}
	}
	if everything() != before {
		t.Error("it has written to the datastore")
	}
	w.stdin = strings.Replace(printed, "vxlanMode: Never", "vxlanMode: CrossSubnet", 1)
	if again := w.run("simulate", "--routes", "-f", "-"); again.stdout != got.stdout {
		t.Errorf("from what get printed: %s%s\nwant %s", again.stdout, again.stderr, got.stdout)
	}
	if got := w.run("apply", "-f", simPool); got.status != 0 {
		t.Fatal(got.stderr)
	}
	w.fails("update conflict", "simulate", "--routes", "-f", w.file("old.yaml", printed))
	if got := w.run("simulate", "--routes", "-f", simPool); got.stdout != "Nothing changes on 3 hosts.\n" {
		t.Errorf("once it has been applied: %s", got.stdout)
	}
}

// TestSimulateRefuses tries what cannot be simulated. What apply refuses is
// refused in its words.
func TestSimulateRefuses(t *testing.T) {
	w := newWorld(t)
	wrong := w.file("wrong.yaml", `
apiVersion: projectcalico.org/v3
kind: IPPool
metadata: {name: pool-a}
spec: {cidr: 10.0.0.0/16, ipipMode: Always, vxlanMode: Always}
`)
	overlaps := w.file("overlaps.yaml", `
apiVersion: projectcalico.org/v3
kind: IPPool
metadata: {name: pool-b}
spec: {cidr: 10.0.128.0/17}
`)
	if got := w.run("apply", "-f", simBase); got.status != 0 {
		t.Fatal(got.stderr)
	}
	for _, file := range []string{wrong, overlaps, "testdata/nothing.yaml"} {
		want := w.run("apply", "-f", file)
		if got := w.run("simulate", "--routes", "-f", file); got != want || want.status != 1 {
			t.Errorf("got %v\nwant %v", got, want)
		}
	}
	for _, c := range []struct{ args, want string }{
		{"-f " + simPool, "what becomes of connections when policies change is not told by this version"},
		{"--routes", "no file given"},
		{"--routes -o yaml -f " + simPool, `output format "yaml": must be text or json`},
		{"--routes --bgp maybe -f " + simPool, `--bgp "maybe": must be on, off or none`},
		{"--routes --host h9 -f " + simPool, `there is no host "h9": the hosts are h1, h2, h3`},
		{"--routes --base - -f -", "--base or -f, not both"},
		{"--routes --etcd-endpoints unix:///nowhere -f " + simPool, "; or give the cluster as files, by --base"},
	} {
		w.fails(c.want, append([]string{"simulate"}, line(c.args)...)...)
	}
}
