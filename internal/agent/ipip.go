package agent

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/netip"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/brindle-net/brindle/internal/desired"
	"github.com/brindle-net/brindle/internal/health"
	"github.com/brindle-net/brindle/internal/ipip"
	"github.com/brindle-net/brindle/internal/kernel"
	"github.com/brindle-net/brindle/internal/model"
)

// pinDir is where the programs that carry IP in IP, and their tables, outlive
// this process.
const pinDir = "/sys/fs/bpf/brindle-ipip"

// carrier carries IP in IP by programs where the kernel has no device for it.
type carrier struct {
	kernel   *kernel.Kernel
	settings model.Settings // tells workloads' interfaces
	log      *slog.Logger
	wake     chan struct{} // capacity 1: a look is due
	moved    chan struct{} // capacity 1: interfaces may have changed

	mu      sync.Mutex // guards everything below
	local   netip.Addr // invalid: this host has no end of IP in IP
	hosts   map[netip.Prefix]bool
	told    bool          // the core has said what it wants
	asked   uint64        // how often it said something else
	done    uint64        // asked, when a look last succeeded
	byBPF   bool          // programs are needed
	state   carried       // of local, at the last look
	changed chan struct{} // closed and replaced when state changes
	open    *ipip.Carrier // nil: not needed; written by run's goroutine alone
}

// carried is how IP in IP with one address stands.
type carried struct {
	local netip.Addr // that it works for; invalid: for none
	err   error
}

func newCarrier(k *kernel.Kernel, s model.Settings, log *slog.Logger) *carrier {
	return &carrier{kernel: k, settings: s, log: log, wake: make(chan struct{}, 1), moved: make(chan struct{}, 1),
		hosts: map[netip.Prefix]bool{}, changed: make(chan struct{})}
}

// note takes what the core wants.
func (c *carrier) note(u desired.Update) {
	c.mu.Lock()
	defer c.mu.Unlock()
	before := c.local
	if d, set := u.Devices.Set[desired.DeviceIPIP]; set {
		c.local = d.Local
	}
	if slices.Contains(u.Devices.Delete, desired.DeviceIPIP) {
		c.local = netip.Addr{}
	}
	changed := !c.told || before != c.local
	for p, forms := range u.Policy.Hosts.Set {
		if may := forms.Has(desired.IPIP) && p.Addr().Is4(); may != c.hosts[p] {
			c.hosts[p], changed = may, true
		}
	}
	for _, p := range u.Policy.Hosts.Delete {
		changed = changed || c.hosts[p]
		delete(c.hosts, p)
	}
	c.told = true
	if changed {
		c.asked++
		poke(c.wake)
	}
}

// stir says that interfaces may have changed.
func (c *carrier) stir() { poke(c.moved) }

// How often the programs are looked at.
const (
	carrierResync = 90 * time.Second
	carrierRetry  = time.Second
)

// driftedSettle is how long after news of interfaces they are read. All of them
// are: a workload that is being set up shall not wait for that.
const driftedSettle = 250 * time.Millisecond

// run carries until ctx ends. What it set up goes on.
func (c *carrier) run(ctx context.Context) error {
	defer c.close()
	last := ""
	for {
		next := carrierResync
		c.mu.Lock()
		asked := c.asked
		c.mu.Unlock()
		err := c.look(ctx)
		if err == nil {
			c.mu.Lock()
			c.done = asked
			c.mu.Unlock()
		}
		text := ""
		if err != nil && ctx.Err() == nil {
			next, text = carrierRetry, err.Error()
			if text != last {
				c.log.WarnContext(ctx, "ip in ip not carried as wanted", "retry_in", next, "err", err)
			}
		}
		last = text
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-c.wake:
		case <-time.After(next):
		case <-c.moved:
			select { // with what comes along: each workload brings a link
			case <-ctx.Done():
				return ctx.Err()
			case <-c.wake:
			case <-time.After(driftedSettle):
			}
		}
	}
}

// look makes IP in IP carried as wanted, once.
func (c *carrier) look(ctx context.Context) error {
	c.mu.Lock()
	local, told, hosts := c.local, c.told, maps.Clone(c.hosts)
	c.mu.Unlock()
	if !told {
		return nil
	}
	if !local.IsValid() {
		err := c.remove()
		c.set(false, carried{err: err})
		return err
	}
	own, err := c.kernel.IPIPDevice()
	if errors.Is(err, kernel.ErrNoLink) {
		c.set(false, carried{})
		return nil // it is being made: its coming wakes us
	}
	if err == nil && own {
		err = c.remove()
		c.set(false, carried{local: local, err: err})
		return err
	}
	if err == nil {
		want := ipip.State{Local: local}
		want.Hosts, want.Networks = senders(hosts)
		err = c.sync(ctx, want)
	}
	if errors.Is(err, context.Canceled) {
		return err
	}
	now := carried{local: local, err: err}
	if err != nil {
		now.local = netip.Addr{}
	}
	c.set(true, now)
	return err
}

// sync brings the programs in line.
func (c *carrier) sync(ctx context.Context, s ipip.State) error {
	if c.open == nil {
		c.log.InfoContext(ctx, "this kernel has no device for ip in ip; programs carry it")
		if err := c.begin(); err != nil {
			return err
		}
	}
	var err error
	if s.Underlay, err = c.underlay(); err != nil {
		return err
	}
	if s.Strict, err = c.kernel.StrictPaths(s.Underlay); err != nil {
		return err
	}
	if err := c.open.Sync(ctx, s); err != nil {
		return fmt.Errorf("set up the programs that carry IP in IP: %w", err)
	}
	return nil
}

