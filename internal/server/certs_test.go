package server

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/brindle-net/brindle/internal/store/embedded"
)

func leaf(t *testing.T, dir, kind, name string) *x509.Certificate {
	t.Helper()
	cert, key := CertFiles(dir, kind, name)
	pair, err := tls.LoadX509KeyPair(cert, key)
	must(t, err)
	return pair.Leaf
}

func TestCerts(t *testing.T) {
	now := time.Now()
	c := Certs{Dir: filepath.Join(t.TempDir(), "certs"), Now: func() time.Time { return now }}
	must(t, second(c.Init()))
	if _, err := c.Init(); !errors.Is(err, ErrCertExists) {
		t.Errorf("a second authority: %v", err)
	}
	m, err := c.Make(CertRequest{Kind: MemberCert, Name: "a", Addresses: []string{"192.0.2.1", "2001:db8::1", "a.example.net"}})
	must(t, err)
	if want := []string{"a.example.net", "192.0.2.1", "2001:db8::1"}; !slices.Equal(m.Addresses, want) || m.Kind != MemberCert || m.Name != "a" {
		t.Errorf("made %+v", m)
	}
	must(t, second(c.Make(CertRequest{Kind: embedded.HostUser, Name: "h-1.example"})))
	if got := leaf(t, c.Dir, embedded.HostUser, "h-1.example"); got.Subject.CommonName != "host:h-1.example" || !slices.Equal(got.ExtKeyUsage, []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}) {
		t.Errorf("the host's is for %s, %v", got.Subject, got.ExtKeyUsage)
	}
	if _, err := c.Make(CertRequest{Kind: MemberCert, Name: "a", Addresses: []string{"192.0.2.9"}}); !errors.Is(err, ErrCertExists) || !strings.Contains(err.Error(), "certs renew member a") {
		t.Errorf("made twice: %v", err)
	}
	old := leaf(t, c.Dir, MemberCert, "a")
	must(t, second(c.Renew(MemberCert, "a", time.Hour*24*10)))
	renewed := leaf(t, c.Dir, MemberCert, "a")
	if old.SerialNumber.Cmp(renewed.SerialNumber) == 0 || len(renewed.IPAddresses) != 2 || renewed.DNSNames[0] != "a.example.net" {
		t.Errorf("renewed %v", renewed.DNSNames)
	}
	list, err := c.List()
	must(t, err)
	var got []string
	for _, x := range list {
		got = append(got, x.Kind+" "+x.Name+" "+x.Problem)
	}
	if want := []string{"authority brindle-ca ", "host h-1.example ", "member a expires in 9 days"}; !slices.Equal(got, want) {
		t.Errorf("listed %q", got)
	}
	files, err := os.ReadDir(c.Dir)
	must(t, err)
	for _, f := range files {
		info, err := f.Info()
		must(t, err)
		if info.Mode().Perm() != 0o600 {
			t.Errorf("%s has mode %v", f.Name(), info.Mode())
		}
	}
	if len(files) != 6 {
		t.Errorf("%d files are left", len(files))
	}
	now = now.Add(authorityLife - time.Hour)
	late, err := c.Make(CertRequest{Kind: embedded.ClientUser, Name: "late"})
	must(t, err)
	if late.Expires.After(list[0].Expires) {
		t.Errorf("it outlives its authority: %v", late.Expires)
	}
	now = now.Add(2 * time.Hour)
	if _, err := c.Make(CertRequest{Kind: embedded.ClientUser, Name: "later"}); err == nil || !strings.Contains(err.Error(), "by this host's clock") {
		t.Errorf("an authority that has expired: %v", err)
	}
}

