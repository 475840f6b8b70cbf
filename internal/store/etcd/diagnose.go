package etcd

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"net/url"
	"strings"
	"time"
)

// diagnose finds out why no endpoint answered, for the error message: the
// client library retries in silence and then only says that time is up.
func (d *Driver) diagnose(ctx context.Context) string {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	reasons := make([]string, len(d.cfg.Endpoints))
	done := make(chan struct{})
	for i, e := range d.cfg.Endpoints {
		go func() {
			reasons[i] = e + ": " + d.probe(ctx, e)
			done <- struct{}{}
		}()
	}
	for range d.cfg.Endpoints {
		<-done
	}
	return strings.Join(reasons, "; ")
}

// probe connects to one endpoint and says how far it came.
func (d *Driver) probe(ctx context.Context, endpoint string) string {
	u, err := url.Parse(endpoint)
	if err != nil {
		return "is no URL"
	}
	network, addr := "tcp", u.Host
	if u.Scheme == "unix" {
		network, addr = "unix", u.Path
	}
	var dialer net.Dialer
	conn, err := dialer.DialContext(ctx, network, addr)
	if err != nil {
		return err.Error()
	}
	defer conn.Close()
	if u.Scheme != "https" {
		return "connects, but does not answer"
	}
	cfg, err := d.cfg.tls()
	if err != nil {
		return err.Error()
	}
	cfg.ServerName = u.Hostname()
	secure := tls.Client(conn, cfg)
	if err := secure.HandshakeContext(ctx); err != nil {
		return fmt.Sprintf("TLS: %v", err)
	}
	return "connects with TLS, but does not answer"
}
