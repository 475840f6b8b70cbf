package nft

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"regexp"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/brindle-net/brindle/internal/dataplane/rules"
	"github.com/brindle-net/brindle/internal/desired"
	"github.com/brindle-net/brindle/internal/netns"
)

// FlowsName is the name of the table with the flowtable, of family inet. It is
// there only while a driver is that was asked for it.
const FlowsName = "brindle-flows"

var flowsTable = tableID{unix.NFPROTO_INET, FlowsName}

// Attributes and flags of flowtables that the header of x/sys lacks
// (linux/netfilter/nf_tables.h).
const (
	attrFlowTable, attrFlowName, attrFlowHook, attrFlowFlags = 1, 2, 3, 7 // NFTA_FLOWTABLE_

	attrHookNumber, attrHookPriority, attrHookDevices = 1, 2, 3 // NFTA_FLOWTABLE_HOOK_
	attrDeviceName                                    = 1       // NFTA_DEVICE_NAME
	attrFlowAdd                                       = 1       // NFTA_FLOW_TABLE_NAME

	flowCounter = 2   // NFT_FLOWTABLE_COUNTER: connection tracking goes on to count
	tableOwner  = 2   // NFT_TABLE_F_OWNER: the table goes with the socket that made it
	manyDevices = 200 // in one message: the kernel takes 255
)

// An offload is the flowtable with the rules that lead to it, in a table that
// belongs to a socket: who wants connections out of the flowtable takes the table
// away and closes the socket. From then on packets come by the rules; so they do
// once this process dies, however. There is nothing to
// read back, since nobody else may change the table, and nothing that an older
// program could leave in place because it does not know it.
type offload struct {
	ns     *netns.NS
	conn   *conn  // owns the table; nil: there is none
	text   string // of its chains
	chains []*rules.Chain
	wanted map[string]string // devices of workloads and tunnels, with what may be sent from there
	hooked map[string]int    // devices whose packets are looked for, by number
	stale  bool              // it may have what settings no longer let pass
}

// Halt takes all connections out of the flowtable and keeps them out until
// Resume, or a Sync that concerns it: packets of all of them come by the rules
// again. It does nothing where there is none.
func (d *Driver) Halt() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.flows.halt()
}

// Resume puts the flowtable back in place, and devices into it that have come. A
// failure costs speed and nothing else: it is logged, and told by Offloads.
func (d *Driver) Resume(ctx context.Context) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.builder != nil { // else the next Sync that succeeds does
		d.resume(ctx)
	}
}

// Offloads returns why established connections do not bypass the rules though
// the configuration says so; nil: they do, or it does not. It does not wait for a
// Sync that is under way.
func (d *Driver) Offloads() error {
	if err := d.noFlows.Load(); err != nil {
		return *err
	}
	return nil
}

// offer brings the flowtable in line with a policy that is in force. d.mu is held.
func (d *Driver) offer(ctx context.Context, want *desired.Policy, changed *desired.PolicyPatch) {
	if d.cfg.Offload == 0 {
		d.noFlows.Store(nil)
		if err := d.flows.halt(); err != nil {
			d.log.WarnContext(ctx, "flowtable not taken away", "err", err)
		}
		return
	}
	if changed != nil && changed.Endpoints.Empty() && changed.Tunnels.Empty() && d.flows.conn != nil {
		return
	}
	was := d.flows.wanted
	d.flows.wanted = make(map[string]string, len(want.Endpoints)+len(want.Tunnels))
	for name := range want.Tunnels {
		d.flows.wanted[name] = ""
	}
	for name, e := range want.Endpoints {
		d.flows.wanted[name] = fmt.Sprint(e.Name, e.MAC, e.Addrs, e.Sources)
	}
	if d.flows.stale || withdrawn(was, d.flows.wanted) {
		if err := d.flows.halt(); err != nil {
			d.log.WarnContext(ctx, "flowtable not taken away", "err", err)
		}
	}
	d.flows.stale = false
	d.resume(ctx)
}

// withdrawn reports whether a workload is gone, or may send from other addresses
// than before: what it sends from those that it had is dropped from now on, in
// connections too, and the flowtable would not ask.
func withdrawn(was, now map[string]string) bool {
	for name, from := range was {
		if to, ok := now[name]; !ok || to != from {
			return true
		}
	}
	return false
}

func (d *Driver) resume(ctx context.Context) {
	if d.cfg.Offload == 0 {
		return
	}
	was := d.Offloads()
	err := d.flows.place(d.cfg)
	if err == nil {
		err = d.flows.hook(d.cfg.OffloadDevices)
	}
	if err == nil {
		d.noFlows.Store(nil)
		return
	}
	if d.noFlows.Store(&err); was == nil || was.Error() != err.Error() {
		d.log.WarnContext(ctx, "established connections do not bypass the rules", "err", err)
	}
}

// halt takes the table away, and closes the socket that owns it. To close it is
// not enough: a process that is being started has all sockets of this one until
// its program begins, and the kernel waits for the last who has it.
func (o *offload) halt() error {
	c := o.conn
	o.conn, o.hooked, o.text = nil, nil, ""
	if c == nil {
		return nil
	}
	var b batch
	b.deleteTable(flowsTable)
	if err := errors.Join(c.commit(&b, 0), c.close()); err != nil {
		return fmt.Errorf("take connections out of the flowtable: %w", err)
	}
	return nil
}