func TestCertRefusals(t *testing.T) {
	dir := t.TempDir()
	c := Certs{Dir: dir}
	if _, err := c.List(); err == nil || !strings.Contains(err.Error(), "certs init") {
		t.Error(err)
	}
	if _, err := c.Make(CertRequest{Kind: "host", Name: "a"}); err == nil || !strings.Contains(err.Error(), "certs init") {
		t.Error(err)
	}
	must(t, second(c.Init()))
	for _, tt := range []struct {
		name string
		in   CertRequest
		want string
	}{
		{"kind", CertRequest{Kind: "root", Name: "a"}, "must be a host or a client"},
		{"no name", CertRequest{Kind: "host"}, "a name has"},
		{"path", CertRequest{Kind: "host", Name: "../a"}, "a name has"},
		{"member's path", CertRequest{Kind: MemberCert, Name: "a/b", Addresses: []string{"192.0.2.1"}}, "a name has"},
		{"no address", CertRequest{Kind: MemberCert, Name: "a"}, "--address"},
		{"address with port", CertRequest{Kind: MemberCert, Name: "a", Addresses: []string{"192.0.2.1:2379"}}, "without a port"},
		{"host with address", CertRequest{Kind: "host", Name: "a", Addresses: []string{"192.0.2.1"}}, "only members"},
		{"no life", CertRequest{Kind: "host", Name: "a", Life: -1}, "a life of"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if _, err := c.Make(tt.in); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("error is %v, want one with %q", err, tt.want)
			}
		})
	}
	key := filepath.Join(dir, "ca.key")
	must(t, os.Chmod(key, 0o644))
	if _, err := c.Make(CertRequest{Kind: "host", Name: "a"}); err == nil || !strings.Contains(err.Error(), "chmod 600") {
		t.Errorf("a key that others read: %v", err)
	}
	must(t, os.Remove(key))
	if _, err := c.Make(CertRequest{Kind: "host", Name: "a"}); err == nil || !strings.Contains(err.Error(), "where it is kept") {
		t.Errorf("no key: %v", err)
	}
	if _, err := c.Init(); !errors.Is(err, ErrCertExists) {
		t.Errorf("an authority without its key was replaced: %v", err)
	}
	if _, err := c.Renew("host", "nobody", 0); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("renewed nothing: %v", err)
	}
}

// TestAMemberThatCannotStart has each mistake told before anything runs. The
// code is one for both families.
func TestAMemberThatCannotStart(t *testing.T) {
	c := newCluster(t)
	other := Certs{Dir: filepath.Join(c.dir, "other")}
	must(t, second(other.Init()))
	must(t, second(c.certs.Make(CertRequest{Kind: embedded.HostUser, Name: "h1"})))
	must(t, second(c.certs.Make(CertRequest{Kind: MemberCert, Name: "far", Addresses: []string{"192.0.2.1"}})))
	single := filepath.Join(c.dir, "single")
	must(t, os.MkdirAll(filepath.Join(single, "etcd", "member", "wal"), 0o700))
	must(t, os.Chmod(single, 0o700))
	for _, tt := range []struct {
		name string
		edit func(cfg *Config)
		want string
	}{
		{"own name not among the peers", func(cfg *Config) { cfg.Cluster.Name = "d" }, `named "d", but the peers are`},
		{"two members", func(cfg *Config) {
			cfg.Cluster.Peers = cfg.Cluster.Peers[:2]
			cfg.Cluster.Name = cfg.Cluster.Peers[0].Name
		}, "name 1, 3 or 5"},
		{"certificate of a host", func(cfg *Config) {
			cfg.Cluster.TLS.CertFile, cfg.Cluster.TLS.KeyFile = CertFiles(c.certs.Dir, embedded.HostUser, "h1")
		}, `that of "host:h1" and not of a member`},
		{"certificate for another address", func(cfg *Config) {
			cfg.Cluster.TLS.CertFile, cfg.Cluster.TLS.KeyFile = CertFiles(c.certs.Dir, MemberCert, "far")
		}, "is not for 127.0.0.1"},
		{"other authority", func(cfg *Config) { cfg.Cluster.TLS.CAFile = AuthorityFile(other.Dir) }, "does not stand up to authority"},
		{"no such files", func(cfg *Config) { cfg.Cluster.TLS.CertFile = "/nosuch" }, "/nosuch"},
		{"folder of a single member", func(cfg *Config) { cfg.Dir = single }, "save a snapshot and restore it"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			cfg := c.config("a")
			cfg.Cluster.Peers = slices.Clone(cfg.Cluster.Peers)
			tt.edit(&cfg)
			if err := Run(t.Context(), cfg); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("error is %v, want one with %q", err, tt.want)
			}
		})
	}
	cfg := c.config("a")
	cfg.Cluster.Join = true
	if err := Run(t.Context(), cfg); err == nil || !strings.Contains(err.Error(), "none of the other members answers") {
		t.Errorf("joining nobody: %v", err)
	}
	if err := Run(t.Context(), Config{Dir: cfg.Dir}); err == nil || !strings.Contains(err.Error(), "start with --name a and --peers") {
		t.Errorf("a member's folder for one who is alone: %v", err)
	}
	renamed := c.config("b")
	renamed.Dir = cfg.Dir
	if err := Run(t.Context(), renamed); !errors.Is(err, embedded.ErrOtherMember) {
		t.Errorf("a folder for another member: %v", err)
	}
}

