package embedded

import (
	"context"
	"errors"
	"fmt"

	"go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/server/v3/storage/mvcc"
)

// Status is how an etcd is doing.
type Status struct {
	Endpoint  string // where clients connect
	Revision  int64  // of the last write
	Size      int64  // bytes of the database file
	SizeInUse int64  // bytes of it that hold data; the rest is reused, or freed by Defragment
	Quota     int64  // bytes at which writes are refused
	Full      bool   // writes are refused: the quota was reached
	Corrupt   bool   // etcd found that its data is damaged
}

// Status returns how this etcd is doing.
func (s *Server) Status() Status {
	be := s.etcd.Server.Backend()
	st := Status{
		Endpoint: s.Endpoint(), Revision: s.etcd.Server.KV().Rev(),
		Size: be.Size(), SizeInUse: be.SizeInUse(), Quota: s.cfg.Quota,
	}
	for _, a := range s.etcd.Server.Alarms() {
		switch a.Alarm {
		case etcdserverpb.AlarmType_NOSPACE:
			st.Full = true
		case etcdserverpb.AlarmType_CORRUPT:
			st.Corrupt = true
		}
	}
	return st
}

// Compact forgets all history, so that its space can be reused. Without any
// history it does nothing.
func (s *Server) Compact(ctx context.Context) error {
	rev := s.etcd.Server.KV().Rev()
	_, err := s.etcd.Server.Compact(ctx, &etcdserverpb.CompactionRequest{Revision: rev, Physical: true})
	if err != nil && !errors.Is(err, mvcc.ErrCompacted) {
		return fmt.Errorf("compact etcd to revision %d: %w", rev, err)
	}
	return nil
}

// Defragment gives unused space back to the file system. Nothing can be read
// or written meanwhile.
func (s *Server) Defragment() error {
	if err := s.etcd.Server.Backend().Defrag(); err != nil {
		return fmt.Errorf("defragment etcd: %w", err)
	}
	return nil
}

// Relieve frees space and takes writes again after the quota was reached. It
// says whether that helped; if not, data must be deleted or the quota raised.
func (s *Server) Relieve(ctx context.Context) (bool, error) {
	if err := s.Compact(ctx); err != nil {
		return false, err
	}
	if err := s.Defragment(); err != nil {
		return false, err
	}
	// With less than a tenth free the alarm would be back at once.
	if s.Status().Size > s.cfg.Quota/10*9 {
		return false, nil
	}
	for _, a := range s.etcd.Server.Alarms() {
		if a.Alarm != etcdserverpb.AlarmType_NOSPACE {
			continue
		}
		_, err := s.etcd.Server.Alarm(ctx, &etcdserverpb.AlarmRequest{
			Action: etcdserverpb.AlarmRequest_DEACTIVATE, MemberID: a.MemberID, Alarm: a.Alarm,
		})
		if err != nil {
			return false, fmt.Errorf("take back etcd's alarm: %w", err)
		}
	}
	return true, nil
}
