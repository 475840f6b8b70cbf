package ipam

import (
	"encoding/json"
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

// holder is a block of host "a" or another, with what a test does to it. The
// code is one for both families; each case runs with a block of each.
type holder struct {
	*Block
	n int
}

func (h *holder) give(host, handle string) *holder {
	o := owner{handle: handle, attrs: map[string]string{AttrNode: host}}
	if host == "" {
		o.attrs = nil
	}
	h.assign(1, o, nil)
	h.n++
	return h
}

// TestCheckHostWrite is what host a may write, and what it may not.
func TestCheckHostWrite(t *testing.T) {
	now := time.Unix(1_800_000_000, 0)
	give := func(host, handle string) func(h *holder) {
		return func(h *holder) { h.give(host, handle) }
	}
	release := func(ords ...int) func(h *holder) {
		return func(h *holder) { h.Block.release(ords, now, time.Minute) }
	}
	free := func(ords ...int) func(h *holder) {
		return func(h *holder) { h.Block.release(ords, now, 0) }
	}
	for _, tt := range []struct {
		name  string
		owner string // of the block
		have  []func(h *holder)
		edit  func(h *holder)
		strict,
		limit, // of one block, and it has another already
		fresh, // the block is new
		gone bool // it is deleted
		text func(string) string // what is made of the value
		want string              // "": allowed
	}{
		{name: "a new block for itself", owner: "host:a", fresh: true},
		{name: "with an address for itself", owner: "host:a", fresh: true, edit: give("a", "h")},
		{name: "a new block at its limit", owner: "host:a", strict: true, limit: true, fresh: true, want: "1 block of at most 1"},
		{name: "a new block, the limit being of no force", owner: "host:a", limit: true, fresh: true},
		{name: "take nobody's block at its limit", strict: true, limit: true, edit: func(h *holder) { h.Affinity, h.ClaimTime = "host:a", now }, want: "1 block of at most 1"},
		{name: "take one in its own at its limit", owner: "host:a", strict: true, limit: true, edit: give("a", "h")},
		{name: "take nobody's block that Windows used", have: []func(*holder){give("", WindowsReservedHandle)}, edit: func(h *holder) { h.Affinity, h.ClaimTime = "host:a", now }},
		{name: "delete nobody's that Windows used", have: []func(*holder){give("", WindowsReservedHandle)}, gone: true},
		{name: "free what Windows keeps in another's", owner: "host:b", have: []func(*holder){give("", WindowsReservedHandle)}, edit: free(0), want: "is not this host's"},
		{name: "take nobody's block with what another says is Windows'", have: []func(*holder){give("b", WindowsReservedHandle)}, edit: func(h *holder) { h.Affinity = "host:a" }, want: "is not this host's"},
		{name: "a new block for another", owner: "host:b", fresh: true, want: "must be this host's, not host:b"},
		{name: "a new block for nobody", fresh: true, want: "must be this host's, not nobody's"},
		{name: "a new block for a load balancer", owner: "virtual:load-balancer", fresh: true, want: "must be this host's"},
		{name: "a new block with an address of another", owner: "host:a", fresh: true, edit: give("b", "h"), want: "taken, and not for this host"},

		{name: "take one in its own", owner: "host:a", edit: give("a", "h")},
		{name: "take one for another in its own", owner: "host:a", edit: give("b", "h"), want: "taken, and not for this host"},
		{name: "take one for nobody", owner: "host:a", edit: give("", "h"), want: "taken, and not for this host"},
		{name: "take one for another's tunnel", owner: "host:a", edit: give("a", "vxlan-tunnel-addr-b"), want: "host b's tunnel"},
		{name: "take one for its own tunnel", owner: "host:a", edit: give("a", "ipip-tunnel-addr-a")},
		{name: "borrow", owner: "host:b", edit: give("a", "h")},
		{name: "borrow while affinity is strict", owner: "host:b", strict: true, edit: give("a", "h"), want: "affinity is strict"},
		{name: "give back while affinity is strict", owner: "host:b", strict: true, have: []func(*holder){give("a", "h")}, edit: free(0)},
		{name: "give back what it borrowed", owner: "host:b", have: []func(*holder){give("a", "h")}, edit: release(0)},
		{name: "give back its own at once", owner: "host:a", have: []func(*holder){give("a", "h")}, edit: free(0)},
		{name: "free another's", owner: "host:b", have: []func(*holder){give("b", "h")}, edit: free(0), want: "is not this host's"},
		{name: "free another's in its own block", owner: "host:a", have: []func(*holder){give("b", "h")}, edit: free(0), want: "is not this host's"},
		{name: "release another's", owner: "host:b", have: []func(*holder){give("a", "g"), give("b", "h")}, edit: release(1), want: "is not this host's"},
		{name: "free nobody's in its own block", owner: "host:a", have: []func(*holder){give("", "h")}, edit: free(0)},
		{name: "free nobody's in another's", owner: "host:b", have: []func(*holder){give("", "h")}, edit: free(0), want: "is not this host's"},
		{name: "free what a load balancer has", owner: "virtual:load-balancer", have: []func(*holder){give("", "h")}, edit: free(0), want: "is not this host's"},
		{name: "use what was released", owner: "host:b", have: []func(*holder){give("b", "h"), release(0)},
			edit: func(h *holder) { _ = h.assignOne(h.Addr(0), owner{"g", map[string]string{AttrNode: "a"}}) }},
		{name: "block a free one as released", owner: "host:b", edit: func(h *holder) {
			h.queue = slices.DeleteFunc(h.queue, func(o int) bool { return o == 0 })
			h.slots[0] = h.attrIndex(Attribute{ReleasedAt: now})
		}, want: "released without having been this host's"},
		{name: "take another's over", owner: "host:b", have: []func(*holder){give("b", "h")}, edit: func(h *holder) {
			h.attrs[0].Owner = map[string]string{AttrNode: "a"}
		}, want: "is not this host's"},
		{name: "another handle for another's", owner: "host:b", have: []func(*holder){give("b", "h")},
			edit: func(h *holder) { h.attrs[0].Handle = "x" }, want: "is not this host's"},
		{name: "another number for another's", owner: "host:b", have: []func(*holder){give("b", "h")},
			edit: func(h *holder) { h.seqs[0]++ }, want: "is not this host's"},
		{name: "make itself another's second owner", owner: "host:b", have: []func(*holder){give("b", "h")},
			edit: func(h *holder) { h.attrs[0].Alternate = map[string]string{AttrNode: "a"} }, want: "is not this host's"},
		{name: "free what two hosts have", owner: "host:a", have: []func(*holder){give("a", "h"), func(h *holder) {
			h.attrs[0].Alternate = map[string]string{AttrNode: "b"}
		}}, edit: free(0), want: "is not this host's"},

		{name: "give its block up", owner: "host:a", have: []func(*holder){give("b", "h")}, edit: func(h *holder) { h.Affinity, h.ClaimTime = "", time.Time{} }},
		{name: "give its block to another", owner: "host:a", edit: func(h *holder) { h.Affinity = "host:b" }, want: "may not make it host:b"},
		{name: "take another's block", owner: "host:b", edit: func(h *holder) { h.Affinity = "host:a" }, want: "may not make it host:a"},
		{name: "let another's block go", owner: "host:b", edit: func(h *holder) { h.Affinity = "" }, want: "may not make it nobody's"},
		{name: "take nobody's block", edit: func(h *holder) { h.Affinity, h.ClaimTime = "host:a", now }},
		{name: "take nobody's block that others use", have: []func(*holder){give("b", "h")}, edit: func(h *holder) { h.Affinity = "host:a" }, want: "is not this host's"},
		{name: "say that another's block is old", owner: "host:b", edit: func(h *holder) { h.ClaimTime = now.Add(-time.Hour) }, want: "since when"},

		{name: "delete its own", owner: "host:a", gone: true},
		{name: "delete nobody's", gone: true},
		{name: "delete another's", owner: "host:b", gone: true, want: "not this host's to delete"},
		{name: "delete its own with an address of another", owner: "host:a", have: []func(*holder){give("b", "h")}, gone: true, want: "in it is not this host's"},
		{name: "delete what is marked as deleted", owner: "host:b", have: []func(*holder){func(h *holder) { h.Block.gone = true }}, gone: true},
		{name: "mark as deleted", owner: "host:a", edit: func(h *holder) { h.Block.gone = true }, want: "marked as deleted"},

		{name: "nothing but its number", owner: "host:b", have: []func(*holder){give("b", "h")}},
		{name: "a number that is far away", owner: "host:b", edit: func(h *holder) { h.Sequence += 1 << 40 }, want: "sequence number"},
		{name: "a number that goes back", owner: "host:b", edit: func(h *holder) { h.Sequence -= 5 }, want: "sequence number"},
		{name: "no free addresses", owner: "host:b", edit: func(h *holder) { h.queue = nil }, want: "neither free nor assigned"},
		{name: "another's as free", owner: "host:b", have: []func(*holder){give("b", "h")}, edit: func(h *holder) { h.queue = append(h.queue, 0) }, want: "both free and assigned"},
		{name: "a field that nobody knows", owner: "host:a", edit: func(h *holder) { h.extra = map[string]rawJSON{"x": rawJSON("1")} }, want: "nobody knows"},

		{name: "a field in another case", owner: "host:a", text: func(s string) string { return strings.TrimSuffix(s, "}") + `,"Affinity":"host:b"}` }, want: "not written as agents write"},
		{name: "a field twice", owner: "host:a", text: func(s string) string { return strings.TrimSuffix(s, "}") + `,"affinity":"host:a"}` }, want: "not written as agents write"},
		{name: "a blank more", owner: "host:a", text: func(s string) string { return s + " " }, want: "not written as agents write"},
		{name: "another's CIDR", owner: "host:a", text: func(s string) string { return strings.Replace(s, `"cidr":"`, `"cidr":"1`, 1) }, want: "corrupt"},
		{name: "no block", owner: "host:a", text: func(string) string { return "{" }, want: "corrupt"},
		{name: "nothing", owner: "host:a", text: func(string) string { return "" }, want: "corrupt"},
	} {
		for _, cidr := range []netip.Prefix{netip.MustParsePrefix("10.0.0.4/30"), netip.MustParsePrefix("fd00::4/126")} {
			t.Run(fmt.Sprint(tt.name, " ", cidr), func(t *testing.T) {
				h := &holder{Block: newBlock(cidr, tt.owner, now)}
				for _, f := range tt.have {
					f(h)
				}
				var more []store.KV
				if tt.limit {
					conf := DefaultConfiguration()
					conf.StrictAffinity, conf.MaxBlocksPerHost = tt.strict, 1
					other := newBlock(netip.PrefixFrom(prefix.Last(cidr).Next(), cidr.Bits()), "host:a", now)
					more = []store.KV{{Key: store.IPAMConfigKey, Value: conf.Encode()}, {Key: store.BlockKey(other.CIDR), Value: other.encode()}}
				}
				w := store.HostWrite{Host: "a", Key: store.BlockKey(cidr), List: hostView(tt.strict, cidr, more...)}
				if !tt.fresh {
					w.Old = h.encode()
				}
				if tt.fresh || !tt.gone {
					next := &holder{Block: h.clone()}
					next.Sequence++
					if tt.edit != nil {
						tt.edit(next)
					}
					for i := range next.attrs {
						next.attrs[i].text = nil
					}
					w.New = next.encode()
				}
				if tt.text != nil {
					w.New = []byte(tt.text(string(w.New)))
				}
				expect(t, CheckHostWrite(w), tt.want)
			})
		}
	}
}

func expect(t *testing.T, err error, want string) {
	t.Helper()
	if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
		t.Errorf("error is %v, want one with %q", err, want)
	}
}

