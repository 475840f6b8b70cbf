package embedded

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"go.etcd.io/etcd/client/pkg/v3/types"
	"go.etcd.io/etcd/server/v3/etcdserver/api/membership"
)

// ErrNoMember says that the cluster has no such member.
var ErrNoMember = errors.New("no such member")

// Member is one member of the cluster, as this one sees it.
type Member struct {
	Name    string   `json:"name,omitempty"` // "": it never started
	ID      string   `json:"id"`
	Peer    string   `json:"peer"` // where it listens for the others
	Clients []string `json:"clients,omitempty"`
	Leader  bool     `json:"leader"`
	Self    bool     `json:"self"`
}

// Members returns all members, sorted by name and address.
func (s *Server) Members() []Member {
	e := s.etcd.Server
	var out []Member
	for _, m := range e.Cluster().Members() {
		out = append(out, Member{
			Name: m.Name, ID: m.ID.String(), Peer: strings.Join(m.PeerURLs, ","), Clients: m.ClientURLs,
			Leader: m.ID == e.Leader(), Self: m.ID == e.MemberID(),
		})
	}
	slices.SortFunc(out, func(a, b Member) int { return strings.Compare(a.Name+" "+a.Peer, b.Name+" "+b.Peer) })
	return out
}

// AddMember tells the cluster of a member that is to join. Most of the members
// must run, also counting the new one.
func (s *Server) AddMember(ctx context.Context, p Peer) error {
	if s.cfg.Cluster == nil {
		return errors.New("add member: this server is alone and listens for no others; start it with --peers")
	}
	for _, m := range s.Members() {
		if m.Name == p.Name || m.Peer == p.URL {
			return fmt.Errorf("add member %s: %s is a member already, at %s; remove it first", p.Name, word(m), m.Peer)
		}
	}
	urls, err := types.NewURLs([]string{p.URL})
	if err != nil {
		return fmt.Errorf("add member %s: %w", p.Name, err)
	}
	// The index makes the identity of a member that returns another one.
	token := fmt.Sprintf("%s-%d", p.Name, s.etcd.Server.CommittedIndex())
	m := membership.NewMember("", urls, token, nil)
	if _, err := s.etcd.Server.AddMember(asRoot(ctx), *m); err != nil {
		return fmt.Errorf("add member %s: %w", p.Name, reconfigure(err))
	}
	return nil
}

// RemoveMember takes a member out of the cluster, by its name, its address or
// its number. Its data is of no use afterwards. Without it the error is
// ErrNoMember.
func (s *Server) RemoveMember(ctx context.Context, name string) error {
	for _, m := range s.Members() {
		if name == "" || m.Name != name && m.Peer != name && m.ID != name {
			continue
		}
		id, err := types.IDFromString(m.ID)
		if err != nil {
			return fmt.Errorf("remove member %s: %w", name, err)
		}
		if _, err := s.etcd.Server.RemoveMember(asRoot(ctx), uint64(id)); err != nil {
			return fmt.Errorf("remove member %s: %w", name, reconfigure(err))
		}
		return nil
	}
	return fmt.Errorf("remove member %s: %w", name, ErrNoMember)
}

func word(m Member) string {
	if m.Name == "" {
		return "one that never started"
	}
	return m.Name
}

// reconfigure says what to do where etcd only says no.
func reconfigure(err error) error {
	text := err.Error()
	if strings.Contains(text, "unhealthy cluster") || strings.Contains(text, "not enough started members") {
		return fmt.Errorf("%w: the others must run and reach each other, else the cluster would stand still; start or remove what is down first", err)
	}
	return err
}

// IsLeader reports whether this member leads.
func (s *Server) IsLeader() bool { return s.etcd.Server.MemberID() == s.etcd.Server.Leader() }
