package server

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	v3 "github.com/brindle-net/brindle/api/v3"
	"github.com/brindle-net/brindle/internal/client"
	"github.com/brindle-net/brindle/internal/store"
	"github.com/brindle-net/brindle/internal/store/mem"
)

// keeping is an audit that runs, in a bubble.
type keeping struct {
	t    *testing.T
	stop func()
}

func keepAudit(t *testing.T, d store.Driver, cfg AuditConfig) *keeping {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { defer close(done); _ = KeepAudit(ctx, d, cfg) }()
	k := &keeping{t: t, stop: func() { cancel(); <-done }}
	t.Cleanup(func() { k.stop() })
	synctest.Wait()
	return k
}

// audited returns the lines of a log about one name, and those about the log.
func audited(t *testing.T, dir, name string) []string {
	t.Helper()
	synctest.Wait()
	list, err := ReadAudit(dir, 1000, func(c Change) bool { return c.Name == name })
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	last := ""
	for _, c := range list {
		s := c.Action
		if c.Kind != "" {
			s += " " + c.Kind + " " + c.By
		}
		if c.Later {
			s += " later"
		}
		if c.Action == ActionChanged && c.Old != last && last != "" {
			t.Errorf("%+v does not follow %s", c, last)
		}
		last = c.New
		if c.Time.IsZero() || c.At == "" || c.Old == c.New && c.Kind != "" {
			t.Errorf("line %+v", c)
		}
		out = append(out, s)
	}
	return out
}

// life creates, changes and deletes a set of networks.
func life(t *testing.T, d store.Driver, name string, steps int) {
	t.Helper()
	ctx, c := t.Context(), client.New(d, client.Config{})
	set := &v3.GlobalNetworkSet{}
	set.Name = name
	if steps == 0 {
		return
	}
	_, err := client.Create(ctx, c, set)
	if err == nil && steps > 1 {
		_, err = client.Modify(ctx, c, "", name, func(s *v3.GlobalNetworkSet) error { s.Labels = map[string]string{"a": "b"}; return nil })
	}
	if err == nil && steps > 2 {
		err = client.Delete[v3.GlobalNetworkSet](ctx, c, "", name, client.Preconditions{})
	}
	if err != nil {
		t.Fatal(err)
	}
}

func same(t *testing.T, what string, got, want []string) {
	t.Helper()
	if !slices.Equal(got, want) {
		t.Errorf("%s:\n got %q\nwant %q", what, got, want)
	}
}

// TestAudit: who, what and when, through restarts, a kill and a compaction.
func TestAudit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d, cfg := mem.New(), AuditConfig{Dir: filepath.Join(t.TempDir(), "audit")}
		alice := client.Sign(d, client.Writer{By: "alice@h1", Via: "brindle apply"})
		life(t, d, "before", 1)
		k := keepAudit(t, d, cfg)
		life(t, alice, "a", 3)
		life(t, d, "b", 1)
		set := "GlobalNetworkSet "
		same(t, "signed", audited(t, cfg.Dir, "a"), []string{"began", "created " + set + "alice@h1", "changed " + set + "alice@h1", "deleted " + set + "alice@h1"})
		same(t, "not signed", audited(t, cfg.Dir, "b"), []string{"began", "created " + set})

		state, err := os.ReadFile(filepath.Join(cfg.Dir, auditStateFile)) // as it was before the last changes
		if err != nil {
			t.Fatal(err)
		}
		k.stop()
		life(t, alice, "c", 2)
		k = keepAudit(t, d, cfg)
		same(t, "while it was down", audited(t, cfg.Dir, "c"), []string{"began", "created " + set + "alice@h1 later", "changed " + set + "alice@h1 later"})
		k.stop()
		if err := os.WriteFile(filepath.Join(cfg.Dir, auditStateFile), state, 0o600); err != nil { // as after a kill
			t.Fatal(err)
		}
		f, err := os.OpenFile(filepath.Join(cfg.Dir, auditFile), os.O_APPEND|os.O_WRONLY, 0)
		if err == nil {
			_, err = f.WriteString(`{"time":"2026-`)
			f.Close()
		}
		if err != nil {
			t.Fatal(err)
		}
		k = keepAudit(t, d, cfg)
		same(t, "killed", audited(t, cfg.Dir, "c"), []string{"began", "created " + set + "alice@h1 later", "changed " + set + "alice@h1 later"})
		same(t, "killed", audited(t, cfg.Dir, "b"), []string{"began", "created " + set})
		k.stop()

		life(t, alice, "d", 2)
		if err := client.Delete[v3.GlobalNetworkSet](t.Context(), client.New(alice, client.Config{}), "", "b", client.Preconditions{}); err != nil {
			t.Fatal(err)
		}
		d.Compact()
		keepAudit(t, d, cfg)
		time.Sleep(time.Second)
		same(t, "compacted", audited(t, cfg.Dir, "d"), []string{"began", "gap", "created " + set + " later"})
		same(t, "compacted", audited(t, cfg.Dir, "b"), []string{"began", "created " + set, "gap", "deleted " + set + " later"})
		life(t, alice, "e", 1)
		same(t, "after the gap", audited(t, cfg.Dir, "e"), []string{"began", "gap", "created " + set + "alice@h1"})
	})
}