// hostView is a datastore with pools around a block, and an order of addresses.
func hostView(strict bool, cidr netip.Prefix, more ...store.KV) func(string) ([]store.KV, error) {
	conf := DefaultConfiguration()
	conf.StrictAffinity = strict
	raw, _ := json.Marshal(&v3.IPPool{Spec: v3.IPPoolSpec{CIDR: netip.PrefixFrom(cidr.Addr(), cidr.Bits()-6).Masked().String(), BlockSize: cidr.Bits()}})
	all := append(more, store.KV{Key: store.IPAMConfigKey, Value: conf.Encode()}, store.KV{Key: store.ResourcePrefix(pluralPools, "") + "p", Value: raw})
	return func(prefix string) (out []store.KV, _ error) {
		for _, kv := range all {
			if strings.HasPrefix(kv.Key, prefix) {
				out = append(out, kv)
			}
		}
		return out, nil
	}
}

// TestCheckNewBlock has no host make a block that no pool has: one inside of
// another's would take its routes.
func TestCheckNewBlock(t *testing.T) {
	view := hostView(false, netip.MustParsePrefix("10.0.0.64/26"))
	for in, want := range map[string]string{
		"10.0.0.64/26":  "",
		"10.0.0.64/30":  "no pool",
		"10.0.0.0/24":   "no pool",
		"10.9.0.64/26":  "no pool",
		"fd00::40/122":  "no pool",
		"10.0.0.192/26": "",
	} {
		cidr := netip.MustParsePrefix(in)
		b := newBlock(cidr, "host:a", time.Unix(1, 0))
		expect(t, CheckHostWrite(store.HostWrite{Host: "a", Key: store.BlockKey(cidr), New: b.encode(), List: view}), want)
	}
	expect(t, CheckHostWrite(store.HostWrite{Host: "a", Key: store.BlockRoot + "x", New: []byte("{}"), List: view}), "no block and no handle")
	expect(t, CheckHostWrite(store.HostWrite{Host: "a", Key: store.HandleRoot, New: []byte("{}"), List: view}), "no block and no handle")
}

