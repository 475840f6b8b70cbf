package ipam

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/netip"
	"slices"
	"time"

	"github.com/brindle-net/brindle/internal/store"
)

// DefaultGrace is how long something must be dead before it is collected.
const DefaultGrace = 15 * time.Minute

// maxBatch is how many handles one scan releases at most; the rest waits for
// the next.
const maxBatch = 1000

// CollectorConfig is what a Collector needs.
type CollectorConfig struct {
	Manager *Manager // required
	// Host set makes it an agent's collector: it judges this host's addresses
	// only, and needs Attached. Empty makes it the cluster's: it judges
	// addresses of hosts that are gone, handles, affinities and blocks.
	Host string
	// Attached says what this host's agent has attached now. It is asked after
	// the addresses were read, so that what is being set up is in its answer.
	Attached func(ctx context.Context) (Attachments, error)
	// Borrowed lists other hosts' blocks in which this host may use addresses;
	// nil for none.
	Borrowed func(ctx context.Context) ([]netip.Prefix, error)
	Grace    time.Duration // 0: DefaultGrace
	// Uptime is a clock that never steps; nil is the process's own.
	Uptime func() time.Duration
	Log    *slog.Logger // nil: silent
}

// Collector finds and removes what crashes leave behind. Something is
// collected when it was garbage at every scan of a whole grace period without
// having changed, and is so still just before it is removed. An address is
// garbage by two independent proofs: no workload endpoint has it, and its
// host's own agent has no such attachment, or its host is gone. A Collector is
// used by one goroutine.
type Collector struct {
	cfg      CollectorConfig
	suspects map[suspect]suspicion
}

