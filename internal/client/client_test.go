package client_test

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	v3 "github.com/brindle-net/brindle/api/v3"
	"github.com/brindle-net/brindle/internal/client"
	"github.com/brindle-net/brindle/internal/store"
	"github.com/brindle-net/brindle/internal/store/mem"
)

func newClient() (*client.Client, *mem.Store) {
	d := mem.New()
	return client.New(d, client.Config{}), d
}

func pool(name, cidr string) *v3.IPPool {
	p := &v3.IPPool{Spec: v3.IPPoolSpec{CIDR: cidr}}
	p.Name = name
	return p
}

func netset(name string, nets ...string) *v3.NetworkSet {
	s := &v3.NetworkSet{Spec: v3.NetworkSetSpec{Nets: nets}}
	s.TypeMeta = v3.TypeMeta{Kind: "NetworkSet", APIVersion: v3.Group}
	s.Namespace, s.Name = "default", name
	return s
}

func must[T any](t *testing.T) func(T, error) T {
	return func(v T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

func wantError(t *testing.T, what string, err error, text string) {
	t.Helper()
	if err == nil || !strings.Contains(err.Error(), text) {
		t.Errorf("%s: error is %v, want one with %q", what, err, text)
	}
}

func TestLifeOfAnObject(t *testing.T) {
	c, _ := newClient()
	ctx := t.Context()
	given := pool("p", "10.0.0.0/16")
	made := must[*v3.IPPool](t)(client.Create(ctx, c, given))
	if made.UID == "" || made.CreationTimestamp == nil || made.ResourceVersion == "" || made.Spec.BlockSize != 26 || made.Kind != "IPPool" {
		t.Errorf("created %+v", made)
	}
	if given.UID != "" || given.Spec.BlockSize != 0 || given.Kind != "" {
		t.Errorf("Create changed the caller's object: %+v", given)
	}
	read := must[*v3.IPPool](t)(client.Get[v3.IPPool](ctx, c, "", "p"))
	if d := cmp.Diff(made, read); d != "" {
		t.Errorf("read (-created +read):\n%s", d)
	}
	read.Spec.NATOutgoing = true
	changed := must[*v3.IPPool](t)(client.Update(ctx, c, read))
	if changed.ResourceVersion == made.ResourceVersion || changed.UID != made.UID || !changed.Spec.NATOutgoing {
		t.Errorf("updated %+v", changed)
	}
	_, err := client.Update(ctx, c, made)
	if !client.IsConflict(err) {
		t.Errorf("update of an old state: %v", err)
	}
	wantError(t, "update of an old state", err, `update IPPool "p": the resourceVersion given is not the current one`)
	_, err = client.Create(ctx, c, given)
	if !client.IsExists(err) {
		t.Errorf("create twice: %v", err)
	}
	for _, pre := range []client.Preconditions{{UID: "other"}, {ResourceVersion: made.ResourceVersion}} {
		if err := client.Delete[v3.IPPool](ctx, c, "", "p", pre); !client.IsConflict(err) {
			t.Errorf("delete with %+v: %v", pre, err)
		}
	}
	if err := client.Delete[v3.IPPool](ctx, c, "", "p", client.Preconditions{UID: made.UID}); err != nil {
		t.Error(err)
	}
	_, err = client.Get[v3.IPPool](ctx, c, "", "p")
	if !client.IsNotFound(err) || err.Error() != `get IPPool "p": not found` {
		t.Errorf("get after delete: %v", err)
	}
	if err := client.Delete[v3.IPPool](ctx, c, "", "p", client.Preconditions{}); !client.IsNotFound(err) {
		t.Errorf("delete twice: %v", err)
	}
}

func TestRefusals(t *testing.T) {
	c, _ := newClient()
	ctx := t.Context()
	must[[]v3.Object](t)(c.Bootstrap(ctx, client.BootstrapConfig{}))
	must[*v3.IPPool](t)(client.Create(ctx, c, pool("p", "10.0.0.0/16")))
	create := func(o v3.Object, kind string) error {
		*o.Type() = v3.TypeMeta{Kind: kind, APIVersion: v3.Group}
		_, err := c.Create(ctx, o)
		return err
	}
	named := func(o v3.Object, namespace, name string) v3.Object {
		o.Meta().Namespace, o.Meta().Name = namespace, name
		return o
	}
	old := netset("x")
	old.UID, old.ResourceVersion, old.CreationTimestamp = "u", "1", v3.NewTime(time.Unix(1, 0))
	modify := func(edit func(*v3.IPPoolSpec)) error {
		_, err := client.Modify(ctx, c, "", "p", func(p *v3.IPPool) error { edit(&p.Spec); return nil })
		return err
	}
	remove := func(kind, name string) error {
		k, _ := v3.LookupKind(kind)
		return c.Delete(ctx, k, "", name, client.Preconditions{})
	}
	tests := []struct {
		name string
		err  error
		want string
		is   error
	}{
		{"no name", create(&v3.IPPool{}, "IPPool"), "metadata.name", nil},
		{"no namespace", create(named(&v3.NetworkSet{}, "", "x"), "NetworkSet"), "metadata.namespace", nil},
		{"namespace too many", create(named(&v3.IPPool{}, "x", "x"), "IPPool"), "must be empty", nil},
		{"uid of another object", create(old, "NetworkSet"), `metadata.uid: "u"`, nil},
		{"revision of another object", create(old, "NetworkSet"), "metadata.resourceVersion", nil},
		{"birth of another object", create(old, "NetworkSet"), "metadata.creationTimestamp", nil},
		{"unknown kind", create(named(&v3.NetworkSet{}, "", "x"), "Nonsense"), "unknown kind", v3.ErrUnknownKind},
		{"invalid", create(pool("q", "nonsense"), "IPPool"), "spec.cidr", nil},
		{"overlapping pools", create(pool("q", "10.0.128.0/20"), "IPPool"), "overlap", nil},
		{"pool that changes its range", modify(func(s *v3.IPPoolSpec) { s.CIDR = "10.1.0.0/16" }), "spec.cidr", nil},
		{"pool that changes its blocks", modify(func(s *v3.IPPoolSpec) { s.BlockSize = 27 }), "spec.blockSize", nil},
		{"cluster information", create(named(&v3.ClusterInformation{}, "", "default"), "ClusterInformation"), "", client.ErrReadOnly},
		{"delete cluster information", remove("ClusterInformation", "default"), "", client.ErrReadOnly},
		{"create the virtual profile", create(named(&v3.Profile{}, "", v3.ProfileDefaultAllow), "Profile"), "always exists", client.ErrReadOnly},
		{"delete the virtual profile", remove("Profile", v3.ProfileDefaultAllow), "always exists", client.ErrReadOnly},
		{"delete a built-in tier", remove("Tier", "kube-admin"), "always exists", client.ErrReadOnly},
		{"policy of Kubernetes", create(named(&v3.NetworkPolicy{}, "default", "knp.default.x"), "NetworkPolicy"), "Kubernetes", client.ErrReadOnly},
		{"block", remove("IPAMBlock", "x"), "ipam commands", client.ErrReadOnly},
		{"second IPAM configuration", create(named(&v3.IPAMConfiguration{}, "", "x"), "IPAMConfiguration"), "must be default", nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			wantError(t, tt.name, tt.err, tt.want)
			if tt.is != nil && !errors.Is(tt.err, tt.is) {
				t.Errorf("%v is no %v", tt.err, tt.is)
			}
		})
	}
}

func TestApply(t *testing.T) {
	c, d := newClient()
	ctx := t.Context()
	set := netset("s", "10.0.0.0/8")
	set.Labels = map[string]string{"a": "1", "b": "2"}
	first, did, err := c.Apply(ctx, set)
	if err != nil || did != client.Created {
		t.Fatal(did, err)
	}
	// A newer program adds what this one does not know.
	key := store.ResourceID{Plural: "networksets", Namespace: "default", Name: "s"}.Key()
	kv := must[store.KV](t)(d.Get(ctx, key))
	kv.Value = []byte(strings.Replace(string(kv.Value), `"spec":{`, `"spec":{"newField":{"x":1},`, 1))
	must[store.Revision](t)(d.Update(ctx, kv))
	if _, did, err := c.Apply(ctx, set); err != nil || did != client.Unchanged {
		t.Error("the same again:", did, err)
	}
	set.Labels, set.Spec.Nets = map[string]string{"b": "3"}, []string{"10.0.0.0/8", "192.0.2.0/24"}
	set.UID, set.CreationTimestamp, set.Finalizers = "ignored", v3.NewTime(time.Unix(1, 0)), []string{"ignored"}
	got, did, err := c.Apply(ctx, set)
	if err != nil || did != client.Changed {
		t.Fatal(did, err)
	}
	m := got.Meta()
	if m.UID != first.Meta().UID || !m.CreationTimestamp.Equal(first.Meta().CreationTimestamp.Time) || m.Finalizers != nil {
		t.Errorf("metadata is not the server's: %+v", m)
	}
	if diff := cmp.Diff(map[string]string{"b": "3"}, m.Labels); diff != "" {
		t.Error(diff)
	}
	if kv = must[store.KV](t)(d.Get(ctx, key)); !strings.Contains(string(kv.Value), `"newField":{"x":1}`) {
		t.Errorf("the unknown field is lost: %s", kv.Value)
	}
	set.ResourceVersion = first.Meta().ResourceVersion
	if _, _, err := c.Apply(ctx, set); !client.IsConflict(err) {
		t.Errorf("apply with an old resourceVersion: %v", err)
	}
	set.ResourceVersion = m.ResourceVersion
	if _, did, err := c.Apply(ctx, set); err != nil || did != client.Unchanged {
		t.Error("apply with the current resourceVersion:", did, err)
	}
	// An object printed from one datastore can be applied to another.
	other, _ := newClient()
	set.ResourceVersion = ""
	if o, did, err := other.Apply(ctx, set); err != nil || did != client.Created || o.Meta().UID == "ignored" {
		t.Error("apply elsewhere:", did, err)
	}
	if _, _, err := c.Replace(ctx, netset("nowhere")); !client.IsNotFound(err) {
		t.Errorf("replace of nothing: %v", err)
	}
}

const wireguardKey = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="

func TestApplyLeavesStatusAlone(t *testing.T) {
	c, _ := newClient()
	node := &v3.Node{TypeMeta: v3.TypeMeta{Kind: "Node", APIVersion: v3.Group}}
	node.Name = "n1"
	ctx := t.Context()
	if _, _, err := c.Apply(ctx, node); err != nil {
		t.Fatal(err)
	}
	_, err := client.Modify(ctx, c, "", "n1", func(n *v3.Node) error {
		n.Status.WireguardPublicKey = wireguardKey
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	node.Labels = map[string]string{"rack": "r1"}
	if _, _, err := c.Apply(ctx, node); err != nil {
		t.Fatal(err)
	}
	if n := must[*v3.Node](t)(client.Get[v3.Node](ctx, c, "", "n1")); n.Status.WireguardPublicKey != wireguardKey || n.Labels["rack"] != "r1" {
		t.Errorf("after apply: %+v", n)
	}
}

func TestModifyInParallel(t *testing.T) {
	c, _ := newClient()
	ctx := t.Context()
	if _, err := c.Create(ctx, netset("s")); err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			for j := range 5 {
				_, err := client.Modify(ctx, c, "default", "s", func(s *v3.NetworkSet) error {
					s.Spec.Nets = append(s.Spec.Nets, fmt.Sprintf("10.%d.%d.0/24", i, j))
					return nil
				})
				if err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	if s := must[*v3.NetworkSet](t)(client.Get[v3.NetworkSet](ctx, c, "default", "s")); len(s.Spec.Nets) != 40 {
		t.Errorf("%d of 40 changes are there", len(s.Spec.Nets))
	}
	stop := errors.New("enough")
	if _, err := client.Modify(ctx, c, "default", "s", func(*v3.NetworkSet) error { return stop }); !errors.Is(err, stop) {
		t.Errorf("an error of edit: %v", err)
	}
}

func TestTierWithPolicies(t *testing.T) {
	c, d := newClient()
	ctx := t.Context()
	tier := &v3.Tier{}
	tier.Name = "security"
	must[*v3.Tier](t)(client.Create(ctx, c, tier))
	policy := &v3.GlobalNetworkPolicy{Spec: v3.GlobalNetworkPolicySpec{Tier: "security", Selector: "all()"}}
	policy.Name = "p"
	must[*v3.GlobalNetworkPolicy](t)(client.Create(ctx, c, policy))
	err := client.Delete[v3.Tier](ctx, c, "", "security", client.Preconditions{})
	wantError(t, "delete", err, `GlobalNetworkPolicy "p" is in this tier`)
	if !errors.Is(err, client.ErrInUse) {
		t.Errorf("%v is no ErrInUse", err)
	}
	broken := store.ResourceID{Plural: "networkpolicies", Namespace: "n", Name: "broken"}.Key()
	must[store.Revision](t)(d.Create(ctx, broken, []byte("{")))
	if err := client.Delete[v3.GlobalNetworkPolicy](ctx, c, "", "p", client.Preconditions{}); err != nil {
		t.Fatal(err)
	}
	wantError(t, "delete", client.Delete[v3.Tier](ctx, c, "", "security", client.Preconditions{}), "may be in this tier")
	if err := client.Delete[v3.NetworkPolicy](ctx, c, "n", "broken", client.Preconditions{}); err != nil {
		t.Fatalf("what cannot be read cannot be deleted: %v", err)
	}
	if err := client.Delete[v3.Tier](ctx, c, "", "security", client.Preconditions{}); err != nil {
		t.Error(err)
	}
}

// TestPoolIsDisabledBeforeItGoes runs in fake time: half a second passes
// between the two, for every host to hear of it.
func TestPoolIsDisabledBeforeItGoes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := mem.New()
		var released []string
		fail := errors.New("a host holds on")
		c := client.New(d, client.Config{ReleasePool: func(_ context.Context, p *v3.IPPool) error {
			released = append(released, fmt.Sprintf("%s disabled=%v", p.Spec.CIDR, p.Spec.Disabled))
			err := fail
			fail = nil
			return err
		}})
		must[*v3.IPPool](t)(client.Create(t.Context(), c, pool("p", "fd00::/64")))
		start := time.Now()
		err := client.Delete[v3.IPPool](t.Context(), c, "", "p", client.Preconditions{})
		wantError(t, "delete while a host holds on", err, "a host holds on")
		if waited := time.Since(start); waited < 500*time.Millisecond {
			t.Errorf("waited %v", waited)
		}
		if p := must[*v3.IPPool](t)(client.Get[v3.IPPool](t.Context(), c, "", "p")); !p.Spec.Disabled {
			t.Error("the pool is not disabled")
		}
		if err := client.Delete[v3.IPPool](t.Context(), c, "", "p", client.Preconditions{}); err != nil {
			t.Error(err)
		}
		if diff := cmp.Diff([]string{"fd00::/64 disabled=true", "fd00::/64 disabled=true"}, released); diff != "" {
			t.Error(diff)
		}
	})
}

func TestPoolFitsTheBlocksThatExist(t *testing.T) {
	c, d := newClient()
	must[store.Revision](t)(d.Create(t.Context(), store.BlockKey(netip.MustParsePrefix("10.0.0.64/26")), []byte("{}")))
	p := pool("p", "10.0.0.0/16")
	p.Spec.BlockSize = 28
	_, err := client.Create(t.Context(), c, p)
	wantError(t, "other block size", err, "set blockSize: 26")
	p.Spec.BlockSize = 0
	must[*v3.IPPool](t)(client.Create(t.Context(), c, p))
}

func TestVirtualProfile(t *testing.T) {
	c, d := newClient()
	for _, name := range []string{"a", "z"} {
		p := &v3.Profile{}
		p.Name = name
		must[*v3.Profile](t)(client.Create(t.Context(), c, p))
	}
	names := func() (out []string) {
		for _, p := range must[[]*v3.Profile](t)(client.List[v3.Profile](t.Context(), c, "")) {
			out = append(out, fmt.Sprintf("%s %d", p.Name, len(p.Spec.Ingress)))
		}
		return out
	}
	want := []string{"a 0", v3.ProfileDefaultAllow + " 1", "z 0"}
	if diff := cmp.Diff(want, names()); diff != "" {
		t.Error(diff)
	}
	must[store.Revision](t)(d.Create(t.Context(), store.ResourceID{Plural: "profiles", Name: v3.ProfileDefaultAllow}.Key(), []byte(`{"spec":{}}`)))
	if diff := cmp.Diff(want, names()); diff != "" {
		t.Errorf("somebody stored it: %s", diff)
	}
	p := must[*v3.Profile](t)(client.Get[v3.Profile](t.Context(), c, "", v3.ProfileDefaultAllow))
	if len(p.Spec.Ingress) != 1 || p.Spec.Ingress[0].Action != v3.ActionAllow || len(p.Spec.Egress) != 1 {
		t.Errorf("%+v", p.Spec)
	}
}

func TestPoliciesOfOlderReleases(t *testing.T) {
	c, d := newClient()
	ctx := t.Context()
	key := store.ResourceID{Plural: "globalnetworkpolicies", Name: "default.web"}.Key()
	must[store.Revision](t)(d.Create(ctx, key, []byte(`{"kind":"GlobalNetworkPolicy","apiVersion":"projectcalico.org/v3","metadata":{"name":"default.web"},"spec":{"selector":"all()"}}`)))
	for _, name := range []string{"web", "default.web"} {
		p := must[*v3.GlobalNetworkPolicy](t)(client.Get[v3.GlobalNetworkPolicy](ctx, c, "", name))
		if p.Spec.Tier != "default" || p.Labels[v3.LabelTier] != "default" {
			t.Errorf("%s: %+v", name, p)
		}
	}
	policy := &v3.GlobalNetworkPolicy{Spec: v3.GlobalNetworkPolicySpec{Selector: "all()"}}
	policy.Name = "web"
	if _, err := client.Create(ctx, c, policy); !client.IsExists(err) {
		t.Errorf("a second one under the new name: %v", err)
	}
	if _, did, err := client.Apply(ctx, c, policy); err != nil || did != client.Changed {
		t.Error(did, err)
	}
	if list := must[store.Listing](t)(d.List(ctx, "/")); len(list.KVs) != 1 || list.KVs[0].Key != key {
		t.Errorf("stored: %v", list.KVs)
	}
	if err := client.Delete[v3.GlobalNetworkPolicy](ctx, c, "", "web", client.Preconditions{}); err != nil {
		t.Error(err)
	}
}

func TestUnreadableObjects(t *testing.T) {
	c, d := newClient()
	ctx := t.Context()
	must[*v3.IPPool](t)(client.Create(ctx, c, pool("good", "10.0.0.0/16")))
	for name, value := range map[string]string{"text": "{", "other": `{"kind":"Tier"}`, "shape": `{"spec":{"cidr":5}}`} {
		must[store.Revision](t)(d.Create(ctx, store.ResourceID{Plural: "ippools", Name: name}.Key(), []byte(value)))
	}
	pools, err := client.List[v3.IPPool](ctx, c, "")
	if !errors.Is(err, client.ErrUnreadable) || len(pools) != 1 || pools[0].Name != "good" {
		t.Errorf("listed %d with %v", len(pools), err)
	}
	for _, name := range []string{"text", "other", "shape"} {
		wantError(t, "list", err, `IPPool "`+name+`"`)
		if _, err := client.Get[v3.IPPool](ctx, c, "", name); !errors.Is(err, client.ErrUnreadable) {
			t.Errorf("get %s: %v", name, err)
		}
	}
}

func TestInvalidObjectsCanBeChangedAndDeleted(t *testing.T) {
	c, d := newClient()
	ctx := t.Context()
	for _, kv := range [][2]string{
		{store.ResourceID{Plural: "nodes", Name: "n1"}.Key(), `{"kind":"Node","metadata":{"name":"n1"},"spec":{"bgp":{"ipv4Address":"nonsense"}}}`},
		{store.ResourceID{Plural: "ippools", Name: "p"}.Key(), `{"kind":"IPPool","metadata":{"name":"p"},"spec":{"cidr":"10.0.0.1/16","blockSize":7}}`},
	} {
		must[store.Revision](t)(d.Create(ctx, kv[0], []byte(kv[1])))
	}
	label := func(n *v3.Node) error { return addLabel(n) }
	if _, err := client.Modify(ctx, c, "", "n1", label); err != nil {
		t.Errorf("an old fault is in the way of a label: %v", err)
	}
	_, err := client.Modify(ctx, c, "", "n1", func(n *v3.Node) error {
		n.Spec.BGP.IPv4Address = "other nonsense"
		return nil
	})
	wantError(t, "a new fault", err, "other nonsense")
	if err := client.Delete[v3.IPPool](ctx, c, "", "p", client.Preconditions{}); err != nil {
		t.Errorf("an invalid pool cannot be deleted: %v", err)
	}
}

func TestIPAMConfigurationHasItsOwnKey(t *testing.T) {
	c, d := newClient()
	ctx := t.Context()
	must[store.Revision](t)(d.Create(ctx, store.IPAMConfigKey, []byte(`{"auto_allocate_blocks":true,"maxBlocksPerHost":3,"strict_affinity":true,"new":1}`)))
	cfg := must[*v3.IPAMConfiguration](t)(client.Get[v3.IPAMConfiguration](ctx, c, "", "default"))
	if s := cfg.Spec; !s.StrictAffinity || !*s.AutoAllocateBlocks || s.MaxBlocksPerHost != 3 {
		t.Errorf("read %+v", s)
	}
	_, err := client.Modify(ctx, c, "", "default", func(o *v3.IPAMConfiguration) error {
		o.Spec.StrictAffinity, o.Spec.MaxBlocksPerHost, o.Spec.IPCooldownSeconds = false, 0, 60
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if kv := must[store.KV](t)(d.Get(ctx, store.IPAMConfigKey)); string(kv.Value) != `{"auto_allocate_blocks":true,"ipCooldownSeconds":60,"new":1}` {
		t.Errorf("stored %s", kv.Value)
	}
	if list := must[[]*v3.IPAMConfiguration](t)(client.List[v3.IPAMConfiguration](ctx, c, "")); len(list) != 1 || list[0].Name != "default" {
		t.Errorf("listed %v", list)
	}
	if err := client.Delete[v3.IPAMConfiguration](ctx, c, "", "default", client.Preconditions{}); err != nil {
		t.Fatal(err)
	}
	fresh := &v3.IPAMConfiguration{}
	fresh.Name = "default"
	must[*v3.IPAMConfiguration](t)(client.Create(ctx, c, fresh))
	if kv := must[store.KV](t)(d.Get(ctx, store.IPAMConfigKey)); string(kv.Value) != `{"auto_allocate_blocks":true}` {
		t.Errorf("stored %s", kv.Value)
	}
}

func TestNamesWithOddCharacters(t *testing.T) {
	c, _ := newClient()
	id := "host%1/x"
	n, _ := v3.LookupKind("NetworkSet")
	_, err := c.Get(t.Context(), n, "a/b", id)
	if !client.IsNotFound(err) || !strings.Contains(err.Error(), `NetworkSet "a/b/host%1/x"`) {
		t.Errorf("%v", err)
	}
}

func TestWatchObjects(t *testing.T) {
	c, d := newClient()
	ctx, cancel := context.WithCancel(t.Context())
	sets, _ := v3.LookupKind("networksets")
	list, err := c.List(ctx, sets, "default")
	if err != nil {
		t.Fatal(err)
	}
	in := c.Watch(ctx, sets, "default", list.Revision)
	must[v3.Object](t)(c.Create(ctx, netset("s", "10.0.0.0/8")))
	other := netset("elsewhere")
	other.Namespace = "other"
	must[v3.Object](t)(c.Create(ctx, other))
	must[store.Revision](t)(d.Create(ctx, store.ResourceID{Plural: "networksets", Namespace: "default", Name: "bad"}.Key(), []byte("{")))
	if err := client.Delete[v3.NetworkSet](ctx, c, "default", "s", client.Preconditions{}); err != nil {
		t.Fatal(err)
	}
	var got []string
	for len(got) < 3 {
		for _, e := range (<-in).Events {
			s := fmt.Sprintf("%s/%s object=%v unreadable=%v", e.Namespace, e.Name, e.Object != nil, errors.Is(e.Err, client.ErrUnreadable))
			got = append(got, s)
		}
	}
	want := []string{"default/s object=true unreadable=false", "default/bad object=false unreadable=true", "default/s object=false unreadable=false"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	cancel()
	for range in {
	}
	d.Compact()
	if b := <-c.Watch(t.Context(), sets, "", list.Revision); !errors.Is(b.Err, store.ErrCompacted) {
		t.Errorf("watch of the forgotten: %v", b.Err)
	}
}

func TestBootstrap(t *testing.T) {
	c, _ := newClient()
	ctx := t.Context()
	hosts := []netip.Prefix{netip.MustParsePrefix("192.168.7.9/24"), netip.MustParsePrefix("172.16.0.0/15"), netip.MustParsePrefix("0.0.0.0/0")}
	cfg := client.BootstrapConfig{IPv4Pool: &v3.IPPoolSpec{NATOutgoing: true, VXLANMode: v3.EncapCrossSubnet}, IPv6Pool: &v3.IPPoolSpec{}, HostNetworks: hosts}
	var mu sync.Mutex
	var made []string
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			objects, err := c.Bootstrap(ctx, cfg)
			if err != nil {
				t.Error(err)
			}
			mu.Lock()
			defer mu.Unlock()
			for _, o := range objects {
				made = append(made, o.Type().Kind+" "+o.Meta().Name)
			}
		})
	}
	wg.Wait()
	count := map[string]int{}
	for _, m := range made {
		count[m]++
	}
	want := map[string]int{"ClusterInformation default": 1, "Tier default": 1, "Tier kube-admin": 1, "Tier kube-baseline": 1, "IPPool default-ipv4-ippool": 1, "IPPool default-ipv6-ippool": 1}
	if diff := cmp.Diff(want, count); diff != "" {
		t.Errorf("announced (-want +got):\n%s", diff)
	}
	v4 := must[*v3.IPPool](t)(client.Get[v3.IPPool](ctx, c, "", client.DefaultIPv4Pool))
	if v4.Spec.CIDR != "172.18.0.0/16" || !v4.Spec.NATOutgoing || v4.Spec.VXLANMode != v3.EncapCrossSubnet {
		t.Errorf("%+v", v4.Spec)
	}
	v6 := must[*v3.IPPool](t)(client.Get[v3.IPPool](ctx, c, "", client.DefaultIPv6Pool))
	if cidr := netip.MustParsePrefix(v6.Spec.CIDR); !netip.MustParsePrefix("fd00::/8").Contains(cidr.Addr()) || cidr.Bits() != 48 {
		t.Errorf("%+v", v6.Spec)
	}
	info := must[*v3.ClusterInformation](t)(client.Get[v3.ClusterInformation](ctx, c, "", "default"))
	if len(info.Spec.ClusterGUID) != 32 || info.Spec.DatastoreReady == nil || !*info.Spec.DatastoreReady {
		t.Errorf("%+v", info.Spec)
	}
}

func TestBootstrapMakesNoPoolBesideAnother(t *testing.T) {
	c, _ := newClient()
	ctx := t.Context()
	must[*v3.IPPool](t)(client.Create(ctx, c, pool("mine", "10.0.0.0/16")))
	made := must[[]v3.Object](t)(c.Bootstrap(ctx, client.BootstrapConfig{IPv4Pool: &v3.IPPoolSpec{}}))
	for _, o := range made {
		if o.Type().Kind == "IPPool" {
			t.Errorf("made %s", o.Meta().Name)
		}
	}
	locked := must[*v3.ClusterInformation](t)(client.Modify(ctx, client.New(c.Driver(), client.Config{Component: true}), "", "default", func(o *v3.ClusterInformation) error {
		o.Spec.DatastoreReady = new(false)
		return nil
	}))
	made = must[[]v3.Object](t)(c.Bootstrap(ctx, client.BootstrapConfig{}))
	info := must[*v3.ClusterInformation](t)(client.Get[v3.ClusterInformation](ctx, c, "", "default"))
	if diff := cmp.Diff(locked, info); diff != "" || len(made) != 0 {
		t.Errorf("a second bootstrap changed a locked datastore: %v %s", made, diff)
	}
}
