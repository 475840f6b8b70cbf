package ipam

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	v3 "github.com/brindle-net/brindle/api/v3"
	"github.com/brindle-net/brindle/internal/prefix"
	"github.com/brindle-net/brindle/internal/store"
)

// history is one random history of a small cluster: hosts whose agents add
// and remove workloads, collectors, an administrator; with crashes between any
// two writes, lost replies, late writes, stale reads and clock steps.
type history struct {
	*sim
	settings *Settings
	grace    time.Duration
	hosts    []*host
	cluster  *host // where the cluster's collector runs
	nextID   int   // of actors
	nextName int   // of containers

	model   sync.Mutex // guards live, and the workloads of the hosts
	live    map[netip.Addr]string
	running int      // actors
	admin   []func() // what the administrator still has to do, in order

	past      []ReleaseOptions // what workloads had that are gone
	report    *Report          // the last, written while nobody was setting up
	stale     bool             // reads may be
	collected map[string]bool  // handles that a collector has deleted
	blind     string           // which proof of death is not to be trusted: "endpoints", "agents", ""
}

// host is a machine. Its workloads live on when its agent crashes.
type host struct {
	h         *history
	name      string
	proc      *process
	m         *Manager
	collector *Collector
	clock     time.Duration // how wrong its clock is
	attached  Attachments   // also what is being set up or taken down
	workloads []*workload
	removals  []*workload // queued on disk: to be done by the next agent
	there     bool        // its Node is
}

type workload struct {
	handle, endpoint string
	addrs            []netip.Addr
	ready            bool // it has its endpoint
}

func (h *history) actor(p *process, f func(ctx context.Context)) {
	h.nextID++
	h.model.Lock()
	h.running++
	h.model.Unlock()
	ctx := context.WithValue(context.Background(), actorKey{}, &actor{id: h.nextID, proc: p})
	ctx, cancel := context.WithCancel(ctx)
	finished := make(chan struct{})
	go func() { // a crash ends waiting for locks too
		select {
		case <-p.down:
		case <-finished:
		}
		cancel()
	}()
	go func() {
		_ = h.call(ctx, "start", false, func(int) error { return nil }) // the scheduler says when
		f(ctx)
		close(finished)
		h.model.Lock()
		h.running--
		h.model.Unlock()
	}()
}

// boot starts a host's agent.
func (o *host) boot() {
	h := o.h
	o.proc = &process{name: o.name, down: make(chan struct{})}
	driver := store.Driver(h.sim)
	if h.chance(300) {
		driver = single{h.sim} // some programs write one key at a time
	}
	o.m = New(Config{Driver: driver,
		Settings: func(context.Context) (*Settings, error) { return h.settings, nil },
		Now:      func() time.Time { return start.Add(o.clock + time.Duration(h.steps)*time.Second) },
	})
	cfg := CollectorConfig{Manager: o.m, Grace: h.grace,
		Uptime: func() time.Duration { return time.Duration(h.steps) * time.Second }}
	if o != h.cluster {
		o.attached = Attachments{}
		for _, w := range o.workloads {
			o.attached[w.handle] = w.addrs
		}
		cfg.Host = o.name
		cfg.Attached = func(context.Context) (Attachments, error) {
			h.model.Lock()
			defer h.model.Unlock()
			at := maps.Clone(o.attached)
			for _, w := range o.workloads {
				if h.blind == "agents" && w.ready {
					delete(at, w.handle) // it knows of what it does just now only
				}
			}
			return at, nil
		}
		cfg.Borrowed = func(context.Context) ([]netip.Prefix, error) {
			var all []netip.Prefix
			for _, kv := range h.list(store.BlockRoot, h.rev).KVs {
				cidr, _ := store.ParseBlockKey(kv.Key)
				all = append(all, cidr)
			}
			return all, nil
		}
	}
	o.collector = NewCollector(cfg)
}

