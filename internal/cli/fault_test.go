package cli

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/brindle-net/brindle/internal/store/mem"
)

// With -o json every line on standard error is JSON that says what standard
// error says else.
func TestErrorsAsJSON(t *testing.T) {
	w := newWorld(t)
	w.loadRecording()
	bad := w.file("bad.yaml", "apiVersion: projectcalico.org/v3\nkind: Tier\nmetadata: {name: a}\nspec: {ordr: 5}\n")
	warned := w.file("w.yaml", "apiVersion: projectcalico.org/v3\nkind: HostEndpoint\nmetadata: {name: a}\nspec: {node: h1, interfaceName: eth0}\n")
	for _, c := range []struct {
		name   string
		in     []string
		status int
		want   string // in the error
	}{
		{"missing", line("get node n9 -o json"), 1, "resource does not exist: Node(n9)"},
		{"unknown kind", line("get nod -o json"), 1, "there is no kind"},
		{"unknown flag", line("get nodes --nosuch -o json"), 1, "unknown flag"},
		{"unknown flag, short", line("get nodes --nosuch -ojson"), 1, "unknown flag"},
		{"unknown command", line("gte nodes --output=json"), 1, "unknown flag: --output"},
		{"file", []string{"apply", "-f", bad, "-o", "json"}, 1, "spec.ordr"},
		{"write", line("delete tier security -o json"), 1, "must be name"},
		{"ipam", line("ipam show --ip x -o json"), 1, "must be an IPv4 or IPv6 address"},
		{"datastore", line("get nodes -o json --etcd-endpoints x"), 1, "no URL"},
		{"no agent", line("node status -o json --socket /nonexistent"), 1, "/nonexistent"},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := w.in(t).run(c.in...)
			var f fault
			if err := json.Unmarshal([]byte(got.stderr), &f); err != nil || strings.Count(got.stderr, "\n") != 1 {
				t.Fatalf("%v: %q", err, got.stderr)
			}
			if got.status != c.status || f.Status != c.status || got.stdout != "" || !strings.Contains(f.Error, c.want) {
				t.Errorf("%+v", got)
			}
			if c.name == "file" {
				want := fieldFault{File: bad, Document: 1, Kind: "Tier", Name: "a", Field: "spec.ordr"}
				is := f.Fields[0]
				is.Value, is.Rule, is.Hint = "", "", ""
				if len(f.Fields) != 1 || is != want {
					t.Errorf("%+v, want %+v", f.Fields, want)
				}
			}
		})
	}
	got := w.run("apply", "-f", warned, "-o", "json")
	var warning struct{ Warning string }
	first, _, _ := strings.Cut(got.stderr, "\n")
	if err := json.Unmarshal([]byte(first), &warning); err != nil || got.status != 0 || !strings.Contains(warning.Warning, "not honoured") || !json.Valid([]byte(got.stdout)) {
		t.Errorf("%v: %+v", err, got)
	}
	// Without it, and behind --, errors are text.
	for _, in := range []string{"get node n9", "get node n9 -o yaml", "label node n9 -- -o json"} {
		if got := w.run(line(in)...); !strings.HasPrefix(got.stderr, "brindle: ") {
			t.Errorf("%s: %+v", in, got)
		}
	}
}

// calicoctl's flags that mean nothing here are taken everywhere.
func TestGlobalFlags(t *testing.T) {
	w := newWorld(t)
	w.loadRecording()
	want := w.ok(line("get nodes")...)
	for _, in := range []string{
		"get nodes --allow-version-mismatch", "--allow-version-mismatch get nodes", "get nodes --allow-version-mismatch=false",
		"get nodes --log-level debug", "-l debug get nodes", "-ldebug get nodes", "-l=debug get nodes", "--log-level=panic get nodes",
	} {
		if got := w.ok(line(in)...); got != want {
			t.Errorf("%s: %q", in, got)
		}
	}
	w.ok(line("label node n1 a=b -l debug")...)
	w.ok(line("ipam show -l panic")...)
	w.ok(line("version --client -ldebug --allow-version-mismatch")...)
}

// A long apply tells how far it is, on a terminal only, and takes the line away.
func TestProgress(t *testing.T) {
	var docs strings.Builder
	const n = 1000
	for i := range n {
		fmt.Fprintf(&docs, "---\napiVersion: projectcalico.org/v3\nkind: NetworkSet\nmetadata: {name: s%d}\n", i)
	}
	w := newWorld(t)
	file := w.file("n.yaml", docs.String())
	for _, c := range []struct {
		name            string
		terminal        bool
		in              []string
		first, contains string
	}{
		{"terminal", true, []string{"apply", "-f", file}, "\rapplied 0 of 1000 (0%)", "\rapplied 500 of 1000 (50%)"},
		{"no terminal", false, []string{"apply", "-f", file}, "", ""},
		{"JSON", true, []string{"apply", "-f", file, "-o", "json"}, "", ""},
	} {
		w.db = mem.New()
		var stdout, stderr bytes.Buffer
		e := w.environment(&stdout, &stderr)
		e.ErrTerminal = c.terminal
		status := Run(t.Context(), e, c.in)
		said := stderr.String()
		if status != 0 || !strings.HasPrefix(said, c.first) || !strings.Contains(said, c.contains) || c.first == "" && said != "" {
			t.Errorf("%s: status %d, %.200q", c.name, status, said)
		}
		if c.first != "" && (strings.Count(said, "\r") > 110 || !strings.HasSuffix(said, "\r\x1b[K")) {
			t.Errorf("%s: %d lines, the last one stays: %q", c.name, strings.Count(said, "\r"), said[len(said)-40:])
		}
	}
}
