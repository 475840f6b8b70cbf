package reconcile

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"time"
)

// A step is a pass under way: one attempt at making the world equal to the
// wanted table.
type step[K comparable, V any] struct {
	full   bool       // the world is read back first, and every key compared
	before map[K]V    // the world as it was known before that
	plan   Plan[K, V] // what is to be made
	later  []K        // what is to be removed after all loops of the chain have set theirs
	failed map[K]error
	err    error // of the read-back
}

// look glances at the world if it is time to, and reports whether the next pass
// must read it back.
func (l *Loop[K, V]) look(ctx context.Context) bool {
	l.glance(ctx)
	l.mu.Lock()
	defer l.mu.Unlock()
	now := time.Now()
	return l.reading.urgent || !now.Before(l.run.readAt) || l.reading.stale && !now.Before(l.reading.last.Add(l.cfg.Spacing))
}

// read begins a pass. A full one reads the world back.
func (l *Loop[K, V]) read(ctx context.Context, full bool) {
	s := &l.run.step
	*s = step[K, V]{full: full, before: l.run.have}
	l.mu.Lock()
	l.stats.Passes++
	if full {
		// Cleared before reading: what changes from now on needs another look.
		l.reading.urgent, l.reading.stale, l.reading.active, l.reading.last = false, false, true, time.Now()
	}
	l.mu.Unlock()
	if !full {
		return
	}
	have, err := l.target.List(ctx)
	l.noteRead(err)
	if err != nil {
		s.err = fmt.Errorf("read back: %w", err)
		return
	}
	if have == nil {
		have = map[K]V{}
	}
	l.run.have = have
	l.run.glanceAt = time.Now().Add(l.cfg.Glance) // the read-back saw it all
	l.markAll()
}

// plan says what a pass is to do.
func (l *Loop[K, V]) plan() {
	if s := &l.run.step; s.err == nil && l.run.have != nil { // else never read yet, and reading is backing off
		s.plan = l.compare()
	}
}

// set makes what is wanted, and removes what is not unless loops follow that
// may stand on it.
func (l *Loop[K, V]) set(ctx context.Context, last bool) {
	s := &l.run.step
	now := s.plan
	if !last {
		now.Delete, s.later = nil, now.Delete
	}
	if len(now.Set)+len(now.Delete) > 0 {
		s.failed = l.target.Apply(ctx, now)
	}
	if len(s.later) == 0 {
		l.end(ctx)
	}
}

// remove removes what is no longer wanted, where set has not.
func (l *Loop[K, V]) remove(ctx context.Context) {
	s := &l.run.step
	if len(s.later) == 0 {
		return
	}
	failed := l.target.Apply(ctx, Plan[K, V]{Delete: s.later})
	if s.failed == nil {
		s.failed = failed
	} else {
		maps.Copy(s.failed, failed)
	}
	l.end(ctx)
}

// end notes the outcome of a pass.
func (l *Loop[K, V]) end(ctx context.Context) {
	s := l.run.step
	l.run.step = step[K, V]{}
	err := s.err
	if len(s.plan.Set)+len(s.plan.Delete) > 0 {
		repaired := 0
		if s.full && s.before != nil {
			repaired = l.countRepairs(s.plan, s.failed, s.before)
		}
		l.record(s.plan, s.failed, repaired)
		if repaired > 0 {
			l.cfg.Log.InfoContext(ctx, "drift repaired", "table", l.cfg.Name, "changes", repaired)
		}
		err = summary(s.failed, l.cfg.Compare)
	}
	l.finish(s.full, err)
	if err != nil && ctx.Err() == nil {
		l.complain(ctx, err)
	}
}

// finish decides when to read the world back next: soon, then ever later,
// while something fails; after the resync time when nothing does. Only a full
// pass ends the backoff.
func (l *Loop[K, V]) finish(full bool, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch now := time.Now(); {
	case err != nil:
		l.err, l.run.backoff = err, min(2*l.run.backoff, l.cfg.MaxRetry)
		if retry := now.Add(l.run.backoff); full || retry.Before(l.run.readAt) {
			l.run.readAt = retry
		}
	case full:
		l.err, l.run.backoff, l.run.readAt = nil, l.cfg.Settle, now.Add(l.cfg.Resync)
	case len(l.failed) == 0 && !l.reading.unread:
		l.err = nil // the key that failed was wanted again and has worked
	}
	l.landed()
	l.reading.active = false
	l.tell()
}

// compare compares the dirty keys with the world and clears the dirty marks.
func (l *Loop[K, V]) compare() Plan[K, V] {
	l.mu.Lock()
	defer l.mu.Unlock()
	var p Plan[K, V]
	var set []K
	if len(l.run.have) == 0 { // all that is wanted is to be made
		set = make([]K, 0, len(l.want))
	}
	for k := range l.dirty {
		w, wanted := l.want[k]
		h, exists := l.run.have[k]
		delete(l.held, k)
		switch {
		case wanted && (!exists || !l.cfg.Equal(w, h)):
			set = append(set, k)
			continue
		case !wanted && exists && l.inSync:
			p.Delete = append(p.Delete, k)
			continue
		case !wanted && exists:
			l.held[k] = true
		}
		delete(l.failed, k) // nothing to do now
	}
	slices.SortFunc(set, l.cfg.Compare) // what is as it should be, mostly all, needs no order
	slices.SortFunc(p.Delete, l.cfg.Compare)
	p.Set = make([]Entry[K, V], len(set))
	for i, k := range set {
		_, exists := l.run.have[k]
		p.Set[i] = Entry[K, V]{Key: k, Value: l.want[k], Exists: exists}
	}
	if l.dirty, l.flying, l.spare = l.spare, l.dirty, nil; l.dirty == nil {
		l.dirty = map[K]bool{}
	}
	return p
}

// landed says that no pass is under way any more. l.mu is held.
func (l *Loop[K, V]) landed() {
	if l.flying != nil && len(l.flying) < few { // a map that was once large stays slow to clear
		l.spare = l.flying
		clear(l.spare)
	}
	l.flying = nil
}

// record notes what a plan changed. A key that failed waits, unchanged, for
// the next full pass, or for somebody to want it again.
func (l *Loop[K, V]) record(p Plan[K, V], failed map[K]error, repaired int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.stats.Applies++
	l.stats.Failures += uint64(len(failed))
	l.stats.Repaired += uint64(repaired)
	l.run.have = room(l.run.have, len(p.Set))
	for _, e := range p.Set {
		if err := failed[e.Key]; err != nil {
			l.failed[e.Key] = err
			continue
		}
		l.run.have[e.Key] = e.Value
		l.stats.Sets++
		delete(l.failed, e.Key)
	}
	for _, k := range p.Delete {
		if err := failed[k]; err != nil {
			l.failed[k] = err
			continue
		}
		delete(l.run.have, k)
		l.stats.Deletes++
		delete(l.failed, k)
	}
}

// countRepairs counts the changes that undo what somebody else did: before the
// read-back the world was as wanted.
func (l *Loop[K, V]) countRepairs(p Plan[K, V], failed map[K]error, before map[K]V) int {
	n := 0
	for _, e := range p.Set {
		if v, ok := before[e.Key]; ok && l.cfg.Equal(e.Value, v) && failed[e.Key] == nil {
			n++
		}
	}
	for _, k := range p.Delete {
		if _, ok := before[k]; !ok && failed[k] == nil {
			n++
		}
	}
	return n
}
