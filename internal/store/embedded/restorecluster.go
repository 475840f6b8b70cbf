package embedded

import (
	"fmt"
	"path/filepath"

	"go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/client/pkg/v3/types"
	"go.etcd.io/etcd/server/v3/etcdserver/api/membership"
	"go.etcd.io/etcd/server/v3/storage/backend"
	"go.etcd.io/etcd/server/v3/storage/schema"
	"go.etcd.io/etcd/server/v3/storage/wal"
	"go.etcd.io/etcd/server/v3/storage/wal/walpb"
	"go.etcd.io/raft/v3/raftpb"
	"go.uber.org/zap"
	"google.golang.org/protobuf/proto"
)

// startCluster writes into a restored folder what makes it one member of a new
// cluster whose history begins with a snapshot: the database. A member that
// joins later is then sent the database, and not only what was written since.
// token is part of the cluster's identity, the same for all of its members.
func (c *Cluster) startCluster(dir, token string) error {
	log := zap.NewNop()
	urls := types.URLsMap{}
	for _, p := range c.Peers {
		u, err := types.NewURLs([]string{p.URL})
		if err != nil {
			return err
		}
		urls[p.Name] = u
	}
	members, err := membership.NewClusterFromURLsMap(log, token, urls)
	if err != nil {
		return err
	}
	own := members.MemberByName(c.Name)
	if own == nil {
		return fmt.Errorf("member %q is not among the peers", c.Name)
	}
	state := &raftpb.ConfState{}
	for _, id := range members.MemberIDs() {
		state.Voters = append(state.Voters, uint64(id))
	}
	index, term := uint64(len(state.Voters)), uint64(1)

	be := backend.NewDefaultBackend(log, filepath.Join(dir, "member", "snap", "db"))
	members.SetBackend(schema.NewMembershipBackend(log, be))
	for _, m := range members.Members() {
		members.AddMember(m, membership.ApplyBoth)
	}
	tx := be.BatchTx()
	tx.LockOutsideApply()
	schema.UnsafeUpdateConsistentIndexForce(tx, index, term)
	schema.MustUnsafeSaveConfStateToBackend(log, tx, state)
	tx.Unlock()
	be.ForceCommit()
	if err := be.Close(); err != nil {
		return err
	}

	who, err := proto.Marshal(&etcdserverpb.Metadata{NodeID: new(uint64(own.ID)), ClusterID: new(uint64(members.ID()))})
	if err != nil {
		return err
	}
	w, err := wal.Create(log, filepath.Join(dir, "member", "wal"), who)
	if err != nil {
		return err
	}
	err = w.Save(&raftpb.HardState{Term: new(term), Commit: new(index)}, nil)
	if err == nil {
		err = w.SaveSnapshot(&walpb.Snapshot{Index: new(index), Term: new(term), ConfState: state})
	}
	if cerr := w.Close(); err == nil {
		err = cerr
	}
	return err
}
