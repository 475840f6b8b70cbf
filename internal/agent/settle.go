package agent

import (
	"context"
	"errors"

	"github.com/brindle-net/brindle/internal/kernel"
)

// settler is a loop that can be waited for.
type settler struct {
	loop interface {
		Settled(ctx context.Context, excuse func(error) bool) error
	}
	excuse func(error) bool
}

// settlers lists the loops that a change goes through, in the order in which
// one stands on the other. A workload that died took its interface with it, and
// nothing about it is owed (see trouble).
func (a *agent) settlers() []settler {
	t := a.tables
	gone := func(err error) bool { return errors.Is(err, kernel.ErrNoLink) }
	out := []settler{
		{t.sysctls, nil}, {t.devices, nil}, {t.links, gone}, {t.addresses, nil},
		{t.neighbours, gone}, {t.rules, nil}, {t.routes, gone},
	}
	if a.speaks() {
		out = append(out, settler{t.imports, nil}, settler{t.paths, nil}, settler{t.speakers, nil}, settler{t.peers, nil}, settler{t.learned, nil})
	}
	return out
}

// judged reports whether connections that are under way have been brought in
// line with the policy in force, and why not if that failed.
func (d *policyDoc) judged() (bool, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.flows.keep {
		return true, nil
	}
	return d.scope == nil && len(d.left) == 0 && !d.looking && d.failed == nil, d.failed
}
