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
// is found by the second.
const (
	settled = 20 * time.Millisecond
	grace   = 500 * time.Millisecond
	late    = 5 * time.Second
)

// look takes looks at connections until ctx ends.
func (d *policyDoc) look(ctx context.Context) error {
	var held *flows.Scope    // to be looked at again
	var due <-chan time.Time // nil: no look is due
	var rest <-chan time.Time
	var free time.Time // no look before
	failures := 0
	for {
		again := d.again
		if due != nil {
			again = nil // what comes meanwhile is looked at together
		}
		whole := false
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-again:
			due = time.After(max(settled, time.Until(free)))
			continue
		case <-due:
		case <-rest:
			whole = true
		}
		select {
		case <-d.again:
		default:
		}
		before := d.pass()
		l, err := d.lookOnce(ctx, held, whole)
		held, due, free = l.held, nil, time.Now().Add(grace)
		pause := grace
		if err != nil {
			failures = min(failures+1, 5)
			pause = grace << failures
			d.log.ErrorContext(ctx, "connections not judged", "retry_in", pause, "err", err)
		} else if failures = 0; l.commits == before {
			pause = late
		}
		switch {
		case held == nil:
			rest = nil
		case l.anew || err != nil:
			rest = time.After(pause)
		}
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
	held    *flows.Scope // to be looked at again
	anew    bool         // held is from this look
	commits uint64       // what was in force when it began
}

// lookOnce judges what waits, and what is held from the looks before if the
// table has to be read anyway or whole says so. What it judged is held then for
// the next: not what is allowed only now, for a packet that the old rules let
// pass is allowed by the new ones too.
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
		all, held = flows.Join(first, held), nil
	}
	if d.flows.keep {
		all, first, held = nil, nil, nil
	}
	if all != nil && !d.inForce { // nobody knows what is: the next Sync that succeeds asks again
		d.scope, all, first = flows.Join(d.scope, all), nil, nil
	}
	if out.held = held; all == nil && len(d.left) == 0 {
		return out, nil
	}
	if err := d.bring(ctx, all, !whole); err != nil {
		return lookResult{held: flows.Everything(), anew: true}, err
	}
	if again := first.Denials(); again != nil {
		out.held, out.anew = flows.Join(held, again), true
	}
	return out, nil
}
