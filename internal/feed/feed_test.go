package feed

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"math/rand/v2"
	"os"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/brindle-net/brindle/internal/model"
	"github.com/brindle-net/brindle/internal/store"
	"github.com/brindle-net/brindle/internal/store/mem"
)

// world is what a sink was told, played back.
type world struct {
	mu      sync.Mutex // guards everything below
	inputs  map[model.ID]model.Value
	batches []Batch
	syncs   int
}

func (w *world) sink(b Batch) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.batches = append(w.batches, b)
	if b.InSync {
		w.syncs++
	}
	for _, e := range b.Events {
		w.inputs[e.ID] = e.Value
		if e.Value == nil {
			delete(w.inputs, e.ID)
		}
	}
}

// start runs a feed until the test ends. Inside a synctest bubble.
func start(t *testing.T, cfg Config) *world {
	t.Helper()
	w := &world{inputs: map[model.ID]model.Value{}}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- Run(ctx, cfg, w.sink) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Errorf("Run ended with %v", err)
		}
	})
	return w
}

// pass lets time go by in the bubble, and everybody finish what it brings.
func pass(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

// want is the slow answer: list everything and read it.
func want(t *testing.T, d store.Driver, node string) map[model.ID]model.Value {
	t.Helper()
	all, err := d.List(context.Background(), "/calico/")
	if err != nil {
		t.Fatal(err)
	}
	out := map[model.ID]model.Value{}
	p := newParser(node)
	for _, kv := range all.KVs {
		if e, ok, _ := p.event(store.Event{Key: kv.Key, Value: kv.Value}); ok && e.Value != nil {
			out[e.ID] = e.Value
		}
	}
	return out
}

func put(t *testing.T, d store.Driver, key, value string) {
	t.Helper()
	ctx := context.Background()
	_, err := d.Create(ctx, key, []byte(value))
	if errors.Is(err, store.ErrExists) {
		_, err = d.Update(ctx, store.KV{Key: key, Value: []byte(value)})
	}
	if err != nil {
		t.Fatal(err)
	}
}

func object(plural, kind, namespace, name, spec string) (key, value string) {
	key = store.ResourceID{Plural: plural, Namespace: namespace, Name: name}.Key()
	value = fmt.Sprintf(`{"kind":%q,"apiVersion":"projectcalico.org/v3","metadata":{"name":%q,"namespace":%q},"spec":%s}`,
		kind, name, namespace, spec)
	return key, value
}

// TestGoldenDatastore reads a datastore that Calico's own programs wrote, as
// one of its hosts.
func TestGoldenDatastore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := mem.New()
		data, err := os.ReadFile("../../api/v3/testdata/calico/etcd.json")
		if err != nil {
			t.Fatal(err)
		}
		var stored map[string]json.RawMessage
		if err := json.Unmarshal(data, &stored); err != nil {
			t.Fatal(err)
		}
		for k, v := range stored {
			put(t, d, k, string(v))
		}
		var log bytes.Buffer
		w := start(t, Config{Driver: d, Node: "n1", Log: slog.New(slog.NewTextHandler(&log, nil))})
		synctest.Wait()
		if strings.Contains(log.String(), "ignored") {
			t.Errorf("something of Calico's is refused:\n%s", log.String())
		}
		var got []string
		for id := range w.inputs {
			got = append(got, id.String())
		}
		slices.Sort(got)
		want := []string{
			"BGPConfiguration default", "BGPFilter only-blocks", "BGPPeer tor-1",
			"BlockAffinity n1/192.168.40.128/26", "BlockAffinity n1/fd00:10:20:0:5add:9051:4065:cb40/122",
			"ClusterInformation default", "FelixConfiguration default",
			"GlobalNetworkPolicy security.block-bad", "GlobalNetworkSet bad-ips", "HostEndpoint n1-eth0",
			"IPAMBlock 192.168.40.128/26", "IPAMBlock fd00:10:20:0:5add:9051:4065:cb40/122",
			"IPPool ippool-cross-subnet-1", "IPPool pool-v6", "IPPool pool-vxlan",
			"NetworkPolicy default/allow-web", "NetworkSet default/office", "Node n1", "Node n2",
			"Profile allow-all", "Profile k8s-pod-network",
			"StagedGlobalNetworkPolicy sg", "StagedNetworkPolicy default/staged-deny",
			"Tier default", "Tier kube-admin", "Tier kube-baseline", "Tier security",
			"WorkloadEndpoint default/n1-cni-cid--0001-eth0", "WorkloadEndpoint default/n1-cni-cid--0002-eth0",
			"WorkloadEndpoint default/n2-cni-c7f3-eth0",
		}
		if !slices.Equal(got, want) {
			t.Errorf("inputs:\n got %q\nwant %q", got, want)
		}
		if w.syncs != 1 {
			t.Errorf("in sync %d times", w.syncs)
		}
	})
}

