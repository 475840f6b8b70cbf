package differential

import (
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"math/rand/v2"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/brindle-net/brindle/internal/calc"
	"github.com/brindle-net/brindle/internal/dataplane/nft"
	"github.com/brindle-net/brindle/internal/dataplane/rules"
	"github.com/brindle-net/brindle/internal/desired"
	"github.com/brindle-net/brindle/internal/model"
	"github.com/brindle-net/brindle/internal/oracle"
	"github.com/brindle-net/brindle/internal/randworld"
	"github.com/brindle-net/brindle/internal/testenv"
)

// rig is a kernel that enforces one random cluster's policy after another.
type rig struct {
	*wires
	driver  *nft.Driver
	flows   int
	denied  int
	pieces  int            // of the flows, how many came in fragments
	by      map[string]int // flows, by family and protocol
	learnt  *oracle.Coverage
	removed bool // enforcement is taken away after each Sync
}

func newRig(t testing.TB) *rig {
	r := &rig{wires: newWires(t), by: map[string]int{}, learnt: oracle.NewCoverage()}
	d, err := nft.Open(nft.Config{NS: r.host, Rules: kernelSettings(false), Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	r.driver = d
	t.Cleanup(func() { _ = d.Close() })
	return r
}

// kernelSettings have policy judge packets that connection tracking makes
// nothing of too, such as ICMP errors about nothing.
func kernelSettings(compiled bool) rules.Config {
	return rules.Config{
		Prefixes: []string{"cali"}, MarkMask: 0xffff0000, CutMark: 0x10000, Compiled: compiled, AllowInvalid: true,
		Encapsulations: []rules.Encapsulation{{Protocol: 17, Port: 4789}, {Protocol: 4}},
	}
}

// TestKernel holds real packets of random flows against the oracle: what
// arrives where, and what each of our counters counted. Each cluster is put in
// place whole, by plain and compiled rules in turn, and then changed. Each has
// both families.
func TestKernel(t *testing.T) {
	testenv.NeedProgram(t, "ip")
	testenv.NeedRoot(t)
	clusters := uint64(40)
	switch {
	case os.Getenv("BRINDLE_VM") != "":
		clusters = 20 // an emulated processor is slow
	case inCI():
		clusters = 200
	}
	r := newRig(t)
	for seed := range clusters {
		if wrong := r.cluster(seed); len(wrong) > 0 {
			t.Fatal(strings.Join(wrong, "\n"))
		}
	}
	t.Logf("%d clusters, %d flows, %d denied, %d in fragments: %v\n%v", clusters, r.flows, r.denied, r.pieces, r.by, r.learnt)
	if least := int(clusters) * 10; r.flows < least {
		t.Errorf("%d flows, want %d", r.flows, least)
	}
	if 5*r.denied < r.flows || 5*r.denied > 4*r.flows {
		t.Errorf("%d of %d flows were denied: the worlds are too simple", r.denied, r.flows)
	}
}

// TestKernelWithoutEnforcement: without our tables every packet arrives, and
// the comparison says so of each flow that is denied. Each cluster has both
// families.
func TestKernelWithoutEnforcement(t *testing.T) {
	testenv.NeedRoot(t)
	r := newRig(t)
	r.removed = true
	found := 0
	for seed := range uint64(5) {
		found += len(r.cluster(seed))
	}
	if r.denied == 0 || found != r.denied {
		t.Errorf("%d flows of %d are denied, and the comparison found %d", r.denied, r.flows, found)
	}
}

// cluster puts a random cluster's policy in force and sends flows through it,
// then changes it and sends more. It returns what came out wrong.
func (r *rig) cluster(seed uint64) []string {
	r.t.Helper()
	c := &cluster{seed: seed, world: randworld.New(seed)}
	core, all, tables := calc.New(here), oracle.Snapshot{}, desired.NewPolicy()
	tell := func(events []model.Event) *desired.PolicyPatch {
		for _, e := range events {
			all.Add(e)
		}
		patch := core.Apply(events).Policy
		patch.Play(tables)
		c.tables, c.view = &tables, oracle.NewView(all)
		return &patch
	}
	tell(c.world.Events())
	r.driver.Configure(kernelSettings(seed%2 == 1))
	wrong := r.judge(c, nil)
	patch := tell(c.world.Change())
	if r.removed {
		patch = nil
	}
	return append(wrong, r.judge(c, patch)...)
}

// probe is a packet on its way.
type probe struct {
	flow model.Flow
	ends []end
	sent rules.Packet
	want bool
}

// judge brings the kernel to a cluster's policy and sends flows.
func (r *rig) judge(c *cluster, patch *desired.PolicyPatch) []string {
	r.t.Helper()
	if err := r.driver.Sync(r.t.Context(), c.tables, patch); err != nil {
		r.t.Fatalf("seed %d: %v", c.seed, err)
	}
	r.route(c.tables.Endpoints)
	before := r.counted()
	if r.removed {
		if err := nft.Remove(r.host); err != nil {
			r.t.Fatal(err)
		}
	}
	rng := rand.New(rand.NewPCG(c.seed, 11))
	probes, want, seen := map[uint32]probe{}, map[string]uint64{}, map[string]bool{}
	for tries := 0; len(probes) < 8 && tries < 80; tries++ {
		f := c.world.Flow()
		ends := c.ends(f)
		p := c.packet(f, ends...)
		if p.In == p.Out || seen[connection(f, true)] { // the way back of a flow before
			continue
		}
		seen[connection(f, false)] = true
		r.sent++
		t, err := r.driver.Trace(p)
		if err != nil {
			r.t.Fatal(err)
		}
		for _, name := range counters(t) {
			want[name]++
		}
		x := probe{f, ends, p, allowed(ends)}
		probes[r.sent] = x
		fragmented := rng.IntN(5) == 0 && (f.Protocol == model.ProtocolTCP || f.Protocol == model.ProtocolUDP)
		r.note(x, fragmented)
		link := append([]byte(hostMAC+p.EthSource), 0x08, 0)
		if f.Source.Is6() {
			link[12], link[13] = 0x86, 0xdd
		}
		r.send(p.In, frames(f, link, r.sent, fragmented))
	}
	return r.compare(c, probes, before, want)
}

// note counts a flow.
func (r *rig) note(x probe, fragmented bool) {
	r.flows++
	if !x.want {
		r.denied++
	}
	if fragmented {
		r.pieces++
	}
	for _, e := range x.ends {
		r.learnt.Count(e.decision)
	}
	r.by[fmt.Sprintf("IPv%d/%d", family(x.flow.Source), x.flow.Protocol)]++
}

// connection names that of a flow, or of its answers.
func connection(f model.Flow, answer bool) string {
	a, b := netip.AddrPortFrom(f.Source, f.SourcePort), netip.AddrPortFrom(f.Dest, f.DestPort)
	if !model.HasPorts(f.Protocol) && f.Protocol != model.ProtocolUDPLite {
		a, b = netip.AddrPortFrom(f.Source, 0), netip.AddrPortFrom(f.Dest, 0)
	}
	if answer {
		a, b = b, a
	}
	return fmt.Sprint(f.Protocol, a, b)
}

func (r *rig) counted() map[string]nft.Count {
	r.t.Helper()
	now, err := r.driver.Counters(r.t.Context())
	if err != nil {
		r.t.Fatal(err)
	}
	return now
}

// compare waits for what should arrive and be counted, and returns what did
// not, and what arrived that should not have.
func (r *rig) compare(c *cluster, probes map[uint32]probe, before map[string]nft.Count, want map[string]uint64) []string {
	r.t.Helper()
	got, missing := map[uint32]string{}, ""
	for deadline := time.Now().Add(10 * time.Second); ; {
		r.arrived(got)
		if missing = r.missing(c, probes, got, before, want); missing == "" || time.Now().After(deadline) {
			break
		}
	}
	r.arrived(got)
	var wrong []string
	for _, n := range slices.Sorted(maps.Keys(probes)) {
		p := probes[n]
		if at := got[n]; (at != "") != p.want || p.want && at != p.sent.Out {
			wrong = append(wrong, fmt.Sprintf("%+v came out at %q: %s", p.sent, at, c.explain(p.flow, p.ends, rules.Trace{Accepted: at != ""})))
		}
	}
	if missing != "" && len(wrong) == 0 {
		wrong = append(wrong, fmt.Sprintf("seed %d: %s", c.seed, missing))
	}
	return wrong
}

// missing says what has not happened yet.
func (r *rig) missing(c *cluster, probes map[uint32]probe, got map[uint32]string, before map[string]nft.Count, want map[string]uint64) string {
	for n, p := range probes {
		if (p.want || r.removed) && got[n] == "" {
			return fmt.Sprintf("%v did not arrive", p.flow)
		}
	}
	if r.removed {
		return ""
	}
	now := r.counted()
	var errs []error
	for _, name := range slices.Sorted(maps.Keys(now)) {
		n := now[name].Packets - before[name].Packets
		if name == "d-unknown-to" && n > want[name] {
			continue // the kernel's own reports of multicast groups, to an interface that is gone from policy
		}
		if n != want[name] {
			errs = append(errs, fmt.Errorf("counter %s is %d, not %d", name, n, want[name]))
		}
	}
	if err := errors.Join(errs...); err != nil {
		return err.Error()
	}
	return ""
}
