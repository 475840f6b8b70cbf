package cli

import (
	"encoding/json"
	"strings"
	"testing"
)

const shopFile = "../policytest/testdata/shop.yaml"

// TestExplainFiles asks of the connections of a shop.
func TestExplainFiles(t *testing.T) {
	w := newWorld(t)
	for _, c := range []struct {
		args   string
		status int
		want   []string
	}{
		{"--from red/web --to red/api:8080", 0, []string{
			"ALLOWED  red/web → red/api 8080/tcp (192.168.0.1 → 192.168.0.2)\n",
			"\negress of WorkloadEndpoint red/web: allowed\n  egress[0] of Profile kns.red allows it\n",
			"\ningress of WorkloadEndpoint red/api: allowed\n  ingress[0] of NetworkPolicy red/api in tier default allows it\n",
		}},
		{"--from red/web --to red/db:5432/tcp", 1, []string{
			"DENIED  red/web → red/db 5432/tcp",
			"\n  nearest: ingress[0] of NetworkPolicy red/db in tier default would allow it, but source 192.168.0.1 (WorkloadEndpoint red/web) has tier = \"web\", selector wants tier == \"api\"\n",
			"\n  tier tenants: passes the flow on\n    GlobalNetworkPolicy red: passes the flow on\n      ingress[0] Pass: matched\n",
			"\n  tier default: no rule matched, and its end denies\n    NetworkPolicy red/db: no rule matched\n",
		}},
		{"--from blue/web --to 192.0.2.1", 0, []string{
			" icmp (192.168.0.4 → 192.0.2.1)\n  destination 192.0.2.1 is no workload",
			"\n  Profile kns.blue: allows\n",
		}},
		{"--from api --to [fd00:192:168::3]:5432 --from-port 99", 0, []string{"red/db 5432/tcp (fd00:192:168::2 → fd00:192:168::3)"}},
		{"--from web --to api", 2, nil},
		{"--from red/web --to red/ap", 2, nil},
	} {
		t.Run(c.args, func(t *testing.T) {
			got := w.in(t).run(append([]string{"explain", "-f", shopFile}, line(c.args)...)...)
			if got.status != c.status || (got.status == 2) != (got.stderr != "") {
				t.Errorf("exit status %d: %s%s", got.status, got.stdout, got.stderr)
			}
			for _, want := range c.want {
				if !strings.Contains(got.stdout, want) {
					t.Errorf("want %q in\n%s", want, got.stdout)
				}
			}
		})
	}
}

func TestExplainJSON(t *testing.T) {
	w := newWorld(t)
	got := w.run("explain", "-f", shopFile, "--from", "red/web", "--to", "red/db:5432", "-o", "json")
	var j struct {
		Allowed bool
		Answers []struct {
			From, To, Target string
			Verdict          struct {
				Allowed         bool
				Egress, Ingress struct {
					Allowed bool
					By      struct {
						Tier  string
						Index *int
					}
					Nearest struct{ Rule struct{ Owner string } }
					Tiers   []struct{ Outcome string }
				}
			}
		}
	}
	if err := json.Unmarshal([]byte(got.stdout), &j); err != nil || got.status != 1 || len(j.Answers) != 1 {
		t.Fatalf("%v, exit status %d: %s", err, got.status, got.stdout)
	}
	v := j.Answers[0].Verdict
	if in := v.Ingress; j.Allowed || v.Allowed || !v.Egress.Allowed || j.Answers[0].Target != "5432/tcp" || in.Allowed ||
		in.By.Tier != "default" || in.By.Index != nil || in.Nearest.Rule.Owner != "NetworkPolicy red/db" || len(in.Tiers) != 2 {
		t.Errorf("got %s", got.stdout)
	}
}