func TestOneChangePerObject(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := mem.New()
		w := &world{inputs: map[model.ID]model.Value{}}
		open := make(chan bool)
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() {
			done <- Run(ctx, Config{Driver: d, Node: "me"}, func(b Batch) { w.sink(b); <-open })
		}()
		synctest.Wait() // the sink holds the first batch
		for i := range 500 {
			put(t, d, store.ResourceID{Plural: "nodes", Name: "n"}.Key(), nodeJSON(i))
			put(t, d, store.ResourceID{Plural: "nodes", Name: "m"}.Key(), nodeJSON(i))
			synctest.Wait()
		}
		close(open)
		synctest.Wait()
		if len(w.batches) != 2 || len(w.batches[1].Events) != 2 {
			t.Errorf("500 changes of two objects came in %d batches: %+v", len(w.batches), w.batches)
		}
		if n := w.inputs[model.ID{Kind: model.KindNode, Name: "n"}].(*model.Node); n.AS != 500 {
			t.Errorf("the last change did not win: %+v", n)
		}
		cancel()
		<-done
	})
}

func nodeJSON(i int) string {
	_, v := object("nodes", "Node", "", "ignored", fmt.Sprintf(`{"bgp":{"asNumber":%d}}`, i+1))
	return v
}

// TestTierThatCannotBeRead: what was in force stays, and where nothing was the
// tier is lost.
func TestTierThatCannotBeRead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := mem.New()
		key, good := object("tiers", "Tier", "", "t", `{"order":5,"defaultAction":"Pass"}`)
		put(t, d, key, good)
		var log bytes.Buffer
		cfg := Config{Driver: d, Node: "me", Log: slog.New(slog.NewTextHandler(&log, nil))}
		old, id := start(t, cfg), model.ID{Kind: model.KindTier, Name: "t"}
		state := func(w *world) string {
			synctest.Wait()
			v, ok := w.inputs[id].(*model.Tier)
			if !ok {
				return "gone"
			}
			return fmt.Sprint(v.Order, v.DefaultPass, v.Lost, v.Broken != "")
		}
		stored := func(value string) func() { return func() { put(t, d, key, value) } }
		_, orderless := object("tiers", "Tier", "", "t", `{"order":"5"}`)
		for _, step := range []struct {
			name, kept, anew string // of an agent that was there all the time, and of one that starts
			change           func()
		}{
			{"sound", "5 true false false", "5 true false false", func() {}},
			{"no JSON", "5 true false true", "-Inf false true true", stored("{")},
			{"another kind", "5 true false true", "-Inf false true true", stored(`{"kind":"Node"}`)},
			{"no order", "5 false false true", "-Inf false true true", stored(orderless)},
			{"sound again", "5 true false false", "5 true false false", stored(good)},
			{"deleted", "gone", "gone", func() { _ = d.Delete(t.Context(), key, "") }},
			{"no JSON from the start", "-Inf false true true", "-Inf false true true", stored("{")},
		} {
			step.change()
			if got, anew := state(old), state(start(t, cfg)); got != step.kept || anew != step.anew {
				t.Errorf("%s: %s, anew %s; want %s, %s", step.name, got, anew, step.kept, step.anew)
			}
		}
		for _, part := range []string{"used in part", "Tier t", "spec.order", "nobody knows where it comes", "apply the tier anew"} {
			if !strings.Contains(log.String(), part) {
				t.Errorf("the log does not say %q: %s", part, log.String())
			}
		}
	})
}