// crash is what follows when an agent has crashed: another is started. What it
// was setting up is torn down by whoever asked for it.
func (h *history) crash(p *process) {
	for _, o := range append(slices.Clone(h.hosts), h.cluster) {
		if o.proc == p {
			o.boot()
		}
	}
}

func key(plural, name string) string { return store.ResourceID{Plural: plural, Name: name}.Key() }

func (w *workload) key() string {
	return store.ResourceID{Plural: pluralEndpoints, Namespace: "default", Name: w.endpoint}.Key()
}

// add sets up a workload.
func (o *host) add(n4, n6 int, fixed netip.Addr) {
	h := o.h
	h.nextName++
	name := "c" + strconv.Itoa(h.nextName)
	w := &workload{handle: "net." + name, endpoint: o.name + "-" + name}
	m, proc := o.m, o.proc
	h.model.Lock()
	o.attached[w.handle] = nil
	h.model.Unlock()
	h.actor(proc, func(ctx context.Context) {
		var got []netip.Addr
		var err error
		if fixed.IsValid() {
			var a Assignment
			a, err = m.AssignIP(ctx, AssignIPArgs{Addr: fixed, Host: o.name, Handle: w.handle})
			got = []netip.Addr{a.Addr}
		} else {
			var r Result
			r, err = m.AutoAssign(ctx, AssignArgs{Host: o.name, Handle: w.handle, Num4: n4, Num6: n6})
			got = r.addrs()
			if err == nil && len(got) != n4+n6 {
				h.t.Errorf("%s: %d of %d addresses and no error", w.handle, len(got), n4+n6)
			}
		}
		if err == nil && o.attach(proc, w, got) {
			var nets []string
			for _, a := range got {
				nets = append(nets, prefix.Host(a).String())
			}
			res := &v3.WorkloadEndpoint{Spec: v3.WorkloadEndpointSpec{Node: o.name, ContainerID: name, IPNetworks: nets}}
			res.Name, res.Namespace = w.endpoint, "default"
			raw, _ := json.Marshal(res)
			if h.blind != "endpoints" {
				_, err = h.Create(ctx, w.key(), raw)
			}
			if err == nil {
				h.model.Lock()
				w.ready = true
				h.model.Unlock()
				return
			}
		}
		h.checkRefusal(err)
		o.remove(ctx, m, w, false) // a failed add is undone, by the next agent if need be
	})
}

// attach is the moment from which a workload uses its addresses; false if the
// agent is dead.
func (o *host) attach(proc *process, w *workload, got []netip.Addr) bool {
	h := o.h
	h.model.Lock()
	defer h.model.Unlock()
	if o.proc != proc || !o.there {
		return false
	}
	w.addrs = got
	o.workloads = append(o.workloads, w)
	for _, a := range got {
		if other, used := h.live[a]; used {
			h.t.Errorf("%s is given to %s while %s has it", a, w.handle, other)
		}
		h.live[a] = w.handle
	}
	o.attached[w.handle] = got
	return true
}

// checkRefusal accepts only the errors that there are reasons for.
func (h *history) checkRefusal(err error) {
	for _, ok := range []error{errCrashed, errLost, context.Canceled, ErrExhausted, ErrBlockLimit, ErrNoPool,
		ErrAssigned, ErrStrictAffinity, store.ErrExists, store.ErrConflict} {
		if errors.Is(err, ok) {
			return
		}
	}
	if err != nil {
		h.t.Errorf("unexpected error: %v", err)
	}
}

// forget is the end of a workload: it no longer uses its addresses.
func (o *host) forget(w *workload) {
	o.h.model.Lock()
	defer o.h.model.Unlock()
	for _, a := range w.addrs {
		if o.h.live[a] == w.handle {
			delete(o.h.live, a)
		}
	}
	o.workloads = slices.DeleteFunc(o.workloads, func(x *workload) bool { return x == w })
}

