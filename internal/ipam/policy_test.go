package ipam

import (
	"context"
	"errors"
	"fmt"
	"math/big"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	v3 "github.com/brindle-net/brindle/api/v3"
	"github.com/brindle-net/brindle/internal/store"
	"github.com/brindle-net/brindle/internal/store/mem"
)

func TestChoosingPools(t *testing.T) {
	pools := []Pool{
		pool("auto", "10.0.0.0/24", 26),
		pool("disabled", "10.0.1.0/24", 26, func(s *v3.IPPoolSpec) { s.Disabled = true }),
		pool("lb", "10.0.2.0/24", 26, func(s *v3.IPPoolSpec) { s.AllowedUses = []v3.AllowedUse{v3.UseLoadBalancer} }),
		pool("manual", "10.0.3.0/24", 26, func(s *v3.IPPoolSpec) { s.AssignmentMode = v3.AssignManual }),
		pool("rack", "10.0.4.0/24", 26, func(s *v3.IPPoolSpec) { s.NodeSelector = "rack == 'r1'" }),
		pool("team", "10.0.5.0/24", 26, func(s *v3.IPPoolSpec) { s.NamespaceSelector = "team == 'a'" }),
		pool("v6", "fd00::/112", 122),
	}
	for _, tc := range []struct {
		name  string
		pools []Pool
		in    choice
		want  []string
		why   string // part of the error
	}{
		{"what qualifies", pools, choice{use: v3.UseWorkload}, []string{"auto"}, ""},
		{"any use", pools, choice{}, []string{"auto", "lb"}, ""},
		{"by host", pools, choice{use: v3.UseWorkload, hostLabels: map[string]string{"rack": "r1"}}, []string{"auto", "rack"}, ""},
		{"by namespace", pools, choice{use: v3.UseWorkload, namespaceLabels: map[string]string{"team": "a"}}, []string{"auto", "team"}, ""},
		{"IPv6", pools, choice{family: IPv6}, []string{"v6"}, ""},
		{"asked for, whatever its selectors say", pools, choice{requested: []string{"rack", "10.0.3.0/24", "team"}}, []string{"rack", "manual", "team"}, ""},
		{"asked for, disabled", pools, choice{requested: []string{"disabled"}}, nil, `requested pool "disabled": it is disabled`},
		{"asked for, not there", pools, choice{requested: []string{"auto", "nope"}}, nil, `requested pool "nope" does not exist`},
		{"asked for, other family", pools, choice{requested: []string{"v6"}}, nil, "not an IPv4 pool"},
		{"asked for, other use", pools, choice{requested: []string{"lb"}, use: v3.UseWorkload}, nil, "lack Workload"},
		{"none at all", nil, choice{}, nil, "there is no IPv4 pool; create one"},
		{"why none", pools[1:6], choice{use: v3.UseTunnel, host: "n1", hostLabels: map[string]string{"rack": "r2"}}, nil,
			`no pool qualifies for IPv4 on host n1: disabled: it is disabled; lb: its allowedUses [LoadBalancer] lack Tunnel; ` +
				`manual: its assignmentMode is Manual: ask for it by name; rack: its nodeSelector rack == "r1" does not match the host's labels {rack=r2}; ` +
				`team: its namespaceSelector team == "a" does not match the namespace's labels (none)`},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if tc.in.family == 0 {
				tc.in.family = IPv4
			}
			got, err := (&Settings{Pools: tc.pools}).choose(tc.in)
			var names []string
			for _, p := range got {
				names = append(names, p.Name)
			}
			if !slices.Equal(names, tc.want) {
				t.Errorf("got %v, want %v", names, tc.want)
			}
			if (tc.why != "") != errors.Is(err, ErrNoPool) || err != nil && !strings.Contains(err.Error(), tc.why) {
				t.Errorf("error %v, want one with %q", err, tc.why)
			}
		})
	}
}

