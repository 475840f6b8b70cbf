package cli

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	v3 "github.com/brindle-net/brindle/api/v3"
	"github.com/brindle-net/brindle/internal/client"
	"github.com/brindle-net/brindle/internal/ipam"
	"github.com/brindle-net/brindle/internal/store"
)

// The tables are calicoctl's, but for what is wrong there: a pool of 2^64
// addresses has not 2^63, nor fewer than none of them free.
func TestIPAMShow(t *testing.T) {
	w := newWorld(t)
	w.loadRecording()
	for _, c := range []struct{ name, in, want string }{
		{"pools", "ipam show", `
+----------+-----------------+------------+------------+--------------+-------------------+
| GROUPING | CIDR            | IPS TOTAL  | IPS IN USE | IPS RESERVED | IPS FREE          |
+----------+-----------------+------------+------------+--------------+-------------------+
| IP Pool  | 192.168.0.0/16  |      65536 |     1 (0%) |       4 (0%) |      65531 (100%) |
| IP Pool  | fd00:10:20::/64 | 1.8447e+19 |     2 (0%) |       0 (0%) | 1.8447e+19 (100%) |
| IP Pool  | 10.20.0.0/16    |      65536 |     0 (0%) |       0 (0%) |      65536 (100%) |
+----------+-----------------+------------+------------+--------------+-------------------+
`},
		{"blocks", "ipam show --show-blocks", `
+----------+--------------------------------------+------------+------------+--------------+-------------------+
| GROUPING | CIDR                                 | IPS TOTAL  | IPS IN USE | IPS RESERVED | IPS FREE          |
+----------+--------------------------------------+------------+------------+--------------+-------------------+
| IP Pool  | 192.168.0.0/16                       |      65536 |     1 (0%) |       4 (0%) |      65531 (100%) |
| Block    | 192.168.40.128/26                    |         64 |     1 (2%) |       0 (0%) |          63 (98%) |
| IP Pool  | fd00:10:20::/64                      | 1.8447e+19 |     2 (0%) |       0 (0%) | 1.8447e+19 (100%) |
| Block    | fd00:10:20:0:5add:9051:4065:cb40/122 |         64 |     2 (3%) |       0 (0%) |          62 (97%) |
| IP Pool  | 10.20.0.0/16                         |      65536 |     0 (0%) |       0 (0%) |      65536 (100%) |
+----------+--------------------------------------+------------+------------+--------------+-------------------+
`},
		{"address", "ipam show --ip=192.168.40.128", `
IP 192.168.40.128 is in use
Handle ID: k8s-pod-network.cid-0001
Active Owner Attributes:
  node: n1
  timestamp: 2026-11-21 05:27:52.98117532 +0000 UTC
`},
		{"free address", "ipam show --ip 192.168.40.150", "\n192.168.40.150 is not assigned\n"},
		{"address in no pool", "ipam show --ip 2001:db8::1", "\n2001:db8::1 is not assigned\n"},
		{"nothing borrowed", "ipam show --show-borrowed", `
+----+----------------+-------+-------------+------+--------------+
| IP | BORROWING-NODE | BLOCK | BLOCK OWNER | TYPE | ALLOCATED-TO |
+----+----------------+-------+-------------+------+--------------+
+----+----------------+-------+-------------+------+--------------+
`},
		{"configuration", "ipam show --show-configuration", `
+------------------------------+-------+
| PROPERTY                     | VALUE |
+------------------------------+-------+
| StrictAffinity               | false |
| AutoAllocateBlocks           | true  |
| MaxBlocksPerHost             | 0     |
| KubeVirtVMAddressPersistence |       |
| IPCooldownSeconds            | 0     |
+------------------------------+-------+
`},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := w.in(t)
			if got := "\n" + w.ok(line(c.in)...); got != c.want {
				t.Errorf("got:%s\nwant:%s", got, c.want)
			}
		})
	}
	// The first of the flags wins, as with calicoctl.
	if got := w.ok(line("ipam show --show-configuration --show-borrowed --show-blocks --ip 192.168.40.150")...); got != "192.168.40.150 is not assigned\n" {
		t.Errorf("%q", got)
	}
	for _, c := range []struct{ in, want string }{
		{"ipam show --ip 192.0.2", "must be an IPv4 or IPv6 address"}, {"ipam show --ip=", "must be an IPv4 or IPv6 address"},
		{"ipam show -o yaml", "output format"}, {"ipam show nosuch", "unknown command"},
	} {
		w.fails(c.want, line(c.in)...)
	}
}

