package server

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/brindle-net/brindle/internal/store/embedded"
)

// MemberCert is the kind of a member's certificate; the others are those of
// users, embedded.HostUser and embedded.ClientUser.
const MemberCert = "member"

const authorityKind = "authority"

// How long certificates are good for, unless asked otherwise.
const (
	authorityLife = 10 * 365 * 24 * time.Hour
	DefaultLife   = 825 * 24 * time.Hour
	// ExpiresSoon is when the rest of a certificate's life is worth a warning.
	ExpiresSoon = 30 * 24 * time.Hour
	// backdate lets in hosts whose clock is behind.
	backdate = time.Hour
)

// ErrCertExists says that there is a certificate that would be overwritten.
var ErrCertExists = errors.New("exists already")

// Certs is a folder with an authority and the certificates that it signed.
// ca.key is needed to make certificates, and nowhere else.
type Certs struct {
	Dir string
	Now func() time.Time // nil: the clock
}

// CertRequest is a certificate to be made.
type CertRequest struct {
	Kind      string // MemberCert, embedded.HostUser or embedded.ClientUser
	Name      string
	Addresses []string      // of a member: all by which it is reached, IP addresses or names
	Life      time.Duration // 0: DefaultLife
}

// Cert is a certificate in the folder.
type Cert struct {
	Kind      string    `json:"kind"` // "authority" for the authority
	Name      string    `json:"name"`
	File      string    `json:"file"`
	Addresses []string  `json:"addresses,omitempty"`
	Expires   time.Time `json:"expires"`
	Problem   string    `json:"problem,omitempty"` // what a human must see to
}

// CertFiles are the paths of a certificate and its key in a folder.
func CertFiles(dir, kind, name string) (cert, key string) {
	base := filepath.Join(dir, kind+"-"+name)
	return base + ".crt", base + ".key"
}

// AuthorityFile is the path of the authority's certificate in a folder.
func AuthorityFile(dir string) string { return filepath.Join(dir, "ca.crt") }

func (c Certs) now() time.Time {
	if c.Now == nil {
		return time.Now()
	}
	return c.Now()
}

// Init makes the authority. It never replaces one: every certificate that it
// signed would be worth nothing.
func (c Certs) Init() (Cert, error) {
	if err := os.MkdirAll(c.Dir, 0o700); err != nil {
		return Cert{}, fmt.Errorf("make the authority: %w", err)
	}
	certFile, keyFile := AuthorityFile(c.Dir), filepath.Join(c.Dir, "ca.key")
	if err := embedded.FinishPair(certFile, keyFile); err != nil {
		return Cert{}, fmt.Errorf("make the authority: %w", err)
	}
	for _, path := range []string{certFile, keyFile} {
		if _, err := os.Lstat(path); !errors.Is(err, os.ErrNotExist) {
			return Cert{}, fmt.Errorf("make the authority: %s %w; what it signed would be worth nothing with a new one. Move both ca.crt and ca.key away if that is meant", path, ErrCertExists)
		}
	}
	now := c.now()
	tmpl := &x509.Certificate{
		Subject: pkix.Name{CommonName: "brindle-ca"}, IsCA: true, BasicConstraintsValid: true, MaxPathLenZero: true,
		KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign, NotBefore: now.Add(-backdate), NotAfter: now.Add(authorityLife),
	}
	if err := sign(tmpl, nil, certFile, keyFile); err != nil {
		return Cert{}, fmt.Errorf("make the authority: %w", err)
	}
	return c.read(certFile)
}

// Make makes a certificate and its key. One that exists is kept, and the error
// is ErrCertExists.
func (c Certs) Make(r CertRequest) (Cert, error) {
	certFile, keyFile := CertFiles(c.Dir, r.Kind, r.Name)
	if err := r.check(); err != nil {
		return Cert{}, err
	}
	if err := embedded.FinishPair(certFile, keyFile); err != nil {
		return Cert{}, err
	}
	if _, err := os.Lstat(certFile); !errors.Is(err, os.ErrNotExist) {
		return Cert{}, fmt.Errorf("make a certificate for %s %s: %s %w; `brindle server certs renew %s %s` makes a new one in its place", r.Kind, r.Name, certFile, ErrCertExists, r.Kind, r.Name)
	}
	return c.issue(r)
}

