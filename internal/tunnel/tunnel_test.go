package tunnel_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"testing/synctest"

	v3 "github.com/brindle-net/brindle/api/v3"
	"github.com/brindle-net/brindle/internal/client"
	"github.com/brindle-net/brindle/internal/ipam"
	"github.com/brindle-net/brindle/internal/store"
	"github.com/brindle-net/brindle/internal/store/mem"
	"github.com/brindle-net/brindle/internal/tunnel"
)

// flaky fails writes: before they are made, or after, when whoever wrote does
// not get to know.
type flaky struct {
	store.Driver
	rng  *rand.Rand
	rate int // of a hundred writes
}

var errFlaky = errors.New("connection lost")

func (f *flaky) fails(write func() (store.Revision, error)) (store.Revision, error) {
	if f.rng.IntN(100) >= f.rate {
		return write()
	}
	if f.rng.IntN(2) == 0 {
		_, _ = write() // done, and nobody hears of it
	}
	return "", errFlaky
}

func (f *flaky) Create(ctx context.Context, key string, value []byte) (store.Revision, error) {
	return f.fails(func() (store.Revision, error) { return f.Driver.Create(ctx, key, value) })
}

func (f *flaky) Update(ctx context.Context, kv store.KV) (store.Revision, error) {
	return f.fails(func() (store.Revision, error) { return f.Driver.Update(ctx, kv) })
}

func (f *flaky) Delete(ctx context.Context, key string, rev store.Revision) error {
	_, err := f.fails(func() (store.Revision, error) { return "", f.Driver.Delete(ctx, key, rev) })
	return err
}

// host is one host's keeper of tunnel addresses, with a datastore.
type host struct {
	t      *testing.T
	db     *flaky
	keeper *tunnel.Keeper
	has    map[string]netip.Addr // by kind, as the keeper tells
	client *client.Client        // that does not fail
	ipam   *ipam.Manager         // the same
}

func newHost(t *testing.T, rng *rand.Rand) *host {
	t.Helper()
	real := mem.New()
	h := &host{t: t, db: &flaky{Driver: real, rng: rng}, client: client.New(real, client.Config{}), ipam: ipam.New(ipam.Config{Driver: real})}
	h.restart()
	node := &v3.Node{}
	node.Name, node.Labels = "h1", map[string]string{"rack": "a"}
	node.Spec.BGP = &v3.NodeBGPSpec{IPv4Address: "172.30.0.1/24"}
	h.must(client.Create(t.Context(), h.client, node))
	return h
}

func (h *host) must(_ any, err error) {
	h.t.Helper()
	if err != nil {
		h.t.Fatal(err)
	}
}

// restart is a new process: it remembers nothing.
func (h *host) restart() {
	h.keeper = tunnel.New(tunnel.Config{
		Node: "h1", Client: client.New(h.db, client.Config{}), IPAM: ipam.New(ipam.Config{Driver: h.db}),
		Settings: func(ctx context.Context) (*ipam.Settings, error) { return ipam.ReadSettings(ctx, h.db) },
		Held:     func(has map[string]netip.Addr) { h.has = has },
		Log:      slog.New(slog.DiscardHandler),
	})
}

// pool makes or changes a pool.
func (h *host) pool(name, cidr string, edit func(*v3.IPPoolSpec)) {
	h.t.Helper()
	p := &v3.IPPool{}
	p.Name, p.Spec.CIDR = name, cidr
	if strings.Contains(cidr, ":") {
		p.Spec.BlockSize = 126
	} else {
		p.Spec.BlockSize = 30
	}
	_, err := client.Create(h.t.Context(), h.client, p)
	if err != nil && !client.IsExists(err) {
		h.t.Fatal(err)
	}
	h.must(client.Modify(h.t.Context(), h.client, "", name, func(p *v3.IPPool) error {
		p.Spec.NodeSelector, p.Spec.Disabled, p.Spec.IPIPMode, p.Spec.VXLANMode = "all()", false, v3.EncapNever, v3.EncapNever
		edit(&p.Spec)
		return nil
	}))
}

// have is the wish for these kinds.
func have(kinds ...string) map[string]tunnel.Wish {
	out := map[string]tunnel.Wish{}
	for _, kind := range kinds {
		out[kind] = tunnel.Have
	}
	return out
}

func ipip(s *v3.IPPoolSpec)      { s.IPIPMode = v3.EncapAlways }
func vxlan(s *v3.IPPoolSpec)     { s.VXLANMode = v3.EncapCrossSubnet }
func plain(*v3.IPPoolSpec)       {}
func otherRack(s *v3.IPPoolSpec) { s.VXLANMode, s.NodeSelector = v3.EncapAlways, "rack == 'b'" }
func disabled(s *v3.IPPoolSpec)  { s.VXLANMode, s.Disabled = v3.EncapAlways, true }
func noTunnels(s *v3.IPPoolSpec) {
	s.VXLANMode, s.AllowedUses = v3.EncapAlways, []v3.AllowedUse{v3.UseWorkload}
}