// TestExplainDatastore asks of what is stored, with the family that differs.
func TestExplainDatastore(t *testing.T) {
	w := newWorld(t)
	w.stdin = `
apiVersion: projectcalico.org/v3
kind: Node
metadata: {name: h1}
spec: {bgp: {ipv4Address: 192.0.2.10/24}}
---
apiVersion: projectcalico.org/v3
kind: WorkloadEndpoint
metadata: {name: h1-lab-a-eth0, namespace: x, labels: {app: a}}
spec: {node: h1, orchestrator: lab, workload: a, endpoint: eth0, interfaceName: cali1, ipNetworks: [10.0.0.1/32, "fd00::1/128"], profiles: [projectcalico-default-allow]}
---
apiVersion: projectcalico.org/v3
kind: WorkloadEndpoint
metadata: {name: h1-lab-b-eth0, namespace: x, labels: {app: b}}
spec: {node: h1, orchestrator: lab, workload: b, endpoint: eth0, interfaceName: cali2, ipNetworks: [10.0.0.2/32, "fd00::2/128"], profiles: [projectcalico-default-allow]}
---
apiVersion: projectcalico.org/v3
kind: GlobalNetworkPolicy
metadata: {name: four-only}
spec:
  selector: app == 'b'
  ingress: [{action: Allow, ipVersion: 4}]
`
	if got := w.run("apply", "-f", "-"); got.status != 0 {
		t.Fatal(got.stderr)
	}
	for _, c := range []struct {
		args, want string
		status     int
	}{
		{"--from a --to b:80", "DENIED  x/a → x/b 80/tcp (fd00::1 → fd00::2)", 1},
		{"--from a --to b:80", "ALLOWED  x/a → x/b 80/tcp (10.0.0.1 → 10.0.0.2)", 1},
		{"--from a --to b:80 --family v4", "ALLOWED", 0},
		{"--from x/a --to 10.0.0.2:80", "ALLOWED  x/a → x/b 80/tcp", 0},
		{"--from h1-lab-a-eth0 --to x/b", "icmp", 1},
		{"--from h1 --to b:80", "a host is always allowed to reach its own workloads", 0},
		{"--from a --to b:80 --family v4 --rules --probe", "not sent: this is no lab", 0},
		{"--from a --to b:80 --family v4 --rules", "kernel rules of x/b, interface cali2 on h1:\n  only the agent of h1 can say: run this there", 0},
	} {
		w.env["BRINDLE_SOCKET"] = t.TempDir() + "/nobody"
		got := w.in(t).run(append([]string{"explain"}, line(c.args)...)...)
		if got.status != c.status || !strings.Contains(got.stdout, c.want) {
			t.Errorf("%s: exit status %d, want %d and %q\n%s%s", c.args, got.status, c.status, c.want, got.stdout, got.stderr)
		}
	}
}

func TestExplainRefuses(t *testing.T) {
	w := newWorld(t)
	for _, c := range []struct{ args, want string }{
		{"--from a", "who to whom? Give --from and --to"},
		{"--from a --to b --family 4", `--family "4": must be v4 or v6`},
		{"--from a --to b -o yaml", `output format "yaml": must be text or json`},
		{"--from a --to b:http", `--to "b:http": port "http": must be 1 to 65535`},
		{"--from a --to b:80/ftp", `protocol "ftp": must be icmp, tcp, udp or sctp`},
		{"--from a --to [fd00::1", "must be as [fd00::1]:80/tcp"},
		{"--from a --to b:0", `port "0": must be 1 to 65535`},
		{"--from 192.0.2.1 --to fd00::1", "192.0.2.1 and fd00::1 have no address of the same family"},
		{"--from nobody --to b", `--from: there is no workload or host "nobody"`},
		{"--from a --to b --rules -f " + shopFile, "leave out -f"},
	} {
		got := w.run(append([]string{"explain"}, line(c.args)...)...)
		if got.status != 2 || got.stdout != "" || !strings.Contains(got.stderr, c.want) {
			t.Errorf("%s: exit status %d, %q; want %q", c.args, got.status, got.stderr, c.want)
		}
	}
}

// TestExplainStaged tells what staged policies would change.
func TestExplainStaged(t *testing.T) {
	w := newWorld(t)
	dir := w.file("staged/staged.yaml", `
apiVersion: projectcalico.org/v3
kind: StagedGlobalNetworkPolicy
metadata: {name: nobody}
spec: {order: 1, selector: tier == 'db', ingress: [{action: Deny}]}
---
apiVersion: brindle.net/v1
kind: PolicyTest
metadata: {name: staged}
spec: {assertions: [{from: red/api, to: red/db, port: 5432, verdict: deny, by: GlobalNetworkPolicy nobody}]}
`)
	got := w.ok("explain", "-f", shopFile, "-f", dir, "--from", "red/api", "--to", "red/db:5432")
	want := "\n  if the staged policies were enforced: denied: ingress: ingress[0] of GlobalNetworkPolicy nobody in tier default denies it\n"
	if !strings.Contains(got, want) {
		t.Errorf("got\n%s", got)
	}
	got = w.ok("explain", "-f", shopFile, "-f", dir, "--from", "red/api", "--to", "red/db:5432", "-o", "json")
	if !strings.Contains(got, `"staged": {`) {
		t.Errorf("got\n%s", got)
	}
	if got := w.run("policy", "test", "-f", shopFile, "-f", dir); got.status != 1 || !strings.Contains(got.stdout, "7 of 8 assertions hold") {
		t.Errorf("got %+v", got)
	}
	if got := w.run("policy", "test", "--staged", "-f", shopFile, "-f", dir); got.status != 1 || !strings.Contains(got.stdout, "red/db 5432/tcp: allow") {
		t.Errorf("got %+v", got)
	}
}
