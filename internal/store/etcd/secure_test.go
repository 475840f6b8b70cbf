package etcd_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/brindle-net/brindle/internal/store/embedded"
	"github.com/brindle-net/brindle/internal/store/etcd"
)

// authority signs certificates into a folder.
type authority struct {
	t    *testing.T
	dir  string
	key  *ecdsa.PrivateKey
	cert *x509.Certificate
}

func newAuthority(t *testing.T, dir, name string) *authority {
	a := &authority{t: t, dir: dir}
	a.cert, a.key = a.sign(name, &x509.Certificate{IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign})
	return a
}

// sign writes NAME.crt and NAME.key.
func (a *authority) sign(name string, tmpl *x509.Certificate) (*x509.Certificate, *ecdsa.PrivateKey) {
	a.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		a.t.Fatal(err)
	}
	tmpl.SerialNumber = big.NewInt(time.Now().UnixNano())
	tmpl.Subject = pkix.Name{CommonName: name}
	tmpl.NotBefore, tmpl.NotAfter = time.Now().Add(-time.Hour), time.Now().Add(time.Hour)
	parent, signer := a.cert, a.key
	if parent == nil {
		parent, signer = tmpl, key
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, parent, &key.PublicKey, signer)
	if err != nil {
		a.t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		a.t.Fatal(err)
	}
	keyDER, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		a.t.Fatal(err)
	}
	a.write(name+".crt", "CERTIFICATE", der)
	a.write(name+".key", "EC PRIVATE KEY", keyDER)
	return cert, key
}

func (a *authority) write(name, kind string, der []byte) {
	a.t.Helper()
	if err := os.WriteFile(filepath.Join(a.dir, name), pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
		a.t.Fatal(err)
	}
}

// freePort returns a port of the loopback address that nobody used just now.
func freePort(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// TestTLS runs for IPv4 only: what is tested is the same code for both.
func TestTLS(t *testing.T) {
	dir := shortDir(t)
	file := func(name string) string { return filepath.Join(dir, name) }
	ca := newAuthority(t, dir, "ca")
	newAuthority(t, dir, "other-ca").sign("stranger", &x509.Certificate{ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}})
	ca.sign("server", &x509.Certificate{IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}})
	ca.sign("client", &x509.Certificate{ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}})
	addr := freePort(t)
	s, err := embedded.Start(t.Context(), embedded.Config{Dir: file("d"), UnsafeNoFsync: true, TLS: &embedded.TLS{
		Listen: addr, CertFile: file("server.crt"), KeyFile: file("server.key"), CAFile: file("ca.crt"),
	}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })

	cfg := etcd.Config{Endpoints: []string{"https://" + addr}, CertFile: file("client.crt"), KeyFile: file("client.key"), CAFile: file("ca.crt")}
	d := connect(t, cfg)
	if _, err := d.Create(t.Context(), "/a", []byte("over TLS")); err != nil {
		t.Fatal(err)
	}
	<-d.Watch(t.Context(), "/", "")
	if kv, err := connect(t, etcd.Config{Endpoints: []string{s.Endpoint()}}).Get(t.Context(), "/a"); err != nil || string(kv.Value) != "over TLS" {
		t.Errorf("over the socket: %s, %v", kv.Value, err)
	}

	text := func(name string) string {
		data, err := os.ReadFile(file(name))
		if err != nil {
			t.Fatal(err)
		}
		return string(data)
	}
	texts, part, half, none := cfg, cfg, cfg, cfg
	texts.CA, texts.Cert, texts.Key = text("ca.crt"), text("client.crt"), etcd.NewSecret(text("client.key"))
	texts.CAFile, texts.CertFile, texts.KeyFile = "", "", ""
	part.CA, part.CAFile = text("ca.crt"), "/nonexistent"
	for _, c := range []etcd.Config{texts, part} {
		if _, err := connect(t, c).Get(t.Context(), "/a"); err != nil {
			t.Errorf("with texts for files: %v", err)
		}
	}
	half.Cert, half.CertFile, half.KeyFile = text("client.crt"), "", ""
	none.CA = "x"
	for want, c := range map[string]etcd.Config{"must be given together": half, "no certificate in PEM format": none} {
		if _, err := etcd.New(c); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error is %v, want one with %q", err, want)
		}
	}

	refused := []struct {
		name string
		edit func(*etcd.Config)
		want string
	}{
		{"no certificate", func(c *etcd.Config) { c.CertFile, c.KeyFile = "", "" }, "TLS"},
		{"certificate of another authority", func(c *etcd.Config) { c.CertFile, c.KeyFile = file("stranger.crt"), file("stranger.key") }, "TLS"},
		{"text of an unknown authority", func(c *etcd.Config) { c.CA = text("other-ca.crt") }, "certificate"},
		{"server of an unknown authority", func(c *etcd.Config) { c.CAFile = file("other-ca.crt") }, "certificate"},
		{"no TLS at all", func(c *etcd.Config) { *c = etcd.Config{Endpoints: []string{"http://" + addr}} }, "does not answer"},
	}
	for _, tt := range refused {
		t.Run(tt.name, func(t *testing.T) {
			c := cfg
			tt.edit(&c)
			c.CallTimeout = 300 * time.Millisecond
			_, err := connect(t, c).Get(t.Context(), "/a")
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("error is %v, want one with %q", err, tt.want)
			}
		})
	}
}

func TestLogin(t *testing.T) {
	s := startServer(t)
	admin, err := clientv3.New(clientv3.Config{Endpoints: []string{s.Endpoint()}})
	if err != nil {
		t.Fatal(err)
	}
	defer admin.Close()
	ctx := t.Context()
	_, err1 := admin.UserAdd(ctx, "root", "toor")
	_, err2 := admin.UserGrantRole(ctx, "root", "root")
	_, err3 := admin.UserAdd(ctx, "brindle", "hunter2")
	_, err4 := admin.RoleAdd(ctx, "calico")
	_, err5 := admin.RoleGrantPermission(ctx, "calico", "/calico/", clientv3.GetPrefixRangeEnd("/calico/"), clientv3.PermissionType(clientv3.PermReadWrite))
	_, err6 := admin.UserGrantRole(ctx, "brindle", "calico")
	_, err7 := admin.AuthEnable(ctx)
	for _, err := range []error{err1, err2, err3, err4, err5, err6, err7} {
		if err != nil {
			t.Fatal(err)
		}
	}
	// Hashing passwords takes etcd seconds under the race detector.
	cfg := etcd.Config{
		Endpoints: []string{s.Endpoint()}, Username: "brindle", Password: etcd.NewSecret("hunter2"),
		DialTimeout: time.Minute, CallTimeout: time.Minute,
	}
	d := connect(t, cfg)
	if _, err := d.Create(ctx, "/calico/a", nil); err != nil {
		t.Error(err)
	}
	if b := <-d.Watch(ctx, "/calico/", ""); b.Err != nil {
		t.Error(b.Err)
	}
	if _, err := d.Create(ctx, "/elsewhere", nil); err == nil || !strings.Contains(err.Error(), "permission denied") {
		t.Errorf("writing where the role does not reach: %v", err)
	}
	cfg.Password = etcd.NewSecret("hunter3")
	_, err = connect(t, cfg).Get(ctx, "/calico/a")
	if err == nil || !strings.Contains(err.Error(), "authentication failed") || strings.Contains(err.Error(), "hunter3") {
		t.Errorf("a wrong password: %v", err)
	}
}