// remove takes a workload down. What fails is queued, or with careless set
// forgotten but for its endpoint.
func (o *host) remove(ctx context.Context, m *Manager, w *workload, careless bool) {
	o.forget(w)
	err := o.h.Delete(ctx, w.key(), "")
	if errors.Is(err, store.ErrNotFound) {
		err = nil
	}
	if err == nil && !careless {
		err = m.ReleaseByHandle(ctx, w.handle)
	}
	o.h.checkRefusal(err)
	o.h.model.Lock()
	defer o.h.model.Unlock()
	if err != nil {
		o.removals = append(o.removals, w)
		return
	}
	if m == o.m {
		delete(o.attached, w.handle)
	}
	for _, a := range w.addrs {
		o.h.past = append(o.h.past, ReleaseOptions{Addr: a, Handle: w.handle})
	}
}

func (o *host) startRemove(w *workload, careless bool) {
	m := o.m
	o.forget(w)
	o.h.actor(o.proc, func(ctx context.Context) { o.remove(ctx, m, w, careless) })
}

// releaseAddrs takes a workload down by addresses rather than by handle.
func (o *host) releaseAddrs(w *workload) {
	m := o.m
	named := w.handle
	if o.h.rnd.IntN(2) == 0 {
		named = ""
	}
	o.forget(w)
	o.h.actor(o.proc, func(ctx context.Context) {
		for _, a := range w.addrs {
			if err := m.Release(ctx, ReleaseOptions{Addr: a, Handle: named}); !errors.Is(err, ErrNotAssigned) && !errors.Is(err, ErrStale) {
				o.h.checkRefusal(err)
			}
		}
		o.remove(ctx, m, w, false)
	})
}

// register makes the host's Node.
func (o *host) register() {
	o.there = true
	raw, _ := json.Marshal(&v3.Node{ObjectMeta: v3.ObjectMeta{Name: o.name}})
	o.h.set(key(pluralNodes, o.name), raw)
}

// die is the end of a machine: its agent, its workloads, then what the
// administrator removes.
func (o *host) die() {
	h := o.h
	h.kill(o.proc)
	synctest.Wait()
	gone := append(slices.Clone(o.workloads), o.removals...)
	for _, w := range gone {
		o.forget(w)
	}
	o.removals = nil
	o.there = false
	h.admin = append(h.admin, func() {
		for _, w := range gone {
			if _, ok := h.at(w.key(), h.rev); ok {
				h.set(w.key(), nil)
			}
		}
		// An add that was cut off may have left an endpoint too.
		for _, kv := range h.list(store.ResourcePrefix(pluralEndpoints, "default"), h.rev).KVs {
			if strings.Contains(kv.Key, "/"+o.name+"-") {
				h.set(kv.Key, nil)
			}
		}
	}, func() { h.set(key(pluralNodes, o.name), nil) })
}

func (o *host) scan() {
	c := o.collector
	o.h.actor(o.proc, func(ctx context.Context) {
		_, err := c.Scan(ctx)
		o.h.checkRefusal(err)
	})
}

func newHistory(t *testing.T, seed uint64) *history {
	h := &history{sim: newSim(t, seed), live: map[netip.Addr]string{}}
	r := h.rnd
	h.grace = time.Duration(60+r.IntN(200)) * time.Second
	h.settings = &Settings{
		Pools:         []Pool{pool("a4", "10.0.0.0/28", 30), pool("a6", "fd00::/125", 127), pool("b4", "10.1.0.0/29", 31)}[:1+r.IntN(3)],
		Configuration: DefaultConfiguration(),
	}
	conf := &h.settings.Configuration
	conf.StrictAffinity = r.IntN(3) == 0
	if conf.StrictAffinity && r.IntN(2) == 0 {
		conf.MaxBlocksPerHost = 1 + r.IntN(3)
	}
	if r.IntN(4) == 0 {
		conf.CoolDown = time.Duration(r.IntN(100)) * time.Second
	}
	if r.IntN(4) == 0 {
		h.settings.Reserved = NewReserved([]netip.Prefix{netip.MustParsePrefix("10.0.0.3/32"), netip.MustParsePrefix("10.0.0.8/30")})
	}
	if r.IntN(5) > 0 {
		h.faults = faults{stale: r.IntN(2) * r.IntN(100), conflict: r.IntN(50), lost: r.IntN(50), failed: r.IntN(30), late: r.IntN(30), crash: r.IntN(20)}
	}
	h.blind = []string{"", "", "", "endpoints", "agents"}[r.IntN(5)]
	h.collected = map[string]bool{}
	h.stale = h.faults.stale > 0
	h.onWrite = h.checkWrite
	if seed%3 == 0 {
		h.permit = h.hold
	}
	h.cluster = &host{h: h, name: "cluster"}
	h.cluster.boot()
	for i := range 2 + r.IntN(2) {
		o := &host{h: h, name: fmt.Sprint("n", i)}
		o.boot()
		o.register()
		h.hosts = append(h.hosts, o)
	}
	return h
}

