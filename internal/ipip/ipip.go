// Package ipip carries IP in IP (RFC 2003) on a kernel that has no device for
// it. The tunnel's interface is then an interface that sends nothing, with the
// name, address, MTU and routes that the kernel's own device would have. A BPF
// program at its way out gives each packet an outer header, to the next hop
// of the packet's route, and sends it on from the interface below. Another at
// the way into the interfaces below takes the outer header off what known
// hosts send, and lets the rest arrive from the tunnel's interface. So routes,
// connection tracking and nftables see a tunnel like any other; when the
// programs are missing, nothing leaves and nothing arrives.
//
// docs/design/ipip.md says how it works.
package ipip

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"sync"

	"github.com/cilium/ebpf"

	"github.com/brindle-net/brindle/internal/kernel/rtnl"
	"github.com/brindle-net/brindle/internal/netns"
)

// ErrNoDevice says that the tunnel's interface does not exist.
var ErrNoDevice = errors.New("no such interface")

// Config says where a carrier works.
type Config struct {
	NS     *netns.NS // nil: the calling thread's
	Device string    // the tunnel's interface; its kind must be one with Ethernet headers that drops what it is to send (dummy, ifb)
	PinDir string    // a folder of its own for what outlives the process; a BPF file system is mounted there unless it is on one
	Log    *slog.Logger
}

// State is what a carrier should do.
type State struct {
	Local    netip.Addr     // outer source, and the destination of what is taken in; IPv4
	Hosts    []netip.Addr   // who may send to us, in any order; IPv4
	Networks []netip.Prefix // all of whose addresses may, too; IPv4
	Underlay []string       // the interfaces by which they may
	// Strict are those of Underlay by which a host is believed only if packets
	// to it may leave there, too. Where it is behind a router of another
	// interface, any route by this one will do, also one to everywhere: its
	// route may have several next hops, of which a program sees one.
	Strict []string
}

// A Carrier is the programs and tables of one host. Its methods may be called
// from anywhere; calls take turns. What it does goes on after Close, and after
// the process: the next Open takes it over.
type Carrier struct {
	config Config
	conn   *rtnl.Conn

	mu       sync.Mutex // guards what follows
	tables   tables
	hosts    map[netip.Addr]bool // what the table of hosts holds
	networks map[netip.Prefix]bool
	places   map[place]bool // where programs of ours are attached
	settings settings
	programs *programs // made with settings; nil before the first Sync
}

// Open takes over what an earlier process left, or begins anew: tables of
// another version are replaced, and nothing is attached before Sync. The
// error wraps ebpf.ErrNotSupported where the kernel lacks what is needed.
func Open(config Config) (*Carrier, error) {
	if err := mountBPF(config.PinDir); err != nil {
		return nil, err
	}
	conn, err := rtnl.Dial(config.NS)
	if err != nil {
		return nil, err
	}
	c := &Carrier{config: config, conn: conn}
	if c.tables, err = openTables(config.PinDir, config.Log); err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	c.hosts, err = readHosts(c.tables.Hosts)
	if err == nil {
		c.networks, err = readNetworks(c.tables.Networks)
	}
	if err == nil {
		c.places, err = c.hooks().places()
	}
	if err != nil {
		return nil, errors.Join(err, c.Close())
	}
	return c, nil
}

// Close lets go of programs and tables. They stay in the kernel and go on.
func (c *Carrier) Close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.programs.close()
	return errors.Join(c.tables.close(), c.conn.Close())
}

func (c *Carrier) hooks() hooks { return hooks{c.conn, c.config.NS} }

// Remove detaches the programs and removes the tables. Close is still to be
// called.
func (c *Carrier) Remove() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	places, err := c.hooks().places()
	for p := range places {
		err = errors.Join(err, c.hooks().detach(p))
	}
	c.places = map[place]bool{}
	return errors.Join(err, c.tables.unpin(), unmountBPF(c.config.PinDir))
}

// Sync makes the kernel do what s says, and repairs what others changed. What
// is in order is not touched. New hosts are let in before programs change,
// and others are shut out after. An interface of s.Underlay that does not
// exist is an error, after the rest has been done; the error wraps ErrNoDevice
// then, and when the tunnel's interface is missing.
func (c *Carrier) Sync(ctx context.Context, s State) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := s.check(); err != nil {
		return err
	}
	if err := c.admit(s.Hosts, s.Networks); err != nil {
		return err
	}
	if err := c.configure(s.Local); err != nil {
		return err
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	wanted, strict, failed := c.wanted(s)
	if err := setStrict(c.tables.Strict, strict); err != nil {
		return errors.Join(failed, err)
	}
	return errors.Join(failed, c.attach(wanted), c.expel(s.Hosts, s.Networks))
}

