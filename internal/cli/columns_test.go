package cli

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	v3 "github.com/brindle-net/brindle/api/v3"
)

// columnTable is what calicoctl documents: the columns of each kind, and those
// that -o wide adds or has instead.
var columnTable = map[string][2]string{
	"bgpconfiguration":              {"NAME LOGSEVERITY MESHENABLED ASNUMBER", "same"},
	"bgpfilter":                     {"NAME NUMEXPORTV4 NUMIMPORTV4 NUMEXPORTV6 NUMIMPORTV6", "same"},
	"bgppeer":                       {"NAME PEERIP NODE ASN", "same"},
	"caliconodestatus":              {"NAME NODE", "NAME NODE CLASSES"},
	"clusterinformation":            {"NAME CLUSTERGUID CLUSTERTYPE CALICOVERSION DATASTOREREADY", "same"},
	"felixconfiguration":            {"NAME", "same"},
	"globalnetworkpolicy":           {"NAME TIER", "NAME TIER ORDER SELECTOR"},
	"globalnetworkset":              {"NAME", "NAME NETS"},
	"hostendpoint":                  {"NAME NODE", "NAME NODE INTERFACE IPS PROFILES"},
	"ipamconfiguration":             {"NAME STRICTAFFINITY AUTOALLOCATEBLOCKS", "NAME STRICTAFFINITY AUTOALLOCATEBLOCKS MAXBLOCKSPERHOST"},
	"ippool":                        {"NAME CIDR SELECTOR", "NAME CIDR NAT IPIPMODE VXLANMODE DISABLED DISABLEBGPEXPORT SELECTOR ASSIGNMENTMODE"},
	"ipreservation":                 {"NAME", "NAME CIDRS"},
	"kubecontrollersconfiguration":  {"NAME", "same"},
	"networkpolicy":                 {"NAME TIER", "NAME TIER ORDER SELECTOR"},
	"networkset":                    {"NAME", "NAME NETS"},
	"node":                          {"NAME", "NAME ASN IPV4 IPV6"},
	"profile":                       {"NAME", "NAME LABELS"},
	"stagedglobalnetworkpolicy":     {"NAME TIER", "NAME TIER ORDER SELECTOR"},
	"stagedkubernetesnetworkpolicy": {"NAME", "NAME PODSELECTOR"},
	"stagednetworkpolicy":           {"NAME TIER", "NAME TIER ORDER SELECTOR"},
	"tier":                          {"NAME ORDER", "same"},
	"workloadendpoint":              {"WORKLOAD NODE NETWORKS INTERFACE", "NAME WORKLOAD NODE NETWORKS INTERFACE PROFILES NATS"},
}

func TestColumnsOfEveryKind(t *testing.T) {
	for _, kind := range v3.Kinds() {
		want, ok := columnTable[strings.ToLower(kind.Kind)]
		if !ok { // calicoctl does not show it
			continue
		}
		if want[1] == "same" {
			want[1] = want[0]
		}
		for i, format := range []string{"", "wide"} {
			p := printer{format: format}
			columns, err := p.choose(kind)
			if err != nil {
				t.Fatal(err)
			}
			var names []string
			for _, c := range columns {
				names = append(names, c.name)
			}
			if got := strings.Join(names, " "); got != want[i] {
				t.Errorf("%s -o %q: got %s, want %s", kind.Kind, format, got, want[i])
			}
		}
	}
}