func TestUnusablePools(t *testing.T) {
	deleted := &v3.IPPool{Spec: v3.IPPoolSpec{CIDR: "10.0.0.0/24"}}
	deleted.DeletionTimestamp = v3.NewTime(start)
	overlapping := &v3.IPPool{Spec: v3.IPPoolSpec{CIDR: "10.0.0.0/24"}, Status: &v3.IPPoolStatus{Conditions: []v3.Condition{
		{Type: v3.ConditionAllocatable, Status: "False", Reason: v3.ReasonCIDROverlap}}}}
	for _, tc := range []struct {
		name string
		in   *v3.IPPool
		want string
	}{
		{"fine", &v3.IPPool{Spec: v3.IPPoolSpec{CIDR: "10.0.0.0/24"}}, ""},
		{"being deleted", deleted, "it is being deleted"},
		{"overlapping", overlapping, "it is not allocatable (CIDROverlap)"},
		{"blocks larger than the pool", &v3.IPPool{Spec: v3.IPPoolSpec{CIDR: "10.0.0.0/28"}}, "its blockSize /26 does not fit"},
		{"huge blocks", &v3.IPPool{Spec: v3.IPPoolSpec{CIDR: "fd00::/64", BlockSize: 96}}, "its blockSize /96 does not fit"},
		{"bad selector", &v3.IPPool{Spec: v3.IPPoolSpec{CIDR: "10.0.0.0/24", NodeSelector: "x =="}}, "its nodeSelector cannot be read"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			p, err := NewPool(tc.in)
			if err != nil || !strings.HasPrefix(p.Unusable, tc.want) || tc.want == "" && p.Unusable != "" {
				t.Errorf("got %q, %v, want %q", p.Unusable, err, tc.want)
			}
		})
	}
}

func TestConfigurationIsValidated(t *testing.T) {
	for _, tc := range []struct {
		name string
		in   Configuration
		ok   bool
	}{
		{"default", DefaultConfiguration(), true},
		{"limit with strict affinity", Configuration{AutoAllocateBlocks: true, StrictAffinity: true, MaxBlocksPerHost: 2}, true},
		{"limit without", Configuration{AutoAllocateBlocks: true, MaxBlocksPerHost: 2}, false},
		{"no blocks without strict affinity", Configuration{}, false},
		{"negative limit", Configuration{AutoAllocateBlocks: true, StrictAffinity: true, MaxBlocksPerHost: -1}, false},
		{"long cool-down", Configuration{AutoAllocateBlocks: true, CoolDown: 1201 * time.Second}, false},
		{"longest cool-down", Configuration{AutoAllocateBlocks: true, CoolDown: 1200 * time.Second}, true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if err := tc.in.Validate(); (err == nil) != tc.ok || err != nil && !errors.Is(err, ErrInvalid) {
				t.Errorf("error %v", err)
			}
		})
	}
	w := newWorld(t)
	c, err := w.m.SetConfiguration(t.Context(), func(c *Configuration) { c.StrictAffinity = true })
	if err != nil || !c.AutoAllocateBlocks {
		t.Fatalf("%+v, %v", c, err)
	}
	if _, err = w.m.SetConfiguration(t.Context(), func(c *Configuration) { c.StrictAffinity, c.MaxBlocksPerHost = false, 2 }); !errors.Is(err, ErrInvalid) {
		t.Errorf("error %v, want ErrInvalid", err)
	}
	s, err := ReadSettings(t.Context(), w.db)
	if err != nil || !s.Configuration.StrictAffinity || !s.Configuration.AutoAllocateBlocks || s.Configuration.MaxBlocksPerHost != 0 {
		t.Errorf("%+v, %v", s.Configuration, err)
	}
}

