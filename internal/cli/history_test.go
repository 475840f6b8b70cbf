package cli

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/brindle-net/brindle/internal/server"
	"github.com/brindle-net/brindle/internal/testenv"
)

// waitUntil waits for something that another goroutine does.
func waitUntil(t *testing.T, holds func() bool) {
	t.Helper()
	testenv.Until(t, 30*time.Second, func() error {
		if !holds() {
			return errors.New("it does not hold yet")
		}
		return nil
	})
}

// lifeOfASet are commands that make, change and delete a set of networks.
func (w *world) lifeOfASet(more ...string) {
	w.t.Helper()
	file := w.file("s.yaml", "apiVersion: projectcalico.org/v3\nkind: NetworkSet\nmetadata: {name: office, namespace: shop}\nspec: {nets: [192.0.2.0/24]}\n")
	for _, args := range [][]string{
		{"apply", "-f", file}, {"label", "networkset", "office", "a=b", "-n", "shop"}, {"delete", "networkset", "office", "-n", "shop"},
	} {
		w.ok(append(args, more...)...)
	}
}

// TestHistory: what the commands change is in the server's log with who made
// it, in the order of its making, and comes out as a table and as JSON.
func TestHistory(t *testing.T) {
	w, dir := newWorld(t), t.TempDir()
	w.env["SUDO_USER"] = "alice\x1b[31m"
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = server.KeepAudit(ctx, w.db, server.AuditConfig{Dir: server.AuditDir(dir)})
	}()
	t.Cleanup(func() { cancel(); <-done })
	read := func(args ...string) []server.Change {
		t.Helper()
		var list []server.Change
		if err := json.Unmarshal([]byte(w.ok(append([]string{"history", "--data-dir", dir, "-o", "json"}, args...)...)), &list); err != nil {
			t.Fatal(err)
		}
		return slices.DeleteFunc(list, func(c server.Change) bool { return c.Kind == "" })
	}
	waitUntil(t, func() bool { _, err := os.Stat(filepath.Join(server.AuditDir(dir), "state.json")); return err == nil })
	w.lifeOfASet()
	waitUntil(t, func() bool { return len(read("networkset", "office", "-n", "shop")) == 3 })
	list := read("networkset/office", "-n", "shop")
	for i, want := range []struct{ action, via string }{{"created", "brindle apply"}, {"changed", "brindle label"}, {"deleted", "brindle delete"}} {
		c := list[i]
		if c.Action != want.action || c.Via != want.via || !strings.HasPrefix(c.By, "alice") || c.Kind != "NetworkSet" || c.Namespace != "shop" || c.Name != "office" {
			t.Errorf("line %d: %+v", i, c)
		}
		if i > 0 && c.Old != list[i-1].New {
			t.Errorf("%+v does not follow %+v", c, list[i-1])
		}
	}
	table := w.ok("history", "networkset", "office", "-n", "shop", "--data-dir", dir)
	lines := strings.Split(strings.TrimSpace(table), "\n")
	if len(lines) != 5 || !strings.HasPrefix(lines[0], "TIME ") || !strings.Contains(lines[1], "began") || !strings.Contains(lines[4], "deleted") || strings.Contains(table, "\x1b") {
		t.Errorf("table:\n%q", table)
	}
	if got := read("networkset", "office"); len(got) != 0 { // the namespace is another
		t.Errorf("of another namespace: %+v", got)
	}
	if got := read("--limit", "1"); len(got) != 1 || got[0].Action != "deleted" {
		t.Errorf("the newest: %+v", got)
	}
	if tiers := read("tiers"); len(tiers) != 3 { // the built-in ones, made by the first command
		t.Errorf("tiers: %+v", tiers)
	}
	for _, c := range []struct{ want, line string }{
		{"there is no audit log here", "history --data-dir /nonexistent"},
		{"are not kept", "history workloadendpoint x --data-dir " + dir},
		{"there is no kind", "history nosuch"},
		{"more than nothing", "history --limit 0"},
		{"output format", "history -o yaml"},
	} {
		w.fails(c.want, line(c.line)...)
	}
}

// TestOwnAuditLog: a user's file has a line for each change that his commands
// made, and nothing is changed when it cannot be written.
func TestOwnAuditLog(t *testing.T) {
	w := newWorld(t)
	w.ok("apply", "-f", w.file("hosts.yaml", twoHosts)) // and what every network has
	path := filepath.Join(t.TempDir(), "audit.jsonl")
	w.env[auditVariable] = path
	w.ok("get", "nodes")
	if _, err := os.Stat(path); err == nil {
		t.Error("a command that changes nothing made the file")
	}
	w.lifeOfASet()
	delete(w.env, auditVariable)
	w.lifeOfASet("--audit-log", path)
	w.lifeOfASet()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var actions []string
	for r := bufio.NewScanner(f); r.Scan(); {
		var c server.Change
		if err := json.Unmarshal(r.Bytes(), &c); err != nil || c.By == "" || c.Time.IsZero() || c.Name != "office" {
			t.Errorf("%v: %s", err, r.Text())
		}
		if strings.Contains(r.Text(), "192.0.2.0") {
			t.Errorf("a value is in it: %s", r.Text())
		}
		actions = append(actions, c.Action)
	}
	want := []string{"created", "changed", "deleted", "created", "changed", "deleted"}
	if !slices.Equal(actions, want) {
		t.Errorf("lines %q, want %q", actions, want)
	}
	if got := w.ok("history", "networksets", "-f", path); strings.Count(got, "shop/office") != 6 {
		t.Errorf("history of the file:\n%s", got)
	}
	w.env[auditVariable] = filepath.Join(t.TempDir(), "no", "such", "folder")
	w.fails("audit log: ", "label", "node", "h1", "a=b")
	if strings.Contains(w.ok("get", "node", "h1", "-o", "yaml"), "a: b") {
		t.Error("changed, and not noted")
	}
}

// TestOwnAuditLogIsBounded: a file that has grown large is put aside.
func TestOwnAuditLogIsBounded(t *testing.T) {
	path := filepath.Join(t.TempDir(), "audit.jsonl")
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(path, maxOwnAudit+1); err != nil {
		t.Fatal(err)
	}
	f, err := openOwnAudit(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if now, err := os.Stat(path); err != nil || now.Size() != 0 || now.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", now, err)
	}
	if old, err := os.Stat(path + ".1"); err != nil || old.Size() != maxOwnAudit+1 {
		t.Errorf("%v, %v", old, err)
	}
}
