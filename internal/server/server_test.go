package server

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	v3 "github.com/brindle-net/brindle/api/v3"
	"github.com/brindle-net/brindle/internal/client"
	"github.com/brindle-net/brindle/internal/store"
	"github.com/brindle-net/brindle/internal/store/embedded"
	"github.com/brindle-net/brindle/internal/store/etcd"
)

// logBook keeps a log for reading while it is written.
type logBook struct {
	mu  sync.Mutex
	buf bytes.Buffer // guarded by mu
}

func (l *logBook) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(p)
}

func (l *logBook) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.String()
}

func shortDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "bs") // short, as the path of a socket must be
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

// running is a server in the background.
type running struct {
	once   sync.Once // stops
	cancel context.CancelFunc
	done   chan error
	log    *logBook
	db     *etcd.Driver
}

func start(t *testing.T, cfg Config) *running {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	r := &running{cancel: cancel, done: make(chan error, 1), log: &logBook{}}
	ready := make(chan Status, 1)
	cfg.Ready = func(s Status) { ready <- s }
	cfg.UnsafeNoFsync = true
	cfg.Log = slog.New(slog.NewTextHandler(r.log, nil))
	go func() { r.done <- Run(ctx, cfg) }()
	select {
	case s := <-ready:
		db, err := etcd.New(etcd.Config{Endpoints: []string{s.Endpoint}})
		if err != nil {
			t.Fatal(err)
		}
		r.db = db
	case err := <-r.done:
		t.Fatalf("the server ended: %v\n%s", err, r.log)
	}
	t.Cleanup(func() { r.stop(t) })
	return r
}

// stop stops the server; again is fine.
func (r *running) stop(t *testing.T) {
	t.Helper()
	r.once.Do(func() {
		r.db.Close()
		r.cancel()
		if err := <-r.done; err != nil {
			t.Errorf("the server ended with %v", err)
		}
	})
}

func names(t *testing.T, db store.Driver) []string {
	t.Helper()
	list, err := db.List(t.Context(), store.ResourceRoot)
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, kv := range list.KVs {
		out = append(out, strings.TrimPrefix(kv.Key, store.ResourceRoot))
	}
	return out
}

func TestServerFillsANewDatastoreOnce(t *testing.T) {
	cfg := Config{Dir: filepath.Join(shortDir(t), "d"), Bootstrap: client.BootstrapConfig{IPv4Pool: &v3.IPPoolSpec{}}}
	want := []string{"clusterinformations/default", "ippools/default-ipv4-ippool", "tiers/default", "tiers/kube-admin", "tiers/kube-baseline"}
	for _, announced := range []bool{true, false} {
		s := start(t, cfg)
		if d := cmp.Diff(want, names(t, s.db)); d != "" {
			t.Error(d)
		}
		if got := strings.Contains(s.log.String(), "default-ipv4-ippool"); got != announced {
			t.Errorf("announced the pool: %v, want %v:\n%s", got, announced, s.log)
		}
		s.stop(t)
	}
}

