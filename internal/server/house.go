package server

import (
	"cmp"
	"context"
	"fmt"
	"net"
	"net/url"
	"strings"
	"time"

	"github.com/brindle-net/brindle/internal/store/embedded"
)

// Limits of housekeeping.
const (
	warnAt       = 0.8             // of the quota: time to tell a human
	calmAt       = 0.7             // of the quota: the warning is over
	minUnused    = 64 << 20        // bytes of unused space that are worth a pause
	relieveEvery = 5 * time.Minute // between attempts to free space
)

// keepHouse looks at the size of etcd again and again. etcd compacts by
// itself; what is left is to give space back, to tell of a quota that comes
// near, and to get going again after it was reached.
func (s *server) keepHouse(ctx context.Context) error {
	ticker := time.NewTicker(s.cfg.Interval)
	defer ticker.Stop()
	var relieved time.Time
	for {
		st := s.etcd.Status()
		s.watchCerts(time.Now())
		s.watchMembers(ctx)
		s.judge(ctx, st)
		switch {
		case st.Full && time.Since(relieved) >= relieveEvery:
			relieved = time.Now()
			s.relieve(ctx)
		case st.Size-st.SizeInUse > minUnused && st.SizeInUse < st.Size/2:
			s.defragment(ctx, st)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-ticker.C:
		}
	}
}

// level is how urgently a human is needed.
type level int

const (
	fine level = iota
	near
	full
	corrupt
)

// look is what housekeeping saw beside etcd itself.
type look struct {
	expires    time.Time // the first of the certificates; zero without any
	expiring   string    // what is wrong with it; "" if nothing
	absent     []string  // members that do not answer
	members    int       // how many there are
	leaderless int       // looks in a row that found nobody to lead
}

func (l look) absentText() string {
	if len(l.absent) == 0 {
		return "see what they say"
	}
	return "these members do not answer: " + strings.Join(l.absent, ", ")
}

// answerWithin is how long a member may take to accept a connection.
const answerWithin = 2 * time.Second

// watchMembers notes which of the other members do not answer.
func (s *server) watchMembers(ctx context.Context) {
	if s.cfg.Cluster == nil {
		return
	}
	members := s.etcd.Members()
	dialer := net.Dialer{Timeout: answerWithin}
	var absent []string
	for _, m := range members {
		u, err := url.Parse(m.Peer)
		if m.Self || err != nil {
			continue
		}
		conn, err := dialer.DialContext(ctx, "tcp", u.Host)
		if err == nil {
			conn.Close()
			continue
		}
		absent = append(absent, cmp.Or(m.Name, "one that never started")+" at "+m.Peer)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.look.absent, s.look.members = absent, len(members)
	if s.etcd.HasLeader() {
		s.look.leaderless = 0
	} else {
		s.look.leaderless++
	}
}

// assess says how things stand, and in words what to do about it. was is the
// level so far: a warning ends well below where it began, so that it does not
// flicker.
func assess(st embedded.Status, l look, was level) (level, string) {
	share := float64(st.SizeInUse) / float64(st.Quota)
	switch {
	case st.Corrupt:
		return corrupt, "etcd found its data damaged: restore a snapshot"
	case st.Full:
		return full, fmt.Sprintf("etcd refuses writes: its %d bytes have reached the quota of %d; delete what is not needed, or raise the quota", st.Size, st.Quota)
	case l.leaderless > 1: // an election is over by the next look
		return full, "no majority of the members is there, so nothing can be written; " + l.absentText()
	case share >= warnAt, was != fine && share >= calmAt:
		return near, fmt.Sprintf("etcd has used %d %% of its quota of %d bytes; when it is full it refuses writes", int(share*100), st.Quota)
	case len(l.absent) > 0:
		if len(l.absent) >= (l.members-1)/2 {
			return near, l.absentText() + "; with one more gone nothing can be written"
		}
		return near, l.absentText()
	case l.expiring != "":
		return near, l.expiring
	}
	return fine, ""
}

// watchCerts notes when the first of this server's certificates expires, and
// whether that is soon. The files are read anew: they are replaced in place.
func (s *server) watchCerts(now time.Time) {
	var files []string
	if t := s.cfg.TLS; t != nil {
		files = append(files, t.CertFile, t.CAFile)
	}
	if c := s.cfg.Cluster; c != nil {
		files = append(files, c.TLS.CertFile, c.TLS.CAFile)
	}
	var first Cert
	for _, f := range files {
		c, err := Certs{Now: func() time.Time { return now }}.read(f)
		if err == nil && (first.File == "" || c.Expires.Before(first.Expires)) {
			first = c
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.look.expires, s.look.expiring = first.Expires, ""
	if first.Problem != "" {
		s.look.expiring = fmt.Sprintf("certificate %s %s; nobody connects without: `brindle server certs renew`", first.File, first.Problem)
	}
}

// judge notes how things stand and tells when that changes.
func (s *server) judge(ctx context.Context, st embedded.Status) {
	s.mu.Lock()
	defer s.mu.Unlock()
	was := s.level
	s.level, s.problem = assess(st, s.look, was)
	switch {
	case s.level == was:
		return
	case s.level == fine:
		s.since = time.Time{}
		s.cfg.Log.InfoContext(ctx, "datastore needs no attention any more", "size", st.SizeInUse, "quota", st.Quota)
	default:
		s.since = time.Now()
		s.cfg.Log.ErrorContext(ctx, "datastore needs attention", "problem", s.problem, "size", st.SizeInUse, "quota", st.Quota)
	}
}

// relieve frees space and lets etcd write again, if that is enough.
func (s *server) relieve(ctx context.Context) {
	helped, err := s.etcd.Relieve(ctx)
	if err != nil || !helped {
		s.cfg.Log.ErrorContext(ctx, "datastore stays full", "err", err)
		return
	}
	s.cfg.Log.WarnContext(ctx, "datastore was full and takes writes again: its history is dropped")
}

// defragment gives space back, which stops etcd for a moment.
func (s *server) defragment(ctx context.Context, before embedded.Status) {
	start := time.Now()
	if err := s.etcd.Defragment(); err != nil {
		s.cfg.Log.ErrorContext(ctx, "datastore not defragmented", "err", err)
		return
	}
	s.cfg.Log.InfoContext(ctx, "datastore defragmented", "before", before.Size, "after", s.etcd.Status().Size, "took", time.Since(start))
}