func TestParsePeers(t *testing.T) {
	for _, tt := range []struct{ in, want string }{
		{"", "must be NAME="},
		{"a", "must be NAME="},
		{"a=", "must be NAME="},
		{"=https://192.0.2.1:1", "a name has"},
		{"a=http://192.0.2.1:1", "TLS only"},
		{"a=192.0.2.1:1", "https://ADDRESS:PORT"},
		{"a=https://192.0.2.1", "https://ADDRESS:PORT"},
		{"a=https://:1", "https://ADDRESS:PORT"},
		{"a=https://u:p@192.0.2.1:1", "https://ADDRESS:PORT"},
		{"a=https://192.0.2.1:1/x", "https://ADDRESS:PORT"},
		{"a=https://0.0.0.0:1", "the others cannot reach that"},
		{"a=https://[::]:1", "the others cannot reach that"},
		{"a=https://192.0.2.1:1,a=https://192.0.2.2:1", "listed twice"},
		{"a=https://192.0.2.1:1,b=https://192.0.2.1:1/", "same address"},
		{"a=https://192.0.2.1:1,", "must be NAME="},
		{"a\x1b=https://192.0.2.1:1", "a name has"},
	} {
		if got, err := embedded.ParsePeers(tt.in); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%q: %v, %v; want an error with %q", tt.in, got, err, tt.want)
		}
	}
	got, err := embedded.ParsePeers(" b=https://[2001:db8::1]:2380 ,a=https://db.example:2380/")
	if want := []embedded.Peer{{Name: "a", URL: "https://db.example:2380"}, {Name: "b", URL: "https://[2001:db8::1]:2380"}}; err != nil || !slices.Equal(got, want) {
		t.Errorf("%v, %v", got, err)
	}
}

// TestRenewalCutShort has the machine stop after each step of a renewal: what
// is there then is a pair, or is one again as soon as anybody uses it.
func TestRenewalCutShort(t *testing.T) {
	for _, tt := range []struct {
		name string
		cut  func(t *testing.T, at, before, after string) // makes the folder as it is then
		want string                                       // the folder whose pair it has
	}{
		{"the key waits", func(t *testing.T, at, before, after string) {
			copyPair(t, before, at)
			copyFile(t, filepath.Join(after, "host-a.key"), filepath.Join(at, "host-a.key.next"))
		}, "before"},
		{"the certificate is there", func(t *testing.T, at, before, after string) {
			copyFile(t, filepath.Join(after, "host-a.crt"), filepath.Join(at, "host-a.crt"))
			copyFile(t, filepath.Join(before, "host-a.key"), filepath.Join(at, "host-a.key"))
			copyFile(t, filepath.Join(after, "host-a.key"), filepath.Join(at, "host-a.key.next"))
		}, "after"},
		{"a first one, whose key waits", func(t *testing.T, at, _, after string) {
			copyFile(t, filepath.Join(after, "host-a.crt"), filepath.Join(at, "host-a.crt"))
			copyFile(t, filepath.Join(after, "host-a.key"), filepath.Join(at, "host-a.key.next"))
		}, "after"},
		{"all is there", func(t *testing.T, at, _, after string) { copyPair(t, after, at) }, "after"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dir := t.TempDir()
			of := func(name string) string { return filepath.Join(dir, name) }
			for _, name := range []string{"before", "after"} {
				c := Certs{Dir: of(name)}
				must(t, second(c.Init()))
				must(t, second(c.Make(CertRequest{Kind: embedded.HostUser, Name: "a"})))
			}
			must(t, os.Mkdir(of("at"), 0o700))
			tt.cut(t, of("at"), of("before"), of("after"))
			must(t, second(Certs{Dir: of("at")}.List()))
			if got, want := leaf(t, of("at"), "host", "a"), leaf(t, of(tt.want), "host", "a"); got.SerialNumber.Cmp(want.SerialNumber) != 0 {
				t.Errorf("the pair is not the one from %s", tt.want)
			}
			copyPairOf(t, of("before"), of("at"), "ca")
			must(t, second(Certs{Dir: of("at")}.Renew("host", "a", 0)))
			leaf(t, of("at"), "host", "a") // the next renewal is not in the way of a remainder
			if list, err := filepath.Glob(of("at") + "/*.next"); err != nil || len(list) > 0 {
				t.Errorf("%v are left, %v", list, err)
			}
		})
	}
}

func copyPair(t *testing.T, from, to string) {
	t.Helper()
	copyPairOf(t, from, to, "host-a")
}

func copyPairOf(t *testing.T, from, to, name string) {
	t.Helper()
	for _, end := range []string{".crt", ".key"} {
		copyFile(t, filepath.Join(from, name+end), filepath.Join(to, name+end))
	}
}

func copyFile(t *testing.T, from, to string) {
	t.Helper()
	data, err := os.ReadFile(from)
	must(t, err)
	must(t, os.WriteFile(to, data, 0o600))
}