// Renew makes a certificate anew, with a new key, for the same names.
func (c Certs) Renew(kind, name string, life time.Duration) (Cert, error) {
	certFile, _ := CertFiles(c.Dir, kind, name)
	old, err := c.read(certFile)
	if err != nil {
		return Cert{}, fmt.Errorf("renew the certificate of %s %s: %w", kind, name, err)
	}
	return c.issue(CertRequest{Kind: kind, Name: name, Addresses: old.Addresses, Life: life})
}

var domainName = regexp.MustCompile(`^[a-zA-Z0-9]([a-zA-Z0-9.-]{0,251}[a-zA-Z0-9])?$`)

func (r CertRequest) check() error {
	if r.Life < 0 {
		return fmt.Errorf("certificate of %s %s: a life of %s is none", r.Kind, r.Name, r.Life)
	}
	if r.Kind != MemberCert {
		if len(r.Addresses) > 0 {
			return fmt.Errorf("certificate of %s %s: only members are reached by an address", r.Kind, r.Name)
		}
		return embedded.User{Kind: r.Kind, Name: r.Name}.Check()
	}
	if err := embedded.CheckMemberName(r.Name); err != nil {
		return err
	}
	if len(r.Addresses) == 0 {
		return fmt.Errorf("certificate of member %s: by which addresses do hosts and the other members reach it? Name each with --address", r.Name)
	}
	for _, a := range r.Addresses {
		if net.ParseIP(a) == nil && !domainName.MatchString(a) {
			return fmt.Errorf("certificate of member %s: %q must be an IP address or a name, without a port", r.Name, a)
		}
	}
	return nil
}

// issue signs and writes.
func (c Certs) issue(r CertRequest) (Cert, error) {
	what := fmt.Sprintf("certificate of %s %s", r.Kind, r.Name)
	if err := r.check(); err != nil {
		return Cert{}, err
	}
	ca, err := c.authority()
	if err != nil {
		return Cert{}, fmt.Errorf("%s: %w", what, err)
	}
	if r.Life == 0 {
		r.Life = DefaultLife
	}
	now := c.now()
	tmpl := &x509.Certificate{
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
		NotBefore: now.Add(-backdate), NotAfter: now.Add(r.Life),
	}
	if tmpl.NotAfter.After(ca.Leaf.NotAfter) {
		tmpl.NotAfter = ca.Leaf.NotAfter // nobody would believe it for longer
	}
	tmpl.Subject.CommonName = embedded.User{Kind: r.Kind, Name: r.Name}.CN()
	if r.Kind == MemberCert {
		tmpl.Subject.CommonName = embedded.MemberCN
		tmpl.ExtKeyUsage = append(tmpl.ExtKeyUsage, x509.ExtKeyUsageServerAuth)
		for _, a := range r.Addresses {
			if ip := net.ParseIP(a); ip != nil {
				tmpl.IPAddresses = append(tmpl.IPAddresses, ip)
			} else {
				tmpl.DNSNames = append(tmpl.DNSNames, a)
			}
		}
	}
	certFile, keyFile := CertFiles(c.Dir, r.Kind, r.Name)
	if err := sign(tmpl, ca, certFile, keyFile); err != nil {
		return Cert{}, fmt.Errorf("%s: %w", what, err)
	}
	return c.read(certFile)
}