// node reads the addresses that the Node says, by kind.
func (h *host) node() map[string]string {
	h.t.Helper()
	n, err := client.Get[v3.Node](h.t.Context(), h.client, "", "h1")
	if err != nil {
		h.t.Fatal(err)
	}
	out := map[string]string{}
	for kind, text := range map[string]string{
		ipam.TypeVXLANTunnel: n.Spec.IPv4VXLANTunnelAddr, ipam.TypeVXLANV6Tunnel: n.Spec.IPv6VXLANTunnelAddr,
	} {
		if text != "" {
			out[kind] = text
		}
	}
	if n.Spec.BGP != nil && n.Spec.BGP.IPv4IPIPTunnelAddr != "" {
		out[ipam.TypeIPIPTunnel] = n.Spec.BGP.IPv4IPIPTunnelAddr
	}
	return out
}

// held lists what the handle of a kind has.
func (h *host) held(kind string) []string {
	h.t.Helper()
	uses, err := h.ipam.UsesByHandle(h.t.Context(), ipam.TunnelHandle(kind, "h1"))
	if err != nil {
		h.t.Fatal(err)
	}
	var out []string
	for _, u := range uses {
		if u.Attribute.Owner[ipam.AttrType] != kind || u.Attribute.Owner[ipam.AttrNode] != "h1" {
			h.t.Errorf("%s: attributes %v", kind, u.Attribute.Owner)
		}
		out = append(out, u.Addr.String())
	}
	return out
}

// settled checks that the Node has what is wanted and IPAM nothing besides.
func (h *host) settled(want ...string) {
	h.t.Helper()
	node := h.node()
	for _, kind := range tunnel.Kinds() {
		held := h.held(kind)
		switch {
		case slices.Contains(want, kind) && (len(held) != 1 || node[kind] != held[0]):
			h.t.Errorf("%s: the node has %q, IPAM %v", kind, node[kind], held)
		case !slices.Contains(want, kind) && (len(held) > 0 || node[kind] != ""):
			h.t.Errorf("%s is not wanted: the node has %q, IPAM %v", kind, node[kind], held)
		}
	}
}

func TestATunnelAddressComesFromAPoolOfItsMode(t *testing.T) {
	type pool struct {
		name, cidr string
		edit       func(*v3.IPPoolSpec)
	}
	v4, v6 := "10.1.0.0/24", "fd00:1::/120"
	tests := []struct {
		name string
		in   []pool
		kind string
		want string // network of the address; "": none
	}{
		{"ipip", []pool{{"a", v4, vxlan}, {"b", "10.2.0.0/24", ipip}}, ipam.TypeIPIPTunnel, "10.2.0.0/24"},
		{"vxlan", []pool{{"a", v4, vxlan}, {"b", "10.2.0.0/24", ipip}}, ipam.TypeVXLANTunnel, v4},
		{"vxlan of IPv6", []pool{{"a", v4, vxlan}, {"b", v6, vxlan}}, ipam.TypeVXLANV6Tunnel, v6},
		{"no pool of the family", []pool{{"a", v4, vxlan}}, ipam.TypeVXLANV6Tunnel, ""},
		{"no pool of the mode", []pool{{"a", v4, plain}}, ipam.TypeVXLANTunnel, ""},
		{"not for this host", []pool{{"a", v4, otherRack}, {"b", "10.2.0.0/24", vxlan}}, ipam.TypeVXLANTunnel, "10.2.0.0/24"},
		{"disabled", []pool{{"a", v4, disabled}}, ipam.TypeVXLANTunnel, ""},
		{"not for tunnels", []pool{{"a", v4, noTunnels}}, ipam.TypeVXLANTunnel, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			h := newHost(t, rand.New(rand.NewPCG(1, 1)))
			for _, p := range tt.in {
				h.pool(p.name, p.cidr, p.edit)
			}
			h.keeper.Want(have(tt.kind))
			err := h.keeper.Look(t.Context())
			got := h.node()[tt.kind]
			if tt.want == "" {
				if err == nil || got != "" || !errors.Is(h.keeper.Err(), err) {
					t.Errorf("got %q, %v", got, err)
				}
				return
			}
			h.must(nil, err)
			h.settled(tt.kind)
			if a, err := netip.ParseAddr(got); err != nil || !netip.MustParsePrefix(tt.want).Contains(a) || h.keeper.Addresses()[tt.kind] != a {
				t.Errorf("got %q, want one of %s", got, tt.want)
			}
		})
	}
}