func TestStatus(t *testing.T) {
	dir := filepath.Join(shortDir(t), "d")
	if _, err := ReadStatus(t.Context(), dir); !errors.Is(err, ErrNotRunning) {
		t.Errorf("status of nothing: %v", err)
	}
	s := start(t, Config{Dir: dir})
	st, err := ReadStatus(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	if st.Version != StatusVersion || st.Endpoint != "unix://"+dir+"/etcd.sock" || st.Revision < 4 || st.Size == 0 || st.Quota != embedded.DefaultQuota || st.Full || st.Problem != "" {
		t.Errorf("status %+v", st)
	}
	info, err := os.Stat(filepath.Join(dir, controlSocket))
	if err != nil || info.Mode() != os.ModeSocket|0o600 {
		t.Errorf("control socket: %v, %v", info.Mode(), err)
	}
	err = Run(t.Context(), Config{Dir: dir})
	if !errors.Is(err, embedded.ErrInUse) {
		t.Errorf("a second server: %v", err)
	}
	s.stop(t)
	if _, err := ReadStatus(t.Context(), dir); !errors.Is(err, ErrNotRunning) {
		t.Errorf("status after the end: %v", err)
	}
	if out := s.log.String(); strings.Contains(out, "level=WARN") || strings.Contains(out, "level=ERROR") {
		t.Errorf("start and stop warn:\n%s", out)
	}
}

func TestSnapshotsOfRunningAndStoppedServers(t *testing.T) {
	root := shortDir(t)
	dir, online, offline := filepath.Join(root, "d"), filepath.Join(root, "on"), filepath.Join(root, "off")
	if err := SnapshotSave(t.Context(), dir, online); err == nil || !strings.Contains(err.Error(), "no datastore") {
		t.Errorf("snapshot of nothing: %v", err)
	}
	s := start(t, Config{Dir: dir})
	if _, err := s.db.Create(t.Context(), store.ResourceRoot+"nodes/n1", []byte("{}")); err != nil {
		t.Fatal(err)
	}
	want := names(t, s.db)
	if err := SnapshotSave(t.Context(), dir, online); err != nil {
		t.Fatal(err)
	}
	if err := SnapshotSave(t.Context(), dir, filepath.Join(root, "no", "where")); err == nil || !strings.Contains(err.Error(), "no such file") {
		t.Errorf("snapshot to nowhere: %v", err)
	}
	if err := SnapshotRestore(dir, online, nil); !errors.Is(err, embedded.ErrInUse) {
		t.Errorf("restore into a running server: %v", err)
	}
	s.stop(t)
	if err := SnapshotSave(t.Context(), dir, offline); err != nil {
		t.Fatal(err)
	}
	for i, file := range []string{online, offline} {
		fresh := filepath.Join(root, fmt.Sprint("r", i))
		if err := SnapshotRestore(fresh, file, nil); err != nil {
			t.Fatal(err)
		}
		r := start(t, Config{Dir: fresh})
		if d := cmp.Diff(want, names(t, r.db)); d != "" {
			t.Errorf("restored (-want +got):\n%s", d)
		}
		r.stop(t)
	}
}

func TestServerRecoversFromAFullDatastore(t *testing.T) {
	dir := filepath.Join(shortDir(t), "d")
	s := start(t, Config{Dir: dir, Quota: 4 << 20, Interval: 20 * time.Millisecond})
	value := bytes.Repeat([]byte("x"), 256<<10)
	if _, err := s.db.Create(t.Context(), "/calico/x", value); err != nil {
		t.Fatal(err)
	}
	// Write until the history of one key has filled the quota, and on until
	// writes are taken again.
	deadline := time.Now().Add(time.Minute)
	for wasFull, i := false, 0; ; i++ {
		_, err := s.db.Update(t.Context(), store.KV{Key: "/calico/x", Value: value})
		if err != nil && !strings.Contains(err.Error(), "space") {
			t.Fatal(err)
		}
		if wasFull && err == nil {
			break
		}
		wasFull = wasFull || err != nil
		if time.Now().After(deadline) {
			t.Fatalf("after %d writes, full %v:\n%s", i, wasFull, s.log)
		}
	}
	for deadline := time.Now().Add(time.Minute); ; {
		if out := s.log.String(); strings.Contains(out, "takes writes again") && strings.Contains(out, "needs attention") {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("the log does not tell:\n%s", s.log)
		}
	}
}

func TestAssess(t *testing.T) {
	tests := []struct {
		name string
		in   embedded.Status
		was  level
		want level
		look look
	}{
		{"empty", embedded.Status{Quota: 100}, fine, fine, look{}},
		{"below the warning", embedded.Status{Quota: 100, SizeInUse: 79}, fine, fine, look{}},
		{"at the warning", embedded.Status{Quota: 100, SizeInUse: 80}, fine, near, look{}},
		{"a little below", embedded.Status{Quota: 100, SizeInUse: 75}, near, near, look{}},
		{"well below", embedded.Status{Quota: 100, SizeInUse: 69}, near, fine, look{}},
		{"unused space is no reason", embedded.Status{Quota: 100, Size: 95, SizeInUse: 5}, fine, fine, look{}},
		{"full", embedded.Status{Quota: 100, SizeInUse: 5, Full: true}, near, full, look{}},
		{"damaged", embedded.Status{Quota: 100, Corrupt: true, Full: true}, fine, corrupt, look{}},
		{"a member is lost", embedded.Status{Quota: 100}, fine, near, look{absent: []string{"b"}, members: 3}},
		{"a member of five is lost", embedded.Status{Quota: 100}, fine, near, look{absent: []string{"b"}, members: 5}},
		{"an election", embedded.Status{Quota: 100}, fine, fine, look{leaderless: 1}},
		{"no majority", embedded.Status{Quota: 100}, near, full, look{leaderless: 2, absent: []string{"b", "c"}}},
		{"a certificate expires", embedded.Status{Quota: 100}, fine, near, look{expiring: "soon"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, words := assess(tt.in, tt.look, tt.was)
			if got != tt.want || (words == "") != (got == fine) {
				t.Errorf("got %v %q, want %v", got, words, tt.want)
			}
		})
	}
}

func TestJobs(t *testing.T) {
	broken := errors.New("broken")
	ended := make(chan struct{})
	err := Run(t.Context(), Config{Dir: filepath.Join(shortDir(t), "d"), UnsafeNoFsync: true, Jobs: map[string]func(context.Context, store.Driver) error{
		"patient": func(ctx context.Context, _ store.Driver) error {
			<-ctx.Done()
			close(ended)
			return ctx.Err()
		},
		"hasty": func(ctx context.Context, d store.Driver) error {
			if _, err := d.Get(ctx, store.ResourceRoot+"tiers/default"); err != nil {
				return err
			}
			return broken
		},
	}})
	if !errors.Is(err, broken) || !strings.Contains(err.Error(), "hasty") {
		t.Errorf("the server ended with %v", err)
	}
	<-ended
}

// breakListener makes the listening socket of this process at an address accept
// nothing more.
func breakListener(t *testing.T, addr string) {
	t.Helper()
	list, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range list {
		fd, err := strconv.Atoi(e.Name())
		if err != nil {
			t.Fatal(err)
		}
		listens, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ACCEPTCONN)
		if err != nil || listens == 0 {
			continue
		}
		var at netip.AddrPort
		name, err := unix.Getsockname(fd)
		switch name := name.(type) {
		case *unix.SockaddrInet4:
			at = netip.AddrPortFrom(netip.AddrFrom4(name.Addr), uint16(name.Port))
		case *unix.SockaddrInet6:
			at = netip.AddrPortFrom(netip.AddrFrom16(name.Addr), uint16(name.Port))
		}
		if err == nil && at.String() == addr {
			if err := unix.Shutdown(fd, unix.SHUT_RDWR); err != nil {
				t.Fatal(err)
			}
			return
		}
	}
	t.Fatalf("nobody listens on %s", addr)
}

