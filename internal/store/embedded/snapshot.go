package embedded

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/server/v3/storage/backend"
	"go.etcd.io/etcd/server/v3/storage/mvcc"
	"go.etcd.io/etcd/server/v3/storage/schema"
	"go.uber.org/zap"
	"google.golang.org/protobuf/proto"

	"github.com/brindle-net/brindle/internal/files"
)

// A snapshot is a copy of etcd's database followed by its SHA-256 sum, as
// etcd's own tools write and read it.

// restoredKey holds a note of the last restore. It lies outside everything
// that Calico's programs read.
const restoredKey = "/brindle/restored"

// revisionBump is how far a restore lifts the revision, so that nothing that
// was written after the snapshot shares a revision with something written
// after the restore. It is a year of 30 writes per second.
const revisionBump = 1_000_000_000

// restoring is the directory that a restore prepares and then renames.
const restoring = "etcd.restoring"

// SaveSnapshot writes the whole datastore as of now to a file, mode 0600, that
// appears only when it is complete and safely on disk.
func (s *Server) SaveSnapshot(ctx context.Context, path string) error {
	if err := s.saveSnapshot(ctx, path); err != nil {
		return fmt.Errorf("save snapshot %s: %w", path, err)
	}
	return nil
}

func (s *Server) saveSnapshot(ctx context.Context, path string) error {
	s.catchUp(ctx)
	s.etcd.Server.KV().Commit()
	return writeSnapshot(ctx, s.etcd.Server.Backend(), path)
}

// SaveStopped is SaveSnapshot of a data directory on which no server runs. Of
// a member it is what that member had on disk: a cluster without a majority
// has nobody who could say more.
func SaveStopped(ctx context.Context, dir, path string) error {
	if err := saveStopped(ctx, dir, path); err != nil {
		return fmt.Errorf("save snapshot %s of %s: %w", path, dir, err)
	}
	return nil
}

func saveStopped(ctx context.Context, dir, path string) error {
	name, err := os.ReadFile(filepath.Join(dir, memberFile))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	if was := strings.TrimSpace(string(name)); was == "" || was == memberName {
		// Alone, it can also say what is in its log only.
		s, err := Start(ctx, Config{Dir: dir, History: -1})
		if err != nil {
			return err
		}
		return errors.Join(s.saveSnapshot(ctx, path), s.Close())
	}
	lock, err := lockDir(dir)
	if err != nil {
		return err
	}
	defer lock.Close()
	db := filepath.Join(dir, "etcd", "member", "snap", "db")
	if _, err := os.Stat(db); err != nil {
		return err
	}
	be := backend.NewDefaultBackend(zap.NewNop(), db)
	return errors.Join(writeSnapshot(ctx, be, path), be.Close())
}

// writeSnapshot writes a database and its sum to a file.
func writeSnapshot(ctx context.Context, be backend.Backend, path string) error {
	return files.Replace(path, 0o600, func(f io.Writer) error {
		snap := be.Snapshot()
		defer snap.Close()
		sum := sha256.New()
		if _, err := snap.WriteTo(&ctxWriter{ctx: ctx, to: io.MultiWriter(f, sum)}); err != nil {
			if ctx.Err() != nil {
				return ctx.Err() // which the database's error hides
			}
			return err
		}
		_, err := f.Write(sum.Sum(nil))
		return err
	})
}

// catchUp waits until this member knows all that any member has acknowledged.
// Without a majority nobody can tell, and a copy of what is here may be all
// that is left.
func (s *Server) catchUp(ctx context.Context) {
	if s.cfg.Cluster == nil {
		return
	}
	limited, cancel := context.WithTimeout(ctx, catchUpWithin)
	defer cancel()
	if err := s.etcd.Server.LinearizableReadNotify(limited); err != nil && ctx.Err() == nil {
		s.cfg.Log.WarnContext(ctx, "snapshot is of what this member knows, which may not be the latest", "err", err)
	}
}

// catchUpWithin is how long a snapshot waits for a majority.
const catchUpWithin = 5 * time.Second

// RestoreSnapshot fills an empty data directory from a snapshot. The restored
// datastore is a new cluster with higher revisions, so that every program that
// watched the old one lists again. No server may run on dir. With a cluster the
// directory becomes that member of it; each member restores the same snapshot,
// with the same peers.
func RestoreSnapshot(path, dir string, cluster *Cluster) error {
	if err := restore(path, dir, cluster); err != nil {
		return fmt.Errorf("restore snapshot %s to %s: %w", path, dir, err)
	}
	return nil
}