// TestCheckNewBlockOfPool goes by what a pool is for. Whose nodes its selector is
// for is not asked: workloads may ask for it by name.
func TestCheckNewBlockOfPool(t *testing.T) {
	off := v3.IPPoolStatus{Conditions: []v3.Condition{{Type: v3.ConditionAllocatable, Status: "False", Reason: "PoolDisabled"}}}
	for name, tt := range map[string]struct {
		pool v3.IPPool
		want string
	}{
		"in use":             {v3.IPPool{}, ""},
		"disabled":           {v3.IPPool{Spec: v3.IPPoolSpec{Disabled: true}}, "it is disabled"},
		"not allocatable":    {v3.IPPool{Status: &off}, "not allocatable (PoolDisabled)"},
		"for load balancers": {v3.IPPool{Spec: v3.IPPoolSpec{AllowedUses: []v3.AllowedUse{v3.UseLoadBalancer}}}, "not for hosts"},
		"for tunnels":        {v3.IPPool{Spec: v3.IPPoolSpec{AllowedUses: []v3.AllowedUse{v3.UseTunnel}}}, ""},
		"for other nodes":    {v3.IPPool{Spec: v3.IPPoolSpec{NodeSelector: "!all()"}}, ""},
		"for whom":           {v3.IPPool{Spec: v3.IPPoolSpec{NodeSelector: "a ="}}, "nodeSelector cannot be read"},
	} {
		for _, cidr := range []netip.Prefix{netip.MustParsePrefix("10.0.0.64/26"), netip.MustParsePrefix("fd00::40/122")} {
			tt.pool.Spec.CIDR, tt.pool.Spec.BlockSize = netip.PrefixFrom(cidr.Addr(), cidr.Bits()-6).Masked().String(), cidr.Bits()
			raw, err := json.Marshal(&tt.pool)
			if err != nil {
				t.Fatal(err)
			}
			view := func(prefix string) ([]store.KV, error) {
				if prefix == store.ResourcePrefix(pluralPools, "") {
					return []store.KV{{Key: prefix + "p", Value: raw}}, nil
				}
				return nil, nil
			}
			t.Run(fmt.Sprint(name, " ", cidr), func(t *testing.T) {
				w := store.HostWrite{Host: "a", Key: store.BlockKey(cidr), New: newBlock(cidr, "host:a", time.Unix(1, 0)).encode(), List: view}
				expect(t, CheckHostWrite(w), tt.want)
			})
		}
	}
}