func TestIPAMShowJSON(t *testing.T) {
	w := newWorld(t)
	w.loadRecording()
	var pools []struct {
		Pool   string
		CIDR   string
		Total  json.Number
		Free   json.Number
		Blocks []struct {
			CIDR, Affinity string
			InUse          int
		}
	}
	if err := json.Unmarshal([]byte(w.ok(line("ipam show --show-blocks -o json")...)), &pools); err != nil {
		t.Fatal(err)
	}
	got := fmt.Sprint(pools[1])
	want := "{pool-v6 fd00:10:20::/64 18446744073709551616 18446744073709551614 [{fd00:10:20:0:5add:9051:4065:cb40/122 host:n1 2}]}"
	if len(pools) != 3 || got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	for _, in := range []string{"ipam show --ip 192.168.40.128 -o json", "ipam show --show-borrowed -o json", "ipam show --show-configuration -o json", "ipam audit -o json"} {
		if out := w.run(line(in)...).stdout; !json.Valid([]byte(out)) {
			t.Errorf("%s: %s", in, out)
		}
	}
}

// assign gives an address to somebody.
func (w *world) assign(addr, host, handle string, attrs map[string]string) {
	w.t.Helper()
	m := ipam.New(ipam.Config{Driver: w.db})
	if _, err := m.AssignIP(w.t.Context(), ipam.AssignIPArgs{Addr: netip.MustParseAddr(addr), Host: host, Handle: handle, Attrs: attrs}); err != nil {
		w.t.Fatal(err)
	}
}

func TestIPAMBorrowed(t *testing.T) {
	w := newWorld(t)
	w.loadRecording()
	w.assign("192.168.40.140", "n2", "net.c9", map[string]string{"pod": "web", "namespace": "shop"})
	got := w.ok(line("ipam show --show-borrowed")...)
	if !strings.Contains(got, "| 192.168.40.140 | n2             | 192.168.40.128/26 | n1          | Pod  | shop/web     |\n") {
		t.Errorf("%s", got)
	}
}

func TestIPAMAudit(t *testing.T) {
	w := newWorld(t)
	w.loadRecording()
	got := w.run(line("ipam audit")...)
	if got.status != 0 || got.stderr != "" || !strings.HasSuffix(got.stdout, "\nAudit complete; 3 addresses, 0 leaks.\n") ||
		!strings.Contains(got.stdout, "workload default/n1-cni-cid--0001-eth0") {
		t.Fatalf("%+v", got)
	}
	old := map[string]string{"timestamp": "2020-01-01 00:00:00 +0000 UTC"}
	w.assign("192.168.40.150", "n1", "net.dead", old)
	w.assign("192.168.40.151", "gone", "net.gone", old)
	w.assign("192.168.40.152", "n1", "net.young", nil)
	got = w.run(line("ipam audit")...)
	if got.status != 1 || got.stderr != "" || !strings.HasSuffix(got.stdout, "\nAudit complete; 6 addresses, 2 leaks.\n") {
		t.Errorf("%+v", got)
	}
	for _, want := range []string{"the agent of n1 was not asked\n", "node gone is gone", "may be being set up"} {
		if strings.Count(got.stdout, want) != 1 {
			t.Errorf("%q is not there once: %s", want, got.stdout)
		}
	}
	got = w.run(line("ipam audit -o json")...)
	var a ipam.Audit
	if err := json.Unmarshal([]byte(got.stdout), &a); err != nil || got.status != 1 || a.Leaks != 2 || len(a.Addresses) != 6 {
		t.Errorf("%v %+v", err, got)
	}
	// The young one is a leak to who does not wait.
	if got := w.run(line("ipam audit --grace-period 1ns")...); !strings.HasSuffix(got.stdout, "6 addresses, 3 leaks.\n") {
		t.Errorf("%+v", got)
	}
	w.fails("--grace-period", line("ipam audit --grace-period 0s")...)
	w.fails("output format", line("ipam audit -o yaml")...)
	if got := newWorld(t).ok(line("ipam audit")...); got != "Audit complete; 0 addresses, 0 leaks.\n" {
		t.Errorf("%q", got)
	}
}