// place makes the table, without devices, unless it is there.
func (o *offload) place(cfg rules.Config) error {
	chains := cfg.OffloadChains()
	text := ""
	for _, c := range chains {
		text += c.String()
	}
	if o.conn != nil && o.text == text {
		return nil
	}
	if err := o.halt(); err != nil {
		return err
	}
	c, err := dial(o.ns)
	if err != nil {
		return fmt.Errorf("make a flowtable: %w", err)
	}
	var b batch
	if err = b.addFlows(flowsTable, chains); err == nil {
		err = c.commit(&b, 0)
	}
	if err != nil {
		return errors.Join(fmt.Errorf("make a flowtable: %w", err), c.close())
	}
	o.conn, o.text, o.chains, o.hooked = c, text, chains, map[string]int{}
	return nil
}

// addFlows makes a table of the batch's socket with a flowtable and chains.
func (b *batch) addFlows(id tableID, chains []*rules.Chain) error {
	b.start(unix.NFT_MSG_NEWTABLE, unix.NLM_F_CREATE|unix.NLM_F_EXCL, id.family, step{"add", "table", id.name})
	b.text(unix.NFTA_TABLE_NAME, id.name)
	b.u32(unix.NFTA_TABLE_FLAGS, tableOwner)
	b.addFlowtable(id, rules.Flowtable, nil)
	e := newEdit(id)
	for _, c := range chains {
		l, err := lowerChain(c, func(string) (rules.Set, bool) { return rules.Set{}, false })
		if err != nil {
			return err
		}
		for name, s := range l.inline {
			made, err := s.lower()
			if err != nil {
				return err
			}
			e.addSet(name, made)
		}
		e.addChain(c.Name, l.chain)
	}
	e.write(b)
	return nil
}

// addFlowtable makes a flowtable, or adds devices to one.
func (b *batch) addFlowtable(id tableID, name string, devices []string) {
	b.start(unix.NFT_MSG_NEWFLOWTABLE, unix.NLM_F_CREATE, id.family, step{"add", "flowtable", name})
	b.text(attrFlowTable, id.name)
	b.text(attrFlowName, name)
	b.nest(attrFlowHook, func() {
		b.u32(attrHookNumber, unix.NF_NETDEV_INGRESS)
		b.u32(attrHookPriority, 0)
		if len(devices) == 0 {
			return
		}
		b.nest(attrHookDevices, func() {
			for _, d := range devices {
				b.text(attrDeviceName, d)
			}
		})
	})
	b.u32(attrFlowFlags, flowCounter)
}

// hook adds the devices that are there and not in the flowtable yet. One that
// has gone has left it by itself.
func (o *offload) hook(pattern string) error {
	more, err := regexp.Compile(pattern)
	if err != nil {
		return fmt.Errorf("interfaces for the flowtable: %w", err)
	}
	var links []net.Interface
	err = within(o.ns, func() (err error) {
		links, err = net.Interfaces()
		return err
	})
	if err != nil {
		return fmt.Errorf("list interfaces for the flowtable: %w", err)
	}
	there, number := make(map[string]int, len(o.hooked)), map[string]int{}
	var missing []string
	for _, l := range links {
		_, wanted := o.wanted[l.Name]
		further := pattern != "" && l.Flags&net.FlagLoopback == 0 && more.MatchString(l.Name)
		if number[l.Name] = l.Index; !wanted && !further {
			continue
		}
		if o.hooked[l.Name] == l.Index {
			there[l.Name] = l.Index
		} else {
			missing = append(missing, l.Name)
		}
	}
	slices.Sort(missing)
	o.hooked = there
	var failed []error
	for part := range slices.Chunk(missing, manyDevices) {
		if o.add(part) == nil {
			for _, name := range part {
				o.hooked[name] = number[name]
			}
			continue
		}
		for _, name := range part { // one of them may just have gone
			switch err := o.add([]string{name}); {
			case err == nil:
				o.hooked[name] = number[name]
			case !errors.Is(err, unix.ENOENT):
				failed = append(failed, fmt.Errorf("%s: %w", name, err))
			}
		}
	}
	if len(failed) > 0 {
		return fmt.Errorf("add interfaces to the flowtable: %w", join(failed))
	}
	return nil
}

func (o *offload) add(devices []string) error {
	var b batch
	b.addFlowtable(flowsTable, rules.Flowtable, devices)
	return o.conn.commit(&b, 0)
}

// String writes the chains and the devices, "" where there is no flowtable.
func (o *offload) String() string {
	if o.conn == nil {
		return ""
	}
	var b strings.Builder
	fmt.Fprintf(&b, "\nflowtable %s: %s\n", rules.Flowtable, strings.Join(slices.Sorted(maps.Keys(o.hooked)), ", "))
	for _, c := range o.chains {
		b.WriteString("\n" + c.String())
	}
	return b.String()
}

// flowAdd puts the packet's connection into a flowtable; the rule ends where the
// kernel does not take it.
type flowAdd struct{ flowtable string }

func (flowAdd) kind() string { return "flow_offload" }

func (e flowAdd) encode(b *batch) { b.text(attrFlowAdd, e.flowtable) }

func (r *reader) flowAdd(data []byte) expr {
	var e flowAdd
	r.attrs(data, func(kind uint16, v []byte) {
		if kind == attrFlowAdd {
			e.flowtable = r.text(v)
		}
	})
	return e
}
