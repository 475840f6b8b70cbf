package ipam

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/brindle-net/brindle/internal/store"
)

// sim is a datastore whose every call waits for a scheduler, which decides by
// one seed who goes on, and what goes wrong.
type sim struct {
	t   *testing.T
	rnd *rand.Rand

	data    map[string][]version // per key, oldest first
	rev     int
	steps   int
	onWrite func(key string, value []byte)
	permit  func(by *process, key string, old, value []byte) error // before a write; nil permits all
	writer  *process                                               // who writes just now
	late    []func()                                               // writes that their authors gave up, still on their way

	mu     sync.Mutex // guards parked
	parked []*call

	faults faults
	log    []string
}

// faults are chances in 1,000 per call.
type faults struct {
	stale, conflict, lost, failed, late, crash int
}

type version struct {
	rev   int
	value []byte // nil: deleted
}

// call is one call of the datastore that waits for the scheduler.
type call struct {
	actor  *actor
	name   string
	write  bool
	run    func(asOf int) error
	answer chan error
}

// process is something that can crash: all its actors stop where they are.
type process struct {
	name string
	dead bool
	down chan struct{}
}

// actor is one goroutine of a process.
type actor struct {
	id   int
	proc *process
}

type actorKey struct{}

var (
	errCrashed = errors.New("the process is dead")
	errLost    = errors.New("connection lost")
)

// staleness is how many revisions a stale read may lag behind.
const staleness = 12

func newSim(t *testing.T, seed uint64) *sim {
	return &sim{t: t, rnd: rand.New(rand.NewPCG(seed, 0x9e3779b97f4a7c15)), data: map[string][]version{}}
}

func (s *sim) chance(perMille int) bool { return s.rnd.IntN(1000) < perMille }

// call parks the caller until the scheduler lets it go on.
func (s *sim) call(ctx context.Context, name string, write bool, run func(asOf int) error) error {
	a := ctx.Value(actorKey{}).(*actor)
	c := &call{actor: a, name: name, write: write, run: run, answer: make(chan error, 1)}
	s.mu.Lock()
	if a.proc.dead {
		s.mu.Unlock()
		return errCrashed
	}
	s.parked = append(s.parked, c)
	s.mu.Unlock()
	return <-c.answer
}

// step lets one parked call go on. It returns false when none is parked.
func (s *sim) step(crash func(*process)) bool {
	synctest.Wait()
	s.mu.Lock()
	slices.SortFunc(s.parked, func(a, b *call) int { return cmp.Compare(a.actor.id, b.actor.id) })
	if len(s.parked) == 0 {
		s.mu.Unlock()
		return false
	}
	i := s.rnd.IntN(len(s.parked))
	c := s.parked[i]
	s.parked = slices.Delete(s.parked, i, i+1)
	s.mu.Unlock()
	s.steps++
	if len(s.late) > 0 && s.chance(300) {
		s.late[0]()
		s.late = s.late[1:]
	}
	f := s.faults
	s.writer = c.actor.proc
	switch {
	case s.chance(f.crash):
		did := s.chance(500)
		s.note(c, "crashes, done %v", did)
		if did {
			_ = c.run(s.rev)
		}
		s.kill(c.actor.proc)
		c.answer <- errCrashed
		synctest.Wait()
		crash(c.actor.proc)
	case s.chance(f.failed):
		s.note(c, "fails")
		c.answer <- errLost
	case c.write && s.chance(f.lost):
		s.note(c, "loses its reply")
		_ = c.run(s.rev)
		c.answer <- errLost
	case c.write && strings.Contains(c.name, store.IPAMRoot) && s.chance(f.late):
		s.note(c, "comes late")
		s.late = append(s.late, func() { s.note(c, "comes now"); _ = c.run(s.rev) })
		c.answer <- errLost
	case c.write && s.chance(f.conflict) && !strings.HasPrefix(c.name, "create"):
		s.note(c, "conflicts")
		c.answer <- store.ErrConflict
	case !c.write && s.chance(f.stale):
		s.note(c, "is stale")
		c.answer <- c.run(max(0, s.rev-s.rnd.IntN(staleness)))
	default:
		err := c.run(s.rev)
		s.note(c, "%v", err)
		c.answer <- err
	}
	return true
}

func (s *sim) note(c *call, format string, args ...any) {
	if testing.Verbose() {
		s.log = append(s.log, fmt.Sprintf("%4d %s/%d %s: %s", s.steps, c.actor.proc.name, c.actor.id, c.name, fmt.Sprintf(format, args...)))
	}
}

// kill ends a process: its parked calls, and all later ones, fail.
func (s *sim) kill(p *process) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if p.dead {
		return
	}
	p.dead = true
	close(p.down)
	s.parked = slices.DeleteFunc(s.parked, func(c *call) bool {
		if c.actor.proc == p {
			c.answer <- errCrashed
			return true
		}
		return false
	})
}

