package nft

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"github.com/brindle-net/brindle/internal/dataplane"
	"github.com/brindle-net/brindle/internal/dataplane/rules"
	"github.com/brindle-net/brindle/internal/desired"
	"github.com/brindle-net/brindle/internal/netns"
)

// Config is what a Driver works with.
type Config struct {
	NS    *netns.NS // nil: the namespace of the thread that calls Open
	Rules rules.Config
	Log   *slog.Logger
}

// Driver enforces policy in one network namespace. Sync is for one goroutine;
// the other methods may be called from anywhere.
type Driver struct {
	ns   *netns.NS
	log  *slog.Logger
	conn *conn // for Sync
	look *conn // for what only reads, which need not wait for Sync

	stats   atomic.Pointer[rules.Stats] // of the program in force
	noFlows atomic.Pointer[error]       // why there is no flowtable; nil: there is, or need not be
	hearing atomic.Pointer[listener]    // Watch's; nil while nobody watches

	mu      sync.Mutex // guards what follows
	cfg     rules.Config
	builder *rules.Builder // nil until the kernel is known to hold its program
	last    *rules.Builder // the last that was: look-ups keep its numbers
	tracer  *rules.Tracer  // of that program; nil until somebody asks
	held    *held
	flows   offload
	begun   bool // connections were given other sources
}

var _ dataplane.Driver = (*Driver)(nil)

// staleTries is how often a full read-back is begun anew because somebody
// changed nftables meanwhile, before it is written without that guard: another
// program that never rests must not keep policy from being enforced.
const staleTries = 8

// Open opens the driver and finds out whether this kernel has nftables. It
// changes nothing.
func Open(cfg Config) (*Driver, error) {
	d := &Driver{ns: cfg.NS, log: cfg.Log, cfg: cfg.Rules, flows: offload{ns: cfg.NS}}
	err := error(nil)
	if d.conn, err = dial(cfg.NS); err != nil {
		return nil, fmt.Errorf("open nftables: %w", err)
	}
	if d.look, err = dial(cfg.NS); err != nil {
		return nil, errors.Join(fmt.Errorf("open nftables: %w", err), d.conn.close())
	}
	if _, err := d.look.generation(); err != nil {
		return nil, errors.Join(fmt.Errorf("open nftables: the kernel does not answer: %w", err), d.Close())
	}
	return d, nil
}

// Close lets go of the sockets. What is enforced stays; no connection bypasses
// the rules any more.
func (d *Driver) Close() error { return errors.Join(d.Halt(), d.conn.close(), d.look.close()) }

// Configure changes the settings. The next Sync puts them in force, by a full
// read-back.
func (d *Driver) Configure(cfg rules.Config) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.cfg, d.builder, d.flows.stale = cfg, nil, true
}

// Sync makes the kernel enforce want in one transaction: see dataplane.Driver.
// After an error the next call reads everything back, whatever it is told.
func (d *Driver) Sync(ctx context.Context, want *desired.Policy, changed *desired.PolicyPatch) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := ctx.Err(); err != nil {
		return err
	}
	d.tracer = nil
	if changed == nil || d.builder == nil {
		err := d.whole(want)
		if err == nil {
			d.offer(ctx, want, nil)
		}
		return err
	}
	// From here on the builder is ahead of the kernel: on an error it is of no
	// more use.
	builder := d.builder
	d.builder = nil
	delta := builder.Update(want, changed)
	edits, held, err := d.held.change(builder.Program(), delta)
	if err == nil {
		err = d.commit(edits, 0)
	}
	if err != nil {
		return fmt.Errorf("change nftables: %w", err)
	}
	held.settle(d.held)
	d.builder = builder
	d.note()
	d.offer(ctx, want, changed)
	return nil
}

// whole reads back our tables and makes them what they should be.
func (d *Driver) whole(want *desired.Policy) error {
	d.builder = nil
	builder, image, held, err := d.program(want)
	if err != nil {
		return err
	}
	for try := range staleTries + 1 {
		edits, generation, err := d.compare(image)
		if err == nil && d.begun && !builder.Translates() {
			if builder, image, held, err = d.program(want); err != nil {
				return err
			}
			edits, generation, err = d.compare(image)
		}
		if err != nil {
			return fmt.Errorf("read nftables: %w", err)
		}
		if try == staleTries {
			generation = 0
		}
		err = d.commit(edits, generation)
		if errors.Is(err, ErrStale) {
			continue
		}
		if err != nil {
			return fmt.Errorf("mend nftables: %w", err)
		}
		d.tellMended(edits)
		d.builder, d.last, d.held = builder, builder, held
		d.note()
		return nil
	}
	return ErrStale
}

// program makes the program of a policy, as nftables has it.
func (d *Driver) program(want *desired.Policy) (*rules.Builder, *image, *held, error) {
	cfg := d.cfg
	cfg.NAT.Begun = d.begun
	builder := rules.Renew(cfg, want, d.last)
	image, held, err := lowerProgram(builder.Program())
	if err != nil {
		return nil, nil, nil, fmt.Errorf("translate policy: %w", err)
	}
	return builder, image, held, nil
}