// TestObjectThatCannotBeRead: what was in force of a policy, a profile, a set of
// networks, a pool or what BGP is told stays, with the reason; where nothing was,
// it is invalid.
func TestObjectThatCannotBeRead(t *testing.T) {
	for _, tt := range []struct{ plural, kind, name, spec string }{
		{"globalnetworkpolicies", "GlobalNetworkPolicy", "default.deny", `{"tier":"default","order":7,"ingress":[{"action":"Deny"}]}`},
		{"profiles", "Profile", "p", `{"ingress":[{"action":"Deny"}]}`},
		{"bgpconfigurations", "BGPConfiguration", "default", `{"asNumber":64777,"nodeToNodeMeshEnabled":false}`},
		{"bgppeers", "BGPPeer", "p", `{"peerIP":"192.0.2.1","asNumber":64777,"nodeSelector":"rack == 'a'","filters":["f"]}`},
		{"ippools", "IPPool", "p", `{"cidr":"10.65.0.0/16","ipipMode":"Always","natOutgoing":true}`},
		{"globalnetworksets", "GlobalNetworkSet", "s", `{"nets":["192.0.2.0/24","2001:db8::/32"]}`},
	} {
		t.Run(tt.kind, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				d := mem.New()
				key, good := object(tt.plural, tt.kind, "", tt.name, tt.spec)
				put(t, d, key, good)
				var log bytes.Buffer
				cfg := Config{Driver: d, Node: "me", Log: slog.New(slog.NewTextHandler(&log, nil))}
				old := start(t, cfg)
				only := func(w *world) (out model.Value) {
					synctest.Wait()
					for _, v := range w.inputs {
						out = v
					}
					return out
				}
				sound := only(old)
				for range 2 { // what is kept is kept also the second time
					put(t, d, key, "{")
					kept := only(old)
					why := broken(kept)
					if !strings.Contains(why, "what was last read of it holds") || !strings.Contains(log.String(), "used in part") {
						t.Errorf("%q; log: %s", why, log.String())
					}
					switch v := kept.(type) {
					case *model.Policy:
						v.Broken = ""
					case *model.Profile:
						v.Broken = ""
					case *model.NetworkSet:
						v.Broken = ""
					case *model.BGPConfig:
						v.Broken = ""
					case *model.BGPPeer:
						v.Broken = ""
					case *model.Pool:
						v.Broken = ""
					}
					if !reflect.DeepEqual(kept, sound) {
						t.Errorf("kept %+v, was %+v", kept, sound)
					}
				}
				if v, ok := only(start(t, cfg)).(*model.Invalid); !ok {
					t.Errorf("an agent that starts has %+v", v)
				}
				knows := cfg
				for id := range old.inputs {
					knows.Last = map[model.ID]model.Value{id: sound}
				}
				if why := broken(only(start(t, knows))); !strings.Contains(why, "what was last read of it holds") {
					t.Errorf("one that knows what was has %q", why)
				}
				put(t, d, key, good)
				if got := only(old); !reflect.DeepEqual(got, sound) {
					t.Errorf("sound again: %+v", got)
				}
				if err := d.Delete(t.Context(), key, ""); err != nil {
					t.Fatal(err)
				}
				late := start(t, knows) // what it knew is not there any more
				synctest.Wait()
				put(t, d, key, "{")
				for _, w := range []*world{old, late} {
					if v, ok := only(w).(*model.Invalid); !ok {
						t.Errorf("deleted meanwhile: %+v", v)
					}
				}
			})
		})
	}
}

// TestFilterThatCannotBeRead: it is one nonetheless, or nothing would be filtered.
func TestFilterThatCannotBeRead(t *testing.T) {
	for _, stored := range []string{"{", `{"kind":"BGPFilter","apiVersion":"projectcalico.org/v3","metadata":{"name":"f"},"spec":{"exportV4":7}}`} {
		synctest.Test(t, func(t *testing.T) {
			d := mem.New()
			put(t, d, store.ResourceID{Plural: "bgpfilters", Name: "f"}.Key(), stored)
			w := start(t, Config{Driver: d, Node: "me"})
			synctest.Wait()
			id := model.ID{Kind: model.KindBGPFilter, Name: "f"}
			if f, ok := w.inputs[id].(*model.BGPFilter); !ok || f.Name != "f" || f.Broken == "" {
				t.Errorf("%s: %+v", stored, w.inputs[id])
			}
		})
	}
}

