package embedded

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"go.etcd.io/etcd/client/pkg/v3/types"
	"go.etcd.io/etcd/server/v3/etcdserver/api/membership"
	servererrors "go.etcd.io/etcd/server/v3/etcdserver/errors"
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
	err = patiently(ctx, func(ctx context.Context) (bool, error) {
		for _, m := range s.Members() {
			if m.Peer == p.URL {
				return true, nil // an attempt whose answer was lost
			}
		}
		// The index makes the identity of one that returns another one.
		m := membership.NewMember("", urls, fmt.Sprintf("%s-%d", p.Name, s.etcd.Server.CommittedIndex()), nil)
		_, err := s.etcd.Server.AddMember(asRoot(ctx), *m)
		return err == nil, err
	})
	if err != nil {
		return fmt.Errorf("add member %s: %w", p.Name, reconfigure(err))
	}
	return nil
}

// RemoveMember takes a member out of the cluster, by its name, its address or
// its number. Its data is of no use afterwards. Without it the error is
// ErrNoMember.
func (s *Server) RemoveMember(ctx context.Context, name string) error {
	attempts := 0
	err := patiently(ctx, func(ctx context.Context) (bool, error) {
		for _, m := range s.Members() {
			if name == "" || m.Name != name && m.Peer != name && m.ID != name {
				continue
			}
			id, err := types.IDFromString(m.ID)
			if err != nil {
				return true, err
			}
			attempts++
			_, err = s.etcd.Server.RemoveMember(asRoot(ctx), uint64(id))
			return err == nil, err
		}
		if attempts > 0 {
			return true, nil // the answer was lost
		}
		return true, ErrNoMember
	})
	if err != nil {
		return fmt.Errorf("remove member %s: %w", name, reconfigure(err))
	}
	return nil
}

// attemptWithin is how long one attempt waits for an answer.
const attemptWithin = 3 * time.Second

// patiently tries until it is done, or refused for a reason that does not go
// away by itself: for seconds after a member was lost there is no leader, and
// etcd takes the cluster for unhealthy.
func patiently(ctx context.Context, try func(ctx context.Context) (done bool, err error)) error {
	pause := time.NewTicker(500 * time.Millisecond)
	defer pause.Stop()
	for {
		limited, cancel := context.WithTimeout(ctx, attemptWithin)
		done, err := try(limited)
		cancel()
		if done {
			return err
		}
		// What was on its way to a leader that died is never answered.
		passing := errors.Is(err, context.DeadlineExceeded)
		for _, e := range []error{
			servererrors.ErrUnhealthy, servererrors.ErrNoLeader, servererrors.ErrLeaderChanged, servererrors.ErrTimeout,
			servererrors.ErrTimeoutDueToLeaderFail, servererrors.ErrTimeoutDueToConnectionLost,
		} {
			passing = passing || errors.Is(err, e)
		}
		if !passing {
			return err
		}
		select {
		case <-ctx.Done():
			return err
		case <-pause.C:
		}
	}
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

// HasLeader reports whether this member knows of one that leads: without one
// there is no majority.
func (s *Server) HasLeader() bool { return s.etcd.Server.Leader() != 0 }