func TestBorrowing(t *testing.T) {
	for _, strict := range []bool{false, true} {
		t.Run(fmt.Sprintf("strict=%v", strict), func(t *testing.T) {
			w := newWorld(t, pool("p", "10.0.0.0/30", 31))
			w.settings.Configuration.StrictAffinity = strict
			w.mustAssign("n1", "a", 1, 0)
			w.mustAssign("n2", "b", 2, 0)
			r, err := w.assign(w.m, "n2", "c", 1, 0)
			if strict {
				if !errors.Is(err, ErrExhausted) || !strings.Contains(err.Error(), "strictAffinity forbids to borrow") || !strings.Contains(err.Error(), "pool p (10.0.0.0/30)") {
					t.Errorf("error %v", err)
				}
				return
			}
			if err != nil || len(r.V4) != 1 {
				t.Fatalf("%v, %v", r, err)
			}
			loans, unknown, err := w.m.Borrowed(t.Context())
			if err != nil || unknown != 0 || len(loans) != 1 || loans[0].Addr != r.V4[0].Addr || loans[0].Borrower != "n2" || loans[0].Owner != "host:n1" {
				t.Errorf("loans %v, %d, %v", loans, unknown, err)
			}
			if _, err := w.assign(w.m, "n2", "d", 1, 0); !errors.Is(err, ErrExhausted) {
				t.Errorf("error %v, want ErrExhausted", err)
			}
		})
	}
}

func TestBlockLimit(t *testing.T) {
	w := newWorld(t, pool("p", "10.0.0.0/24", 30))
	w.settings.Configuration.StrictAffinity, w.settings.Configuration.MaxBlocksPerHost = true, 2
	r, err := w.assign(w.m, "n1", "a", 9, 0)
	if !errors.Is(err, ErrBlockLimit) || len(r.V4) != 8 || !strings.Contains(err.Error(), "2 blocks of at most 2") || !strings.Contains(err.Error(), "8 of 9 IPv4") {
		t.Errorf("%d addresses, %v", len(r.V4), err)
	}
	// A host's default limit, and borrowing beyond it.
	w = newWorld(t, pool("p", "10.0.0.0/24", 30))
	w.mustAssign("n2", "b", 1, 0)
	if got := w.mustAssign("n1", "a", 4*DefaultMaxBlocks+3, 0); len(got) != 83 {
		t.Errorf("%d addresses", len(got))
	}
	if _, err := w.assign(w.m, "n1", "c", 1, 0); !errors.Is(err, ErrBlockLimit) {
		t.Errorf("error %v, want ErrBlockLimit", err)
	}
	r, err = w.m.AutoAssign(t.Context(), AssignArgs{Host: "n3", Handle: "d", Num4: 5, MaxBlocks: 1})
	if !errors.Is(err, ErrBlockLimit) || len(r.V4) != 4 {
		t.Errorf("request limit: %v, %v", r, err)
	}
}

func TestNoBlocksAllocated(t *testing.T) {
	w := newWorld(t, pool("p", "10.0.0.0/24", 30))
	w.settings.Configuration = Configuration{StrictAffinity: true}
	if _, err := w.assign(w.m, "n1", "a", 1, 0); !errors.Is(err, ErrExhausted) || !strings.Contains(err.Error(), "autoAllocateBlocks is false") {
		t.Errorf("error %v", err)
	}
	w.want() // nothing is left behind
}

// A race of two hosts for the last block has one winner, and the loser leaves
// nothing behind.
func TestLoserOfARaceLeavesNothing(t *testing.T) {
	w := newWorld(t, pool("p", "10.0.0.0/30", 30))
	w.settings.Configuration.StrictAffinity = true
	w.mustAssign("n1", "a", 1, 0)
	if err := w.m.claim(t.Context(), store.AffinityID{Owner: "n2", CIDR: netip.MustParsePrefix("10.0.0.0/30")}, true); !errors.Is(err, errTaken) {
		t.Errorf("error %v, want errTaken", err)
	}
	w.want("block 10.0.0.0/30 host:n1 uses 1", `handle/a {"block":{"10.0.0.0/30":1},"deleted":false}`,
		`host/n1/ipv4/block/10.0.0.0-30 {"state":"confirmed","deleted":false}`)
}