// remove takes away programs of ours, also those of an earlier process.
func (c *carrier) remove() error {
	if c.open == nil {
		if _, err := os.Stat(pinDir); err != nil {
			return nil // there never were any, or the path is none for them
		}
		if err := c.begin(); err != nil {
			return err
		}
	}
	if err := c.open.Remove(); err != nil {
		return fmt.Errorf("remove the programs that carried IP in IP: %w", err)
	}
	c.close()
	if err := os.Remove(pinDir); err != nil && !errors.Is(err, os.ErrNotExist) {
		c.log.Warn("folder of programs not removed", "err", err)
	}
	return nil
}

// begin takes over what an earlier process left, or begins anew.
func (c *carrier) begin() error {
	open, err := ipip.Open(ipip.Config{Device: desired.DeviceIPIP, PinDir: pinDir, Log: c.log})
	if err != nil {
		return fmt.Errorf("open the programs that carry IP in IP: %w", err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.open = open
	return nil
}

func (c *carrier) close() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.open == nil {
		return
	}
	if err := c.open.Close(); err != nil {
		c.log.Warn("programs that carry ip in ip not closed", "err", err)
	}
	c.open = nil
}

// samples say what became of packets that programs carry, or refused to.
func (c *carrier) samples() []health.Sample {
	c.mu.Lock() // so that it is not closed meanwhile
	defer c.mu.Unlock()
	if c.open == nil {
		return nil
	}
	n, err := c.open.Counters()
	if err != nil {
		c.log.Warn("counters of ip in ip not read", "err", err)
		return nil
	}
	var out []health.Sample
	for _, one := range []struct {
		what string
		n    ipip.Count
	}{
		{"encapsulated", n.Encapsulated}, {"decapsulated", n.Decapsulated}, {"unknown-sender", n.UnknownSender},
		{"wrong-interface", n.WrongWay},
		{"malformed", n.Malformed}, {"too-big", n.TooBig}, {"no-peer", n.NoPeer}, {"no-path", n.NoPath},
		{"congested", n.Congested}, {"unsupported", n.Unsupported},
	} {
		out = append(out, health.Sample{Name: "brindle_ipip_packets_total", Help: "Packets that programs carried in IP in IP, or dropped and why.",
			Labels: map[string]string{"outcome": one.what}, Value: float64(one.n.Packets), Counter: true})
	}
	return out
}

// strangers says who sent to programs without being a host, or as a host by the
// wrong interface, and how many packets were dropped; false if there are no
// programs.
func (c *carrier) strangers() ([]ipip.Stranger, uint64, bool) {
	c.mu.Lock() // so that it is not closed meanwhile
	defer c.mu.Unlock()
	if c.open == nil {
		return nil, 0, false
	}
	all, err := c.open.Strangers()
	n, countErr := c.open.Counters()
	if err = errors.Join(err, countErr); err != nil {
		c.log.Warn("unknown senders of ip in ip not read", "err", err)
		return nil, 0, false
	}
	return all, n.UnknownSender.Packets + n.WrongWay.Packets, true
}

// underlay lists the interfaces by which packets from other hosts may come:
// those of the host itself that have IPv4.
func (c *carrier) underlay() ([]string, error) {
	all, err := underlayOf(c.kernel, c.settings)
	maps.DeleteFunc(all, func(_ string, families []int) bool { return !slices.Contains(families, 4) })
	return slices.Sorted(maps.Keys(all)), err
}

func tunnelDevice(name string) bool {
	return slices.ContainsFunc(tunnelEnds(), func(e tunnelEnd) bool { return e.device == name })
}

// senders tells hosts from networks among those that may send, in order.
func senders(may map[netip.Prefix]bool) (hosts []netip.Addr, networks []netip.Prefix) {
	for _, p := range slices.SortedFunc(maps.Keys(may), netip.Prefix.Compare) {
		switch {
		case !may[p]:
		case p.IsSingleIP():
			hosts = append(hosts, p.Addr())
		default:
			networks = append(networks, p.Masked())
		}
	}
	return hosts, networks
}

// set says how it stands.
func (c *carrier) set(byBPF bool, now carried) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.byBPF, c.state = byBPF, now
	close(c.changed)
	c.changed = make(chan struct{})
}

// wait waits until packets to and from this address are carried.
func (c *carrier) wait(ctx context.Context, local netip.Addr) error {
	for {
		c.mu.Lock()
		state, changed := c.state, c.changed
		c.mu.Unlock()
		if state.local == local {
			return nil
		}
		select {
		case <-ctx.Done():
			return errors.Join(ctx.Err(), state.err)
		case <-changed:
		}
	}
}

// byPrograms reports whether programs carry IP in IP here, and what is wrong.
func (c *carrier) byPrograms() (bool, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.byBPF, c.state.err
}

// settled reports whether IP in IP is carried as the core last said.
func (c *carrier) settled() (bool, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.done == c.asked, c.state.err
}

// checkCarrier is the part of the kernel's condition that is about programs.
func (a *agent) checkCarrier(message string) health.Verdict {
	byBPF, err := a.carrier.byPrograms()
	if err != nil {
		return health.Verdict{Reason: "NotProgrammed", Message: err.Error()}
	}
	if byBPF {
		if message != "" {
			message += "; "
		}
		message += "this kernel has no device for IP in IP: programs carry it"
	}
	return a.verdict(health.Kernel, "Programmed", message)
}
