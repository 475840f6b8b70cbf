package controllers

import (
	"slices"
	"testing"
	"testing/synctest"
	"time"

	v3 "github.com/brindle-net/brindle/api/v3"
	"github.com/brindle-net/brindle/internal/client"
	"github.com/brindle-net/brindle/internal/ipam"
	"github.com/brindle-net/brindle/internal/store/mem"
)

const grace = 10 * time.Minute

// world is a network with two hosts, a and b, and an endpoint on each.
type world struct {
	t      *testing.T
	client *client.Client
	ipam   *ipam.Manager
	hosts  *Hosts
	now    time.Duration
}

func newWorld(t *testing.T) *world {
	t.Helper()
	db := mem.New()
	w := &world{t: t, client: client.New(db, client.Config{}), ipam: ipam.New(ipam.Config{Driver: db})}
	for name, cidr := range map[string]string{"v4": "10.65.0.0/24", "v6": "fd00:65::/120"} {
		p := &v3.IPPool{}
		p.Name, p.Spec.CIDR = name, cidr
		must(t, create(t, w, p))
	}
	for _, host := range []string{"a", "b"} {
		w.node(host)
		w.endpoint(host, host)
	}
	w.hosts = w.start()
	return w
}

func create[T any, P client.Pointer[T]](t *testing.T, w *world, obj *T) error {
	_, err := client.Create[T, P](t.Context(), w.client, obj)
	return err
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func (w *world) start() *Hosts {
	return NewHosts(HostsConfig{Client: w.client, IPAM: w.ipam, Grace: grace, Uptime: func() time.Duration { return w.now }})
}

func (w *world) node(name string) {
	w.t.Helper()
	n := &v3.Node{}
	n.Name = name
	must(w.t, create(w.t, w, n))
}

func (w *world) dropNode(name string) {
	w.t.Helper()
	must(w.t, client.Delete[v3.Node](w.t.Context(), w.client, "", name, client.Preconditions{}))
}

// endpoint makes an endpoint of a container named after the host that has its
// addresses, on another if so asked.
func (w *world) endpoint(host, assigned string) {
	w.t.Helper()
	e := &v3.WorkloadEndpoint{}
	e.Namespace, e.Name = "default", host+"-cni-c-eth0"
	e.Spec = v3.WorkloadEndpointSpec{Orchestrator: "cni", Node: host, ContainerID: "c", Endpoint: "eth0", InterfaceName: "calic"}
	if assigned != "" {
		got, err := w.ipam.AutoAssign(w.t.Context(), ipam.AssignArgs{Host: assigned, Handle: "net." + host, Num4: 1, Num6: 1})
		must(w.t, err)
		e.Spec.IPNetworks = []string{got.V4[0].Addr.String() + "/32", got.V6[0].Addr.String() + "/128"}
	} else {
		e.Spec.IPNetworks = []string{"10.65.0.250/32"}
	}
	must(w.t, create(w.t, w, e))
}

// scan scans at a time and returns what was removed.
func (w *world) scan(at time.Duration) []string {
	w.t.Helper()
	w.now = at
	removed, err := w.hosts.Scan(w.t.Context())
	must(w.t, err)
	return removed
}

func TestEndpointsOfAHostThatIsGoneAreRemoved(t *testing.T) {
	w := newWorld(t)
	w.scan(0)
	w.dropNode("b")
	for _, at := range []time.Duration{time.Minute, 5 * time.Minute, 10 * time.Minute} {
		if got := w.scan(at); len(got) > 0 {
			t.Errorf("after %v: removed %v", at, got)
		}
	}
	if got := w.scan(11 * time.Minute); !slices.Equal(got, []string{"default/b-cni-c-eth0"}) {
		t.Errorf("removed %v", got)
	}
	if got := w.scan(time.Hour); len(got) > 0 {
		t.Errorf("then removed %v", got)
	}
}

// TestThenItsAddressesAndBlocksGo is the whole way, with the collector of
// addresses behind.
func TestThenItsAddressesAndBlocksGo(t *testing.T) {
	w := newWorld(t)
	w.dropNode("b")
	c := ipam.NewCollector(ipam.CollectorConfig{Manager: w.ipam, Grace: grace, Uptime: func() time.Duration { return w.now }})
	for at := time.Duration(0); at < 6*grace; at += grace / 2 {
		w.scan(at)
		_, err := c.Scan(t.Context())
		must(t, err)
	}
	audit, err := w.ipam.Audit(t.Context(), nil, grace)
	must(t, err)
	for _, a := range audit.Addresses {
		if a.Node != "a" {
			t.Errorf("left: %+v", a)
		}
	}
	if len(audit.Addresses) != 2 {
		t.Errorf("the living host has %+v", audit.Addresses)
	}
	blocks, err := w.ipam.Usage(t.Context())
	must(t, err)
	for _, pool := range blocks {
		for _, b := range pool.Blocks {
			if b.Host != "host:a" {
				t.Errorf("block %v is still %s's", b.CIDR, b.Host)
			}
		}
	}
}

func TestWhatKeepsAnEndpoint(t *testing.T) {
	for _, tt := range []struct {
		name string
		do   func(w *world) // after 6 minutes without its Node
	}{
		{"its host came back", func(w *world) { w.node("b") }},
		{"its host came back for a moment", func(w *world) {
			w.node("b")
			w.scan(7 * time.Minute)
			w.dropNode("b")
		}},
		{"somebody wrote it", func(w *world) {
			_, err := client.Modify(w.t.Context(), w.client, "default", "b-cni-c-eth0", func(e *v3.WorkloadEndpoint) error {
				e.Labels = map[string]string{"a": "b"}
				return nil
			})
			must(w.t, err)
		}},
		{"the controller started anew", func(w *world) { w.hosts = w.start() }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := newWorld(t)
			w.dropNode("b")
			w.scan(0)
			w.scan(6 * time.Minute)
			tt.do(w)
			if got := append(w.scan(8*time.Minute), w.scan(12*time.Minute)...); len(got) > 0 {
				t.Errorf("removed %v", got)
			}
		})
	}
}

func TestWhatIsNotOurs(t *testing.T) {
	w := newWorld(t)
	w.endpoint("switch", "")    // written by hand, address not managed
	w.endpoint("borrower", "a") // its address belongs to a host that lives
	for _, at := range []time.Duration{0, grace, 2 * grace} {
		if got := w.scan(at); len(got) > 0 {
			t.Errorf("removed %v", got)
		}
	}
}

func TestRunScansUntilTheEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.dropNode("b")
		h := NewHosts(HostsConfig{Client: w.client, IPAM: w.ipam, Grace: grace})
		go func() { _ = h.Run(t.Context()) }()
		time.Sleep(2 * grace)
		synctest.Wait()
		weps, err := client.List[v3.WorkloadEndpoint](t.Context(), w.client, "")
		must(t, err)
		if len(weps) != 1 || weps[0].Spec.Node != "a" {
			t.Errorf("left %d endpoints", len(weps))
		}
	})
}