// TestAuditIsBounded: old lines go, the newest stay, and so does what a reader
// of one resource looks for.
func TestAuditIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d, cfg := mem.New(), AuditConfig{Dir: t.TempDir(), MaxBytes: 2000, Files: 3}
		keepAudit(t, d, cfg)
		for i := range 50 {
			life(t, d, fmt.Sprintf("s%d", i), 3)
			synctest.Wait()
		}
		size, files := int64(0), 0
		entries, err := os.ReadDir(cfg.Dir)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range entries {
			if info, err := e.Info(); err == nil && strings.HasSuffix(e.Name(), ".jsonl") {
				size, files = size+info.Size(), files+1
				if info.Mode().Perm() != 0o600 {
					t.Errorf("%s has mode %v", e.Name(), info.Mode())
				}
			}
		}
		if files != 3 || size > 3*2000 {
			t.Errorf("%d files of %d bytes", files, size)
		}
		if got := audited(t, cfg.Dir, "s49"); len(got) != 3 {
			t.Errorf("the newest: %q", got)
		}
		if got := audited(t, cfg.Dir, "s0"); len(got) != 0 {
			t.Errorf("the oldest: %q", got)
		}
		if few, err := ReadAudit(cfg.Dir, 2, func(Change) bool { return true }); err != nil || len(few) != 2 || few[1].Name != "s49" || few[1].Action != ActionDeleted {
			t.Errorf("the last two: %+v, %v", few, err)
		}
	})
}

// TestAuditMishaps: a state that cannot be read, and a datastore that began
// anew, are gaps.
func TestAuditMishaps(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d, cfg := mem.New(), AuditConfig{Dir: t.TempDir()}
		k := keepAudit(t, d, cfg)
		life(t, d, "a", 2)
		synctest.Wait()
		k.stop()
		if err := os.WriteFile(filepath.Join(cfg.Dir, auditStateFile), []byte("{"), 0o600); err != nil {
			t.Fatal(err)
		}
		k = keepAudit(t, d, cfg)
		set := "GlobalNetworkSet "
		same(t, "state lost", audited(t, cfg.Dir, "a"), []string{"began", "created " + set, "changed " + set, "gap"})
		for i := range 20 {
			life(t, d, fmt.Sprintf("x%d", i), 3)
		}
		synctest.Wait()
		k.stop()
		other := mem.New() // whose revisions are smaller
		life(t, other, "b", 1)
		keepAudit(t, other, cfg)
		time.Sleep(time.Second)
		same(t, "another datastore", audited(t, cfg.Dir, "b"), []string{"began", "gap", "gap", "created " + set + " later"})
		life(t, other, "c", 1)
		same(t, "and on", audited(t, cfg.Dir, "c"), []string{"began", "gap", "gap", "created " + set})
		if _, err := ReadAudit(filepath.Join(cfg.Dir, "nothing"), 1, nil); err == nil || !strings.Contains(err.Error(), "no audit log") {
			t.Errorf("no log: %v", err)
		}
	})
}

// TestAuditOfLongNames: whoever may write a key chooses its name.
func TestAuditOfLongNames(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d, cfg := mem.New(), AuditConfig{Dir: t.TempDir()}
		k := keepAudit(t, d, cfg)
		name := strings.Repeat("\x01", 400_000)
		if _, err := d.Create(t.Context(), store.ResourceID{Plural: "profiles", Name: name}.Key(), []byte("{}")); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		k.stop()
		keepAudit(t, d, cfg)
		life(t, d, "a", 1)
		set := "GlobalNetworkSet "
		same(t, "after it", audited(t, cfg.Dir, "a"), []string{"began", "created " + set})
		all, err := ReadAudit(cfg.Dir, 10, func(Change) bool { return true })
		if err != nil || len(all) != 3 || len(all[1].Name) > mostText+10 || all[1].Name[0] != 1 {
			t.Errorf("%d lines, %v", len(all), err)
		}
	})
}

// TestLinesThatAreTooLong: a log that has one is read on behind it.
func TestLinesThatAreTooLong(t *testing.T) {
	dir := t.TempDir()
	text := `{"action":"created","kind":"Tier","name":"a","at":"1"}` + "\n" +
		`{"action":"created","kind":"Tier","name":"` + strings.Repeat("x", 3*maxLine) + `","at":"2"}` + "\n" +
		`{"action":"created","kind":"Tier","name":"b","at":"3"}` + "\n"
	if err := os.WriteFile(filepath.Join(dir, auditFile), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	all, err := ReadAudit(dir, 10, func(Change) bool { return true })
	if err != nil || len(all) != 2 || all[0].Name != "a" || all[1].Name != "b" {
		t.Errorf("%d lines, %v", len(all), err)
	}
}

// TestRotationIsDoneAgain: a log whose new file could not be made goes on.
func TestRotationIsDoneAgain(t *testing.T) {
	cfg := AuditConfig{Dir: t.TempDir(), MaxBytes: 100, Files: 2}
	l, err := openAuditLog(cfg)
	if err != nil {
		t.Fatal(err)
	}
	line := func(name string) []Change {
		return []Change{{Action: ActionCreated, Kind: "Tier", Name: name, At: "1"}}
	}
	if err := l.append(line(strings.Repeat("a", 80))); err != nil {
		t.Fatal(err)
	}
	newest := olderAudit(cfg.Dir, 0)
	if err := os.Rename(newest, olderAudit(cfg.Dir, 1)); err != nil { // as far as an attempt came
		t.Fatal(err)
	}
	if err := l.append(line("b")); err != nil {
		t.Fatal(err)
	}
	if err := l.close(); err != nil {
		t.Fatal(err)
	}
	all, err := ReadAudit(cfg.Dir, 10, func(Change) bool { return true })
	if err != nil || len(all) != 2 || all[1].Name != "b" {
		t.Errorf("%+v, %v", all, err)
	}
}