func restore(path, dir string, cluster *Cluster) error {
	name := memberName
	if cluster != nil {
		name = cluster.Name
		if _, err := cluster.self(); err != nil {
			return err
		}
	}
	if err := makeDir(dir); err != nil {
		return err
	}
	lock, err := lockDir(dir)
	if err != nil {
		return err
	}
	defer lock.Close()
	if _, err := os.Lstat(filepath.Join(dir, "etcd")); err == nil {
		return errors.New("there is data already; move it away first")
	}
	work := filepath.Join(dir, restoring)
	if err := os.RemoveAll(work); err != nil {
		return err
	}
	db := filepath.Join(work, "member", "snap", "db")
	if err := os.MkdirAll(filepath.Dir(db), 0o700); err != nil {
		return err
	}
	sum, err := copyDatabase(path, db)
	if err == nil {
		err = renewDatabase(db)
	}
	if err == nil && cluster != nil {
		err = cluster.startCluster(work, "restored-"+sum)
	}
	if err == nil {
		err = writeMember(dir, name)
	}
	if err != nil {
		return errors.Join(err, os.RemoveAll(work))
	}
	for _, part := range []string{"member/snap", "member", ""} { // what is in them is on the disk
		if err := files.SyncDir(filepath.Join(work, part)); err != nil {
			return err
		}
	}
	if err := os.Rename(work, filepath.Join(dir, "etcd")); err != nil {
		return err
	}
	return files.SyncDir(dir)
}

// finishRestore removes what an interrupted restore left behind.
func finishRestore(dir string) error { return os.RemoveAll(filepath.Join(dir, restoring)) }

// copyDatabase takes the database out of a snapshot, and checks and returns
// its sum.
func copyDatabase(from, to string) (string, error) {
	in, err := os.Open(from)
	if err != nil {
		return "", err
	}
	defer in.Close()
	info, err := in.Stat()
	if err != nil {
		return "", err
	}
	size := info.Size() - sha256.Size
	if size <= 0 || size%512 != 0 {
		return "", errors.New("this is no snapshot, or not all of it")
	}
	out, err := os.OpenFile(to, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return "", err
	}
	defer out.Close()
	sum := sha256.New()
	if _, err := io.CopyN(io.MultiWriter(out, sum), in, size); err != nil {
		return "", err
	}
	want := make([]byte, sha256.Size)
	if _, err := io.ReadFull(in, want); err != nil {
		return "", err
	}
	if string(want) != string(sum.Sum(nil)) {
		return "", errors.New("the checksum is wrong: the file was changed or damaged")
	}
	return hex.EncodeToString(want), errors.Join(out.Sync(), out.Close())
}

// renewDatabase makes a database into one that a new cluster can start with:
// without members and place in the old cluster's log, and at a revision that
// the old cluster never reached, everything before it being compacted.
func renewDatabase(path string) error {
	log := zap.NewNop()
	be := backend.NewDefaultBackend(log, path)
	if err := schema.NewMembershipBackend(log, be).TrimMembershipFromBackend(); err != nil {
		return errors.Join(err, be.Close())
	}
	err := func() error {
		tx := be.BatchTx()
		tx.LockOutsideApply()
		defer tx.Unlock()
		for _, key := range [][]byte{schema.MetaConsistentIndexKeyName, schema.MetaTermKeyName, schema.MetaConfStateName} {
			tx.UnsafeDelete(schema.Meta, key)
		}
		return liftRevision(tx)
	}()
	if err == nil {
		be.ForceCommit()
	}
	return errors.Join(err, be.Close())
}

// liftRevision writes restoredKey at a revision far above all others.
func liftRevision(tx backend.BatchTx) error {
	var last mvcc.Revision
	err := tx.UnsafeForEach(schema.Key, func(k, _ []byte) error {
		last = mvcc.BytesToRev(k) // keys are in order
		return nil
	})
	if err != nil {
		return err
	}
	at := mvcc.Revision{Main: last.Main + revisionBump}
	kv, err := proto.Marshal(&mvccpb.KeyValue{
		Key: []byte(restoredKey), Value: fmt.Appendf(nil, `{"fromRevision":%d}`, last.Main),
		CreateRevision: at.Main, ModRevision: at.Main, Version: 1,
	})
	if err != nil {
		return err
	}
	tx.UnsafePut(schema.Key, mvcc.RevToBytes(at, mvcc.NewRevBytes()), kv)
	mvcc.UnsafeSetScheduledCompact(tx, at.Main)
	return nil
}

// ctxWriter stops writing when ctx ends.
type ctxWriter struct {
	ctx context.Context
	to  io.Writer
}

func (w *ctxWriter) Write(p []byte) (int, error) {
	if err := w.ctx.Err(); err != nil {
		return 0, err
	}
	return w.to.Write(p)
}
