package cli

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/brindle-net/brindle/internal/store"
	"github.com/brindle-net/brindle/internal/store/etcd"
	"github.com/brindle-net/brindle/internal/store/mem"
)

// world is what the commands of a test see: a datastore in memory, an
// environment, standard input.
type world struct {
	t        *testing.T
	db       store.Driver
	env      map[string]string
	stdin    string
	terminal bool
	calicos  string        // calicoctl's own file; "" if there is none
	opened   []etcd.Config // how the datastore was asked for
}

// memStore is a datastore in memory that can be closed any number of times.
type memStore struct{ store.Driver }

func (memStore) Close() error { return nil }

// Pages hands over what the datastore below does.
func (m memStore) Pages(ctx context.Context, prefix string, page func([]store.KV, store.Revision) error) error {
	return store.Pages(ctx, m.Driver, prefix, page)
}

// Reached says what the datastore below does.
func (m memStore) Reached(at, rev store.Revision) (bool, error) {
	return store.Reached(m.Driver, at, rev)
}

// txStore is one that can write several keys in one moment.
type txStore struct{ memStore }

// Transact writes to the datastore below.
func (m txStore) Transact(ctx context.Context, writes []store.Write) (store.Revision, error) {
	return m.Driver.(store.Transactor).Transact(ctx, writes)
}

func newWorld(t *testing.T) *world {
	t.Helper()
	return &world{t: t, db: mem.New(), env: map[string]string{"ETCD_ENDPOINTS": "http://192.0.2.1:2379"}}
}

// in returns the same world for a part of the test.
func (w *world) in(t *testing.T) *world {
	part := *w
	part.t = t
	return &part
}

// outcome is what a command did, as its caller sees it.
type outcome struct {
	status         int
	stdout, stderr string
}

// run carries out one command line.
func (w *world) run(args ...string) outcome {
	w.t.Helper()
	return w.runContext(w.t.Context(), args...)
}

func (w *world) runContext(ctx context.Context, args ...string) outcome {
	var stdout, stderr bytes.Buffer
	status := Run(ctx, w.environment(&stdout, &stderr), args)
	return outcome{status, stdout.String(), stderr.String()}
}

// runTo carries out a command line whose standard output goes elsewhere; what
// it says besides goes to the test's log.
func (w *world) runTo(stdout io.Writer, args ...string) int {
	w.t.Helper()
	var stderr bytes.Buffer
	status := Run(w.t.Context(), w.environment(stdout, &stderr), args)
	if stderr.Len() > 0 {
		w.t.Logf("%q: %s", args, &stderr)
	}
	return status
}

func (w *world) environment(stdout, stderr io.Writer) *Env {
	return &Env{
		Stdin: strings.NewReader(w.stdin), Stdout: stdout, Stderr: stderr, Terminal: w.terminal, Build: "v1.2.3",
		CalicoctlFile: cmp.Or(w.calicos, "/nonexistent/calicoctl.cfg"),
		Getenv:        func(name string) string { return w.env[name] },
		Environ:       func() []string { return nil },
		Open: func(cfg etcd.Config) (Datastore, error) {
			w.opened = append(w.opened, cfg)
			if _, ok := w.db.(store.Transactor); ok {
				return txStore{memStore{w.db}}, nil
			}
			return memStore{w.db}, nil
		},
	}
}

// line splits a command line at its spaces.
func line(s string) []string { return strings.Fields(s) }

// ok carries out a command line that must succeed and say nothing on standard
// error, and returns what it printed.
func (w *world) ok(args ...string) string {
	w.t.Helper()
	got := w.run(args...)
	if got.status != 0 || got.stderr != "" {
		w.t.Fatalf("%q: exit status %d\nstdout: %s\nstderr: %s", args, got.status, got.stdout, got.stderr)
	}
	return got.stdout
}

// fails carries out a command line that must fail, print nothing on standard
// output, and say a text once on standard error.
func (w *world) fails(text string, args ...string) string {
	w.t.Helper()
	got := w.run(args...)
	if got.status != 1 || got.stdout != "" || strings.Count(got.stderr, text) != 1 {
		w.t.Fatalf("%q: exit status %d\nstdout: %s\nstderr: %s\nwant %q once", args, got.status, got.stdout, got.stderr, text)
	}
	return got.stderr
}

// loadRecording puts what Calico's own programs stored into the datastore.
func (w *world) loadRecording() {
	w.t.Helper()
	data, err := os.ReadFile("testdata/etcd.json")
	if err != nil {
		w.t.Fatal(err)
	}
	var all map[string]json.RawMessage
	if err := json.Unmarshal(data, &all); err != nil {
		w.t.Fatal(err)
	}
	for key, value := range all {
		if _, err := w.db.Create(w.t.Context(), key, value); err != nil {
			w.t.Fatal(err)
		}
	}
}

// file writes a file and returns its path.
func (w *world) file(name, content string) string {
	w.t.Helper()
	path := filepath.Join(w.t.TempDir(), name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		w.t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
		w.t.Fatal(err)
	}
	return path
}

// keys lists what is stored below a prefix.
func (w *world) keys(prefix string) []string {
	w.t.Helper()
	list, err := w.db.List(w.t.Context(), prefix)
	if err != nil {
		w.t.Fatal(err)
	}
	var out []string
	for _, kv := range list.KVs {
		out = append(out, strings.TrimPrefix(kv.Key, prefix))
	}
	return out
}

// broken is a datastore that does not answer.
type broken struct{ store.Driver }

var errBroken = errors.New("connection refused")

func (broken) Get(context.Context, string) (store.KV, error)       { return store.KV{}, errBroken }
func (broken) List(context.Context, string) (store.Listing, error) { return store.Listing{}, errBroken }
