package embedded_test

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"log/slog"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/brindle-net/brindle/internal/store"
	"github.com/brindle-net/brindle/internal/store/embedded"
	"github.com/brindle-net/brindle/internal/store/etcd"
)

// shortDir is a folder whose path leaves room for a socket's.
func shortDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "be")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

func start(t *testing.T, cfg embedded.Config) *embedded.Server {
	t.Helper()
	cfg.UnsafeNoFsync = true
	s, err := embedded.Start(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func stop(t *testing.T, s *embedded.Server) {
	t.Helper()
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}

func dial(t *testing.T, s *embedded.Server) *etcd.Driver {
	t.Helper()
	d, err := etcd.New(etcd.Config{Endpoints: []string{s.Endpoint()}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	return d
}

func create(t *testing.T, d store.Driver, keys ...string) {
	t.Helper()
	for _, key := range keys {
		if _, err := d.Create(t.Context(), key, []byte("v")); err != nil {
			t.Fatal(err)
		}
	}
}

func keys(t *testing.T, d store.Driver, prefix string) []string {
	t.Helper()
	list, err := d.List(t.Context(), prefix)
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, kv := range list.KVs {
		out = append(out, kv.Key)
	}
	return out
}

func TestOnlyItsOwnerMayOpenTheSocket(t *testing.T) {
	dir := filepath.Join(shortDir(t), "data")
	s := start(t, embedded.Config{Dir: dir})
	for path, want := range map[string]os.FileMode{dir: os.ModeDir | 0o700, strings.TrimPrefix(s.Endpoint(), "unix://"): os.ModeSocket | 0o600} {
		info, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		if info.Mode() != want {
			t.Errorf("%s has mode %v, want %v", path, info.Mode(), want)
		}
	}
}

func TestStartRefusals(t *testing.T) {
	dir := shortDir(t)
	used := start(t, embedded.Config{Dir: filepath.Join(dir, "used")})
	open := filepath.Join(dir, "open")
	if err := os.Mkdir(open, 0o755); err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		name string
		in   embedded.Config
		want string
		is   error
	}{
		{"no directory", embedded.Config{}, "no data directory", nil},
		{"directory in use", embedded.Config{Dir: filepath.Join(dir, "used")}, "data directory", embedded.ErrInUse},
		{"socket in use", embedded.Config{Dir: filepath.Join(dir, "n"), Socket: strings.TrimPrefix(used.Endpoint(), "unix://")}, "etcd.sock", embedded.ErrInUse},
		{"socket in an open directory", embedded.Config{Dir: filepath.Join(dir, "n"), Socket: filepath.Join(open, "s")}, "chmod 700", nil},
		{"path too long", embedded.Config{Dir: filepath.Join(dir, strings.Repeat("x", 100))}, "107", nil},
		{"TCP without certificates", embedded.Config{Dir: filepath.Join(dir, "n"), TLS: &embedded.TLS{Listen: "127.0.0.1:0"}}, "anybody could write", nil},
		{"TCP on a name", embedded.Config{Dir: filepath.Join(dir, "n"), TLS: &embedded.TLS{Listen: "localhost:1", CertFile: "c", KeyFile: "k", CAFile: "a"}}, "must be an IP address", nil},
	}
	cert, key, none := keyPair(t, dir), filepath.Join(dir, "key.pem"), filepath.Join(dir, "nothing.pem")
	if err := os.WriteFile(none, []byte("this is no PEM\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, tls := range []struct{ name, cert, key, ca, want string }{
		{"no such certificate", filepath.Join(dir, "nosuch"), key, cert, "nosuch"},
		{"no certificate", none, key, cert, "nothing.pem"},
		{"no key", cert, none, cert, "nothing.pem"},
		{"no such authority", cert, key, filepath.Join(dir, "nosuch"), "authority"},
		{"no authority", cert, key, none, "no certificate in PEM"},
	} {
		tests = append(tests, struct {
			name string
			in   embedded.Config
			want string
			is   error
		}{tls.name, embedded.Config{Dir: filepath.Join(dir, "n"),
			TLS: &embedded.TLS{Listen: "127.0.0.1:0", CertFile: tls.cert, KeyFile: tls.key, CAFile: tls.ca}}, tls.want, nil})
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := embedded.Start(t.Context(), tt.in)
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("error is %v, want one with %q", err, tt.want)
			}
			if tt.is != nil && !errors.Is(err, tt.is) {
				t.Errorf("%v is no %v", err, tt.is)
			}
		})
	}
	create(t, dial(t, used), "/still/alive")
}

func TestDataSurvivesARestart(t *testing.T) {
	cfg := embedded.Config{Dir: filepath.Join(shortDir(t), "d")}
	s := start(t, cfg)
	create(t, dial(t, s), "/a")
	stop(t, s)
	stop(t, s) // twice is fine
	<-s.Done()
	s = start(t, cfg)
	if d := cmp.Diff([]string{"/a"}, keys(t, dial(t, s), "/")); d != "" {
		t.Error(d)
	}
}

// TestCloseDoesNotWaitForClients: etcd itself would wait for seconds.
func TestCloseDoesNotWaitForClients(t *testing.T) {
	var log bytes.Buffer
	s := start(t, embedded.Config{Dir: filepath.Join(shortDir(t), "d"), Log: slog.New(slog.NewTextHandler(&log, nil))})
	d := dial(t, s)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	in := d.Watch(ctx, "/", "")
	<-in
	create(t, d, "/a")
	<-in
	stop(t, s)
	if s := log.String(); s != "" {
		t.Errorf("start, use and stop are worth no log, but:\n%s", s)
	}
}

func TestSnapshot(t *testing.T) {
	dir := shortDir(t)
	s := start(t, embedded.Config{Dir: filepath.Join(dir, "old")})
	d := dial(t, s)
	for i := range 50 {
		create(t, d, fmt.Sprintf("/calico/%02d", i))
	}
	want := keys(t, d, "/calico/")
	seen, err := d.List(t.Context(), "/calico/")
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(dir, "snap")
	if err := s.SaveSnapshot(t.Context(), file); err != nil {
		t.Fatal(err)
	}
	create(t, d, "/calico/after-the-snapshot")
	before := s.Status().Revision
	d.Close()
	stop(t, s)

	cfg := embedded.Config{Dir: filepath.Join(dir, "new")}
	if err := embedded.RestoreSnapshot(file, cfg.Dir, nil); err != nil {
		t.Fatal(err)
	}
	s = start(t, cfg)
	d = dial(t, s)
	if diff := cmp.Diff(want, keys(t, d, "/calico/")); diff != "" {
		t.Errorf("restored keys (-want +got):\n%s", diff)
	}
	if got := s.Status().Revision; got <= before {
		t.Errorf("revision %d after the restore, %d before: old revisions could be met again", got, before)
	}
	if b := <-d.Watch(t.Context(), "/calico/", seen.Revision); !errors.Is(b.Err, store.ErrCompacted) {
		t.Errorf("a watch from before goes on: %+v", b)
	}
	if kv, err := d.Get(t.Context(), "/calico/00"); err != nil || kv.Revision != seen.KVs[0].Revision {
		t.Errorf("a key that did not change has revision %v, %v; it had %v", kv.Revision, err, seen.KVs[0].Revision)
	}
	create(t, d, "/calico/new")
	d.Close()
	stop(t, s)
	s = start(t, cfg)
	if got := keys(t, dial(t, s), "/calico/"); len(got) != len(want)+1 {
		t.Errorf("after another restart there are %d keys, want %d", len(got), len(want)+1)
	}
}

func TestSnapshotRefusals(t *testing.T) {
	dir := shortDir(t)
	s := start(t, embedded.Config{Dir: filepath.Join(dir, "d")})
	file := filepath.Join(dir, "snap")
	if err := s.SaveSnapshot(t.Context(), file); err != nil {
		t.Fatal(err)
	}
	good, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	write := func(name string, data []byte) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	damaged := bytes.Clone(good)
	damaged[1000] ^= 1
	tests := []struct{ name, file, dir, want string }{
		{"cut short", write("cut", good[:len(good)-512]), filepath.Join(dir, "n"), "checksum"},
		{"cut anywhere", write("cut2", good[:len(good)-100]), filepath.Join(dir, "n"), "not all of it"},
		{"damaged", write("damaged", damaged), filepath.Join(dir, "n"), "checksum"},
		{"no snapshot", write("text", []byte("hello")), filepath.Join(dir, "n"), "no snapshot"},
		{"missing", filepath.Join(dir, "nowhere"), filepath.Join(dir, "n"), "no such file"},
		{"into a running server", file, filepath.Join(dir, "d"), "in use"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if err := embedded.RestoreSnapshot(tt.file, tt.dir, nil); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("error is %v, want one with %q", err, tt.want)
			}
		})
	}
	stop(t, s)
	if err := embedded.RestoreSnapshot(file, filepath.Join(dir, "d"), nil); err == nil || !strings.Contains(err.Error(), "data already") {
		t.Errorf("restored over data: %v", err)
	}
	if err := embedded.RestoreSnapshot(file, filepath.Join(dir, "n"), nil); err != nil {
		t.Errorf("refused restores are in the way of a good one: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	s = start(t, embedded.Config{Dir: filepath.Join(dir, "n")})
	if err := s.SaveSnapshot(ctx, filepath.Join(dir, "x")); !errors.Is(err, context.Canceled) {
		t.Errorf("a cancelled snapshot: %v", err)
	}
	left, _ := filepath.Glob(filepath.Join(dir, ".snapshot-*"))
	if _, err := os.Stat(filepath.Join(dir, "x")); err == nil || len(left) > 0 {
		t.Errorf("a cancelled snapshot left files: %v", left)
	}
}

func TestQuota(t *testing.T) {
	s := start(t, embedded.Config{Dir: filepath.Join(shortDir(t), "d"), Quota: 4 << 20})
	d := dial(t, s)
	create(t, d, "/a")
	value := bytes.Repeat([]byte("x"), 256<<10)
	var err error
	for range 100 {
		if _, err = d.Update(t.Context(), store.KV{Key: "/a", Value: value}); err != nil {
			break
		}
	}
	if err == nil || !strings.Contains(err.Error(), "space") {
		t.Fatalf("writing 25 MiB to a quota of 4 ended with %v", err)
	}
	if st := s.Status(); !st.Full || st.Size == 0 || st.Quota != 4<<20 || st.Corrupt {
		t.Errorf("status %+v", st)
	}
	helped, err := s.Relieve(t.Context())
	if err != nil || !helped {
		t.Fatalf("Relieve: %v, %v", helped, err)
	}
	if st := s.Status(); st.Full || st.Size > 2<<20 {
		t.Errorf("status after relief %+v", st)
	}
	create(t, d, "/b")
}

// keyPair writes a certificate, which it returns the path of, and beside it
// its key.
func keyPair(t *testing.T, dir string) string {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	about := &x509.Certificate{SerialNumber: big.NewInt(1)}
	der, err := x509.CreateCertificate(rand.Reader, about, about, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	for name, block := range map[string]*pem.Block{"cert.pem": {Type: "CERTIFICATE", Bytes: der}, "key.pem": {Type: "PRIVATE KEY", Bytes: keyDER}} {
		if err := os.WriteFile(filepath.Join(dir, name), pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return filepath.Join(dir, "cert.pem")
}