func TestIPAMCheck(t *testing.T) {
	w := newWorld(t)
	w.loadRecording()
	w.assign("192.168.40.150", "n1", "net.dead", nil)
	brief := w.ok(line("ipam check")...)
	if !strings.Contains(brief, "--show-problem-ips") || strings.Contains(brief, "192.168.40.150") {
		t.Errorf("%s", brief)
	}
	long := w.ok(line("ipam check --show-problem-ips")...)
	if !strings.Contains(long, `  192.168.40.150 is assigned to handle "net.dead" and nobody uses it`) {
		t.Errorf("%s", long)
	}
	last := func(s string) string { return s[strings.LastIndexByte(strings.TrimSuffix(s, "\n"), '\n')+1:] }
	if last(brief) != last(long) || !strings.HasPrefix(last(long), "Check complete; found ") {
		t.Errorf("%q, %q", last(brief), last(long))
	}
	all := w.ok(line("ipam check --show-all-ips")...)
	if !strings.Contains(all, "Workload(default/n1-cni-cid--0001-eth0)") || !strings.Contains(all, "nobody uses it") {
		t.Errorf("%s", all)
	}
	got := w.run(line("ipam check --kubeconfig x")...)
	if got.status != 0 || !strings.HasPrefix(got.stderr, "warning: --kubeconfig") {
		t.Errorf("%+v", got)
	}
	w.fails("no such file", line("ipam check -o /nonexistent/x --show-all-ips")...)
}

// lock sets what says that nobody may write meanwhile, in a new revision.
func (w *world) lock(ready bool) {
	w.t.Helper()
	c := client.New(w.db, client.Config{Component: true})
	if _, err := client.Modify(w.t.Context(), c, "", "default", func(info *v3.ClusterInformation) error {
		info.Spec.DatastoreReady = &ready
		return nil
	}); err != nil {
		w.t.Fatal(err)
	}
}

func TestIPAMRelease(t *testing.T) {
	w := newWorld(t)
	w.loadRecording()
	w.assign("192.168.40.150", "n1", "net.dead", nil)
	if got := w.ok(line("ipam release --ip 192.168.40.150")...); got != "Successfully released IP address 192.168.40.150\n" {
		t.Errorf("%q", got)
	}
	w.fails("IP address 192.168.40.150 is not assigned\n", line("ipam release --ip 192.168.40.150")...)
	w.fails("in use by Workload(default/n1-cni-cid--0001-eth0)", line("ipam release --ip 192.168.40.128")...)
	w.ok(line("ipam release --ip 192.168.40.128 --force")...)
	w.fails("is not assigned", line("ipam release --ip fd00:10:20::7")...)
	for _, in := range []string{"ipam release", "ipam release --ip 192.0.2.1 --from-report x"} {
		w.fails("one of the two", line(in)...)
	}
	w.fails("must be an IPv4", line("ipam release --ip x")...)
}

