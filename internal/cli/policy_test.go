package cli

import (
	"encoding/json"
	"encoding/xml"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"

	"github.com/brindle-net/brindle/internal/agentapi"
)

func TestPolicyTest(t *testing.T) {
	w := newWorld(t)
	w.env = nil // no datastore
	if got := w.ok("policy", "test", "-f", shopFile); got != "7 of 7 assertions hold, 17 connections judged\n" {
		t.Errorf("got %q", got)
	}
	bad := w.file("bad/test.yaml", `
apiVersion: brindle.net/v1
kind: PolicyTest
metadata: {name: bad}
spec:
  assertions: [{from: red/web, to: red/db, port: 5432, verdict: allow}]
`)
	args := []string{"policy", "test", "-f", shopFile, "-f", filepath.Dir(bad)}
	got := w.run(args...)
	if got.status != 1 || got.stderr != "" || !strings.Contains(got.stdout, "FAIL "+bad+": document 1: PolicyTest bad: spec.assertions[0]: red/web → red/db 5432/tcp: allow\n") ||
		!strings.Contains(got.stdout, "\n7 of 8 assertions hold, 19 connections judged\n") {
		t.Errorf("exit status %d\n%s%s", got.status, got.stdout, got.stderr)
	}
	for format, parses := range map[string]func(string) error{
		"json":  func(s string) error { var v any; return json.Unmarshal([]byte(s), &v) },
		"sarif": func(s string) error { var v any; return json.Unmarshal([]byte(s), &v) },
		"junit": func(s string) error { var v struct{}; return xml.Unmarshal([]byte(s), &v) },
	} {
		got := w.run(append(args, "-o", format)...)
		if err := parses(got.stdout); err != nil || got.status != 1 || !strings.Contains(got.stdout, "nearest is") {
			t.Errorf("%s: exit status %d, %v\n%s", format, got.status, err, got.stdout)
		}
	}
}

// TestPolicyTestRefuses holds the files to the same rules as apply does.
func TestPolicyTestRefuses(t *testing.T) {
	w := newWorld(t)
	const head = "apiVersion: brindle.net/v1\nkind: PolicyTest\nmetadata: {name: t}\nspec:\n  "
	for _, c := range []struct{ name, in, want string }{
		{"no test", "apiVersion: v1\nkind: Namespace\nmetadata: {name: a}\n", "there is no PolicyTest in the files"},
		{"a mistyped field", head + "assertions: [{form: a, to: b, port: 1, verdict: deny}]\n", `spec.assertions[0].form: unknown field (did you mean "from"?)`},
		{"a bad verdict", head + "assertions: [{from: a, to: b, port: 1, verdict: Deny}]\n", `document 1: PolicyTest t: spec.assertions[0].verdict: "Deny": must be allow or deny (write it in lower case)`},
		{"a bad policy", head + "assertions: [{from: a, to: b, port: 1, verdict: deny}]\n---\napiVersion: projectcalico.org/v3\nkind: NetworkPolicy\nmetadata: {name: p}\nspec: {selector: 'a =='}\n", "document 2: NetworkPolicy default/p: spec.selector"},
		{"a bad policy of Kubernetes", head + "assertions: [{from: a, to: b, port: 1, verdict: deny}]\n---\napiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: p}\nspec: {podSelector: {}, ingress: [{from: [{}]}]}\n", "document 2: NetworkPolicy default/p: spec.ingress[0].from[0]"},
		{"twice", head + "assertions: [{from: a, to: b, port: 1, verdict: deny}]\n---\napiVersion: v1\nkind: Pod\nmetadata: {name: p}\n---\napiVersion: v1\nkind: Pod\nmetadata: {name: p, namespace: default}\n", "is given twice"},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := w.in(t)
			w.stdin = c.in
			got := w.run("policy", "test", "-f", "-")
			if got.status != 2 || got.stdout != "" || !strings.Contains(got.stderr, c.want) {
				t.Errorf("exit status %d: %s%s\nwant %q", got.status, got.stdout, got.stderr, c.want)
			}
		})
	}
	if got := w.run("policy", "test", "-f", shopFile, "-o", "xml"); got.status != 2 || !strings.Contains(got.stderr, "must be text, junit, sarif or json") {
		t.Errorf("%+v", got)
	}
	if got := w.run("policy", "test"); got.status != 2 || !strings.Contains(got.stderr, "no file given") {
		t.Errorf("%+v", got)
	}
}

// agentSaying is an agent that answers one path.
func agentSaying(t *testing.T, path string, answer any) string {
	t.Helper()
	socket := filepath.Join(t.TempDir(), "a.sock")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		if r.URL.Path != path {
			http.NotFound(rw, r)
			return
		}
		if err := json.NewEncoder(rw).Encode(answer); err != nil {
			t.Error(err)
		}
	}))
	s.Listener = l
	s.Start()
	t.Cleanup(s.Close)
	return socket
}

func TestPolicyStats(t *testing.T) {
	w := newWorld(t)
	stats := agentapi.PolicyStats{Since: "2026-01-01T00:00:00Z", Rules: []agentapi.RuleStat{
		{Owner: "NetworkPolicy a/b", Direction: "ingress", Index: 1, Packets: 3, Bytes: 180, LastHit: "2026-01-02T00:00:00Z"},
		{Owner: "NetworkPolicy a/b", Direction: "ingress", Index: 0},
	}}
	socket := agentSaying(t, agentapi.PathPolicyStats, stats)
	want := `POLICY              RULE         PACKETS   BYTES   LAST HIT
NetworkPolicy a/b   ingress[0]   0         0       not since 2026-01-01T00:00:00Z
NetworkPolicy a/b   ingress[1]   3         180     2026-01-02T00:00:00Z
`
	if got := w.ok("policy", "stats", "--socket", socket); got != want {
		t.Errorf("got\n%s", got)
	}
	if got := w.ok("policy", "stats", "--socket", socket, "--unused", "-o", "json"); strings.Contains(got, `"index": 1`) || !strings.Contains(got, `"index": 0`) {
		t.Errorf("got\n%s", got)
	}
	w.fails("start it with `brindle agent`", "policy", "stats", "--socket", t.TempDir()+"/nobody")
	w.fails("must be json", "policy", "stats", "--socket", socket, "-o", "yaml")

	sum, err := sumStats(t.Context(), []string{socket, agentSaying(t, agentapi.PathPolicyStats, stats)})
	if err != nil || len(sum.Rules) != 2 || sum.Rules[1].Packets != 6 || sum.Rules[1].Bytes != 360 {
		t.Errorf("two hosts: %+v, %v", sum, err)
	}
}