func TestEmptyBlockIsReclaimed(t *testing.T) {
	for _, tc := range []struct {
		name string
		age  time.Duration
		ok   bool
	}{{"new", 59 * time.Second, false}, {"old", time.Minute, true}, {"clock set back", -24 * time.Hour, true}} {
		t.Run(tc.name, func(t *testing.T) {
			w := newWorld(t, pool("p", "10.0.0.0/30", 30))
			w.settings.Configuration.StrictAffinity = true
			w.mustAssign("n1", "a", 1, 0)
			if err := w.m.ReleaseByHandle(t.Context(), "a"); err != nil {
				t.Fatal(err)
			}
			w.now = start.Add(tc.age)
			_, err := w.assign(w.manager(), "n2", "b", 1, 0)
			if tc.ok != (err == nil) {
				t.Errorf("error %v", err)
			}
			if tc.ok {
				w.want("block 10.0.0.0/30 host:n2 uses 1", `handle/b {"block":{"10.0.0.0/30":1},"deleted":false}`,
					`host/n2/ipv4/block/10.0.0.0-30 {"state":"confirmed","deleted":false}`)
				// Its former owner, who still remembers it as his, finds out.
				if _, err := w.assign(w.m, "n1", "c", 1, 0); !errors.Is(err, ErrExhausted) {
					t.Errorf("former owner: %v", err)
				}
			}
		})
	}
}

// What a crash leaves of a claim or a release is finished by the next request.
func TestInterruptedClaimIsFinished(t *testing.T) {
	for _, state := range []State{Pending, PendingDeletion} {
		for _, withBlock := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, block %v", state, withBlock), func(t *testing.T) {
				w := newWorld(t, pool("p", "10.0.0.0/24", 30))
				id := store.AffinityID{Owner: "n1", CIDR: netip.MustParsePrefix("10.0.0.8/30")}
				if _, err := w.db.Create(t.Context(), id.Key(), affinity{state: state}.encode()); err != nil {
					t.Fatal(err)
				}
				if withBlock {
					if _, err := w.db.Create(t.Context(), store.BlockKey(id.CIDR), newBlock(id.CIDR, "host:n1", start).encode()); err != nil {
						t.Fatal(err)
					}
				}
				w.mustAssign("n1", "a", 1, 0)
				w.want("block 10.0.0.8/30 host:n1 uses 1", `handle/a {"block":{"10.0.0.8/30":1},"deleted":false}`,
					`host/n1/ipv4/block/10.0.0.8-30 {"state":"confirmed","deleted":false}`)
			})
		}
	}
}

func TestRequestedPoolIsUsedWhateverItSelects(t *testing.T) {
	w := newWorld(t, pool("auto", "10.0.0.0/24", 26), pool("rack", "10.0.4.0/24", 26, func(s *v3.IPPoolSpec) { s.NodeSelector = "rack == 'r1'" }))
	r, err := w.m.AutoAssign(t.Context(), AssignArgs{Host: "n1", Handle: "a", Num4: 1, Pools4: []string{"rack"}, HostLabels: map[string]string{}})
	if err != nil || !netip.MustParsePrefix("10.0.4.0/24").Contains(r.V4[0].Addr) {
		t.Fatalf("%v, %v", r, err)
	}
	if host := w.keys()[0]; !strings.Contains(host, "host:n1") {
		t.Errorf("the host does not own the block: %s", host)
	}
	// Once empty, a block of a pool that does not select the host is given up.
	if err := w.m.ReleaseByHandle(t.Context(), "a"); err != nil {
		t.Fatal(err)
	}
	if _, err := w.m.AutoAssign(t.Context(), AssignArgs{Host: "n1", Handle: "b", Num4: 1, HostLabels: map[string]string{}}); err != nil {
		t.Fatal(err)
	}
	for _, k := range w.keys() {
		if strings.Contains(k, "10.0.4.") {
			t.Errorf("left: %s", k)
		}
	}
}