func TestInvalidObject(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := mem.New()
		key, value := object("ippools", "IPPool", "", "p", `{"cidr":"10.0.0.0/16","ipipMode":"Always","vxlanMode":"Always"}`)
		put(t, d, key, value)
		var log bytes.Buffer
		w := start(t, Config{Driver: d, Node: "me", Log: slog.New(slog.NewTextHandler(&log, nil))})
		synctest.Wait()
		id := model.ID{Kind: model.KindPool, Name: "p"}
		bad, ok := w.inputs[id].(*model.Invalid)
		if !ok || !strings.Contains(bad.Message, "spec.vxlanMode") {
			t.Fatalf("got %+v", w.inputs[id])
		}
		for _, part := range []string{"IPPool p", "spec.vxlanMode", "Always", "must be Never"} {
			if !strings.Contains(log.String(), part) {
				t.Errorf("the log does not say %q: %s", part, log.String())
			}
		}
		_, value = object("ippools", "IPPool", "", "p", `{"cidr":"10.0.0.0/16"}`)
		put(t, d, key, value)
		synctest.Wait()
		if _, ok := w.inputs[id].(*model.Pool); !ok {
			t.Errorf("once mended: %+v", w.inputs[id])
		}
	})
}

// slowPart is a driver that does not list one part until it is let.
type slowPart struct {
	store.Driver
	part string
	let  chan bool
}

func (s *slowPart) List(ctx context.Context, prefix string) (store.Listing, error) {
	if prefix == s.part {
		<-s.let
	}
	return s.Driver.List(ctx, prefix)
}

func TestNothingBeforeEverything(t *testing.T) {
	for _, part := range prefixes("me") {
		synctest.Test(t, func(t *testing.T) {
			d := mem.New()
			put(t, d, store.ResourceID{Plural: "nodes", Name: "n"}.Key(), nodeJSON(1))
			put(t, d, "/calico/ipam/v2/host/me/ipv4/block/10.65.0.0-26", `{"state":"confirmed"}`)
			put(t, d, "/calico/ipam/v2/host/me/ipv6/block/fd00::-122", `{"state":"confirmed"}`)
			slow := &slowPart{Driver: d, part: part, let: make(chan bool)}
			w := start(t, Config{Driver: slow, Node: "me"})
			pass(time.Minute)
			put(t, d, store.ResourceID{Plural: "nodes", Name: "m"}.Key(), nodeJSON(1))
			pass(time.Minute)
			if len(w.batches) != 0 {
				t.Errorf("%s is missing: handed over %+v", part, w.batches)
			}
			close(slow.let)
			pass(time.Minute)
			if len(w.batches) == 0 || !w.batches[0].InSync || len(w.inputs) != 4 {
				t.Errorf("with %s: %+v", part, w.batches)
			}
		})
	}
}

// flaky is a driver that can be cut off.
type flaky struct {
	store.Driver
	mu   sync.Mutex // guards everything below
	down bool
	cut  []context.CancelFunc
}

var errDown = errors.New("down")

func (f *flaky) set(down bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.down = down
	if down {
		for _, cancel := range f.cut {
			cancel()
		}
		f.cut = nil
	}
}

func (f *flaky) List(ctx context.Context, prefix string) (store.Listing, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.down {
		return store.Listing{}, errDown
	}
	return f.Driver.List(ctx, prefix)
}

func (f *flaky) Watch(ctx context.Context, prefix string, after store.Revision) <-chan store.Batch {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.down {
		c := make(chan store.Batch, 1)
		c <- store.Batch{Err: errDown}
		close(c)
		return c
	}
	ctx, cancel := context.WithCancel(ctx)
	f.cut = append(f.cut, cancel)
	return f.Driver.Watch(ctx, prefix, after)
}