// hold holds hosts to what is their own, as a datastore does that knows who
// writes. The claims of others are denied, which hosts have to live with; in
// blocks and handles they never ask for what is not theirs; what they knew of
// pools and of their own blocks may be old.
func (h *history) hold(by *process, key string, old, value []byte) error {
	if by == h.cluster.proc {
		return nil
	}
	if id, ok := store.ParseAffinityKey(key); ok && id.Owner != by.name {
		return store.ErrDenied
	}
	if !strings.HasPrefix(key, store.BlockRoot) && !strings.HasPrefix(key, store.HandleRoot) {
		return nil
	}
	err := CheckHostWrite(store.HostWrite{Host: by.name, Key: key, Old: old, New: value, List: func(prefix string) ([]store.KV, error) {
		switch prefix {
		case store.IPAMConfigKey:
			return []store.KV{{Key: prefix, Value: h.settings.Configuration.Encode()}}, nil
		case store.ResourcePrefix(pluralPools, ""):
			var all []store.KV
			for _, p := range h.settings.Pools {
				raw, _ := json.Marshal(&v3.IPPool{Spec: v3.IPPoolSpec{CIDR: p.CIDR.String(), BlockSize: p.BlockSize, Disabled: p.Unusable != ""}})
				all = append(all, store.KV{Key: prefix + p.Name, Value: raw})
			}
			return all, nil
		}
		return h.list(prefix, h.rev).KVs, nil
	}})
	if errors.Is(err, ErrNoPool) || errors.Is(err, ErrBlockLimit) {
		return fmt.Errorf("%w: %w", store.ErrDenied, err)
	}
	if err != nil {
		h.t.Errorf("host %s is refused: %v\nold %s\nnew %s", by.name, err, old, value)
	}
	return err
}

// checkWrite checks what must hold after every write: nobody loses an address
// that he uses, whoever has an address has a handle that says so, and a
// confirmed affinity has a block that says so.
func (h *history) checkWrite(key string, value []byte) {
	h.model.Lock()
	defer h.model.Unlock()
	if id, ok := store.ParseHandleKey(key); ok {
		if h.writer == h.cluster.proc && value == nil {
			h.collected[id] = true // an unusually slow call may still be about to use it
		}
		for _, kv := range h.list(store.BlockRoot, h.rev).KVs {
			if strings.Contains(string(kv.Value), `"`+id+`"`) {
				b, _ := DecodeBlock(kv.Value)
				h.checkHandle(b, id)
			}
		}
		return
	}
	if id, ok := store.ParseAffinityKey(key); ok {
		h.checkAffinity(id)
		return
	}
	cidr, ok := store.ParseBlockKey(key)
	if !ok {
		return
	}
	owners := map[netip.Addr]string{}
	affinity := ""
	if value != nil {
		b, err := decodeBlockAt(cidr, value)
		if err != nil {
			h.t.Errorf("%v", err)
			return
		}
		if p := b.problems(start.Add(48 * time.Hour)); len(p) > 0 {
			h.t.Errorf("block %s: %v", cidr, p)
		}
		affinity = b.Affinity
		for _, u := range b.Uses() {
			owners[u.Addr] = u.Attribute.Handle
			h.checkHandle(b, u.Attribute.Handle)
		}
	}
	for a, handle := range h.live {
		if cidr.Contains(a) && owners[a] != handle {
			h.t.Errorf("%s is used by %s, and the block says %q", a, handle, owners[a])
		}
	}
	for _, o := range h.hosts {
		if HostAffinity(o.name) != affinity {
			h.checkAffinity(store.AffinityID{Owner: o.name, CIDR: cidr})
		}
	}
}