func TestReservedWholeBlocksAreLeftOut(t *testing.T) {
	w := newWorld(t, pool("p4", "10.0.0.0/24", 26), pool("p6", "fd00::/64", 122))
	w.settings.Reserved = NewReserved([]netip.Prefix{
		netip.MustParsePrefix("10.0.0.0/25"), netip.MustParsePrefix("10.0.0.128/26"), netip.MustParsePrefix("10.0.0.192/27"),
		netip.MustParsePrefix("fd00::/65"), netip.MustParsePrefix("fd00:0:0:0:8000::/66"),
	})
	got := w.mustAssign("n1", "a", 32, 1)
	for _, a := range got[:32] {
		if !netip.MustParsePrefix("10.0.0.224/27").Contains(a) {
			t.Errorf("got the reserved %s", a)
		}
	}
	if !netip.MustParsePrefix("fd00::c000:0:0:0/66").Contains(got[32]) {
		t.Errorf("got the reserved %s", got[32])
	}
	if _, err := w.assign(w.m, "n2", "b", 1, 0); !errors.Is(err, ErrExhausted) {
		t.Errorf("error %v, want ErrExhausted", err)
	}
	// By name a reserved address can be had.
	if _, err := w.m.AssignIP(t.Context(), AssignIPArgs{Addr: netip.MustParseAddr("10.0.0.1"), Host: "n1", Handle: "c"}); err != nil {
		t.Error(err)
	}
}

func TestAssignIP(t *testing.T) {
	w := newWorld(t, pool("p", "10.0.0.0/24", 26), pool("off", "10.0.1.0/24", 26, func(s *v3.IPPoolSpec) { s.Disabled = true }),
		pool("lb", "10.0.2.0/24", 26, func(s *v3.IPPoolSpec) { s.AllowedUses = []v3.AllowedUse{v3.UseLoadBalancer} }))
	ask := func(addr, host, handle string, cap int) error {
		_, err := w.m.AssignIP(t.Context(), AssignIPArgs{Addr: netip.MustParseAddr(addr), Host: host, Handle: handle, Use: v3.UseWorkload, MaxPerHandle: cap})
		return err
	}
	for _, tc := range []struct {
		name, addr, host, handle string
		cap                      int
		want                     error
	}{
		{"of a new block", "10.0.0.5", "n1", "a", 0, nil},
		{"again", "10.0.0.5", "n1", "a", 0, ErrAssigned},
		{"again, limited per handle", "10.0.0.5", "n1", "a", 1, nil},
		{"somebody else's, limited per handle", "10.0.0.5", "n1", "b", 1, ErrAssigned},
		{"of another host's block", "10.0.0.6", "n2", "c", 0, nil},
		{"of no pool", "192.0.2.1", "n1", "d", 0, ErrNoPool},
		{"of a disabled pool", "10.0.1.1", "n1", "d", 0, ErrNoPool},
		{"of a pool for other uses", "10.0.2.1", "n1", "d", 0, ErrNoPool},
		{"without handle", "10.0.0.9", "n1", "", 0, ErrInvalid},
		{"without host", "10.0.0.9", "", "d", 0, ErrInvalid},
		{"host with a slash", "10.0.0.9", "a/b", "d", 0, ErrInvalid},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if err := ask(tc.addr, tc.host, tc.handle, tc.cap); !errors.Is(err, tc.want) {
				t.Errorf("error %v, want %v", err, tc.want)
			}
		})
	}
	w.settings.Configuration.StrictAffinity = true
	if err := ask("10.0.0.7", "n2", "e", 0); !errors.Is(err, ErrStrictAffinity) {
		t.Errorf("error %v, want ErrStrictAffinity", err)
	}
	w.want("block 10.0.0.0/26 host:n1 uses 2", `handle/a {"block":{"10.0.0.0/26":1},"deleted":false}`,
		`handle/c {"block":{"10.0.0.0/26":1},"deleted":false}`, `host/n1/ipv4/block/10.0.0.0-26 {"state":"confirmed","deleted":false}`)
	// With a cool-down too, an address that was just released can be had again by name.
	w.settings.Configuration.CoolDown = time.Minute
	if err := w.m.ReleaseByHandle(t.Context(), "a"); err != nil {
		t.Fatal(err)
	}
	if err := ask("10.0.0.5", "n1", "f", 0); err != nil {
		t.Error(err)
	}
}

