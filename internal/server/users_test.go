package server

import (
	"context"
	"errors"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"

	v3 "github.com/brindle-net/brindle/api/v3"
	"github.com/brindle-net/brindle/internal/client"
	"github.com/brindle-net/brindle/internal/ipam"
	"github.com/brindle-net/brindle/internal/store"
	"github.com/brindle-net/brindle/internal/store/embedded"
	"github.com/brindle-net/brindle/internal/store/etcd"
)

// office is a server that lets users in, and what is stored there. The network
// between is IPv4; the objects are of both families.
type office struct {
	t     *testing.T
	dir   string
	certs Certs
	addr  string
	root  *etcd.Driver
}

func newOffice(t *testing.T) *office {
	t.Helper()
	dir := shortDir(t)
	o := &office{t: t, dir: filepath.Join(dir, "d"), certs: Certs{Dir: filepath.Join(dir, "certs")}, addr: freePort(t, "127.0.0.1")}
	must(t, second(o.certs.Init()))
	must(t, second(o.certs.Make(CertRequest{Kind: MemberCert, Name: "a", Addresses: []string{"127.0.0.1"}})))
	cert, key := CertFiles(o.certs.Dir, MemberCert, "a")
	s := start(t, Config{Dir: o.dir, Users: true, TLS: &embedded.TLS{Listen: o.addr, CertFile: cert, KeyFile: key, CAFile: AuthorityFile(o.certs.Dir)}})
	o.root = s.db
	return o
}

// dial connects with a certificate of the folder.
func (o *office) dial(kind, name string) *etcd.Driver {
	o.t.Helper()
	cert, key := CertFiles(o.certs.Dir, kind, name)
	d, err := etcd.New(etcd.Config{
		Endpoints: []string{"https://" + o.addr}, CertFile: cert, KeyFile: key, CAFile: AuthorityFile(o.certs.Dir),
		CheckInterval: time.Hour, // it does not look whether it is still let in
	})
	must(o.t, err)
	o.t.Cleanup(func() { d.Close() })
	return d
}

// user makes somebody who is let in.
func (o *office) user(kind, name string) *etcd.Driver {
	o.t.Helper()
	must(o.t, second(o.certs.Make(CertRequest{Kind: kind, Name: name})))
	must(o.t, AddUser(o.t.Context(), o.dir, embedded.User{Kind: kind, Name: name}))
	return o.dial(kind, name)
}

func pool(name, cidr string, blockSize int) *v3.IPPool {
	p := &v3.IPPool{}
	p.Name, p.Spec.CIDR, p.Spec.BlockSize = name, cidr, blockSize
	return p
}

func endpoint(host, id string, nets ...string) *v3.WorkloadEndpoint {
	e := &v3.WorkloadEndpoint{}
	e.Namespace, e.Name = "default", strings.ReplaceAll(host, "-", "--")+"-cni-"+id+"-eth0"
	e.Spec = v3.WorkloadEndpointSpec{Orchestrator: "cni", Node: host, ContainerID: id, Endpoint: "eth0", InterfaceName: "cali" + id, IPNetworks: nets}
	return e
}

// live does everything that the agent of a host does to the datastore.
func live(ctx context.Context, t *testing.T, d store.Driver, host string) {
	t.Helper()
	c := client.New(d, client.Config{})
	must(t, second(c.Bootstrap(ctx, client.BootstrapConfig{IPv4Pool: &v3.IPPoolSpec{}, IPv6Pool: &v3.IPPoolSpec{}})))
	n := &v3.Node{}
	n.Name = host
	must(t, second(client.Create(ctx, c, n)))
	must(t, second(client.Modify(ctx, c, "", host, func(n *v3.Node) error { n.Labels = map[string]string{"a": "b"}; return nil })))
	m := ipam.New(ipam.Config{Driver: d})
	var nets []string
	// Two hosts and pools of two blocks each, of four addresses: it claims one,
	// then borrows.
	for _, handle := range []string{"net." + host, "vxlan-tunnel-addr-" + host} {
		got, err := m.AutoAssign(ctx, ipam.AssignArgs{Host: host, Handle: handle, Num4: 1, Num6: 1})
		must(t, err)
		nets = []string{got.V4[0].Addr.String() + "/32", got.V6[0].Addr.String() + "/128"}
	}
	p := &v3.Profile{}
	p.Name = "network-" + host
	must(t, second(client.Create(ctx, c, p)))
	must(t, second(client.Create(ctx, c, endpoint(host, "x", nets...))))
	must(t, second(client.Modify(ctx, c, "default", endpoint(host, "x").Name, func(e *v3.WorkloadEndpoint) error { e.Labels = map[string]string{"a": "b"}; return nil })))
	for _, prefix := range []string{store.ResourceRoot, store.BlockRoot, store.AffinityPrefix(false, host), store.IPAMRoot} {
		must(t, (<-d.Watch(ctx, prefix, "")).Err)
		must(t, second(d.List(ctx, prefix)))
	}
}