func TestStatusTellsOfAnOutage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d, status := &flaky{Driver: mem.New(), down: true}, &Status{}
		w := start(t, Config{Driver: d, Node: "me", Status: status})
		pass(time.Second)
		if s := status.State(); s.Connected || s.InSync || !errors.Is(s.LastError, errDown) || s.Age(time.Now()) != 0 {
			t.Errorf("never reached: %+v", s)
		}
		d.set(false)
		pass(time.Minute)
		s := status.State()
		if !s.Connected || !s.InSync || s.Since.IsZero() || s.Age(time.Now()) != 0 || w.syncs != 1 {
			t.Errorf("reached: %+v, in sync %d times", s, w.syncs)
		}
		d.set(true)
		synctest.Wait()
		cut := time.Now()
		pass(time.Minute)
		if s = status.State(); s.Connected || !s.InSync || !s.Since.Equal(cut) || s.Age(time.Now()) != time.Minute {
			t.Errorf("out of sight: %+v", s)
		}
	})
}

// TestHistories lets a datastore live, be cut off and compacted, and compares
// what was handed over with what a reading of everything gives.
func TestHistories(t *testing.T) {
	for seed := range uint64(60) {
		synctest.Test(t, func(t *testing.T) { history(t, seed) })
	}
}

func history(t *testing.T, seed uint64) {
	r := rand.New(rand.NewPCG(seed, 3))
	m := mem.New()
	d := &flaky{Driver: m}
	w := start(t, Config{Driver: d, Node: "me"})
	for range 80 {
		switch r.IntN(12) {
		case 0:
			d.set(true)
		case 1, 2:
			d.set(false)
		case 3:
			m.Compact()
		case 4:
			pass(time.Duration(r.IntN(20)) * time.Second)
		default:
			change(t, r, m)
		}
		if r.IntN(3) == 0 {
			synctest.Wait()
		}
	}
	d.set(false)
	pass(time.Minute)
	got := maps.Clone(w.inputs)
	for id, v := range got { // who reads everything now knows nothing of what was last read
		if p, ok := v.(*model.Pool); ok && p.Broken != "" {
			why, _, _ := strings.Cut(p.Broken, ": what was last read")
			got[id] = &model.Invalid{Message: why}
		}
	}
	if want := want(t, m, "me"); !reflect.DeepEqual(got, want) {
		t.Fatalf("seed %d:\n got %v\nwant %v", seed, got, want)
	}
	if w.syncs != 1 {
		t.Errorf("seed %d: in sync %d times", seed, w.syncs)
	}
	for _, b := range w.batches {
		seen := map[model.ID]bool{}
		for _, e := range b.Events {
			if seen[e.ID] {
				t.Errorf("seed %d: %v twice in a batch", seed, e.ID)
			}
			seen[e.ID] = true
		}
	}
}

// change writes or removes one key, sometimes of something that no host needs
// or that breaks the rules.
func change(t *testing.T, r *rand.Rand, d store.Driver) {
	n := fmt.Sprint(r.IntN(3))
	var key, value string
	switch r.IntN(7) {
	case 0:
		key, value = object("nodes", "Node", "", n, `{"bgp":{"ipv4Address":"10.0.0.`+n+`/24"}}`)
	case 1:
		node := []string{"me", "other"}[r.IntN(2)]
		key, value = object("workloadendpoints", "WorkloadEndpoint", "ns", n,
			`{"node":"`+node+`","interfaceName":"cali`+n+`","ipNetworks":["10.65.0.`+n+`/32","fd00::`+n+`/128"]}`)
	case 2:
		key, value = object("ippools", "IPPool", "", n, `{"cidr":"10.65.0.0/`+fmt.Sprint(16+r.IntN(20))+`"}`)
	case 3:
		key = "/calico/ipam/v2/assignment/ipv4/block/10.65.0.0-3" + n
		value = `{"cidr":"10.65.0.0/3` + n + `","affinity":"host:me","allocations":[null],"attributes":[]}`
	case 4:
		host := []string{"me", "other"}[r.IntN(2)]
		key, value = "/calico/ipam/v2/host/"+host+"/ipv4/block/10.65.0.0-3"+n, `{"state":"confirmed"}`
	case 5:
		key, value = "/calico/ipam/v2/handle/h"+n, `{}`
	case 6:
		key, value = object("tiers", "Tier", "", n, `{}`)
	}
	if r.IntN(3) == 0 {
		if err := d.Delete(context.Background(), key, ""); err != nil && !errors.Is(err, store.ErrNotFound) {
			t.Fatal(err)
		}
		return
	}
	put(t, d, key, value)
}