func TestLimitPerHandleMakesRepeatsHarmless(t *testing.T) {
	w := newWorld(t, pool("p4", "10.0.0.0/24", 26), pool("p6", "fd00::/112", 122))
	args := AssignArgs{Host: "n1", Handle: "a", Num4: 1, Num6: 1, MaxPerHandle: 1}
	var first []netip.Addr
	for i := range 3 {
		m := w.m
		if i == 2 {
			m = w.manager() // after a restart
		}
		r, err := m.AutoAssign(t.Context(), args)
		if err != nil {
			t.Fatal(err)
		}
		if first == nil {
			first = r.addrs()
		}
		if !slices.Equal(r.addrs(), first) || len(first) != 2 {
			t.Errorf("got %v, before %v", r.addrs(), first)
		}
	}
}

func TestRelease(t *testing.T) {
	w := newWorld(t, pool("p", "10.0.0.0/30", 30))
	old := w.mustAssign("n1", "old", 1, 0)[0]
	use, _ := w.m.AssignmentAttributes(t.Context(), old)
	if err := w.m.Release(t.Context(), ReleaseOptions{Addr: old}); err != nil {
		t.Fatal(err)
	}
	if keys := w.keys(); len(keys) != 2 { // the handle went too
		t.Errorf("left %v", keys)
	}
	w.mustAssign("n1", "new", 4, 0) // has old's too
	for _, o := range []ReleaseOptions{{Addr: old, Handle: "old"}, {Addr: old, Sequence: use.Sequence}} {
		if err := w.m.Release(t.Context(), o); !errors.Is(err, ErrStale) {
			t.Errorf("%+v: error %v, want ErrStale", o, err)
		}
	}
	if err := w.m.Release(t.Context(), ReleaseOptions{Addr: netip.MustParseAddr("192.0.2.1")}); !errors.Is(err, ErrNotAssigned) {
		t.Errorf("error %v, want ErrNotAssigned", err)
	}
	// One that is wrong does not keep the others.
	err := w.m.Release(t.Context(), ReleaseOptions{Addr: old, Handle: "old"}, ReleaseOptions{Addr: netip.MustParseAddr("10.0.0.1"), Handle: "new"})
	if !errors.Is(err, ErrStale) {
		t.Errorf("error %v, want ErrStale", err)
	}
	w.want("block 10.0.0.0/30 host:n1 uses 3", `handle/new {"block":{"10.0.0.0/30":3},"deleted":false}`,
		`host/n1/ipv4/block/10.0.0.0-30 {"state":"confirmed","deleted":false}`)
	// The pool is gone; what is assigned can still be released.
	w.settings = &Settings{Configuration: DefaultConfiguration()}
	if err := w.m.Release(t.Context(), ReleaseOptions{Addr: old, Handle: "new"}); err != nil {
		t.Error(err)
	}
}

