package etcd_test

import (
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/brindle-net/brindle/internal/store"
	"github.com/brindle-net/brindle/internal/store/embedded"
	"github.com/brindle-net/brindle/internal/store/etcd"
)

// quick makes failures show at once.
func quick(endpoints ...string) etcd.Config {
	return etcd.Config{Endpoints: endpoints, CallTimeout: 200 * time.Millisecond, CheckInterval: 100 * time.Millisecond}
}

func shortDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "be")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

func TestErrorsSayWhyNothingAnswers(t *testing.T) {
	dir := shortDir(t)
	silent, err := net.Listen("unix", filepath.Join(dir, "s"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { silent.Close() })
	tests := []struct{ name, endpoint, want string }{
		{"nobody there", "unix://" + filepath.Join(dir, "x"), "no such file or directory"},
		{"silence", "unix://" + filepath.Join(dir, "s"), "connects, but does not answer"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			d := connect(t, quick(tt.endpoint))
			_, err := d.Get(t.Context(), "/calico/x")
			if !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), tt.want) || !strings.Contains(err.Error(), "/calico/x") {
				t.Errorf("error is %v, want a time-out with %q", err, tt.want)
			}
			b := <-d.Watch(t.Context(), "/calico/", "")
			if b.Err == nil || !strings.Contains(b.Err.Error(), tt.want) {
				t.Errorf("watch ended with %v, want %q", b.Err, tt.want)
			}
		})
	}
}

// readUntil reads a watch until a batch fits.
func readUntil(t *testing.T, in <-chan store.Batch, fits func(store.Batch) bool) store.Batch {
	t.Helper()
	deadline := time.After(time.Minute)
	for {
		select {
		case b, ok := <-in:
			if !ok {
				t.Fatal("the watch ended")
			}
			if fits(b) {
				return b
			}
		case <-deadline:
			t.Fatal("the batch does not come")
		}
	}
}

func TestWatchTellsThatTheServerIsGone(t *testing.T) {
	cfg := embedded.Config{Dir: filepath.Join(shortDir(t), "d"), UnsafeNoFsync: true}
	s, err := embedded.Start(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	d := connect(t, quick(s.Endpoint()))
	in := d.Watch(t.Context(), "/", "")
	stood := readUntil(t, in, func(b store.Batch) bool { return b.Err == nil })
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	end := readUntil(t, in, func(b store.Batch) bool { return b.Err != nil })
	if errors.Is(end.Err, store.ErrCompacted) {
		t.Errorf("a dead server is taken for a compacted one: %v", end.Err)
	}
	if s, err = embedded.Start(t.Context(), cfg); err != nil {
		t.Fatal(err)
	}
	retry := connect(t, etcd.Config{Endpoints: []string{s.Endpoint()}})
	in = retry.Watch(t.Context(), "/", stood.Revision)
	readUntil(t, in, func(b store.Batch) bool { return b.Err == nil })
	if _, err := retry.Create(t.Context(), "/a", []byte("v")); err != nil {
		t.Fatal(err)
	}
	readUntil(t, in, func(b store.Batch) bool { return len(b.Events) == 1 })
}

// TestWatchNoticesAnotherDatastore puts an empty etcd in the place of one that
// is being watched, and writes until its revisions have passed the old ones.
func TestWatchNoticesAnotherDatastore(t *testing.T) {
	dir := shortDir(t)
	start := func(name string) *embedded.Server {
		s, err := embedded.Start(t.Context(), embedded.Config{Dir: filepath.Join(dir, name), Socket: filepath.Join(dir, "r", "sock"), UnsafeNoFsync: true})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { s.Close() })
		return s
	}
	one := start("one")
	d := connect(t, etcd.Config{Endpoints: []string{one.Endpoint()}, CheckInterval: 100 * time.Millisecond})
	if _, err := d.Create(t.Context(), "/a", nil); err != nil {
		t.Fatal(err)
	}
	list, err := d.List(t.Context(), "/")
	if err != nil {
		t.Fatal(err)
	}
	running := d.Watch(t.Context(), "/", list.Revision)
	readUntil(t, running, func(b store.Batch) bool { return b.Err == nil })
	if err := one.Close(); err != nil {
		t.Fatal(err)
	}
	start("two")
	for _, key := range []string{"/b", "/c", "/d"} {
		if _, err := d.Create(t.Context(), key, nil); err != nil {
			t.Fatal(err)
		}
	}
	// The old server cut the stream, or the check finds another cluster,
	// whichever comes first.
	readUntil(t, running, func(b store.Batch) bool { return b.Err != nil })
	end := readUntil(t, d.Watch(t.Context(), "/", list.Revision), func(b store.Batch) bool { return b.Err != nil })
	if !errors.Is(end.Err, store.ErrCompacted) {
		t.Errorf("a resumed watch ended with %v, want ErrCompacted", end.Err)
	}
}

func TestOneOfSeveralEndpointsIsEnough(t *testing.T) {
	s := startServer(t)
	dead := "unix://" + filepath.Join(shortDir(t), "x")
	for _, endpoints := range [][]string{{dead, s.Endpoint()}, {s.Endpoint(), dead}} {
		d := connect(t, etcd.Config{Endpoints: endpoints})
		if _, err := d.List(t.Context(), "/"); err != nil {
			t.Error(err)
		}
		readUntil(t, d.Watch(t.Context(), "/", ""), func(b store.Batch) bool { return b.Err == nil })
	}
}

// TestReconnects lets an etcd be away for longer than a call may take.
func TestReconnects(t *testing.T) {
	cfg := embedded.Config{Dir: filepath.Join(shortDir(t), "d"), UnsafeNoFsync: true}
	s, err := embedded.Start(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	d := connect(t, etcd.Config{Endpoints: []string{s.Endpoint()}, CallTimeout: 500 * time.Millisecond})
	if _, err := d.Create(t.Context(), "/a", nil); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		if _, err := d.Get(t.Context(), "/a"); err == nil {
			t.Error("a dead etcd answers")
		}
	}
	if s, err = embedded.Start(t.Context(), cfg); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	deadline := time.Now().Add(time.Minute)
	for {
		_, err := d.Get(t.Context(), "/a")
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatal(err)
		}
	}
}

func TestClosedDriver(t *testing.T) {
	d := connect(t, quick(startServer(t).Endpoint()))
	in := d.Watch(t.Context(), "/", "")
	readUntil(t, in, func(b store.Batch) bool { return b.Err == nil })
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	readUntil(t, in, func(b store.Batch) bool { return b.Err != nil })
	if _, err := d.Get(t.Context(), "/a"); err == nil {
		t.Error("a closed driver still reads")
	}
}