// leave undoes what live did to the workload.
func leave(ctx context.Context, t *testing.T, d store.Driver, host string) {
	t.Helper()
	c, m := client.New(d, client.Config{}), ipam.New(ipam.Config{Driver: d})
	must(t, client.Delete[v3.WorkloadEndpoint](ctx, c, "default", endpoint(host, "x").Name, client.Preconditions{}))
	must(t, m.ReleaseByHandle(ctx, "net."+host))
}

// TestStolenKeyOfAHost is what a host's key can do, and cannot.
func TestStolenKeyOfAHost(t *testing.T) {
	o, ctx := newOffice(t), t.Context()
	admin := client.New(o.root, client.Config{})
	for _, p := range []*v3.IPPool{pool("v4", "10.65.0.0/29", 30), pool("v6", "fd65::/125", 126)} {
		must(t, second(client.Create(ctx, admin, p)))
	}
	a, ab := o.user(embedded.HostUser, "a"), o.user(embedded.HostUser, "a-b")
	live(ctx, t, ab, "a-b")
	live(ctx, t, a, "a")
	borrow(ctx, t, a)

	for name, try := range map[string]func(d *etcd.Driver) error{
		"policy": func(d *etcd.Driver) error {
			p := &v3.GlobalNetworkPolicy{}
			p.Name = "default.x"
			return second(client.Create(ctx, client.New(d, client.Config{}), p))
		},
		"pool": func(d *etcd.Driver) error {
			return second(client.Create(ctx, client.New(d, client.Config{}), pool("x", "10.9.0.0/24", 26)))
		},
		"other Node": func(d *etcd.Driver) error { return put(ctx, d, store.ResourceID{Plural: "nodes", Name: "a-b"}.Key()) },
		"Node after": func(d *etcd.Driver) error { return put(ctx, d, store.ResourceID{Plural: "nodes", Name: "aa"}.Key()) },
		"no Node": func(d *etcd.Driver) error {
			return d.Delete(ctx, store.ResourceID{Plural: "nodes", Name: "a-b"}.Key(), "")
		},
		"settings": func(d *etcd.Driver) error {
			return put(ctx, d, store.ResourceID{Plural: "felixconfigurations", Name: "node.a"}.Key())
		},
		"addressing": func(d *etcd.Driver) error { return put(ctx, d, store.IPAMConfigKey) },
		"other claim": func(d *etcd.Driver) error {
			return put(ctx, d, store.AffinityPrefix(false, "a-b")+"ipv4/block/10.9.0.0-26")
		},
		"claims": func(d *etcd.Driver) error {
			list, err := o.root.List(ctx, store.AffinityPrefix(false, "a-b"))
			must(t, err)
			return d.Delete(ctx, list.KVs[0].Key, "")
		},
		"other endpoint": func(d *etcd.Driver) error {
			return second(client.Create(ctx, client.New(d, client.Config{}), endpoint("a-b", "y", "10.65.0.1/32")))
		},
		"no endpoint": func(d *etcd.Driver) error {
			return client.Delete[v3.WorkloadEndpoint](ctx, client.New(d, client.Config{}), "default", endpoint("a-b", "x").Name, client.Preconditions{})
		},
		"endpoint of own name on another host": func(d *etcd.Driver) error {
			return second(d.Create(ctx, store.ResourceID{Plural: "workloadendpoints", Namespace: "n", Name: "a-cni-y-eth0"}.Key(), []byte(`{"spec":{"node":"a-b"}}`)))
		},
		"profile that exists": func(d *etcd.Driver) error {
			return second(client.Modify(ctx, client.New(d, client.Config{}), "", "network-a", func(p *v3.Profile) error { p.Labels = map[string]string{"x": "y"}; return nil }))
		},
		"no profile": func(d *etcd.Driver) error {
			return client.Delete[v3.Profile](ctx, client.New(d, client.Config{}), "", "network-a-b", client.Preconditions{})
		},
		"address of another, by its handle": func(d *etcd.Driver) error {
			return ipam.New(ipam.Config{Driver: d}).ReleaseByHandle(ctx, "net.a-b")
		},
		"address of another": func(d *etcd.Driver) error {
			got, err := ipam.New(ipam.Config{Driver: o.root}).IPsByHandle(ctx, "net.a-b")
			must(t, err)
			return ipam.New(ipam.Config{Driver: d}).Release(ctx, ipam.ReleaseOptions{Addr: got[0].Addr})
		},
		"address for another": func(d *etcd.Driver) error {
			return second(ipam.New(ipam.Config{Driver: d}).AutoAssign(ctx, ipam.AssignArgs{Host: "a", Handle: "x", Num4: 1, Attrs: map[string]string{ipam.AttrNode: "a-b"}}))
		},
		"tunnel of another": func(d *etcd.Driver) error {
			return second(ipam.New(ipam.Config{Driver: d}).AutoAssign(ctx, ipam.AssignArgs{Host: "a", Handle: "ipip-tunnel-addr-a-b", Num6: 1}))
		},
		"no handle of another": func(d *etcd.Driver) error {
			kv, err := o.root.Get(ctx, store.HandleKey("net.a-b"))
			must(t, err)
			return d.Delete(ctx, kv.Key, kv.Revision)
		},
		"no block of another": func(d *etcd.Driver) error {
			kv := o.blockOf("a-b")
			return d.Delete(ctx, kv.Key, kv.Revision)
		},
		"block of another": func(d *etcd.Driver) error {
			kv := o.blockOf("a-b")
			kv.Value = []byte(strings.ReplaceAll(string(kv.Value), `"host:a-b"`, `"host:a"`))
			return second(d.Update(ctx, kv))
		},
		"block at no revision": func(d *etcd.Driver) error {
			return second(d.Update(ctx, store.KV{Key: o.blockOf("a").Key, Value: o.blockOf("a").Value}))
		},
		"block goes at no revision": func(d *etcd.Driver) error { return d.Delete(ctx, o.blockOf("a").Key, "") },
		"block at a revision to come": func(d *etcd.Driver) error {
			kv := o.blockOf("a-b")
			kv.Revision += "0"
			return second(d.Update(ctx, kv))
		},
		"handle at no revision": func(d *etcd.Driver) error { return put(ctx, d, store.HandleKey("net.a")) },
		"block inside of another's": func(d *etcd.Driver) error {
			return second(d.Create(ctx, store.BlockRoot+"ipv4/block/10.65.0.0-31", []byte(`{}`)))
		},
		"other answer":   func(d *etcd.Driver) error { return put(ctx, d, store.AnswerKey("a-b")) },
		"question":       func(d *etcd.Driver) error { return put(ctx, d, store.AskRoot+"x") },
		"other answers":  func(d *etcd.Driver) error { return second(d.List(ctx, store.AnswerRoot)) },
		"leadership":     func(d *etcd.Driver) error { return put(ctx, d, "/brindle/leader") },
		"a read outside": func(d *etcd.Driver) error { return second(d.List(ctx, "/brindle/")) },
		"all":            func(d *etcd.Driver) error { return second(d.List(ctx, "")) },
	} {
		if err := try(a); !errors.Is(err, store.ErrDenied) {
			t.Errorf("%s: host a got %v", name, err)
		}
	}
	must(t, put(ctx, a, store.AnswerKey("a"))) // to those who wait for a change
	must(t, put(ctx, a, store.AnswerKey("a")))
	must(t, second(a.List(ctx, store.AskRoot)))
	leave(ctx, t, a, "a")
	leave(ctx, t, ab, "a-b")
	watch := a.Watch(ctx, store.ResourceRoot, "")
	must(t, (<-watch).Err)
	must(t, RemoveUser(ctx, o.dir, embedded.User{Kind: embedded.HostUser, Name: "a"}))
	if err := second(a.List(ctx, store.ResourceRoot)); !errors.Is(err, store.ErrDenied) || !strings.Contains(err.Error(), "server users add host a") {
		t.Errorf("a host that was shut out got %v", err)
	}
	must(t, second(ab.List(ctx, store.ResourceRoot)))
	for b := range watch { // ends by itself
		if b.Err == nil && len(b.Events) > 0 {
			t.Errorf("it still hears of %v", b.Events)
		}
	}
}

