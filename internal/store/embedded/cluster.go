package embedded

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"go.etcd.io/etcd/server/v3/embed"

	"github.com/brindle-net/brindle/internal/files"
)

// MemberCN is the common name of every member's certificate. Members talk to
// none that has another one, so that the key of a host cannot play member.
const MemberCN = "brindle-member"

// Peer is one member of a cluster, and where it listens for the others.
type Peer struct {
	Name string
	URL  string // "https://192.0.2.1:2380"
}

// Cluster makes an etcd one of several members.
type Cluster struct {
	Name  string // of this member
	Peers []Peer // all members, this one included
	// TLS is for the connections between members. An empty Listen means what
	// the URL of this member says, which must be an address then.
	TLS TLS
	// Join makes an empty data directory part of a cluster that runs already
	// and has been told of this member. With data in it Join changes nothing.
	Join bool
}

// memberNames are what a member may be called: its name is part of a list
// with commas and equal signs, and of file names.
var memberNames = regexp.MustCompile(`^[a-zA-Z0-9]([a-zA-Z0-9._-]{0,61}[a-zA-Z0-9])?$`)

// CheckMemberName says what is wrong with the name of a member.
func CheckMemberName(name string) error {
	if !memberNames.MatchString(name) {
		return fmt.Errorf("member %q: a name has letters, digits, dots, hyphens and underscores, at most 63, and begins and ends with a letter or digit", name)
	}
	return nil
}

// ParsePeers reads "a=https://192.0.2.1:2380,b=https://…". The order does not
// matter.
func ParsePeers(s string) ([]Peer, error) {
	var out []Peer
	for part := range strings.SplitSeq(s, ",") {
		name, at, ok := strings.Cut(strings.TrimSpace(part), "=")
		if !ok || at == "" {
			return nil, fmt.Errorf("peer %q: must be NAME=https://ADDRESS:PORT", part)
		}
		if err := CheckMemberName(name); err != nil {
			return nil, err
		}
		if err := checkPeerURL(at); err != nil {
			return nil, fmt.Errorf("peer %s: %w", name, err)
		}
		p := Peer{Name: name, URL: strings.TrimSuffix(at, "/")}
		for _, other := range out {
			if other.Name == p.Name {
				return nil, fmt.Errorf("peer %s is listed twice", name)
			}
			if other.URL == p.URL {
				return nil, fmt.Errorf("peers %s and %s have the same address %s", other.Name, name, at)
			}
		}
		out = append(out, p)
	}
	slices.SortFunc(out, func(a, b Peer) int { return strings.Compare(a.Name, b.Name) })
	return out, nil
}

func checkPeerURL(s string) error {
	u, err := url.Parse(s)
	if err != nil {
		return fmt.Errorf("address %q is no URL; write https://ADDRESS:PORT", s)
	}
	switch {
	case u.Scheme == "http":
		return fmt.Errorf("address %q: members speak TLS only; write https://", s)
	case u.Scheme != "https" || u.Hostname() == "" || u.Port() == "" || strings.Trim(u.Path, "/") != "" || u.User != nil || u.RawQuery != "":
		return fmt.Errorf("address %q: must be https://ADDRESS:PORT, nothing before or after", s)
	}
	if ip := net.ParseIP(u.Hostname()); ip != nil && ip.IsUnspecified() {
		return fmt.Errorf("address %q: the others cannot reach that; give the address of the host", s)
	}
	return nil
}

// self returns the peer that is this member.
func (c *Cluster) self() (Peer, error) {
	var names []string
	for _, p := range c.Peers {
		if p.Name == c.Name {
			return p, nil
		}
		names = append(names, p.Name)
	}
	return Peer{}, fmt.Errorf("this member is named %q, but the peers are %s: the list has all members, this one too", c.Name, strings.Join(names, ", "))
}

// check says what cannot work, and fills where to listen.
func (c *Cluster) check() error {
	if err := CheckMemberName(c.Name); err != nil {
		return err
	}
	own, err := c.self()
	if err != nil {
		return err
	}
	if len(c.Peers)%2 == 0 && !c.Join {
		return fmt.Errorf("%d members bear no more losses than %d: name 1, 3 or 5", len(c.Peers), len(c.Peers)-1)
	}
	u, err := url.Parse(own.URL)
	if err != nil {
		return err
	}
	if c.TLS.Listen == "" {
		if net.ParseIP(u.Hostname()) == nil {
			return fmt.Errorf("peer %s: its address %s is a name; say with an IP address where to listen for the others", own.Name, u.Host)
		}
		c.TLS.Listen = u.Host
	}
	if err := c.TLS.check(); err != nil {
		return err
	}
	return checkMemberCert(c.TLS, u.Hostname(), time.Now())
}

