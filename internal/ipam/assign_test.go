package ipam

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	v3 "github.com/brindle-net/brindle/api/v3"
	"github.com/brindle-net/brindle/internal/store"
	"github.com/brindle-net/brindle/internal/store/mem"
)

// counting counts what reaches a datastore.
type counting struct {
	store.Driver
	deny          func(key string, value []byte, fresh bool) bool // nil denies nothing
	mu            sync.Mutex                                      // guards what follows
	reads, writes int
}

func (c *counting) count(n *int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	*n++
}

func (c *counting) reset() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.reads, c.writes = 0, 0
}

func (c *counting) Get(ctx context.Context, key string) (store.KV, error) {
	c.count(&c.reads)
	return c.Driver.Get(ctx, key)
}

func (c *counting) List(ctx context.Context, prefix string) (store.Listing, error) {
	c.count(&c.reads)
	return c.Driver.List(ctx, prefix)
}

func (c *counting) Create(ctx context.Context, key string, value []byte) (store.Revision, error) {
	c.count(&c.writes)
	if c.deny != nil && c.deny(key, value, true) {
		return "", store.ErrDenied
	}
	return c.Driver.Create(ctx, key, value)
}

func (c *counting) Update(ctx context.Context, kv store.KV) (store.Revision, error) {
	c.count(&c.writes)
	if c.deny != nil && c.deny(kv.Key, kv.Value, false) {
		return "", store.ErrDenied
	}
	return c.Driver.Update(ctx, kv)
}

func (c *counting) Delete(ctx context.Context, key string, rev store.Revision) error {
	c.count(&c.writes)
	return c.Driver.Delete(ctx, key, rev)
}

func (c *counting) Transact(ctx context.Context, writes []store.Write) (store.Revision, error) {
	c.count(&c.writes)
	return c.Driver.(store.Transactor).Transact(ctx, writes)
}

// world is a datastore with a manager whose settings are a value.
type world struct {
	t        testing.TB
	db       *counting
	m        *Manager
	settings *Settings
	now      time.Time
}

func pool(name, cidr string, blockSize int, edit ...func(*v3.IPPoolSpec)) Pool {
	res := &v3.IPPool{Spec: v3.IPPoolSpec{CIDR: cidr, BlockSize: blockSize}}
	res.Name = name
	for _, e := range edit {
		e(&res.Spec)
	}
	p, err := NewPool(res)
	if err != nil {
		panic(err)
	}
	return p
}

func newWorld(t testing.TB, pools ...Pool) *world {
	w := &world{t: t, db: &counting{Driver: mem.New()}, now: start,
		settings: &Settings{Pools: pools, Configuration: DefaultConfiguration()}}
	w.m = w.manager()
	return w
}

// manager returns another manager on the same datastore, as another process
// would have.
func (w *world) manager() *Manager {
	return New(Config{Driver: w.db,
		Settings: func(context.Context) (*Settings, error) { return w.settings, nil },
		Now:      func() time.Time { return w.now },
	})
}

// single makes the world's manager write one key at a time.
func (w *world) single() {
	w.m.tx = nil
}

func (w *world) assign(m *Manager, host, handle string, n4, n6 int) (Result, error) {
	return m.AutoAssign(w.t.Context(), AssignArgs{Host: host, Handle: handle, Num4: n4, Num6: n6})
}

func (w *world) mustAssign(host, handle string, n4, n6 int) []netip.Addr {
	w.t.Helper()
	r, err := w.assign(w.m, host, handle, n4, n6)
	if err != nil {
		w.t.Fatal(err)
	}
	return r.addrs()
}

func (r Result) addrs() []netip.Addr {
	var out []netip.Addr
	for _, a := range slices.Concat(r.V4, r.V6) {
		out = append(out, a.Addr)
	}
	return out
}

// keys lists the IPAM keys with what matters of their values.
func (w *world) keys() []string {
	w.t.Helper()
	list, err := w.db.Driver.List(w.t.Context(), store.IPAMRoot)
	if err != nil {
		w.t.Fatal(err)
	}
	var out []string
	for _, kv := range list.KVs {
		key := strings.TrimPrefix(kv.Key, store.IPAMRoot)
		if b, err := DecodeBlock(kv.Value); err == nil && strings.HasPrefix(key, "assignment/") {
			out = append(out, fmt.Sprintf("block %s %s uses %d", b.CIDR, b.Affinity, len(b.Uses())))
			if p := b.problems(w.now); len(p) > 0 {
				w.t.Errorf("block %s: %v", b.CIDR, p)
			}
			continue
		}
		out = append(out, key+" "+string(kv.Value))
	}
	return out
}