func TestATunnelAddressIsKeptAndMovesWhereItMust(t *testing.T) {
	h := newHost(t, rand.New(rand.NewPCG(1, 1)))
	kind := ipam.TypeVXLANTunnel
	h.pool("a", "10.1.0.0/24", vxlan)
	h.keeper.Want(have(kind))
	look := func(again bool) string {
		t.Helper()
		if again {
			h.restart()
			h.keeper.Want(have(kind))
		}
		h.must(nil, h.keeper.Look(t.Context()))
		h.settled(kind)
		return h.node()[kind]
	}
	first := look(false)
	h.pool("b", "10.2.0.0/24", vxlan)
	if got := look(true); got != first {
		t.Errorf("moved from %s to %s without need", first, got)
	}
	h.pool("b", "10.2.0.0/24", plain)
	h.pool("a", "10.1.0.0/24", disabled)
	if got := look(true); got != first {
		t.Errorf("moved from %s to %s: a disabled pool keeps its addresses where there is no other", first, got)
	}
	h.pool("b", "10.2.0.0/24", vxlan)
	second := look(false)
	if !strings.HasPrefix(second, "10.2.0.") {
		t.Errorf("%s: a disabled pool gives way to another", second)
	}
	// Lost: somebody released it. Nobody has it yet: it comes back.
	h.must(nil, h.ipam.ReleaseByHandle(t.Context(), ipam.TunnelHandle(kind, "h1")))
	if got := look(false); got != second {
		t.Errorf("%s became %s although nobody had it", second, got)
	}
	// Lost to somebody else: another is taken.
	h.must(nil, h.ipam.ReleaseByHandle(t.Context(), ipam.TunnelHandle(kind, "h1")))
	h.must(h.ipam.AssignIP(t.Context(), ipam.AssignIPArgs{Addr: netip.MustParseAddr(second), Host: "h2", Handle: "pod"}))
	if got := look(false); got == second {
		t.Errorf("%s is somebody else's", got)
	}
	// Wrong attributes.
	third := netip.MustParseAddr(h.node()[kind])
	h.must(nil, h.ipam.ReleaseByHandle(t.Context(), ipam.TunnelHandle(kind, "h1")))
	h.must(h.ipam.AssignIP(t.Context(), ipam.AssignIPArgs{Addr: third, Host: "h1", Handle: ipam.TunnelHandle(kind, "h1")}))
	look(true)
	// Not wanted any more: all of it goes, also what a crash left.
	h.restart()
	h.keeper.Want(nil)
	h.must(nil, h.keeper.Look(t.Context()))
	h.settled()
	h.must(h.ipam.AssignIP(t.Context(), ipam.AssignIPArgs{Addr: third, Host: "h1", Handle: ipam.TunnelHandle(kind, "h1")}))
	h.restart()
	h.keeper.Want(nil)
	h.must(nil, h.keeper.Look(t.Context()))
	h.settled()
	n, err := client.Get[v3.Node](t.Context(), h.client, "", "h1")
	if err != nil || n.Spec.BGP.IPv4Address != "172.30.0.1/24" || n.Labels["rack"] != "a" {
		t.Errorf("the rest of the node is not as it was: %+v, %v", n.Spec, err)
	}
}

func TestAnAddressWaitsForItsTunnel(t *testing.T) {
	h := newHost(t, rand.New(rand.NewPCG(1, 1)))
	kind := ipam.TypeVXLANV6Tunnel
	h.pool("a", "fd00:1::/120", vxlan)
	look := func(w tunnel.Wish, said, held bool) {
		t.Helper()
		h.keeper.Want(map[string]tunnel.Wish{kind: w})
		h.must(nil, h.keeper.Look(t.Context()))
		if got := h.node()[kind]; (got != "") != said || (len(h.held(kind)) == 1) != held {
			t.Errorf("wish %d: the node has %q, IPAM %v", w, got, h.held(kind))
		}
		if has, asked := h.has[kind]; asked != (w == tunnel.Hold || w == tunnel.Have) || asked && !slices.Contains(h.held(kind), has.String()) {
			t.Errorf("wish %d: told of %v, IPAM has %v", w, has, h.held(kind))
		}
	}
	look(tunnel.Keep, false, false)
	look(tunnel.Hold, false, true)
	look(tunnel.Have, true, true)
	look(tunnel.Hold, true, true) // what others know already stays
	h.pool("a", "fd00:1::/120", plain)
	look(tunnel.Keep, true, true)
	look(tunnel.Drop, false, false)
}

