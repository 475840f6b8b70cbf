package cli

import (
	"errors"
	"fmt"
	"net"
	"net/url"
	"strconv"

	"github.com/spf13/cobra"

	"github.com/brindle-net/brindle/internal/server"
	"github.com/brindle-net/brindle/internal/store/embedded"
)

// defaultCertsDir is where `brindle server certs` keeps certificates.
const defaultCertsDir = "/etc/brindle/certs"

// clientPort is where members listen for hosts unless told otherwise.
const clientPort = "2379"

// clusterOptions are the flags that make a server one of several.
type clusterOptions struct {
	name       string
	peers      string
	peerListen string
	join       bool
	certs      string
}

// identity adds the flags that say which member of which cluster this is.
func (o *clusterOptions) identity(c *cobra.Command) {
	f := c.Flags()
	f.StringVar(&o.name, "name", "", "name of this member")
	f.StringVar(&o.peers, "peers", "", "all members, this one too: NAME=https://ADDRESS:PORT,…")
}

func (o *clusterOptions) flags(c *cobra.Command) {
	o.identity(c)
	f := c.Flags()
	f.StringVar(&o.peerListen, "peer-listen", "", "listen here for the other members, ADDRESS:PORT (default: this member's address in --peers)")
	f.BoolVar(&o.join, "join", false, "join, with an empty folder, a cluster that was told of this member by server members add")
	f.StringVar(&o.certs, "certs", "", "folder made by server certs; whoever comes over TCP is then let in by server users only (default with --peers: "+defaultCertsDir+")")
}

// cluster reads --name and --peers; nil without.
func (o *clusterOptions) cluster() (*embedded.Cluster, error) {
	if o.peers == "" {
		return nil, nil
	}
	peers, err := embedded.ParsePeers(o.peers)
	if err != nil {
		return nil, fmt.Errorf("--peers: %w", err)
	}
	if o.name == "" {
		return nil, errors.New("--name is missing: which of --peers is this member?")
	}
	for _, p := range peers {
		if p.Name == o.name {
			return &embedded.Cluster{Name: o.name, Peers: peers, Join: o.join}, nil
		}
	}
	return nil, fmt.Errorf("--name %s is not among --peers %s: the list has all members, this one too", o.name, o.peers)
}

// complete fills what follows from the flags that are given: where to listen,
// and which files of --certs are this member's.
func (o *serverOptions) complete() (*embedded.Cluster, error) {
	c, err := o.cluster()
	if err != nil {
		return nil, err
	}
	switch {
	case c == nil && o.join:
		return nil, errors.New("--join: there is nothing to join without --peers")
	case c == nil && o.peerListen != "":
		return nil, errors.New("--peer-listen: there are no other members without --peers")
	case c == nil && o.certs == "":
		return nil, nil
	case o.name == "":
		return nil, errors.New("--name is missing: whose certificate of --certs is it?")
	case o.certs == "":
		o.certs = defaultCertsDir
	}
	cert, key := server.CertFiles(o.certs, server.MemberCert, o.name)
	ca := server.AuthorityFile(o.certs)
	if c != nil {
		c.TLS = embedded.TLS{Listen: o.peerListen, CertFile: cert, KeyFile: key, CAFile: ca}
		if err := o.listenAt(c); err != nil {
			return nil, err
		}
	}
	if o.tls.CertFile == "" && o.tls.KeyFile == "" && o.tls.CAFile == "" {
		o.tls.CertFile, o.tls.KeyFile, o.tls.CAFile = cert, key, ca
	}
	return c, nil
}

// listenAt fills where hosts are listened for: beside the other members.
func (o *serverOptions) listenAt(c *embedded.Cluster) error {
	at := o.peerListen
	for _, p := range c.Peers {
		if p.Name == c.Name && at == "" {
			u, err := url.Parse(p.URL)
			if err != nil {
				return err
			}
			at = u.Host
		}
	}
	host, _, err := net.SplitHostPort(at)
	if err == nil && net.ParseIP(host) == nil {
		return fmt.Errorf("--peers: %s is a name; say with --peer-listen ADDRESS:PORT where to listen for the other members", at)
	}
	if err != nil || o.peerListen != "" {
		if err := hostPort("peer-listen", o.peerListen); err != nil {
			return err
		}
	}
	if o.tls.Listen == "" {
		o.tls.Listen = net.JoinHostPort(host, clientPort)
	}
	return nil
}

// hostPort checks an address to listen on before anything is started.
func hostPort(flag, s string) error {
	host, port, err := net.SplitHostPort(s)
	if err == nil && net.ParseIP(host) == nil {
		err = errors.New("the host must be an IP address of this machine")
	}
	if n, perr := strconv.ParseUint(port, 10, 16); err == nil && (perr != nil || n == 0) {
		err = errors.New("the port must be a number from 1 to 65535")
	}
	if err != nil {
		return fmt.Errorf("--%s %q: %w", flag, s, err)
	}
	return nil
}