func TestKeysThatAreNoObject(t *testing.T) {
	for _, key := range []string{
		"/calico/resources/v3/projectcalico.org/nodes/ns/n",
		"/calico/resources/v3/projectcalico.org/networkpolicies/n",
		"/calico/resources/v3/projectcalico.org/np/ns/n",
		"/calico/resources/v3/projectcalico.org/ipreservations/n",
		"/calico/ipam/v2/handle/h",
		"/calico/ipam/v2/host/other/ipv4/block/10.0.0.0-26",
		"/calico/ipam/v2/assignment/ipv4/block/10.0.0.1-26",
		"/calico/ipam/v2/host/me/ipv4/block/10.0.0.1-26",
		"/calico/felix/v1/host/me/endpoint/e",
	} {
		if e, ok, err := newParser("me").event(store.Event{Key: key, Value: []byte(`{"kind":"Node"}`)}); ok {
			t.Errorf("%s is taken as %v, %v", key, e, err)
		}
	}
}

// unusable reports whether nothing but the name could be read of a value.
func unusable(v model.Value) bool {
	switch v := v.(type) {
	case *model.Tier:
		return v.Lost && strings.Contains(v.Broken, "nobody knows")
	case *model.BGPFilter:
		return v.Broken != ""
	}
	return false
}

// FuzzEvent reads anything: it never panics, and whatever cannot be used is
// an Invalid value with an error.
func FuzzEvent(f *testing.F) {
	for _, plural := range []string{"nodes", "workloadendpoints", "networkpolicies", "bgppeers", "ippools"} {
		key, value := object(plural, "Node", "ns", "n", "{}")
		f.Add(key, []byte(value))
	}
	f.Add("/calico/ipam/v2/assignment/ipv4/block/10.65.0.0-26", []byte(`{"cidr":"10.65.0.0/26","allocations":[0],"attributes":[{}]}`))
	f.Add("/calico/ipam/v2/host/me/ipv6/block/fd00::-122", []byte(`{"state":"confirmed"}`))
	f.Fuzz(func(t *testing.T, key string, value []byte) {
		e, ok, err := newParser("me").event(store.Event{Key: key, Value: value})
		if _, invalid := e.Value.(*model.Invalid); (invalid || unusable(e.Value)) != (err != nil) || !ok && (err != nil || e.Value != nil) {
			t.Errorf("%v, %v, %v", e, ok, err)
		}
		gone, known, err := newParser("me").event(store.Event{Key: key})
		if err != nil || gone.Value != nil || known != ok || gone.ID != e.ID {
			t.Errorf("when gone: %v, %v, %v; was %v", gone, known, err, e)
		}
	})
}

// TestBrokenPoliciesAreKept: what can be read of a policy is handed over, and
// the log says what cannot.
func TestBrokenPoliciesAreKept(t *testing.T) {
	for _, tt := range []struct{ name, spec, want string }{
		{"rule", `{"ingress":[{"action":"Deny","protocol":"tcp"}]}`, `spec.ingress[0].protocol: \"tcp\"`},
		{"type of a value", `{"ingress":[{"action":"Deny","protocol":[]}]}`, "spec.ingress[0].protocol: "},
		{"selector", `{"selector":"a = 'b'","ingress":[{"action":"Deny"}]}`, "spec: selector: "},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				d := mem.New()
				key, value := object("networkpolicies", "NetworkPolicy", "ns", "p", tt.spec)
				put(t, d, key, value)
				var log bytes.Buffer
				w := start(t, Config{Driver: d, Node: "me", Log: slog.New(slog.NewTextHandler(&log, nil))})
				synctest.Wait()
				p, ok := w.inputs[model.PolicyID("NetworkPolicy", "ns", "p")].(*model.Policy)
				if !ok || p.Broken == "" || len(p.Ingress.Rules) != 1 || p.Ingress.Rules[0].Action != model.Deny || p.Ingress.Rules[0].Protocol != 0 {
					t.Fatalf("got %+v", w.inputs)
				}
				if !strings.Contains(log.String(), "NetworkPolicy ns/p") || !strings.Contains(log.String(), tt.want) {
					t.Errorf("the log does not say %s: %s", tt.want, log.String())
				}
			})
		})
	}
}