func TestAnAddressOfSomebodyElseLeavesTheNode(t *testing.T) {
	h := newHost(t, rand.New(rand.NewPCG(1, 1)))
	h.pool("a", "10.1.0.0/30", vxlan)
	for i := range 4 { // all are taken
		h.must(h.ipam.AssignIP(t.Context(), ipam.AssignIPArgs{Addr: netip.AddrFrom4([4]byte{10, 1, 0, byte(i)}), Host: "h1", Handle: fmt.Sprint("pod", i)}))
	}
	h.must(client.Modify(t.Context(), h.client, "", "h1", func(n *v3.Node) error {
		n.Spec.IPv4VXLANTunnelAddr = "10.1.0.1"
		return nil
	}))
	h.keeper.Want(have(ipam.TypeVXLANTunnel))
	if err := h.keeper.Look(t.Context()); !errors.Is(err, ipam.ErrExhausted) {
		t.Errorf("got %v", err)
	}
	if has, asked := h.has[ipam.TypeVXLANTunnel]; !asked || has.IsValid() {
		t.Errorf("told of %v, want that there is none", h.has)
	}
	h.settled()
}

func TestAKeeperWaitsForWhatIsWanted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHost(t, rand.New(rand.NewPCG(1, 1)))
		h.pool("a", "10.1.0.0/24", vxlan)
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- h.keeper.Run(ctx) }()
		h.must(h.ipam.AutoAssign(ctx, ipam.AssignArgs{Host: "h1", Handle: ipam.TunnelHandle(ipam.TypeVXLANTunnel, "h1"),
			Num4: 1, Attrs: map[string]string{ipam.AttrType: ipam.TypeVXLANTunnel}}))
		h.keeper.Wake()
		synctest.Wait()
		if len(h.held(ipam.TypeVXLANTunnel)) != 1 {
			t.Error("released what it did not know to be wanted")
		}
		h.keeper.Want(have(ipam.TypeVXLANTunnel))
		synctest.Wait()
		h.settled(ipam.TypeVXLANTunnel)
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
	})
}

// TestNothingLeaks plays random histories of pools, wishes, deaths of the
// process, and writes that fail or seem to. Once all is calm, the Node says
// what IPAM says, and IPAM has nothing besides.
func TestNothingLeaks(t *testing.T) {
	seeds := 60
	if testing.Short() {
		seeds = 10
	}
	for seed := range seeds {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			rng := rand.New(rand.NewPCG(7, uint64(seed)))
			h := newHost(t, rng)
			h.db.rate = 30
			var wishes map[string]tunnel.Wish
			edits := []func(*v3.IPPoolSpec){ipip, vxlan, plain, otherRack, disabled}
			for range 40 {
				switch rng.IntN(6) {
				case 0:
					i := rng.IntN(3)
					h.pool(fmt.Sprint("p", i), fmt.Sprintf("10.%d.0.0/29", i), edits[rng.IntN(len(edits))])
				case 1:
					h.pool("p6", "fd00:1::/124", []func(*v3.IPPoolSpec){vxlan, plain, disabled}[rng.IntN(3)])
				case 2:
					wishes = map[string]tunnel.Wish{}
					for _, kind := range tunnel.Kinds() {
						wishes[kind] = tunnel.Wish(rng.IntN(4))
					}
					h.keeper.Want(wishes)
				case 3:
					h.restart()
					h.keeper.Want(wishes)
				case 4:
					h.somebody(rng)
				}
				_ = h.keeper.Look(t.Context()) // may fail: that is what this is about
			}
			h.db.rate = 0
			for i := range 3 {
				h.pool(fmt.Sprint("p", i), fmt.Sprintf("10.%d.0.0/29", i), []func(*v3.IPPoolSpec){ipip, vxlan, plain}[i])
			}
			h.pool("p6", "fd00:1::/124", vxlan)
			for _, want := range [][]string{{ipam.TypeVXLANTunnel}, tunnel.Kinds(), nil} {
				h.restart()
				h.keeper.Want(have(want...))
				h.must(nil, h.keeper.Look(t.Context()))
				h.settled(want...)
			}
		})
	}
}

// somebody else gets in the way: releases an address of ours, or changes what
// the Node says.
func (h *host) somebody(rng *rand.Rand) {
	kind := tunnel.Kinds()[rng.IntN(3)]
	if rng.IntN(2) == 0 {
		h.must(nil, h.ipam.ReleaseByHandle(h.t.Context(), ipam.TunnelHandle(kind, "h1")))
		return
	}
	h.must(client.Modify(h.t.Context(), h.client, "", "h1", func(n *v3.Node) error {
		n.Spec.IPv4VXLANTunnelAddr = []string{"", "10.1.0.3", "10.9.9.9"}[rng.IntN(3)]
		return nil
	}))
}