// Only what every report found leaked is released, and only from reports of
// this cluster that say what they must.
func TestIPAMReleaseFromReports(t *testing.T) {
	w := newWorld(t)
	w.loadRecording()
	dir := t.TempDir()
	report := func(name string) string {
		path := filepath.Join(dir, name)
		w.ok("ipam", "check", "-o", path)
		return path
	}
	unlocked := report("unlocked")
	w.lock(false)
	w.assign("192.168.40.150", "n1", "net.dead", nil)
	w.assign("192.168.40.151", "n1", "net.reused", nil)
	if _, err := w.db.Create(t.Context(), store.HandleKey("net.empty"), []byte(`{"handleID":"net.empty","block":{},"deleted":false}`)); err != nil {
		t.Fatal(err)
	}
	first := report("first")
	w.ok(line("ipam release --ip 192.168.40.151")...)
	w.assign("192.168.40.151", "n1", "net.other", nil)
	w.assign("192.168.40.152", "n1", "net.late", nil)
	second := report("second")

	edited := func(name string, change func(*ipam.Report)) string {
		data, err := os.ReadFile(second)
		if err != nil {
			t.Fatal(err)
		}
		var r ipam.Report
		if err := json.Unmarshal(data, &r); err != nil {
			t.Fatal(err)
		}
		change(&r)
		if data, err = json.Marshal(r); err != nil {
			t.Fatal(err)
		}
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	other := edited("other", func(r *ipam.Report) { r.ClusterGUID = "another" })
	older := edited("older", func(r *ipam.Report) { r.Version = "v0.1" })
	stale := edited("stale", func(r *ipam.Report) { r.ClusterInformationRevision = "1" })
	for _, c := range []struct {
		want string
		in   []string
	}{
		{"is of another cluster", []string{"--from-report", other, "--force"}},
		{"was written by version \"v0.1\"", []string{"--from-report", older}},
		{"datastore was not locked", []string{"--from-report", first, "--from-report", unlocked}},
		{"no report is current", []string{"--from-report", stale, "--force"}},
		{"is no report", []string{"--from-report", w.file("x", "[")}},
		{"is no report", []string{"--from-report", w.file("x", "{}")}},
		{"no such file", []string{"--from-report", "/nonexistent"}},
	} {
		w.fails(c.want, append([]string{"ipam", "release"}, c.in...)...)
	}

	got := w.ok("ipam", "release", "--from-report", first, "--from-report", second)
	want := "released 192.168.40.150\ndeleted handle net.empty\nSuccessfully released 1 address and 1 handle\n"
	if got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	for _, c := range []struct{ addr, want string }{
		{"150", "192.168.40.150 is not assigned\n"}, {"151", "IP 192.168.40.151 is in use\nHandle ID: net.other\n"}, {"152", "IP 192.168.40.152 is in use\n"},
	} {
		if got := w.ok("ipam", "show", "--ip", "192.168.40."+c.addr); !strings.HasPrefix(got, c.want) {
			t.Errorf("%s: %q", c.addr, got)
		}
	}
	w.ok("ipam", "release", "--from-report", older, "--force")
	if got := w.ok("ipam", "show", "--ip", "192.168.40.152"); got != "192.168.40.152 is not assigned\n" {
		t.Errorf("%q", got)
	}
}

func TestIPAMConfigure(t *testing.T) {
	w := newWorld(t)
	if got := w.ok(line("ipam configure --strictaffinity=true --max-blocks-per-host 3 --ip-cooldown-seconds 7")...); got !=
		"Successfully set StrictAffinity to: true\nSuccessfully set MaxBlocksPerHost to: 3\nSuccessfully set IPCooldownSeconds to: 7\n" {
		t.Errorf("%q", got)
	}
	if got := w.ok(line("ipam configure --strictaffinity TRUE")...); got != "Successfully set StrictAffinity to: true\n" {
		t.Errorf("%q", got)
	}
	got := w.run(line("ipam configure --kubevirt-ip-persistence Enabled")...)
	if got.status != 0 || got.stdout != "Successfully set KubeVirtVMAddressPersistence to: Enabled\n" || !strings.Contains(got.stderr, "not honoured") {
		t.Errorf("%+v", got)
	}
	if keys := w.keys(store.IPAMConfigKey); !slices.Equal(keys, []string{""}) {
		t.Errorf("stored %q", keys)
	}
	for _, c := range []struct{ in, want string }{
		{"ipam configure", "nothing to set"},
		{"ipam configure --strictaffinity maybe", "must be true or false"},
		{"ipam configure --strictaffinity false", "needs strictAffinity true"},
		{"ipam configure --max-blocks-per-host x", "invalid argument"},
		{"ipam configure --max-blocks-per-host -1", "maxBlocksPerHost -1"},
		{"ipam configure --kubevirt-ip-persistence on", "must be Enabled or Disabled"},
		{"ipam configure --ip-cooldown-seconds 5000", "ipCooldownSeconds 5000"},
	} {
		w.fails(c.want, line(c.in)...)
	}
	if got := w.ok(line("get ipamconfig -o wide")...); !strings.Contains(got, "default   true") {
		t.Errorf("%q", got)
	}
}
