package embedded

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"os"
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