// TestCheckHandleWrite goes by the addresses that have a handle.
func TestCheckHandleWrite(t *testing.T) {
	for _, cidr := range []netip.Prefix{netip.MustParsePrefix("10.0.0.4/30"), netip.MustParsePrefix("fd00::4/126")} {
		h := &holder{Block: newBlock(cidr, "host:b", time.Unix(1, 0))}
		h.give("a", "mine").give("b", "theirs")
		// The key of another block begins with that of this one.
		other := netip.PrefixFrom(cidr.Addr(), cidr.Bits()/10)
		view := hostView(false, cidr, store.KV{Key: store.BlockKey(cidr), Value: h.encode()})
		here := (&handle{blocks: map[netip.Prefix]int{cidr: 1}}).encode()
		none := (&handle{blocks: map[netip.Prefix]int{}}).encode()
		elsewhere := (&handle{blocks: map[netip.Prefix]int{other.Masked(): 1}}).encode()
		many := map[netip.Prefix]int{}
		for i := range maxHandleBlocks + 1 {
			many[netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 1, byte(i >> 8), byte(i)}), 32)] = 1
		}
		for _, tt := range []struct {
			name, id string
			old, in  []byte
			want     string
		}{
			{"a new one", "fresh", nil, here, ""},
			{"its own", "mine", here, none, ""},
			{"its own goes", "mine", here, nil, ""},
			{"another's goes", "theirs", here, nil, "is not this host's"},
			{"another's counts less", "theirs", here, none, "is not this host's"},
			{"another's counts elsewhere, too", "theirs", elsewhere, here, "is not this host's"},
			{"one that another is about to have", "fresh", here, nil, ""},
			{"another's tunnel", "vxlan-v6-tunnel-addr-b", nil, here, "host b's tunnel"},
			{"its own tunnel", "wireguard-tunnel-addr-a", nil, here, ""},
			{"a field in another case", "mine", here, []byte(`{"block":{},"deleted":false,"Block":{}}`), "not written as agents write"},
			{"a field twice", "mine", here, []byte(`{"block":{},"block":{},"deleted":false}`), "not written as agents write"},
			{"marked as deleted", "mine", here, (&handle{gone: true}).encode(), "not written as agents write"},
			{"no handle", "mine", here, []byte("{"), "corrupt"},
			{"blocks without end", "mine", here, (&handle{blocks: many}).encode(), "in 258 blocks"},
		} {
			t.Run(fmt.Sprint(tt.name, " ", cidr), func(t *testing.T) {
				expect(t, CheckHostWrite(store.HostWrite{Host: "a", Key: store.HandleKey(tt.id), Old: tt.old, New: tt.in, List: view}), tt.want)
			})
		}
	}
}

