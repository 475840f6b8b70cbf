package embedded

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"

	"github.com/brindle-net/brindle/internal/files"
)

// TLS is a TCP listener that lets nobody in without a certificate.
type TLS struct {
	Listen   string // "192.0.2.1:2379": an IP address and a port
	CertFile string // the server's certificate and key, PEM
	KeyFile  string
	CAFile   string // the authority that signs clients' certificates, PEM
}

// check says what cannot work. It reads the files, since etcd says that it is
// ready before it finds that it cannot use them.
func (t *TLS) check() error {
	if t.CertFile == "" || t.KeyFile == "" || t.CAFile == "" {
		return fmt.Errorf("listen on %s: certificate, key and authority of the clients are all needed; without them anybody could write", t.Listen)
	}
	if host, _, err := net.SplitHostPort(t.Listen); err != nil || net.ParseIP(host) == nil {
		return fmt.Errorf("listen on %q: must be an IP address and a port", t.Listen)
	}
	if err := FinishPair(t.CertFile, t.KeyFile); err != nil {
		return fmt.Errorf("listen on %s: %w", t.Listen, err)
	}
	if _, err := tls.LoadX509KeyPair(t.CertFile, t.KeyFile); err != nil {
		return fmt.Errorf("listen on %s: certificate %s with key %s: %w", t.Listen, t.CertFile, t.KeyFile, err)
	}
	authority, err := os.ReadFile(t.CAFile)
	if err == nil && !x509.NewCertPool().AppendCertsFromPEM(authority) {
		err = errors.New("there is no certificate in PEM in it")
	}
	if err != nil {
		return fmt.Errorf("listen on %s: authority %s: %w", t.Listen, t.CAFile, err)
	}
	return nil
}

// nextKey is where the key of a certificate that is being made waits.
func nextKey(keyFile string) string { return keyFile + ".next" }

// WritePair replaces a certificate and its key, in PEM, or makes them. Two
// files cannot be replaced at once, so the key waits beside its place until the
// certificate is in its own: whoever is killed in between leaves all that
// FinishPair needs.
func WritePair(certFile, keyFile string, cert, key []byte) error {
	if err := files.Write(nextKey(keyFile), key, 0o600); err != nil {
		return err
	}
	if err := files.Write(certFile, cert, 0o600); err != nil {
		if _, other := tls.LoadX509KeyPair(certFile, nextKey(keyFile)); other != nil {
			return errors.Join(err, os.Remove(nextKey(keyFile)))
		}
		return errors.Join(err, FinishPair(certFile, keyFile)) // it is in its place, and perhaps not on the disk
	}
	return FinishPair(certFile, keyFile)
}

// FinishPair puts a key in its place that waits there for its certificate, if
// that is there. Of any other key it says nothing.
func FinishPair(certFile, keyFile string) error {
	_, err := tls.LoadX509KeyPair(certFile, nextKey(keyFile))
	if err != nil {
		return nil // none waits, or it is not of this certificate
	}
	if err := os.Rename(nextKey(keyFile), keyFile); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("put the key of %s in its place: %w", certFile, err)
	}
	return files.SyncDir(filepath.Dir(keyFile))
}
