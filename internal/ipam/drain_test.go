package ipam

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	v3 "github.com/brindle-net/brindle/api/v3"
	"github.com/brindle-net/brindle/internal/prefix"
	"github.com/brindle-net/brindle/internal/store"
)

// movingPools are two pools of a family, the first disabled, with blocks of
// four addresses and tunnels of their own, and the n-th address of the first.
func movingPools(f Family) (old, other Pool, nth func(int) netip.Addr) {
	vxlan := func(s *v3.IPPoolSpec) { s.VXLANMode = v3.EncapAlways }
	off := func(s *v3.IPPoolSpec) { s.Disabled = true }
	if f == IPv4 {
		old, other = pool("old", "10.0.0.0/24", 30, vxlan, off), pool("other", "10.1.0.0/24", 30, vxlan)
	} else {
		old, other = pool("old", "fd00::/120", 126, vxlan, off), pool("other", "fd01::/120", 126, vxlan)
	}
	return old, other, func(n int) netip.Addr { a, _ := prefix.NthAddr(old.CIDR, uint64(n)); return a }
}

// give assigns one address of a disabled pool, as it was before.
func (w *world) give(a netip.Addr, host, handle string, attrs map[string]string) {
	w.t.Helper()
	now := w.settings
	before := *now
	before.Pools = slices.Clone(now.Pools)
	for i := range before.Pools {
		before.Pools[i].Unusable = ""
	}
	w.settings = &before
	defer func() { w.settings = now }()
	if _, err := w.m.AssignIP(w.t.Context(), AssignIPArgs{Addr: a, Host: host, Handle: handle, Attrs: attrs}); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) drain(o DrainOptions) *Drain {
	w.t.Helper()
	d, err := w.m.DrainPool(w.t.Context(), "old", o)
	if err != nil {
		w.t.Fatal(err)
	}
	return d
}

func (d *Drain) lines() []string {
	out := []string{}
	for _, l := range d.Left {
		out = append(out, fmt.Sprintf("%s: %s", l.Handle, l.Remedy))
	}
	return out
}

// Blocks that nobody uses are given up, the others stay as they are until
// their addresses have been released by their owners; then the next call goes
// on.
func TestDrainPool(t *testing.T) {
	bothFamilies(t, func(t *testing.T, f Family) {
		old, other, nth := movingPools(f)
		w := newWorld(t, old, other)
		w.settings.Configuration.CoolDown = time.Minute
		w.node("n1")
		kind := map[Family]string{IPv4: TypeVXLANTunnel, IPv6: TypeVXLANV6Tunnel}[f]
		for i, g := range []struct {
			handle string
			attrs  map[string]string
		}{
			0: {"net.c1", map[string]string{AttrPod: "web", AttrNamespace: "shop"}},
			1: {"net.c2", nil},
			2: {"vm", nil},
			4: {TunnelHandle(kind, "n1"), map[string]string{AttrType: kind}},
			5: {"lb-1", map[string]string{AttrService: "s", AttrNamespace: "shop"}},
			6: {"young", nil},
			7: {"dead", map[string]string{AttrNode: "gone", AttrTimestamp: w.now.Add(-time.Hour).Format(timestampFormat)}},
			9: {"nobody", map[string]string{AttrNode: ""}},
		} {
			if g.handle != "" {
				w.give(nth(i), "n1", g.handle, g.attrs)
			}
		}
		w.give(nth(12), "n2", "past", nil)
		w.endpoint("e1", "n1", "c1", nth(0))
		w.endpoint("e2", "n1", "c2", nth(1))
		w.endpoint("e3", "n1", "", nth(2))
		if err := w.m.ReleaseByHandle(t.Context(), "past"); err != nil {
			t.Fatal(err)
		}
		w.now = w.now.Add(time.Minute) // what was released has cooled down
		before := w.keys()

		want := []string{
			"net.c1: restart pod shop/web", "net.c2: restart container c2 on n1", "vm: restart workload default/e3 on n1",
			TunnelHandle(kind, "n1") + ": wait: the agent of n1 takes another", "lb-1: give the service another address",
			"young: wait: it may be being set up", "dead: if nobody uses it: brindle ipam release --ip " + nth(7).String(),
			"nobody: if nobody uses it: brindle ipam release --ip " + nth(9).String(),
		}
		steps := []int{}
		d := w.drain(DrainOptions{DryRun: true})
		if got := d.lines(); !slices.Equal(got, want) || d.Blocks != 4 || d.Released != 1 || d.Open() != 8 {
			t.Errorf("dry run: %+v\n%s\nwant\n%s", d, strings.Join(got, "\n"), strings.Join(want, "\n"))
		}
		if got := w.keys(); !slices.Equal(got, before) {
			t.Errorf("a dry run wrote: %q, before %q", got, before)
		}
		d = w.drain(DrainOptions{Step: func(done, all int) { steps = append(steps, done, all) }})
		if got := d.lines(); !slices.Equal(got, want) || d.Blocks != 4 || d.Released != 1 || !slices.Equal(steps, []int{1, 4, 2, 4, 3, 4, 4, 4}) {
			t.Errorf("%+v, steps %v", d, steps)
		}
		// What happens then: everything is released by its owner, block by block.
		for i, h := range []string{"net.c1", "net.c2", "vm", TunnelHandle(kind, "n1"), "lb-1", "young", "dead", "nobody"} {
			if err := w.m.ReleaseByHandle(t.Context(), h); err != nil {
				t.Fatal(err)
			}
			w.now = w.now.Add(time.Minute)
			d = w.drain(DrainOptions{})
			released := map[int]int{2: 1, 6: 1, 7: 1}[i]
			if len(d.Left) != 7-i || d.Released != released {
				t.Errorf("after %s: %d left, %d blocks given up, want %d and %d", h, len(d.Left), d.Released, 7-i, released)
			}
		}
		w.want()
		if d := w.drain(DrainOptions{}); d.Blocks != 0 || d.Open() != 0 {
			t.Errorf("at the end %+v", d)
		}
	})
}