// Cells of kinds and fields that the recording does not have.
func TestCells(t *testing.T) {
	w := newWorld(t)
	w.stdin = `
apiVersion: projectcalico.org/v3
kind: StagedKubernetesNetworkPolicy
metadata: {name: sk, namespace: shop}
spec: {podSelector: {matchLabels: {app: web, a: b}}}
---
apiVersion: projectcalico.org/v3
kind: CalicoNodeStatus
metadata: {name: cs}
spec: {node: n1, classes: [Agent, BGP], updatePeriodSeconds: 10}
---
apiVersion: projectcalico.org/v3
kind: Tier
metadata: {name: t}
spec: {order: 12.5}
---
apiVersion: projectcalico.org/v3
kind: GlobalNetworkSet
metadata: {name: many}
spec: {nets: [192.0.2.0/32, 192.0.2.1/32, 192.0.2.2/32, 192.0.2.3/32, 192.0.2.4/32, 192.0.2.5/32, 192.0.2.6/32]}
---
apiVersion: projectcalico.org/v3
kind: BGPPeer
metadata: {name: all}
spec: {peerIP: 192.0.2.9, asNumber: 1}
---
apiVersion: projectcalico.org/v3
kind: BGPPeer
metadata: {name: one}
spec: {node: n1, peerIP: 192.0.2.9, asNumber: 1}
---
apiVersion: projectcalico.org/v3
kind: BGPConfiguration
metadata: {name: default}
spec: {asNumber: 65000}
---
apiVersion: projectcalico.org/v3
kind: Node
metadata: {name: n1}
`
	if got := w.run("apply", "-f", "-"); got.status != 0 {
		t.Fatalf("%+v", got)
	}
	for _, c := range []struct{ in, want string }{
		{"get sknp -A -o wide", "NAMESPACE   NAME   PODSELECTOR\nshop        sk     a=b,app=web\n"},
		{"get nodestatus -o wide", "NAME   NODE   CLASSES\ncs     n1     Agent,BGP\n"},
		{"get tier t", "NAME   ORDER\nt      12.5\n"},
		{"get gns many -o wide", "NAME   NETS\nmany   192.0.2.0/32,192.0.2.1/32,192.0.2.2/32,192.0.2.3/32,192.0.2.4/32,192.0.2.5/32...\n"},
		{"get bgpp -o custom-columns=NAME,NODE", "NAME   NODE\nall    (global)\none    n1\n"},
		{"get nodes -o wide", "NAME   ASN       IPV4   IPV6\nn1     (65000)\n"},
		{"get clusterinfo -o custom-columns=NAME,DATASTOREREADY", "NAME      DATASTOREREADY\ndefault   true\n"},
	} {
		if got := w.ok(line(c.in)...); got != c.want {
			t.Errorf("%s: got\n%s\nwant\n%s", c.in, got, c.want)
		}
	}
	got := w.ok(line("get tiers -o custom-columns=NAME")...)
	if want := "NAME\nt\nkube-admin\ndefault\nkube-baseline\n"; got != want {
		t.Errorf("tiers come as %q, want the order in which they are asked", got)
	}
}

func TestNumber(t *testing.T) {
	for in, want := range map[float64]string{0: "0", 100: "100", 1e6: "1000000", 1e7: "10000000", 0.5: "0.5", -3: "-3", 1e15: "1e+15", 1e300: "1e+300"} {
		if got := number(&in); got != want {
			t.Errorf("%v: %q, want %q", in, got, want)
		}
	}
	if got := number(nil); got != "" {
		t.Errorf("none: %q", got)
	}
}

func TestTemplateFunctions(t *testing.T) {
	type name string
	for _, c := range []struct {
		in   any
		want string
	}{
		{[]string{"a", "b"}, "a,b"}, {"a", "a"}, {[]name{"a b", "c"}, "a b,c"}, {[]int{1, 2}, "1,2"}, {nil, "<nil>"}, {[]string(nil), ""},
	} {
		if got := joinAny(c.in, ","); got != c.want {
			t.Errorf("%v: %q, want %q", c.in, got, c.want)
		}
	}
	w := newWorld(t)
	w.loadRecording()
	file := w.file("t", "{{range .}}{{range .Items}}{{.Spec.Order}} {{end}}{{end}}")
	if got := w.ok("get", "gnp", "-o", "go-template-file="+file); !strings.HasSuffix(got, " ") {
		t.Errorf("%q", got)
	}
	w.fails(`only "asnumber" is known`, "get", "gnp", "-o", `go-template={{config "x"}}`)
}

func TestBoxedTable(t *testing.T) {
	var b strings.Builder
	tab := table{header: []string{"A", "B"}}
	tab.add("é\n", "1")
	tab.add("x")
	tab.printBoxed(&b, 1)
	want := fmt.Sprint("+------+---+\n| A    | B |\n+------+---+\n", `| é\x0a | 1 |`, "\n| x    |   |\n+------+---+\n")
	got := b.String()
	lines := strings.Split(got, "\n")
	if slices.ContainsFunc(lines[:len(lines)-1], func(l string) bool { return len([]rune(l)) != len([]rune(lines[0])) }) {
		t.Errorf("crooked:\n%s\nwant\n%s", got, want)
	}
}