func (s State) check() error {
	for _, a := range append([]netip.Addr{s.Local}, s.Hosts...) {
		if !a.Is4() {
			return fmt.Errorf("IP in IP: address %v: must be IPv4", a)
		}
	}
	for _, p := range s.Networks {
		if !p.Addr().Is4() {
			return fmt.Errorf("IP in IP: network %v: must be IPv4", p)
		}
	}
	return nil
}

// admit adds hosts and networks to the tables.
func (c *Carrier) admit(hosts []netip.Addr, networks []netip.Prefix) error {
	for _, p := range networks {
		if p = p.Masked(); c.networks[p] {
			continue
		}
		if err := c.tables.Networks.Put(keyOf(p), uint32(0)); err != nil {
			return fmt.Errorf("add network %v to the table of who may send IP in IP: %w", p, err)
		}
		c.networks[p] = true
	}
	var fresh []netip.Addr
	for _, h := range hosts {
		if !c.hosts[h] {
			fresh = append(fresh, h)
		}
	}
	if err := addHosts(c.tables.Hosts, fresh); err != nil {
		return fmt.Errorf("add %d hosts to the table of who may send IP in IP: %w", len(fresh), err)
	}
	for _, h := range fresh {
		c.hosts[h] = true
	}
	return nil
}

// expel removes from the tables who is no longer to send.
func (c *Carrier) expel(hosts []netip.Addr, networks []netip.Prefix) error {
	keep := make(map[netip.Addr]bool, len(hosts))
	for _, h := range hosts {
		keep[h] = true
	}
	for h := range c.hosts {
		if keep[h] {
			continue
		}
		if err := c.tables.Hosts.Delete(h.As4()); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
			return fmt.Errorf("remove host %v from the table of who may send IP in IP: %w", h, err)
		}
		delete(c.hosts, h)
	}
	for p := range c.networks {
		if slices.ContainsFunc(networks, func(q netip.Prefix) bool { return q.Masked() == p }) {
			continue
		}
		if err := c.tables.Networks.Delete(keyOf(p)); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
			return fmt.Errorf("remove network %v from the table of who may send IP in IP: %w", p, err)
		}
		delete(c.networks, p)
	}
	return nil
}

// configure makes programs for the tunnel's interface and the address, unless
// those that it has are.
func (c *Carrier) configure(local netip.Addr) error {
	dev, err := readLink(c.conn, c.config.Device)
	if err != nil {
		return err
	}
	if !dev.ethernet {
		return fmt.Errorf("interface %s: must have Ethernet headers, as a dummy has", c.config.Device)
	}
	want := settings{local: local, index: dev.index, mac: dev.mac}
	if c.programs != nil && c.settings == want {
		return nil
	}
	var made programs
	if err := load(want, &c.tables, &made.usual); err != nil {
		return err
	}
	c.programs.close()
	c.programs, c.settings = &made, want
	return nil
}

// wanted says which program belongs where, and which interfaces are strict.
// Interfaces that are not there, or that no program can be had for, are told
// of, and do without.
func (c *Carrier) wanted(s State) (want map[place]*ebpf.Program, strict []uint32, failed error) {
	want = map[place]*ebpf.Program{{index: c.settings.index, egress: true}: c.programs.Encapsulate}
	names := slices.Clone(s.Underlay)
	slices.Sort(names)
	for _, name := range slices.Compact(names) {
		dev, err := readLink(c.conn, name)
		program := c.programs.DecapsulateEthernet
		if err == nil && !dev.ethernet {
			if c.programs.DecapsulatePlain == nil {
				err = load(c.settings, &c.tables, &c.programs.plain)
			}
			program = c.programs.DecapsulatePlain
		}
		if err != nil {
			failed = errors.Join(failed, err)
			continue
		}
		want[place{index: dev.index}] = program
		if slices.Contains(s.Strict, name) {
			strict = append(strict, dev.index)
		}
	}
	return want, strict, failed
}

// attach puts programs where they belong and takes ours away from elsewhere.
func (c *Carrier) attach(want map[place]*ebpf.Program) error {
	var failed error
	for p, program := range want {
		changed, err := c.hooks().attach(p, program)
		if err != nil {
			failed = errors.Join(failed, err)
			continue
		}
		if changed {
			c.config.Log.Info("a program that carries IP in IP was attached", "interface", p.index, "egress", p.egress)
		}
		c.places[p] = true
	}
	for p := range c.places {
		if want[p] != nil {
			continue
		}
		if err := c.hooks().detach(p); err != nil {
			failed = errors.Join(failed, err)
			continue
		}
		delete(c.places, p)
	}
	return failed
}