func (w *world) want(want ...string) {
	w.t.Helper()
	if got := w.keys(); !slices.Equal(got, want) {
		w.t.Errorf("datastore:\n%s\nwant:\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

func TestAssignAndRelease(t *testing.T) {
	w := newWorld(t, pool("p4", "10.0.0.0/24", 26), pool("p6", "fd00::/112", 122))
	got := w.mustAssign("n1", "h1", 1, 1)
	if len(got) != 2 || !got[0].Is4() || !got[1].Is6() {
		t.Fatalf("got %v", got)
	}
	b4, b6 := netip.PrefixFrom(got[0], 26).Masked(), netip.PrefixFrom(got[1], 122).Masked()
	handle := fmt.Sprintf(`handle/h1 {"block":{"%s":1,"%s":1},"deleted":false}`, b4, b6)
	w.want(
		fmt.Sprintf("block %s host:n1 uses 1", b4),
		fmt.Sprintf("block %s host:n1 uses 1", b6),
		handle,
		fmt.Sprintf(`host/n1/ipv4/block/%s {"state":"confirmed","deleted":false}`, strings.ReplaceAll(b4.String(), "/", "-")),
		fmt.Sprintf(`host/n1/ipv6/block/%s {"state":"confirmed","deleted":false}`, strings.ReplaceAll(b6.String(), "/", "-")),
	)
	use, err := w.m.AssignmentAttributes(t.Context(), got[0])
	if err != nil || use.Attribute.Handle != "h1" || use.Attribute.Owner[AttrNode] != "n1" ||
		use.Attribute.Owner[AttrTimestamp] != "2026-11-21 12:00:00 +0000 UTC" {
		t.Errorf("attributes %v, %v", use, err)
	}
	byHandle, err := w.m.IPsByHandle(t.Context(), "h1")
	if err != nil || len(byHandle) != 2 || byHandle[0].Addr != got[0] || byHandle[1].Addr != got[1] {
		t.Errorf("by handle %v, %v", byHandle, err)
	}
	for range 2 { // the second time is fine too
		if err := w.m.ReleaseByHandle(t.Context(), "h1"); err != nil {
			t.Fatal(err)
		}
	}
	if keys := w.keys(); len(keys) != 4 || slices.Contains(keys, handle) {
		t.Errorf("after release: %v", keys)
	}
	if _, err := w.m.AssignmentAttributes(t.Context(), got[0]); !errors.Is(err, ErrNotAssigned) {
		t.Errorf("error %v, want ErrNotAssigned", err)
	}
}

// One durable address with a handle is one transaction and no read, a
// dual-stack pair one more write. Where there are no transactions, and when
// addresses are taken back, the handle is a write of its own.
func TestWritesPerCall(t *testing.T) {
	for _, tc := range []struct {
		name                    string
		n4, n6, assign, release int
		single                  bool
	}{
		{"v4", 1, 0, 1, 2, false}, {"v6", 0, 1, 1, 2, false}, {"dual", 1, 1, 2, 3, false},
		{"v4 single", 1, 0, 2, 2, true}, {"v6 single", 0, 1, 2, 2, true}, {"dual single", 1, 1, 3, 3, true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			w := newWorld(t, pool("p4", "10.0.0.0/24", 26), pool("p6", "fd00::/112", 122))
			if tc.single {
				w.single()
			}
			w.mustAssign("n1", "first", 1, 1)
			w.db.reset()
			w.mustAssign("n1", "h", tc.n4, tc.n6)
			if w.db.reads != 0 || w.db.writes != tc.assign {
				t.Errorf("assign: %d reads, %d writes, want 0 and %d", w.db.reads, w.db.writes, tc.assign)
			}
			w.db.reset()
			if err := w.m.ReleaseByHandle(t.Context(), "h"); err != nil {
				t.Fatal(err)
			}
			if w.db.reads != 1 || w.db.writes != tc.release {
				t.Errorf("release: %d reads, %d writes, want 1 and %d", w.db.reads, w.db.writes, tc.release)
			}
		})
	}
}

func TestBurstOnOneHost(t *testing.T) {
	w := newWorld(t, pool("p4", "10.0.0.0/16", 26))
	const n = 200
	var wg sync.WaitGroup
	var mu sync.Mutex
	seen := map[netip.Addr]string{}
	for i := range n {
		wg.Go(func() {
			handle := fmt.Sprint("h", i)
			r, err := w.assign(w.m, "n1", handle, 1, 0)
			if err != nil {
				t.Error(err)
				return
			}
			mu.Lock()
			defer mu.Unlock()
			if other, taken := seen[r.V4[0].Addr]; taken {
				t.Errorf("%s has %s, which %s has", handle, r.V4[0].Addr, other)
			}
			seen[r.V4[0].Addr] = handle
		})
	}
	wg.Wait()
	blocks := 0
	for _, k := range w.keys() {
		if strings.HasPrefix(k, "block ") {
			blocks++
		}
	}
	if blocks != 4 { // 200 addresses fit in 4 blocks of 64
		t.Errorf("%d blocks, want 4", blocks)
	}
}

func TestCarriesOnFromCalico(t *testing.T) {
	db := mem.New()
	for key, raw := range golden(t) {
		if _, err := db.Create(t.Context(), key, raw); err != nil {
			t.Fatal(err)
		}
	}
	m := New(Config{Driver: db, Now: func() time.Time { return start }})
	r, err := m.AutoAssign(t.Context(), AssignArgs{Host: "n1", Handle: "k8s-pod-network.cid-0004", Num4: 1, Num6: 1,
		Use: v3.UseWorkload, NamespaceLabels: map[string]string{}})
	if err != nil {
		t.Fatal(err)
	}
	// The next in line in the blocks that n1 has.
	if want := addrs("192.168.40.131", "fd00:10:20:0:5add:9051:4065:cb43"); !slices.Equal(r.addrs(), want) {
		t.Errorf("got %v, want %v", r.addrs(), want)
	}
	if want := uint64(1795238872986272199); r.V4[0].Sequence != want {
		t.Errorf("sequence %d, want %d", r.V4[0].Sequence, want)
	}
	if err := m.ReleaseByHandle(t.Context(), "k8s-pod-network.cid-0001"); err != nil {
		t.Fatal(err)
	}
	b, _, err := m.getBlock(t.Context(), netip.MustParsePrefix("192.168.40.128/26"))
	if err != nil {
		t.Fatal(err)
	}
	if q := b.queue[len(b.queue)-3:]; !slices.Equal(q, []int{2, 1, 0}) || b.Sequence != 1795238872986272201 {
		t.Errorf("queue ends with %v, sequence %d", q, b.Sequence)
	}
	// A host without blocks starts where Calico starts it.
	for host, want := range map[string]string{"n1": "192.168.40.128/26"} {
		s := &blockSearch{r: &request{m: m, args: AssignArgs{Host: host}}}
		if got := s.start(pool("p", "192.168.0.0/16", 26)); got != netip.MustParsePrefix(want).Addr() {
			t.Errorf("%s starts at %s, want %s", host, got, want)
		}
		if got := s.start(pool("p", "fd00:10:20::/64", 122)); got.String() != "fd00:10:20:0:5add:9051:4065:cb40" {
			t.Errorf("%s starts at %s", host, got)
		}
	}
}

// The words of an assignment that Calico's plugin stored.
func TestAttributesAreThoseOfCalico(t *testing.T) {
	raw := golden(t)["/calico/ipam/v2/assignment/ipv4/block/192.168.40.128-26"]
	theirs, err := DecodeBlock(raw)
	if err != nil {
		t.Fatal(err)
	}
	at := time.Date(2026, 11, 21, 5, 27, 52, 981175320, time.UTC)
	m := New(Config{Now: func() time.Time { return at }})
	b := newBlock(theirs.CIDR, "host:n1", at)
	b.assign(1, m.owner("n1", "k8s-pod-network.cid-0001", nil), nil)
	got, _ := json.Marshal(json.RawMessage(b.attrs[0].appendTo(nil)))
	want, _ := json.Marshal(json.RawMessage(theirs.attrs[0].appendTo(nil)))
	if string(got) != string(want) {
		t.Errorf("got %s, want %s", got, want)
	}
}

// lossy loses the reply to one write, and lets something happen meanwhile.
type lossy struct {
	store.Driver
	meanwhile func()
}

func (l *lossy) Update(ctx context.Context, kv store.KV) (store.Revision, error) {
	rev, err := l.Driver.Update(ctx, kv)
	if f := l.meanwhile; f != nil {
		l.meanwhile = nil
		f()
		return "", errLost
	}
	return rev, err
}

// A release whose reply is lost is looked into. If the address has a new owner
// by then, it is not released again, even though nobody said whose it was.
func TestLostReplyOfARelease(t *testing.T) {
	w := newWorld(t, pool("p", "10.0.0.0/32", 32))
	old := w.mustAssign("n1", "old", 1, 0)[0]
	l := &lossy{Driver: w.db}
	m := New(Config{Driver: l, Settings: func(context.Context) (*Settings, error) { return w.settings, nil }})
	l.meanwhile = func() { w.mustAssign("n1", "new", 1, 0) }
	if err := m.Release(t.Context(), ReleaseOptions{Addr: old}); err != nil {
		t.Fatal(err)
	}
	w.want("block 10.0.0.0/32 host:n1 uses 1", `handle/new {"block":{"10.0.0.0/32":1},"deleted":false}`,
		`host/n1/ipv4/block/10.0.0.0-32 {"state":"confirmed","deleted":false}`)
}

// An assignment whose reply is lost is found, not made again.
func TestLostReplyOfAnAssignment(t *testing.T) {
	w := newWorld(t, pool("p", "10.0.0.0/30", 30))
	w.mustAssign("n1", "first", 1, 0)
	l := &lossy{Driver: w.db}
	m := New(Config{Driver: l, Settings: func(context.Context) (*Settings, error) { return w.settings, nil }})
	if _, err := w.assign(m, "n1", "second", 1, 0); err != nil {
		t.Fatal(err)
	}
	l.meanwhile = func() { w.mustAssign("n1", "other", 1, 0) }
	r, err := w.assign(m, "n1", "third", 1, 0)
	if err != nil || len(r.V4) != 1 {
		t.Fatalf("%v, %v", r, err)
	}
	got, err := w.m.IPsByHandle(t.Context(), "third")
	if err != nil || !slices.Equal(got, r.V4) {
		t.Errorf("the handle has %v, the caller %v (%v)", got, r.V4, err)
	}
}

// A handle that exists is seen by the transaction that would make it: nothing
// else of the transaction is lost by that.
func TestHandleThatExists(t *testing.T) {
	for _, single := range []bool{false, true} {
		w := newWorld(t, pool("p", "10.0.0.0/26", 26))
		if single {
			w.single()
		}
		w.mustAssign("n1", "twice", 1, 0)
		var wg sync.WaitGroup
		for _, handle := range []string{"a", "twice", "b", "c"} {
			wg.Go(func() {
				if _, err := w.assign(w.m, "n1", handle, 1, 0); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		w.want("block 10.0.0.0/26 host:n1 uses 5",
			`handle/a {"block":{"10.0.0.0/26":1},"deleted":false}`,
			`handle/b {"block":{"10.0.0.0/26":1},"deleted":false}`,
			`handle/c {"block":{"10.0.0.0/26":1},"deleted":false}`,
			`handle/twice {"block":{"10.0.0.0/26":2},"deleted":false}`,
			`host/n1/ipv4/block/10.0.0.0-26 {"state":"confirmed","deleted":false}`)
	}
}

// What a host remembers may be out of date: the block was filled, or taken
// away. Then no handle is made that counts what was not assigned.
func TestHandleCountsWhatWasAssigned(t *testing.T) {
	for _, single := range []bool{false, true} {
		w := newWorld(t, pool("p", "10.0.0.0/29", 30))
		if single {
			w.single()
		}
		w.mustAssign("n1", "first", 1, 0)
		r, err := w.assign(w.manager(), "n1", "other", 2, 0) // another process of the host
		if err != nil {
			t.Fatal(err)
		}
		first := r.V4[0].Block
		got := w.mustAssign("n1", "more", 2, 0)
		second := netip.PrefixFrom(got[1], 30).Masked()
		if !first.Contains(got[0]) || first == second {
			t.Fatalf("got %v, want one of %s and one of the other block", got, first)
		}
		want := []string{
			fmt.Sprintf("block %s host:n1 uses 4", first), fmt.Sprintf("block %s host:n1 uses 1", second),
			fmt.Sprintf(`handle/first {"block":{"%s":1},"deleted":false}`, first),
			fmt.Sprintf(`handle/more {"block":{"%s":1,"%s":1},"deleted":false}`, min(first.String(), second.String()), max(first.String(), second.String())),
			fmt.Sprintf(`handle/other {"block":{"%s":2},"deleted":false}`, first),
			fmt.Sprintf(`host/n1/ipv4/block/%s {"state":"confirmed","deleted":false}`, strings.ReplaceAll(first.String(), "/", "-")),
			fmt.Sprintf(`host/n1/ipv4/block/%s {"state":"confirmed","deleted":false}`, strings.ReplaceAll(second.String(), "/", "-")),
		}
		slices.Sort(want)
		w.want(want...)
	}
}
