package etcd

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net/url"
	"os"
	"strings"
	"time"

	"go.etcd.io/etcd/client/pkg/v3/transport"
	"go.uber.org/zap"
)

// DefaultEndpoint is where the etcd of "brindle server" listens on the same
// machine, and what is used when nothing is configured.
const DefaultEndpoint = "unix:///run/brindle/server/etcd.sock"

// Secret is a text that never shows itself: printed, logged or marshalled it
// tells nothing. The zero value is the empty secret.
type Secret struct{ reveal func() string }

// NewSecret hides a text.
func NewSecret(s string) Secret {
	if s == "" {
		return Secret{}
	}
	return Secret{reveal: func() string { return s }}
}

// Reveal returns the hidden text, for the one place that needs it.
func (s Secret) Reveal() string {
	if s.reveal == nil {
		return ""
	}
	return s.reveal()
}

// Config says how to reach an etcd. Only Endpoints must be set.
type Config struct {
	// Endpoints are the members' client URLs, of one scheme: "https://h:2379",
	// "http://h:2379" or "unix:///path/to/socket".
	Endpoints []string

	// Username and Password log in, if etcd's authentication is on.
	Username string
	Password Secret

	// Files in PEM format for TLS; read again at each connection, so that
	// renewed certificates are picked up. CAFile empty means the system's.
	CertFile, KeyFile, CAFile string

	// The same as texts, for settings that hold no files: what is set here is
	// used instead of the file.
	Cert, CA string
	Key      Secret

	// Prefix is put before every key, so that several networks can share one
	// etcd. Empty is what Calico's programs use.
	Prefix string

	DialTimeout time.Duration // to connect and log in; 0 means 5 s
	CallTimeout time.Duration // for one request; 0 means 10 s

	// CheckInterval is how often a watch asks whether etcd still answers, and
	// whether it is still the same one. 0 means 5 s.
	CheckInterval time.Duration

	// PageSize is how many keys a list fetches at once; 0 means 500.
	PageSize int
}

// withDefaults fills what is zero.
func (c Config) withDefaults() Config {
	if c.DialTimeout == 0 {
		c.DialTimeout = 5 * time.Second
	}
	if c.CallTimeout == 0 {
		c.CallTimeout = 10 * time.Second
	}
	if c.CheckInterval == 0 {
		c.CheckInterval = 5 * time.Second
	}
	if c.PageSize == 0 {
		c.PageSize = 500
	}
	return c
}

// scheme returns the scheme that all endpoints share, after checking each.
func (c Config) scheme() (string, error) {
	if len(c.Endpoints) == 0 {
		return "", errors.New("no etcd endpoint is given")
	}
	var scheme string
	for _, e := range c.Endpoints {
		s, err := endpointScheme(e)
		if err != nil {
			return "", err
		}
		if scheme != "" && s != scheme {
			return "", fmt.Errorf("etcd endpoint %q: all endpoints must be %s like the first; mixed schemes would share one security", e, scheme)
		}
		scheme = s
	}
	return scheme, nil
}

func endpointScheme(endpoint string) (string, error) {
	u, err := url.Parse(endpoint)
	if err != nil || !strings.Contains(endpoint, "://") {
		return "", errors.New("an etcd endpoint is no URL; write https://host:port, http://host:port or unix:///path")
	}
	if u.User != nil {
		return "", fmt.Errorf("etcd endpoint with host %q: a user and password in the URL would show up in logs; give them as username and password", u.Host)
	}
	switch u.Scheme {
	case "http", "https":
		if u.Hostname() == "" || u.Port() == "" || strings.Trim(u.Path, "/") != "" {
			return "", fmt.Errorf("etcd endpoint %q: must be %s://host:port, nothing before or after", endpoint, u.Scheme)
		}
	case "unix":
		if u.Host != "" || !strings.HasPrefix(u.Path, "/") {
			return "", fmt.Errorf("etcd endpoint %q: must name the socket by its full path, unix:///run/…", endpoint)
		}
	default:
		return "", fmt.Errorf("etcd endpoint %q: scheme must be https, http or unix", endpoint)
	}
	return u.Scheme, nil
}

// tls checks the TLS part and returns what connections need, nil for none.
func (c Config) tls() (*tls.Config, error) {
	scheme, err := c.scheme()
	if err != nil {
		return nil, err
	}
	anyFile := c.CertFile != "" || c.KeyFile != "" || c.CAFile != "" || c.inline()
	switch {
	case (c.CertFile == "") != (c.KeyFile == ""):
		return nil, errors.New("etcd TLS: certificate and key file must be given together")
	case scheme == "http" && anyFile:
		return nil, fmt.Errorf("etcd endpoint %q: TLS files are given, but http does not use them; write https", c.Endpoints[0])
	case scheme != "https":
		return nil, nil
	}
	if c.inline() {
		return c.inlineTLS()
	}
	info := transport.TLSInfo{CertFile: c.CertFile, KeyFile: c.KeyFile, TrustedCAFile: c.CAFile, Logger: zap.NewNop()}
	cfg, err := info.ClientConfig()
	if err != nil {
		return nil, fmt.Errorf("etcd TLS files (certificate %q, key %q, authority %q): %w", c.CertFile, c.KeyFile, c.CAFile, err)
	}
	return cfg, nil
}

// inline reports whether a part of TLS is given as text.
func (c Config) inline() bool { return c.Cert != "" || c.CA != "" || c.Key.Reveal() != "" }

// inlineTLS is tls with texts, in the place of files that are not given as such.
func (c Config) inlineTLS() (*tls.Config, error) {
	texts := map[string]string{}
	for _, part := range []struct{ name, text, file string }{
		{"certificate", c.Cert, c.CertFile}, {"key", c.Key.Reveal(), c.KeyFile}, {"authority", c.CA, c.CAFile},
	} {
		texts[part.name] = part.text
		if part.text == "" && part.file != "" {
			data, err := os.ReadFile(part.file)
			if err != nil {
				return nil, fmt.Errorf("etcd TLS, %s: %w", part.name, err)
			}
			texts[part.name] = string(data)
		}
	}
	out := &tls.Config{MinVersion: tls.VersionTLS12}
	if (texts["certificate"] == "") != (texts["key"] == "") {
		return nil, errors.New("etcd TLS: certificate and key must be given together")
	}
	if texts["certificate"] != "" {
		pair, err := tls.X509KeyPair([]byte(texts["certificate"]), []byte(texts["key"]))
		if err != nil {
			return nil, fmt.Errorf("etcd TLS: certificate and key as texts: %w", err)
		}
		out.Certificates = []tls.Certificate{pair}
	}
	if texts["authority"] != "" {
		out.RootCAs = x509.NewCertPool()
		if !out.RootCAs.AppendCertsFromPEM([]byte(texts["authority"])) {
			return nil, errors.New("etcd TLS: there is no certificate in PEM format in the authority's text")
		}
	}
	return out, nil
}

// validate says what is wrong with a configuration before anything is dialled.
func (c Config) validate() error {
	if (c.Username == "") != (c.Password.Reveal() == "") {
		return errors.New("etcd login: username and password must be given together")
	}
	_, err := c.tls()
	return err
}