// authority reads the authority and its key.
func (c Certs) authority() (*tls.Certificate, error) {
	certFile, keyFile := AuthorityFile(c.Dir), filepath.Join(c.Dir, "ca.key")
	if err := embedded.FinishPair(certFile, keyFile); err != nil {
		return nil, err
	}
	if _, err := os.Stat(certFile); errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("there is no authority in %s; `brindle server certs init` makes one", c.Dir)
	}
	info, err := os.Stat(keyFile)
	switch {
	case errors.Is(err, os.ErrNotExist):
		return nil, fmt.Errorf("the authority's key is not in %s; certificates are made where it is kept", c.Dir)
	case err != nil:
		return nil, err
	case info.Mode().Perm()&0o077 != 0:
		return nil, fmt.Errorf("the authority's key %s has mode %#o, so others may have read it; run chmod 600 %s, or better make a new authority", keyFile, info.Mode().Perm(), keyFile)
	}
	ca, err := tls.LoadX509KeyPair(certFile, keyFile)
	if err != nil {
		return nil, fmt.Errorf("authority %s with key %s: %w", certFile, keyFile, err)
	}
	if now := c.now(); !ca.Leaf.IsCA || now.After(ca.Leaf.NotAfter) || now.Before(ca.Leaf.NotBefore) {
		return nil, fmt.Errorf("authority %s is good from %s to %s, and may sign: %v; by this host's clock it is %s", certFile, day(ca.Leaf.NotBefore), day(ca.Leaf.NotAfter), ca.Leaf.IsCA, now.UTC().Format(time.RFC3339))
	}
	return &ca, nil
}

func day(t time.Time) string { return t.UTC().Format(time.DateOnly) }

// sign makes a key and a certificate for it, by the authority ca, or by
// itself, and writes both.
func sign(tmpl *x509.Certificate, ca *tls.Certificate, certFile, keyFile string) error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	if tmpl.SerialNumber, err = rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127)); err != nil {
		return err
	}
	parent, signer := tmpl, crypto.PrivateKey(key)
	if ca != nil {
		parent, signer = ca.Leaf, ca.PrivateKey
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, parent, &key.PublicKey, signer)
	if err != nil {
		return err
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return err
	}
	return embedded.WritePair(certFile, keyFile, inPEM("CERTIFICATE", der), inPEM("PRIVATE KEY", keyDER))
}

func inPEM(kind string, der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
}

// List returns the certificates of the folder, the authority first, the others
// by kind and name.
func (c Certs) List() ([]Cert, error) {
	files, err := filepath.Glob(filepath.Join(c.Dir, "*.crt"))
	if err != nil {
		return nil, err
	}
	var out []Cert
	for _, f := range files {
		err := embedded.FinishPair(f, strings.TrimSuffix(f, ".crt")+".key")
		if err != nil {
			return nil, err
		}
		cert, err := c.read(f)
		if err != nil {
			cert = Cert{Name: strings.TrimSuffix(filepath.Base(f), ".crt"), File: f, Problem: err.Error()}
		}
		out = append(out, cert)
	}
	if len(out) == 0 {
		return nil, fmt.Errorf("there is no certificate in %s; `brindle server certs init` makes the authority", c.Dir)
	}
	slices.SortStableFunc(out, func(a, b Cert) int {
		return strings.Compare(a.rank(), b.rank())
	})
	return out, nil
}

// rank sorts the authority before the others.
func (c Cert) rank() string {
	if c.Kind == authorityKind {
		return ""
	}
	return c.Kind + " " + c.Name
}

// read reads a certificate and judges it.
func (c Certs) read(path string) (Cert, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return Cert{}, err
	}
	block, _ := pem.Decode(data)
	if block == nil || block.Type != "CERTIFICATE" {
		return Cert{}, fmt.Errorf("there is no certificate in PEM format in %s", path)
	}
	x, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return Cert{}, fmt.Errorf("%s: %w", path, err)
	}
	out := Cert{File: path, Expires: x.NotAfter.UTC(), Addresses: slices.Clone(x.DNSNames)}
	for _, ip := range x.IPAddresses {
		out.Addresses = append(out.Addresses, ip.String())
	}
	out.Kind, out.Name, _ = strings.Cut(strings.TrimSuffix(filepath.Base(path), ".crt"), "-")
	if x.IsCA {
		out.Kind, out.Name = authorityKind, x.Subject.CommonName
	}
	switch left := x.NotAfter.Sub(c.now()); {
	case left <= 0:
		out.Problem = "expired"
	case left < ExpiresSoon:
		out.Problem = fmt.Sprintf("expires in %d days", int(left.Hours()/24))
	case c.now().Before(x.NotBefore):
		out.Problem = "not valid yet by this host's clock"
	}
	return out, nil
}
