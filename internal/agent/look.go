package agent

import (
	"context"
	"time"

	"github.com/brindle-net/brindle/internal/dataplane/flows"
)

// A change of policy has connections looked at a moment after it: a look walks
// the whole table and takes its locks one after the other, so it stays out of
// the way of the change itself, and of the look before.
//
// A packet that the old rules let pass may enter the table after that, and is
// not to get away. The kernel takes a packet from the rules to the table in one
// go, so once it is done with all that it was at (barrier) the first look sees
// what the old rules let pass. What is left is packets that others hold back
// between the two: a program behind NFQUEUE, IPsec that waits for its keys.
// Those are looked for late, or together with the next look that reads the
// table. Where there is no barrier, the second look comes after the grace.
//
// The first look after a change is a glance (conntrack.Table.Glance), where the
// kernel allows it: what it misses because something else went at that moment
// is found by the second, which is a full one. No change after it puts that off.
const (
	settled = 20 * time.Millisecond
	grace   = 500 * time.Millisecond
	late    = 5 * time.Second
)

// look takes looks at connections until ctx ends.
func (d *policyDoc) look(ctx context.Context) error {
	var due <-chan time.Time // nil: no look is due
	var free time.Time       // no look before
	var second secondLook
	failures := 0
	for {
		again := d.again
		if due != nil {
			again = nil // what comes meanwhile is looked at together
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-again:
			due = time.After(max(settled, time.Until(free)))
			continue
		case <-due:
		case <-second.due:
		}
		select {
		case <-d.again:
		default:
		}
		whole := second.due != nil && !time.Now().Before(second.at)
		before := d.pass()
		l, err := d.lookOnce(ctx, flows.Join(second.held, second.young), whole)
		due, free = nil, time.Now().Add(grace)
		pause := grace
		if err != nil {
			failures = min(failures+1, 5)
			pause = grace << failures
			d.log.ErrorContext(ctx, "connections not judged", "retry_in", pause, "err", err)
		} else if failures = 0; l.commits == before {
			pause = late
		}
		second.note(l.again, whole, pause)
	}
}

// secondLook is what has to be looked at again, and when. What was looked at for
// the first time since that was settled waits for the one after it, so that late
// is late for it too.
type secondLook struct {
	held, young *flows.Scope
	at          time.Time
	due         <-chan time.Time // at that time; nil: there is nothing to look at
}

// note notes that a look was taken, whole if it was the second. again is what it
// saw for the first time, and pause how long that has to wait.
func (s *secondLook) note(again *flows.Scope, whole bool, pause time.Duration) {
	if s.young = flows.Join(s.young, again); whole || s.held == nil {
		s.held, s.young = s.young, nil
	}
	switch next := time.Now().Add(pause); {
	case s.held == nil:
		s.due = nil
	case s.due == nil || whole || again != nil && next.Before(s.at):
		s.at, s.due = next, time.After(pause)
	}
}

// pass waits for the barrier and returns the number of the commit before which
// no packet was judged that is on its way still; 0: nobody knows. Where the
// table is not going to be read there is nothing to wait for.
func (d *policyDoc) pass() uint64 {
	d.mu.Lock()
	n, few := d.commits, d.scope.OnlyCut() && d.known
	d.mu.Unlock()
	if few || d.flows.barrier == nil || d.flows.barrier() != nil {
		return 0
	}
	return n
}

// lookResult is what came of a look.
type lookResult struct {
	again   *flows.Scope // what it judged first, and has to be looked at again
	commits uint64       // what was in force when it began
}

// lookOnce judges what waits, and what is held from the looks before if the
// table has to be read anyway or whole says so. What it judged first is to be
// looked at again: not what is allowed only now, for a packet that the old rules
// let pass is allowed by the new ones too.
func (d *policyDoc) lookOnce(ctx context.Context, held *flows.Scope, whole bool) (lookResult, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.looking = true
	defer func() { d.looking = false }()
	out := lookResult{commits: d.commits}
	var first *flows.Scope
	if d.changed.Empty() && !d.unknown { // else Sync asks again
		first, d.scope = d.scope, nil
	}
	few := (first == nil || first.OnlyCut() && d.known) && len(d.left) == 0
	all := first
	if whole || !few {
		all = flows.Join(first, held)
	}
	if d.flows.keep {
		all, first = nil, nil
	}
	if all != nil && !d.inForce { // nobody knows what is: the next Sync that succeeds asks again
		d.scope, all, first = flows.Join(d.scope, all), nil, nil
	}
	if all == nil && len(d.left) == 0 {
		return out, nil
	}
	if err := d.bring(ctx, all, !whole); err != nil {
		out.again = flows.Everything()
		return out, err
	}
	out.again = first.Denials()
	return out, nil
}