// What is cooling down is waited for; an end of a tunnel for which there is no
// other pool goes with the pool; half-way claims end.
func TestDrainPoolWaits(t *testing.T) {
	bothFamilies(t, func(t *testing.T, f Family) {
		old, other, nth := movingPools(f)
		other.VXLAN = false
		w := newWorld(t, old, other)
		w.settings.Configuration.CoolDown = time.Minute
		w.node("n1")
		kind := map[Family]string{IPv4: TypeVXLANTunnel, IPv6: TypeVXLANV6Tunnel}[f]
		w.give(nth(0), "n1", TunnelHandle(kind, "n1"), map[string]string{AttrType: kind})
		w.give(nth(4), "n1", "rests", nil)
		w.give(nth(8), "n1", "wg", map[string]string{AttrType: TypeWireguardTunnel})
		if err := w.m.ReleaseByHandle(t.Context(), "rests"); err != nil {
			t.Fatal(err)
		}
		half := store.AffinityID{Owner: "n2", CIDR: prefix.BlockOf(nth(20), old.BlockSize)}
		if _, err := w.db.Create(t.Context(), half.Key(), affinity{state: Pending}.encode()); err != nil {
			t.Fatal(err)
		}
		d := w.drain(DrainOptions{})
		want := []string{
			TunnelHandle(kind, "n1") + ": delete the pool at the end: no other gives n1 an address for this tunnel",
			": wait: it was released and rests until " + w.now.Add(time.Minute).UTC().Format("15:04:05") + " UTC",
			"wg: wait: the agent of n1 takes another",
		}
		if got := d.lines(); !slices.Equal(got, want) || d.Open() != 2 || !d.Left[0].WithPool {
			t.Errorf("left\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
		}
		if _, err := w.db.Get(t.Context(), half.Key()); !errors.Is(err, store.ErrNotFound) {
			t.Errorf("the half-way claim: %v", err)
		}
		w.now = w.now.Add(time.Minute)
		if d := w.drain(DrainOptions{}); d.Released != 1 || d.Open() != 1 {
			t.Errorf("a minute later %+v", d)
		}
	})
}

func TestDrainPoolRefuses(t *testing.T) {
	w := newWorld(t, pool("on", "10.0.0.0/24", 30))
	for name, want := range map[string]error{"on": ErrInvalid, "nosuch": ErrNoPool} {
		if _, err := w.m.DrainPool(t.Context(), name, DrainOptions{}); !errors.Is(err, want) {
			t.Errorf("%s: error %v, want %v", name, err, want)
		}
	}
	if _, err := w.m.DrainPool(t.Context(), "10.0.0.0/24", DrainOptions{DryRun: true}); err != nil {
		t.Error(err)
	}
}

// A drain that is stopped between any two writes leaves nothing that the next
// does not finish, and takes no address from anybody.
func TestDrainPoolGoesOn(t *testing.T) {
	bothFamilies(t, func(t *testing.T, f Family) {
		old, other, nth := movingPools(f)
		for stop := 0; ; stop++ {
			w := newWorld(t, old, other)
			for i := range 4 {
				w.give(nth(4*i), "n1", fmt.Sprint("h", i), nil)
			}
			for _, h := range []string{"h1", "h2"} {
				if err := w.m.ReleaseByHandle(t.Context(), h); err != nil {
					t.Fatal(err)
				}
			}
			cut := &cutOff{Driver: w.db, after: stop}
			m := New(Config{Driver: cut, Settings: w.m.settings, Now: w.m.now})
			_, err := m.DrainPool(t.Context(), "old", DrainOptions{})
			if d := w.drain(DrainOptions{}); d.Open() != 2 {
				t.Fatalf("stopped after %d writes: %+v", stop, d)
			}
			if got := w.keys(); len(got) != 6 { // a block, an affinity, a handle each
				t.Fatalf("stopped after %d writes, there is %q", stop, got)
			}
			if err == nil {
				if stop < 4 {
					t.Errorf("it took %d writes", stop)
				}
				return
			}
		}
	})
}

// cutOff is a datastore that takes some writes only.
type cutOff struct {
	store.Driver
	after int
}

func (c *cutOff) take() error {
	if c.after--; c.after < 0 {
		return errLost
	}
	return nil
}

func (c *cutOff) Create(ctx context.Context, key string, value []byte) (store.Revision, error) {
	if err := c.take(); err != nil {
		return "", err
	}
	return c.Driver.Create(ctx, key, value)
}

func (c *cutOff) Update(ctx context.Context, kv store.KV) (store.Revision, error) {
	if err := c.take(); err != nil {
		return "", err
	}
	return c.Driver.Update(ctx, kv)
}

func (c *cutOff) Delete(ctx context.Context, key string, rev store.Revision) error {
	if err := c.take(); err != nil {
		return err
	}
	return c.Driver.Delete(ctx, key, rev)
}

func TestCheckMigration(t *testing.T) {
	bothFamilies(t, func(t *testing.T, f Family) {
		old, other, nth := movingPools(f)
		change := func(edit func(*Pool)) Pool { p := other; edit(&p); return p }
		wrongFamily := pool("other", "fd07::/120", 126)
		if f == IPv6 {
			wrongFamily = pool("other", "10.7.0.0/24", 30)
		}
		tiny := change(func(p *Pool) { p.CIDR = netip.PrefixFrom(p.CIDR.Addr(), p.CIDR.Addr().BitLen()-1) })
		for _, tc := range []struct {
			name     string
			to       Pool
			err      string
			warnings []string
		}{
			{"fits", other, "", nil},
			{"disabled", change(func(p *Pool) { p.Unusable = "it is disabled" }), "it is disabled", nil},
			{"family", wrongFamily, "different families", nil},
			{"inside", change(func(p *Pool) { p.CIDR = netip.PrefixFrom(old.CIDR.Addr(), old.CIDR.Bits()+1) }), "overlap", nil},
			{"manual", change(func(p *Pool) { p.Manual = true }), "Manual", nil},
			{"uses", change(func(p *Pool) { p.Uses = []UseKind{v3.UseTunnel} }), "lack Workload", nil},
			{"no tunnels", change(func(p *Pool) { p.Uses = []UseKind{v3.UseWorkload} }), "", nil},
			{"too small", tiny, "", []string{"pool other has 2 free, and pool old has 3 in use"}},
			{"not for the node", change(func(p *Pool) {
				q := pool("x", "10.9.0.0/24", 30, func(s *v3.IPPoolSpec) { s.NodeSelector, s.NamespaceSelector = "rack == 'r1'", "team == 'a'" })
				p.NodeSelector, p.NamespaceSelector = q.NodeSelector, q.NamespaceSelector
			}), "", []string{
				`pool other does not select node n1: its nodeSelector is rack == "r1"`,
				`pool other is for some namespaces only: its namespaceSelector is team == "a"`,
			}},
		} {
			t.Run(tc.name, func(t *testing.T) {
				w := newWorld(t, old, tc.to)
				w.node("n1")
				for i := range 3 {
					w.give(nth(i), "n1", fmt.Sprint("h", i), nil)
				}
				g, err := w.m.CheckMigration(t.Context(), "old", "other")
				if tc.err != "" {
					if !errors.Is(err, ErrInvalid) || !strings.Contains(err.Error(), tc.err) {
						t.Errorf("error %v, want %s", err, tc.err)
					}
					return
				}
				if err != nil || !slices.Equal(g.Warnings, tc.warnings) {
					t.Errorf("%+v, %v, want warnings %q", g, err, tc.warnings)
				}
			})
		}
		w := newWorld(t, old, other)
		for _, c := range [][2]string{{"old", "nosuch"}, {"nosuch", "other"}} {
			if _, err := w.m.CheckMigration(t.Context(), c[0], c[1]); !errors.Is(err, ErrNoPool) {
				t.Errorf("%v: %v", c, err)
			}
		}
		if _, err := w.m.CheckMigration(t.Context(), "old", old.CIDR.String()); !errors.Is(err, ErrInvalid) {
			t.Errorf("to itself: %v", err)
		}
	})
}

// A report of a moment ago does not release what somebody uses by now, nor the
// address of a service, whom it does not know.
func TestReleaseLeakedLooksOnceMore(t *testing.T) {
	bothFamilies(t, func(t *testing.T, f Family) {
		old, other, nth := movingPools(f)
		w := newWorld(t, old, other)
		w.node("n1")
		w.give(nth(0), "n1", "net.c1", nil)
		w.give(nth(1), "n1", "net.c2", nil)
		w.give(nth(2), "n1", "lb-1", map[string]string{AttrService: "s", AttrNamespace: "shop"})
		r, err := w.m.Check(t.Context())
		if err != nil || len(r.Allocations) != 3 {
			t.Fatalf("%+v, %v", r, err)
		}
		if owners := r.Allocations[nth(2).String()][0].Owners; !slices.Equal(owners, []string{"Service(shop/s)"}) {
			t.Errorf("the service's address has owners %q", owners)
		}
		w.endpoint("e1", "n1", "c1", nth(0))
		got, _, err := w.m.ReleaseLeaked(t.Context(), r)
		if err != nil || !slices.Equal(got, []netip.Addr{nth(1)}) {
			t.Errorf("released %v, %v", got, err)
		}
	})
}