// NewCollector returns a Collector. Its memory is its own: a new one waits for
// a whole grace period again.
func NewCollector(cfg CollectorConfig) *Collector {
	if cfg.Grace <= 0 {
		cfg.Grace = DefaultGrace
	}
	if cfg.Uptime == nil {
		began := time.Now()
		cfg.Uptime = func() time.Duration { return time.Since(began) } // monotonic
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	return &Collector{cfg: cfg}
}

// Collected says what a scan found and did.
type Collected struct {
	Suspects  int          // what may be garbage: waits for the grace period
	Released  []netip.Addr // addresses released
	Handles   int          // handles deleted that had no address, or repaired
	Blocks    int          // affinities finished, given up or taken from hosts that are gone
	Kept      int          // what turned out to be alive just before it would have been released
	Remaining int          // handles left for the next scan
}

// Run scans every half grace period until the context ends, whose error it
// returns. Failed scans are logged and tried again.
func (c *Collector) Run(ctx context.Context) error {
	tick := time.NewTicker(c.cfg.Grace / 2)
	defer tick.Stop()
	for {
		done, err := c.Scan(ctx)
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case err != nil:
			c.cfg.Log.WarnContext(ctx, "address collection failed", "err", err, "retry_in", c.cfg.Grace/2)
		case len(done.Released)+done.Handles+done.Blocks > 0:
			c.cfg.Log.InfoContext(ctx, "addresses collected", "addresses", done.Released,
				"handles", done.Handles, "blocks", done.Blocks, "remaining", done.Remaining)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
	}
}

// Scan looks once and removes what is due.
func (c *Collector) Scan(ctx context.Context) (Collected, error) {
	var done Collected
	f, err := c.gather(ctx)
	if err != nil {
		return done, fmt.Errorf("collect addresses: %w", err)
	}
	if f.users == nil { // nothing to judge
		c.suspects = nil
		return done, nil
	}
	var p plan
	c.suspects, p = decide(c.suspects, f, c.cfg.Grace)
	done.Suspects = len(c.suspects)
	if n := len(p.handles); n > maxBatch {
		p.handles, done.Remaining = p.handles[:maxBatch], n-maxBatch
	}
	err = errors.Join(
		c.release(ctx, p.handles, &done),
		c.clean(ctx, p, f.settings, &done),
	)
	if err != nil {
		return done, fmt.Errorf("collect addresses: %w", err)
	}
	return done, nil
}

// gather reads the facts: the addresses first, so that whoever has got one has
// shown itself by the time that users are read. Where a host's agent has all
// its addresses attached, the users are not read: they are everybody's, and a
// thousand agents would read them.
func (c *Collector) gather(ctx context.Context) (facts, error) {
	m := c.cfg.Manager
	f := facts{uptime: c.cfg.Uptime(), host: c.cfg.Host, now: m.now()}
	var err error
	if f.settings, err = m.settings(ctx); err != nil {
		return f, err
	}
	if f.host == "" {
		f.inv, err = m.readAll(ctx)
	} else {
		var others []netip.Prefix
		if c.cfg.Borrowed != nil {
			if others, err = c.cfg.Borrowed(ctx); err != nil {
				return f, err
			}
		}
		f.inv, err = m.readHost(ctx, f.host, others)
	}
	if err != nil {
		return f, err
	}
	if f.agents, err = c.askAgent(ctx); err != nil {
		return f, err
	}
	if f.host != "" && f.inv.allAttached(f.host, f.agents[f.host]) {
		return f, nil
	}
	f.users, err = m.readUsers(ctx)
	return f, err
}

// askAgent asks the host's own agent, if there is one, what it has attached.
func (c *Collector) askAgent(ctx context.Context) (map[string]Attachments, error) {
	if c.cfg.Host == "" || c.cfg.Attached == nil {
		return nil, nil
	}
	attached, err := c.cfg.Attached(ctx)
	if err != nil {
		return nil, fmt.Errorf("ask what is attached to %s: %w", c.cfg.Host, err)
	}
	return map[string]Attachments{c.cfg.Host: attached}, nil
}

// allAttached reports whether an agent has attached all that its host was
// assigned.
func (inv *inventory) allAttached(host string, attached Attachments) bool {
	for _, b := range inv.blocks {
		for _, u := range b.Uses() {
			if u.Attribute.Owner[AttrNode] == host && !u.CoolingDown() && !attached.has(u.Attribute.Handle, u.Addr) {
				return false
			}
		}
	}
	return true
}

// release releases what handles have, each whole or not at all, after looking
// once more whether its owner is dead.
func (c *Collector) release(ctx context.Context, handles [][]ReleaseOptions, done *Collected) error {
	var errs []error
	for _, options := range handles {
		dead, err := c.stillDead(ctx, options)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		if !dead {
			done.Kept++
			continue
		}
		err = c.cfg.Manager.Release(ctx, options...)
		if errors.Is(err, ErrStale) || errors.Is(err, ErrNotAssigned) {
			err = nil // somebody else was here first
		} else if err == nil {
			for _, o := range options {
				done.Released = append(done.Released, o.Addr)
			}
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// stillDead judges all addresses of a handle afresh.
func (c *Collector) stillDead(ctx context.Context, options []ReleaseOptions) (bool, error) {
	m := c.cfg.Manager
	s, err := m.settings(ctx)
	if err != nil {
		return false, err
	}
	cidrs := map[netip.Prefix]bool{}
	doomed := map[netip.Addr]uint64{}
	for _, o := range options {
		doomed[o.Addr] = o.Sequence
		cidr, err := m.findBlock(ctx, s, o.Addr)
		if errors.Is(err, ErrNotAssigned) {
			return false, nil
		}
		if err != nil {
			return false, err
		}
		cidrs[cidr] = true
	}
	id := options[0].Handle
	if id != "" { // it may have got more since, anywhere
		h, _, err := m.getHandle(ctx, id)
		if err != nil && !errors.Is(err, store.ErrNotFound) {
			return false, err
		}
		if err == nil {
			for _, cidr := range h.cidrs() {
				cidrs[cidr] = true
			}
		}
	}
	var blocks []*Block
	for _, cidr := range slices.SortedFunc(maps.Keys(cidrs), netip.Prefix.Compare) {
		b, _, err := m.getBlock(ctx, cidr)
		if err == nil {
			blocks = append(blocks, b)
		} else if !errors.Is(err, store.ErrNotFound) {
			return false, err
		}
	}
	us, err := m.readUsers(ctx)
	if err != nil {
		return false, err
	}
	agents, err := c.askAgent(ctx)
	if err != nil {
		return false, err
	}
	found := 0
	for _, b := range blocks {
		for _, u := range b.Uses() {
			seq, is := doomed[u.Addr]
			if !is && (id == "" || cleanHandle(u.Attribute.Handle) != id) {
				continue
			}
			if !is || seq != u.Sequence || judge(b, u, us, agents).standing != Leaked {
				return false, nil
			}
			found++
		}
	}
	return found == len(doomed), nil
}

// clean removes handles without addresses, finishes affinities, and sweeps
// blocks.
func (c *Collector) clean(ctx context.Context, p plan, s *Settings, done *Collected) error {
	m := c.cfg.Manager
	var errs []error
	for _, l := range p.leftovers {
		err := m.db.Delete(ctx, store.HandleKey(l.id), l.rev)
		if err == nil {
			done.Handles++
		} else if !changed(err) {
			errs = append(errs, fmt.Errorf("delete handle %q: %w", l.id, err))
		}
	}
	if len(p.lacking) > 0 {
		repaired, err := m.repairHandles(ctx, p.lacking)
		done.Handles += repaired
		errs = append(errs, err)
	}
	for _, a := range p.affinities {
		fixed, err := m.fix(ctx, a)
		if fixed {
			done.Blocks++
		}
		errs = append(errs, err)
	}
	for _, cidr := range p.idle {
		if err := m.sweep(ctx, cidr, s.Configuration.CoolDown); err != nil {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// fix finishes an affinity, unless it has changed since that was decided.
func (m *Manager) fix(ctx context.Context, a affinityFix) (fixed bool, err error) {
	_, rev, err := m.getAffinity(ctx, a.id)
	if err != nil && !errors.Is(err, store.ErrNotFound) {
		return false, err
	}
	if rev != a.rev { // absent is ""
		return false, nil
	}
	if a.confirm {
		err = m.restore(ctx, a.id)
	} else {
		err = m.releaseAffinity(ctx, a.id, a.ifEmpty)
	}
	if errors.Is(err, errInUse) || errors.Is(err, store.ErrConflict) {
		return false, nil // its owner is at work
	}
	return err == nil, err
}

// repairHandles makes handles count all their addresses again.
func (m *Manager) repairHandles(ctx context.Context, ids []string) (int, error) {
	inv, err := m.readAll(ctx)
	if err != nil {
		return 0, err
	}
	counts := inv.countHandles()
	done := 0
	for _, id := range ids {
		if counts[id] == nil {
			continue
		}
		unlock, err := m.handles.lock(ctx, id)
		if err != nil {
			return done, err
		}
		err = (&handleWriter{m: m, id: id}).raise(ctx, counts[id])
		unlock()
		if err != nil {
			return done, err
		}
		done++
	}
	return done, nil
}

// sweep frees what has cooled down in a block, and deletes a block that nobody
// owns or uses.
func (m *Manager) sweep(ctx context.Context, cidr netip.Prefix, coolDown time.Duration) error {
	m.forget(cidr)
	err := m.update(ctx, cidr, &change{coolDown: coolDown, apply: func(b *Block) error {
		return nil // reading and writing a block is all it takes
	}})
	if errors.Is(err, store.ErrNotFound) {
		return nil
	}
	return err
}