// checkHandle checks that a handle counts all its addresses of a block. Stale
// reads can hide an address from whoever releases a handle.
func (h *history) checkHandle(b *Block, id string) {
	if id == "" || h.collected[id] || h.stale {
		return
	}
	count := 0
	if v, ok := h.at(store.HandleKey(id), h.rev); ok {
		hd, _ := decodeHandle(v.value)
		count = hd.blocks[b.CIDR]
	}
	if n := len(b.ordinalsOf(id)); n > count {
		h.t.Errorf("handle %s counts %d in block %s, which has %d", id, count, b.CIDR, n)
	}
}

// checkAffinity checks that a confirmed affinity has a block that names it.
func (h *history) checkAffinity(id store.AffinityID) {
	v, ok := h.at(id.Key(), h.rev)
	if !ok {
		return
	}
	if a, _ := decodeAffinity(v.value); a.state != Confirmed {
		return
	}
	text := "nothing"
	if v, ok := h.at(store.BlockKey(id.CIDR), h.rev); ok {
		b, _ := DecodeBlock(v.value)
		text = b.Affinity
	}
	if text != HostAffinity(id.Owner) {
		h.t.Errorf("affinity of %s to %s is confirmed, the block says %s", id.CIDR, id.Owner, text)
	}
}

// act starts something random.
func (h *history) act() {
	r := h.rnd
	o := h.hosts[r.IntN(len(h.hosts))]
	if !o.there {
		if len(h.admin) == 0 && r.IntN(3) == 0 { // a new machine of the old name
			o.workloads = nil
			o.boot()
			o.register()
		}
		return
	}
	switch n := r.IntN(106); {
	case n < 45:
		n4 := r.IntN(3)
		n6 := 0
		if len(h.settings.Pools) > 1 && r.IntN(2) == 0 {
			n6 = 1
		}
		if n4+n6 == 0 {
			n4 = 1
		}
		o.add(n4, n6, netip.Addr{})
	case n < 50:
		o.add(0, 0, netip.AddrFrom4([4]byte{10, 0, 0, byte(r.IntN(16))}))
	case n < 80 && len(o.workloads) > 0:
		w := o.workloads[r.IntN(len(o.workloads))]
		if !w.ready {
			return
		}
		if r.IntN(4) == 0 {
			o.releaseAddrs(w)
		} else {
			o.startRemove(w, r.IntN(5) == 0)
		}
	case n < 84 && len(o.removals) > 0:
		w := o.removals[0]
		o.removals = o.removals[1:]
		o.startRemove(w, false)
	case n < 88:
		o.scan()
	case n < 92:
		h.cluster.scan()
	case n < 95:
		o.clock = []time.Duration{-24 * time.Hour, 0, 24 * time.Hour}[r.IntN(3)]
	case n < 96:
		o.die()
	case n < 98 && len(h.settings.Pools) > 2:
		h.dropPool(o)
	case n < 99 && len(h.past) > 0: // somebody who is late
		late := h.past[r.IntN(len(h.past))]
		if h.permit != nil { // it may be about another host's
			o = h.cluster
		}
		m := o.m
		h.actor(o.proc, func(ctx context.Context) {
			if err := m.Release(ctx, late); !errors.Is(err, ErrNotAssigned) && !errors.Is(err, ErrStale) {
				h.checkRefusal(err)
			}
		})
	case n < 103:
		h.writeReport()
	case n < 105 && h.report != nil:
		m, report := h.cluster.m, h.report
		h.actor(h.cluster.proc, func(ctx context.Context) {
			_, _, err := m.ReleaseLeaked(ctx, report)
			h.checkRefusal(err)
		})
	default: // its idle blocks are given up by somebody else
		m := h.cluster.m
		h.actor(h.cluster.proc, func(ctx context.Context) { h.checkRefusal(m.ReleaseHostAffinities(ctx, o.name, true)) })
	}
}