// TestListenerThatFails: a server that lets nobody in any more at one of its
// addresses ends, so that whoever looks after it starts it anew.
func TestListenerThatFails(t *testing.T) {
	for _, ip := range []string{"127.0.0.1", "::1"} {
		t.Run(ip, func(t *testing.T) {
			dir := shortDir(t)
			certs := Certs{Dir: filepath.Join(dir, "certs")}
			must(t, second(certs.Init()))
			must(t, second(certs.Make(CertRequest{Kind: MemberCert, Name: "a", Addresses: []string{ip}})))
			cert, key := CertFiles(certs.Dir, MemberCert, "a")
			addr := freePort(t, ip)
			r := start(t, Config{Dir: filepath.Join(dir, "d"), TLS: &embedded.TLS{Listen: addr, CertFile: cert, KeyFile: key, CAFile: AuthorityFile(certs.Dir)}})
			breakListener(t, addr)
			if err := <-r.done; err == nil || !strings.Contains(err.Error(), "etcd: lets nobody in any more at one of its addresses; its log says why: ") {
				t.Errorf("it ended with %v", err)
			}
			if !strings.Contains(r.log.String(), "invalid argument") { // as the kernel says it
				t.Errorf("the log does not say why: %s", r.log)
			}
			r.once.Do(func() {
				r.cancel()
				r.db.Close()
			})
		})
	}
}