func TestPoolDeletion(t *testing.T) {
	w := newWorld(t, pool("p", "10.0.0.0/24", 30), pool("q", "10.0.1.0/24", 30, func(s *v3.IPPoolSpec) { s.AssignmentMode = v3.AssignManual }))
	a := w.mustAssign("n1", "a", 5, 0) // two blocks
	if err := w.m.ReleaseByHandle(t.Context(), "a"); err != nil {
		t.Fatal(err)
	}
	w.mustAssign("n1", "b", 1, 0)
	w.settings.Pools[0].Unusable = "it is disabled"
	if err := w.m.ReleasePoolAffinities(t.Context(), netip.MustParsePrefix("10.0.0.0/24")); err != nil {
		t.Fatal(err)
	}
	_ = a
	keys := w.keys()
	if len(keys) != 2 || !strings.HasPrefix(keys[0], "block 10.0.0.") || !strings.HasSuffix(keys[0], "/30  uses 1") {
		t.Errorf("left %v", keys)
	}
	if _, err := w.assign(w.m, "n1", "c", 1, 0); !errors.Is(err, ErrNoPool) {
		t.Errorf("error %v, want ErrNoPool", err)
	}
	if err := w.m.ReleaseByHandle(t.Context(), "b"); err != nil {
		t.Fatal(err)
	}
	w.want() // with the last address the block goes
}

func TestUsage(t *testing.T) {
	db := mem.New()
	for key, raw := range golden(t) {
		if _, err := db.Create(t.Context(), key, raw); err != nil {
			t.Fatal(err)
		}
	}
	m := New(Config{Driver: db, Now: func() time.Time { return start }})
	got, err := m.Usage(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var lines []string
	line := func(u Usage) string {
		return fmt.Sprintf("%s %s total %s used %s reserved %s free %s", u.Pool, u.CIDR, u.Total, u.InUse, u.Reserved, u.Free)
	}
	for _, u := range got {
		lines = append(lines, line(u))
		for _, b := range u.Blocks {
			lines = append(lines, line(b))
		}
	}
	want := []string{
		"ippool-cross-subnet-1 192.168.0.0/16 total 65536 used 1 reserved 4 free 65531",
		"ippool-cross-subnet-1 192.168.40.128/26 total 64 used 1 reserved 0 free 63",
		"pool-v6 fd00:10:20::/64 total 18446744073709551616 used 2 reserved 0 free 18446744073709551614",
		"pool-v6 fd00:10:20:0:5add:9051:4065:cb40/122 total 64 used 2 reserved 0 free 62",
		"pool-vxlan 10.20.0.0/16 total 65536 used 0 reserved 0 free 65536",
	}
	if !slices.Equal(lines, want) {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(lines, "\n"), strings.Join(want, "\n"))
	}
	if p := Percent(big.NewInt(1), big.NewInt(64)); p != 2 {
		t.Errorf("1 of 64 is %d%%, want 2%%", p)
	}
}

func TestUsageCountsWhatOverlapsOnce(t *testing.T) {
	w := newWorld(t, pool("p", "10.0.0.0/30", 30))
	w.settings.Configuration.CoolDown = time.Minute
	w.mustAssign("n1", "a", 2, 0)
	w.mustAssign("n1", "b", 1, 0)
	if err := w.m.ReleaseByHandle(t.Context(), "b"); err != nil {
		t.Fatal(err)
	}
	w.settings.Reserved = NewReserved([]netip.Prefix{netip.MustParsePrefix("10.0.0.0/32")})
	got, err := w.m.Usage(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	u := got[0]
	if text := fmt.Sprint(u.Total, u.InUse, u.Reserved, u.Cooling, u.Free); text != "4 2 1 1 1" {
		t.Errorf("total, in use, reserved, cooling, free: %s, want 4 2 1 1 1", text)
	}
}

func TestCacheFollows(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		db := mem.New()
		c := NewCache(db, nil)
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- c.Run(ctx) }()
		s, err := c.Settings(ctx)
		if err != nil || len(s.Pools) != 0 {
			t.Fatalf("%v, %v", s, err)
		}
		for key, raw := range golden(t) {
			if _, err := db.Create(t.Context(), key, raw); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := New(Config{Driver: db}).SetConfiguration(ctx, func(c *Configuration) { c.CoolDown = time.Minute }); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		s, err = c.Settings(ctx)
		if err != nil || len(s.Pools) != 3 || s.Configuration.CoolDown != time.Minute || !s.Reserved.Has(netip.MustParseAddr("192.168.0.3")) {
			t.Errorf("%+v, %v", s, err)
		}
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
	})
}