// dropPool disables the last pool and gives its blocks up.
func (h *history) dropPool(o *host) {
	s := *h.settings
	s.Pools = slices.Clone(s.Pools)
	p := &s.Pools[len(s.Pools)-1]
	p.Unusable = "it is disabled"
	h.settings = &s
	m, name, cidr := o.m, p.Name, p.CIDR
	drain := h.rnd.IntN(2) == 0
	if h.permit != nil { // it takes from all hosts
		m, o = h.cluster.m, h.cluster
	}
	h.actor(o.proc, func(ctx context.Context) {
		err := error(nil)
		if drain {
			_, err = m.DrainPool(ctx, name, DrainOptions{})
		} else {
			err = m.ReleasePoolAffinities(ctx, cidr)
		}
		h.checkRefusal(err)
	})
}

// writeReport writes a report as the documentation asks for it: while nobody
// sets anything up, of a datastore that says what is.
func (h *history) writeReport() {
	if h.running > 0 || h.stale || h.blind == "endpoints" {
		return
	}
	m := New(Config{Driver: still{h.sim}, Settings: h.cluster.m.settings, Now: h.cluster.m.now})
	report, err := m.Check(context.Background())
	if err != nil {
		h.t.Errorf("check: %v", err)
	}
	h.report = report
}

// still is a datastore that answers at once and goes wrong never.
type still struct{ *sim }

func (s still) List(_ context.Context, prefix string) (store.Listing, error) {
	return s.list(prefix, s.rev), nil
}

// drain lets everything that runs come to its end.
func (h *history) drain() {
	for h.step(h.crash) {
		if h.steps > 100_000 {
			h.t.Fatal("no end")
		}
	}
	if h.running > 0 {
		h.t.Fatalf("%d actors wait for each other", h.running)
	}
}

// settle makes the cluster healthy and collects until nothing is left to
// collect.
func (h *history) settle() {
	h.faults = faults{}
	h.drain()
	for _, f := range h.late {
		f()
	}
	h.late = nil
	for _, f := range h.admin {
		f()
	}
	h.admin = nil
	everybody := append(slices.Clone(h.hosts), h.cluster)
	for _, o := range everybody {
		o.clock = 0
		for _, w := range o.removals {
			o.startRemove(w, false)
		}
		o.removals = nil
	}
	h.drain()
	for rounds, rev := 0, -1; ; rounds++ {
		h.steps += int((h.grace+h.settings.Configuration.CoolDown)/time.Second) + 1
		suspects := 0
		for _, o := range everybody {
			if o == h.cluster || o.there {
				o.scan()
				h.drain()
				suspects += len(o.collector.suspects)
			}
		}
		if rev == h.rev && suspects == 0 {
			return
		}
		if rev = h.rev; rounds == 20 {
			h.t.Errorf("after %d scans there still is something to collect", rounds)
			return
		}
	}
}