// checkMemberCert says why the other members would not talk to one with this
// certificate: they only say that the handshake failed.
func checkMemberCert(t TLS, host string, now time.Time) error {
	pair, err := tls.LoadX509KeyPair(t.CertFile, t.KeyFile)
	if err != nil {
		return fmt.Errorf("certificate %s: %w", t.CertFile, err)
	}
	leaf := pair.Leaf
	if leaf.Subject.CommonName != MemberCN {
		return fmt.Errorf("certificate %s is that of %q and not of a member; make one with `brindle server certs member`", t.CertFile, leaf.Subject.CommonName)
	}
	if err := leaf.VerifyHostname(host); err != nil {
		return fmt.Errorf("certificate %s is not for %s, under which the others know this member (%w); make one with `brindle server certs member NAME --address %s`", t.CertFile, host, err, host)
	}
	authority, err := os.ReadFile(t.CAFile)
	if err != nil {
		return err
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(authority)
	for _, use := range []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth} {
		_, err := leaf.Verify(x509.VerifyOptions{Roots: pool, CurrentTime: now, KeyUsages: []x509.ExtKeyUsage{use}})
		if err != nil {
			return fmt.Errorf("certificate %s does not stand up to authority %s at %s by this host's clock: %w", t.CertFile, t.CAFile, now.UTC().Format(time.RFC3339), err)
		}
	}
	return nil
}

// apply makes etcd's configuration that of a member.
func (c *Cluster) apply(to *embed.Config) error {
	own, err := c.self()
	if err != nil {
		return err
	}
	advertised, err := url.Parse(own.URL)
	if err != nil {
		return err
	}
	to.Name = c.Name
	to.ListenPeerUrls = []url.URL{{Scheme: "https", Host: c.TLS.Listen}}
	to.AdvertisePeerUrls = []url.URL{*advertised}
	var all []string
	for _, p := range c.Peers {
		all = append(all, p.Name+"="+p.URL)
	}
	to.InitialCluster = strings.Join(all, ",")
	to.InitialClusterToken = clusterToken
	if c.Join {
		to.ClusterState = embed.ClusterStateFlagExisting
	}
	p := &to.PeerTLSInfo
	p.CertFile, p.KeyFile, p.TrustedCAFile = c.TLS.CertFile, c.TLS.KeyFile, c.TLS.CAFile
	p.ClientCertAuth, p.AllowedCNs = true, []string{MemberCN}
	// Who is a member is in the name; by which of its addresses it comes does
	// not matter.
	p.SkipClientSANVerify = true
	to.TickMs, to.ElectionMs = 100, 1000
	return nil
}

// clusterToken is part of the identity of a cluster that starts empty. All
// members must have the same; one that was restored has another.
const clusterToken = "brindle"

// memberFile holds the name of the member that a data directory belongs to.
const memberFile = "member"

// ErrOtherMember says that a data directory belongs to another member.
var ErrOtherMember = errors.New("the folder belongs to another member")

// claimDir makes sure that data is that of the member who starts on it: etcd
// would go on as whoever it was, and silently ignore what it is told.
func claimDir(dir, name string) error {
	text, err := os.ReadFile(filepath.Join(dir, memberFile))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	was, data := strings.TrimSpace(string(text)), hasData(dir)
	if was == "" && data {
		was = memberName // older than this file
	}
	switch {
	case was == name:
		return nil
	case data && name == memberName:
		return fmt.Errorf("%w: its data is that of member %q; start with --name %s and --peers", ErrOtherMember, was, was)
	case data && was == memberName:
		return fmt.Errorf("%w: it has the datastore of a single member; to make that %q of several, save a snapshot and restore it into new folders with --name and --peers", ErrOtherMember, name)
	case data:
		return fmt.Errorf("%w: its data is that of %q, and this is %q", ErrOtherMember, was, name)
	}
	return writeMember(dir, name)
}

// hasData reports whether etcd ever ran on a data directory, or data was
// restored to it.
func hasData(dir string) bool {
	for _, part := range []string{"wal", "snap/db"} {
		if _, err := os.Stat(filepath.Join(dir, "etcd", "member", part)); err == nil {
			return true
		}
	}
	return false
}

// writeMember notes whose a data directory is, on the disk before etcd's first
// byte is: data without a name is taken for that of a single member.
func writeMember(dir, name string) error {
	return files.Write(filepath.Join(dir, memberFile), []byte(name+"\n"), 0o600)
}

// explain turns what etcd says at start into what to do.
func (c *Cluster) explain(err error) error {
	if c == nil || err == nil {
		return err
	}
	text := err.Error()
	for _, e := range []struct{ has, say string }{
		{"has already been bootstrapped", "the cluster runs already and knows this member, but the folder is empty: on another member run `brindle server members remove " + c.Name + "` and `brindle server members add " + c.Name + "=…`, then start here with --join"},
		{"cannot fetch cluster info", "none of the other members answers; --join needs a cluster that runs"},
		{"error validating peerURLs", "--peers is not the list of members that the cluster has; see `brindle server members list` on another member. A new one is made known there with `members add` before it starts"},
		{"member count is unequal", "--peers is not the list of members that the cluster has; see `brindle server members list` on another member"},
		{"the member has been permanently removed", "this member was removed from the cluster; move its folder away, and make it known again with `brindle server members add` on another member"},
	} {
		if strings.Contains(text, e.has) {
			return fmt.Errorf("%s (%w)", e.say, err)
		}
	}
	return err
}