// TestCheckHostWriteOfOthersForm has a host work with a block as other programs
// write it: fields in another order, blanks, fields that nobody knows. Only what
// a host writes itself has to be in our form.
func TestCheckHostWriteOfOthersForm(t *testing.T) {
	for _, cidr := range []netip.Prefix{netip.MustParsePrefix("10.0.0.4/30"), netip.MustParsePrefix("fd00::4/126")} {
		old := fmt.Sprintf(`{
  "unallocated": [1, 2, 3], "strictAffinity": false, "later": { "b": [ 1, "<&>" ], "a": null },
  "attributes": [ {"secondary": {"node": "b", "pod": "\u0078"}, "handle_id": "h", "more": { "x": 1 }},
    {"handle_id": "gone"} ],
  "allocations": [0, null, null, null], "sequenceNumberForAllocation": {"0": 7}, "sequenceNumber": 8,
  "affinity": "host:b", "affinity_claim_time": "2026-11-21T05:27:52Z", "deleted": false, "cidr": %q
}`, cidr)
		w := store.HostWrite{Host: "a", Key: store.BlockKey(cidr), List: hostView(false, cidr), Old: []byte(old)}
		b, err := decodeBlockAt(cidr, w.Old)
		if err != nil {
			t.Fatal(err)
		}
		b.Sequence++
		b.assign(1, owner{handle: "mine", attrs: map[string]string{AttrNode: "a"}}, nil)
		w.New = b.encode()
		expect(t, CheckHostWrite(w), "")
		w.Old = w.New
		b.Sequence++
		b.release(b.ordinalsOf("mine"), time.Unix(1_800_000_000, 0), time.Minute)
		w.New = b.encode()
		expect(t, CheckHostWrite(w), "")
		b.release(b.ordinalsOf("h"), time.Unix(1_800_000_000, 0), 0)
		w.New = b.encode()
		expect(t, CheckHostWrite(w), "is not this host's")
	}
}

// TestClaimsThatAreDenied: a host that may not have nobody's block borrows from
// it, and one that may make none anywhere says so at once and leaves no claim.
func TestClaimsThatAreDenied(t *testing.T) {
	for _, tt := range []struct {
		pool   Pool
		n4, n6 int
	}{{pool("p", "10.0.0.0/29", 30), 1, 0}, {pool("p", "fd00::/125", 126), 0, 1}} {
		t.Run(tt.pool.CIDR.String(), func(t *testing.T) {
			w := newWorld(t, tt.pool)
			w.mustAssign("n2", "all", 8*tt.n4, 8*tt.n6)
			first := newBlock(netip.PrefixFrom(tt.pool.CIDR.Addr(), tt.pool.BlockSize), "", w.now)
			first.assign(1, owner{handle: WindowsReservedHandle}, nil)
			if _, err := w.db.Driver.Update(t.Context(), store.KV{Key: store.BlockKey(first.CIDR), Value: first.encode()}); err != nil {
				t.Fatal(err)
			}
			w.db.deny = func(key string, value []byte, fresh bool) bool {
				return !fresh && strings.HasPrefix(key, store.BlockRoot) && strings.Contains(string(value), `"host:n1"`)
			}
			got, err := w.assign(w.manager(), "n1", "a", tt.n4, tt.n6)
			if all := append(got.V4, got.V6...); err != nil || len(all) != 1 || all[0].Block != first.CIDR {
				t.Errorf("borrowed %+v, %v", got, err)
			}
			w = newWorld(t, tt.pool)
			w.db.deny = func(key string, _ []byte, fresh bool) bool { return fresh && strings.HasPrefix(key, store.BlockRoot) }
			if _, err := w.assign(w.m, "n1", "a", tt.n4, tt.n6); !errors.Is(err, store.ErrDenied) {
				t.Errorf("error is %v", err)
			}
			w.want()
		})
	}
}