// blockOf returns a block of a host.
func (o *office) blockOf(host string) store.KV {
	o.t.Helper()
	list, err := o.root.List(o.t.Context(), store.BlockRoot)
	must(o.t, err)
	for _, kv := range list.KVs {
		if strings.Contains(string(kv.Value), `"affinity":"host:`+host+`"`) {
			return kv
		}
	}
	o.t.Fatalf("host %s has no block", host)
	return store.KV{}
}

// put writes a key whether it exists or not.
func put(ctx context.Context, d *etcd.Driver, key string) error {
	_, err := d.Create(ctx, key, []byte("{}"))
	if errors.Is(err, store.ErrExists) {
		_, err = d.Update(ctx, store.KV{Key: key, Value: []byte("{}")})
	}
	return err
}

// borrow takes more addresses than host a has room for.
func borrow(ctx context.Context, t *testing.T, d store.Driver) {
	t.Helper()
	m := ipam.New(ipam.Config{Driver: d})
	for range 4 {
		must(t, second(m.AutoAssign(ctx, ipam.AssignArgs{Host: "a", Handle: "many", Num4: 1, Num6: 1})))
	}
	must(t, m.ReleaseByHandle(ctx, "many"))
}

// TestWhoIsLetIn is about everybody but hosts.
func TestWhoIsLetIn(t *testing.T) {
	o, ctx := newOffice(t), t.Context()
	ops := o.user(embedded.ClientUser, "ops")
	must(t, put(ctx, ops, "/calico/x"))
	must(t, put(ctx, o.root, "/calico/x"))
	must(t, second(o.certs.Make(CertRequest{Kind: embedded.ClientUser, Name: "new"})))
	if err := second(o.dial(embedded.ClientUser, "new").Get(ctx, "/calico/x")); !errors.Is(err, store.ErrDenied) || !strings.Contains(err.Error(), "users add client new") {
		t.Errorf("one whom nobody let in got %v", err)
	}
	if err := second(o.dial(MemberCert, "a").Get(ctx, "/calico/x")); !errors.Is(err, store.ErrDenied) {
		t.Errorf("the key of a member got %v", err)
	}
	users, err := Users(ctx, o.dir)
	if err != nil || len(users) != 1 || users[0].CN() != "client:ops" {
		t.Errorf("users are %v, %v", users, err)
	}
	if st, err := ReadStatus(ctx, o.dir); err != nil || !st.Users || st.Expires.IsZero() || st.Problem != "" {
		t.Errorf("status %+v, %v", st, err)
	}
	for _, u := range []embedded.User{{Kind: "root", Name: "x"}, {Kind: "host"}, {Kind: "host", Name: "a/b"}, {Kind: "host", Name: "A"}} {
		if err := AddUser(ctx, o.dir, u); err == nil {
			t.Errorf("user %v was added", u)
		}
	}
	if err := RemoveUser(ctx, o.dir, embedded.User{Kind: "host", Name: "b"}); err == nil || !strings.Contains(err.Error(), "no such user") {
		t.Errorf("removing nobody: %v", err)
	}
	if err := AddMember(ctx, o.dir, embedded.Peer{Name: "b", URL: "https://127.0.0.1:1"}); err == nil || !strings.Contains(err.Error(), "--peers") {
		t.Errorf("a member for one who is alone: %v", err)
	}
}

// TestManyUsers has a list of users that is long, and one that is longer than
// any: neither is cut short without a word. A stand-in answers, for etcd takes a
// disk write for each user.
func TestManyUsers(t *testing.T) {
	dir, n := shortDir(t), 0
	l, err := net.Listen("unix", filepath.Join(dir, controlSocket))
	must(t, err)
	h := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		user := `{"kind":"host","name":"` + strings.Repeat("h", 250) + `"}`
		_, _ = w.Write([]byte("[" + strings.Repeat(user+",", n-1) + user + "]"))
	})}
	served := make(chan error)
	go func() { served <- h.Serve(l) }()
	defer func() { must(t, h.Close()); <-served }()
	n = 10_000
	if users, err := Users(t.Context(), dir); err != nil || len(users) != n {
		t.Errorf("%d users, %v", len(users), err)
	}
	n = maxAnswer / 250
	if users, err := Users(t.Context(), dir); err == nil || !strings.Contains(err.Error(), "more than 64 MiB") {
		t.Errorf("%d users, %v", len(users), err)
	}
}