// compare reads what the kernel holds and returns what makes it into want. If
// somebody keeps changing nftables faster than our tables can be read, they are
// made anew as a whole, without having been read: it is still one step, and
// only counts are lost.
func (d *Driver) compare(want *image) (edits []*edit, generation uint32, err error) {
	ids := []tableID{inet, arp}
	have, generation, err := d.conn.readImage()
	if err == nil {
		d.begun = d.begun || have.tables[inet].translates()
		for _, id := range ids {
			edits = append(edits, difference(id, have.tables[id], want.tables[id]))
		}
		return edits, generation, nil
	}
	if !errors.Is(err, ErrInterrupted) {
		return nil, 0, err
	}
	there, err := d.conn.readTables()
	if err != nil {
		return nil, 0, err
	}
	d.begun = d.begun || there.tables[inet] != nil // it may have
	d.log.Warn("nftables keeps changing, and our tables are made anew without being read")
	for _, id := range ids {
		e := difference(id, nil, want.tables[id])
		e.anew = there.tables[id] != nil
		edits = append(edits, e)
	}
	return edits, 0, nil
}

// note remembers how the program in force is.
func (d *Driver) note() {
	s := d.builder.Stats()
	d.stats.Store(&s)
}

// Stats says how much of the program that is in force, or was last, is decided
// by look-ups. It does not wait for a Sync that is under way.
func (d *Driver) Stats() rules.Stats {
	if s := d.stats.Load(); s != nil {
		return *s
	}
	return rules.Stats{}
}

// tellMended says what of tables that were there had to be changed.
func (d *Driver) tellMended(edits []*edit) {
	for _, e := range edits {
		if e.table || e.empty() {
			continue
		}
		d.log.Info("nftables mended", "table", e.id.String(), "chains", len(e.rules)+len(e.dropChains),
			"sets", len(e.sets)+len(e.dropSets), "elements", countElems(e.elems)+countElems(e.dropElems),
			"counters", len(e.counters)+len(e.dropCounter))
	}
}

func countElems(m map[string][]member) (n int) {
	for _, elems := range m {
		n += len(elems)
	}
	return n
}

func (d *Driver) commit(edits []*edit, generation uint32) error {
	var b batch
	about := 0
	for _, e := range edits {
		about += e.about()
	}
	b.buf = make([]byte, 0, about)
	for _, e := range edits {
		e.write(&b)
	}
	return d.quietly(len(b.buf), func() error { return d.conn.commit(&b, generation) })
}

// Count is what a counter has counted since it was made.
type Count struct{ Packets, Bytes uint64 }

// Counters returns what each counter of ours has counted, by name: those of
// policy rules have the names of rules.RuleCounter.
func (d *Driver) Counters(ctx context.Context) (map[string]Count, error) {
	found := map[string]Count{}
	for _, id := range []tableID{inet, arp} {
		for try := 0; ; try++ {
			if err := ctx.Err(); err != nil {
				return nil, err
			}
			im := newImage()
			im.tables[id] = newTable()
			err := d.look.dump(im, unix.NFT_MSG_GETOBJ, id, unix.NFTA_OBJ_TABLE)
			if errors.Is(err, ErrInterrupted) && try < dumpTries {
				continue
			}
			if err != nil && !errors.Is(err, unix.ENOENT) {
				return nil, fmt.Errorf("read counters: %w", err)
			}
			for name, o := range im.tables[id].counters {
				found[name] = Count{o.packets, o.bytes}
			}
			break
		}
	}
	return found, nil
}

// Counted is Counters for a few counters of the table for IP, without a look at
// all the others. One that is not there is left out.
func (d *Driver) Counted(ctx context.Context, names ...string) (map[string]Count, error) {
	found := map[string]Count{}
	im := newImage()
	im.tables[inet] = newTable()
	for _, name := range names {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		var b batch
		b.start(unix.NFT_MSG_GETOBJ, 0, inet.family, step{"read", "counter", name})
		b.text(unix.NFTA_OBJ_TABLE, inet.name)
		b.text(unix.NFTA_OBJ_NAME, name)
		b.u32(unix.NFTA_OBJ_TYPE, unix.NFT_OBJECT_COUNTER)
		err := d.look.get(&b, false, im.take)
		if errors.Is(err, unix.ENOENT) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("read counter %s: %w", name, err)
		}
		if o, ok := im.tables[inet].counters[name]; ok {
			found[name] = Count{o.packets, o.bytes}
		}
	}
	return found, nil
}

// Rules returns the program that is in force as text, "" before the first Sync
// that succeeded and after one that failed.
func (d *Driver) Rules() string {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.builder == nil {
		return ""
	}
	return d.builder.Program().String() + d.flows.String()
}

// Remove takes away both tables of ours from a namespace, or from that of the
// calling thread if ns is nil. Nothing is enforced afterwards.
func Remove(ns *netns.NS) error {
	c, err := dial(ns)
	if err != nil {
		return fmt.Errorf("remove nftables: %w", err)
	}
	defer c.close()
	for range staleTries {
		if err = c.removeTables(); !errors.Is(err, ErrStale) && !errors.Is(err, ErrInterrupted) {
			break
		}
	}
	if err != nil {
		return fmt.Errorf("remove nftables: %w", err)
	}
	return nil
}

func (c *conn) removeTables() error {
	generation, err := c.generation()
	if err != nil {
		return err
	}
	im, err := c.readTables()
	if err != nil {
		return err
	}
	var b batch
	for _, id := range []tableID{inet, arp} {
		if im.tables[id] != nil {
			b.deleteTable(id)
		}
	}
	return c.commit(&b, generation)
}

// String returns "inet brindle" or "arp brindle".
func (id tableID) String() string {
	if id.family == unix.NFPROTO_ARP {
		return "arp " + id.name
	}
	return "inet " + id.name
}