func (s *sim) at(key string, asOf int) (version, bool) {
	vs := s.data[key]
	for i := len(vs) - 1; i >= 0; i-- {
		if vs[i].rev <= asOf {
			return vs[i], vs[i].value != nil
		}
	}
	return version{}, false
}

// may asks whether the caller may write a key.
func (s *sim) may(ctx context.Context, key string, value []byte) error {
	if s.permit == nil {
		return nil
	}
	old, _ := s.at(key, s.rev)
	return s.permit(ctx.Value(actorKey{}).(*actor).proc, key, old.value, value)
}

func (s *sim) set(key string, value []byte) store.Revision {
	s.rev++
	s.data[key] = append(s.data[key], version{s.rev, value})
	if s.onWrite != nil {
		s.onWrite(key, value)
	}
	return revision(s.rev)
}

func revision(n int) store.Revision { return store.Revision(fmt.Sprint(n)) }

// Get implements store.Driver.
func (s *sim) Get(ctx context.Context, key string) (kv store.KV, err error) {
	err = s.call(ctx, "get "+key, false, func(asOf int) error {
		v, ok := s.at(key, asOf)
		if !ok {
			return store.ErrNotFound
		}
		kv = store.KV{Key: key, Value: v.value, Revision: revision(v.rev)}
		return nil
	})
	return kv, err
}

// list returns what is below a prefix.
func (s *sim) list(prefix string, asOf int) (l store.Listing) {
	for key := range s.data {
		if strings.HasPrefix(key, prefix) {
			if v, ok := s.at(key, asOf); ok {
				l.KVs = append(l.KVs, store.KV{Key: key, Value: v.value, Revision: revision(v.rev)})
			}
		}
	}
	slices.SortFunc(l.KVs, func(a, b store.KV) int { return strings.Compare(a.Key, b.Key) })
	return l
}

// List implements store.Driver.
func (s *sim) List(ctx context.Context, prefix string) (l store.Listing, err error) {
	err = s.call(ctx, "list "+prefix, false, func(asOf int) error {
		l = s.list(prefix, asOf)
		return nil
	})
	return l, err
}

// Watch implements store.Driver; nothing here watches.
func (s *sim) Watch(context.Context, string, store.Revision) <-chan store.Batch { return nil }

// Create implements store.Driver.
func (s *sim) Create(ctx context.Context, key string, value []byte) (rev store.Revision, err error) {
	err = s.call(ctx, "create "+key, true, func(int) error {
		if _, ok := s.at(key, s.rev); ok {
			return store.ErrExists
		}
		if err := s.may(ctx, key, value); err != nil {
			return err
		}
		rev = s.set(key, value)
		return nil
	})
	return rev, err
}

// Update implements store.Driver.
func (s *sim) Update(ctx context.Context, kv store.KV) (rev store.Revision, err error) {
	err = s.call(ctx, "update "+kv.Key, true, func(int) error {
		v, ok := s.at(kv.Key, s.rev)
		if !ok {
			return store.ErrNotFound
		}
		if kv.Revision != "" && revision(v.rev) != kv.Revision {
			return store.ErrConflict
		}
		if err := s.may(ctx, kv.Key, kv.Value); err != nil {
			return err
		}
		rev = s.set(kv.Key, kv.Value)
		return nil
	})
	return rev, err
}

// Transact implements store.Transactor.
func (s *sim) Transact(ctx context.Context, writes []store.Write) (rev store.Revision, err error) {
	name := "transact"
	for _, w := range writes {
		name += " " + w.Key
	}
	err = s.call(ctx, name, true, func(int) error {
		for _, w := range writes {
			v, ok := s.at(w.Key, s.rev)
			if err := w.Check(ok, revision(v.rev)); err != nil {
				return err
			}
		}
		for _, w := range writes {
			if err := s.may(ctx, w.Key, w.Value); err != nil {
				return err
			}
		}
		s.rev++
		for _, w := range writes {
			s.data[w.Key] = append(s.data[w.Key], version{s.rev, w.Value})
		}
		rev = revision(s.rev)
		if s.onWrite != nil {
			for _, w := range writes {
				s.onWrite(w.Key, w.Value)
			}
		}
		return nil
	})
	return rev, err
}

// single is a datastore that writes one key at a time.
type single struct{ store.Driver }

// Delete implements store.Driver.
func (s *sim) Delete(ctx context.Context, key string, rev store.Revision) error {
	return s.call(ctx, "delete "+key, true, func(int) error {
		v, ok := s.at(key, s.rev)
		if !ok {
			return store.ErrNotFound
		}
		if rev != "" && revision(v.rev) != rev {
			return store.ErrConflict
		}
		if err := s.may(ctx, key, nil); err != nil {
			return err
		}
		s.set(key, nil)
		return nil
	})
}