// checkEnd checks that nothing is left but what somebody uses.
func (h *history) checkEnd() {
	counts := map[string]map[netip.Prefix]int{} // handle → block → addresses
	affine := map[string]bool{}
	seen := map[netip.Addr]bool{}
	for _, kv := range h.list(store.BlockRoot, h.rev).KVs {
		b, _ := DecodeBlock(kv.Value)
		affine[b.Affinity+" "+b.CIDR.String()] = true
		if b.Affinity == "" && b.empty() {
			h.t.Errorf("block %s is nobody's and empty", b.CIDR)
		}
		for _, u := range b.Uses() {
			seen[u.Addr] = true
			if owner := h.live[u.Addr]; owner == "" || owner != u.Attribute.Handle {
				h.t.Errorf("%s leaked: %s has it, %q uses it (%v)", u.Addr, u.Attribute.Handle, owner, u.Attribute.ReleasedAt)
			}
			if counts[u.Attribute.Handle] == nil {
				counts[u.Attribute.Handle] = map[netip.Prefix]int{}
			}
			counts[u.Attribute.Handle][b.CIDR]++
		}
	}
	for a, handle := range h.live {
		if !seen[a] {
			h.t.Errorf("%s of %s is in no block", a, handle)
		}
	}
	for _, kv := range h.list(store.HandleRoot, h.rev).KVs {
		id, _ := store.ParseHandleKey(kv.Key)
		hd, _ := decodeHandle(kv.Value)
		if counts[id] == nil {
			h.t.Errorf("handle %s leaked", id)
		}
		for cidr, n := range counts[id] {
			if hd.blocks[cidr] < n {
				h.t.Errorf("handle %s counts %d in %s, there are %d", id, hd.blocks[cidr], cidr, n)
			}
		}
		delete(counts, id)
	}
	for id := range counts {
		h.t.Errorf("handle %s is missing", id)
	}
	for _, kv := range h.list(store.HostRoot, h.rev).KVs {
		id, _ := store.ParseAffinityKey(kv.Key)
		a, _ := decodeAffinity(kv.Value)
		name := affinityText(id) + " " + id.CIDR.String()
		if a.state != Confirmed || !affine[name] {
			h.t.Errorf("affinity %s: %s, block agrees %v", name, a.state, affine[name])
		}
		delete(affine, name)
	}
	for name := range affine {
		if !strings.HasPrefix(name, " ") {
			h.t.Errorf("block without affinity: %s", name)
		}
	}
}

// run plays a history.
func run(t *testing.T, seed uint64) {
	synctest.Test(t, func(t *testing.T) {
		h := newHistory(t, seed)
		for acts := 15 + h.rnd.IntN(25); acts > 0; {
			if h.rnd.IntN(6) == 0 || !h.step(h.crash) {
				synctest.Wait()
				h.act()
				acts--
			}
			if len(h.admin) > 0 && h.rnd.IntN(8) == 0 {
				synctest.Wait()
				h.admin[0]()
				h.admin = h.admin[1:]
			}
		}
		h.settle()
		h.checkEnd()
		if t.Failed() {
			t.Logf("seed %d\n%s", seed, strings.Join(h.log, "\n"))
		}
	})
}

// TestHistories plays BRINDLE_HISTORIES random histories, 5,000 by default.
// BRINDLE_SEED plays one of them again; with -v it is written down.
func TestHistories(t *testing.T) {
	if seed, err := strconv.ParseUint(os.Getenv("BRINDLE_SEED"), 10, 64); err == nil {
		run(t, seed)
		return
	}
	n, err := strconv.Atoi(os.Getenv("BRINDLE_HISTORIES"))
	if err != nil {
		n = 5000
	}
	if testing.Short() || underRace {
		n = min(n, 400) // each is ten times as dear there; the step "histories" plays all
	}
	const shards = 4
	for shard := range shards {
		t.Run(strconv.Itoa(shard), func(t *testing.T) {
			t.Parallel()
			for seed := shard; seed < n; seed += shards {
				if run(t, uint64(seed)); t.Failed() {
					t.Fatalf("history %d failed; see it with BRINDLE_SEED=%d go test -v -run TestHistories", seed, seed)
				}
			}
		})
	}
}

// FuzzHistories plays histories of seeds that the fuzzer makes up.
func FuzzHistories(f *testing.F) {
	f.Add(uint64(1))
	f.Fuzz(func(t *testing.T, seed uint64) { run(t, seed) })
}
