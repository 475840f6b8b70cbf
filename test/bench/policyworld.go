package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	v3 "github.com/brindle-net/brindle/api/v3"
	"github.com/brindle-net/brindle/internal/client"
	"github.com/brindle-net/brindle/internal/kernel"
	"github.com/brindle-net/brindle/internal/netns"
)

// policyWorld is one host with workloads under policies. Two workloads are
// machines of their own, who talk: a client and a server, which is under a
// tenth of the policies. The others share one machine.
//
// Labels put endpoint i into group g(i mod 10), by which policies select, and
// give it t(i mod 100), by which rules do.
type policyWorld struct {
	*world
	host    *host
	site    *kernel.Site // the host's, for building
	objects *client.Client
	client  *box
	server  *box
	rest    *box
	own     map[int]*box // of more local workloads that are machines of their own
	far     *box         // on the switch: a workload of another host, whatever that is
	commits *commits
	probe   *prober
	count   int // local workloads
}

// What the shape is made of.
const (
	groups      = 10  // of endpoints
	tags        = 100 // that rules select by
	serverIndex = 5
	clientIndex = 6
	probePort   = 9999
	writers     = 8
)

// box is a namespace of workloads.
type box struct {
	ns   *netns.NS
	site *kernel.Site
}

func newBox() (*box, error) {
	ns, err := netns.New()
	if err != nil {
		return nil, err
	}
	site, err := siteOf(ns)
	if err != nil {
		return nil, errors.Join(err, ns.Close())
	}
	return &box{ns, site}, site.Up("lo")
}

// siteOf opens a namespace for building; ns stays the caller's.
func siteOf(ns *netns.NS) (*kernel.Site, error) {
	same, err := netns.OpenPath(ns.Path())
	if err != nil {
		return nil, err
	}
	site, err := kernel.OpenSite(same)
	if err != nil {
		return nil, errors.Join(err, same.Close())
	}
	return site, nil
}

func (b *box) close() {
	if b != nil {
		b.site.Close()
		_ = b.ns.Close() // nothing of it stays in any case
	}
}

// localAddr is the address of the i-th local workload, remoteAddr that of the
// i-th elsewhere; the first of these is far.
func localAddr(i int) netip.Addr {
	return netip.AddrFrom4([4]byte{10, 65, byte((i + 1) >> 8), byte(i + 1)})
}

func remoteAddr(i int) netip.Addr {
	return netip.AddrFrom4([4]byte{10, 66, byte((i + 1) >> 8), byte(i + 1)})
}

// newPolicyWorld starts a datastore and a host with some workloads and no
// policy. own are workloads that are machines of their own, beside those two.
func newPolicyWorld(ctx context.Context, o options, local int, own ...int) (_ *policyWorld, err error) {
	w, err := newWorld(ctx, o)
	if err != nil {
		return nil, err
	}
	p := &policyWorld{world: w, objects: client.New(w.store, client.Config{}), count: local}
	defer func() {
		if err != nil {
			p.close()
		}
	}()
	if p.host, err = w.addHost(ctx); err != nil {
		return nil, err
	}
	if p.site, err = siteOf(p.host.ns); err != nil {
		return nil, err
	}
	for _, b := range []**box{&p.client, &p.server, &p.rest, &p.far} {
		if *b, err = newBox(); err != nil {
			return nil, err
		}
	}
	p.own = map[int]*box{clientIndex: p.client, serverIndex: p.server}
	for _, i := range own {
		if p.own[i], err = newBox(); err != nil {
			return nil, err
		}
	}
	if p.commits, err = hearCommits(p.host.ns); err != nil {
		return nil, err
	}
	if p.probe, err = newProber(p.server.ns, p.client.ns, localAddr(serverIndex)); err != nil {
		return nil, err
	}
	if err := p.addFar(); err != nil {
		return nil, err
	}
	return p, p.addLocal(ctx)
}

// addFar puts the first workload of another host on the switch.
func (p *policyWorld) addFar() error {
	return errors.Join(
		p.sw.Cable("far", p.far.site, "eth0"), p.sw.Join("far", "br0"),
		p.far.site.AddAddress("eth0", netip.MustParsePrefix("172.30.0.250/24")),
		p.far.site.AddAddress("eth0", netip.PrefixFrom(remoteAddr(0), 32)),
		p.far.site.AddRoute(netip.MustParsePrefix("10.65.0.0/16"), netip.MustParseAddr("172.30.0.1")),
		p.site.AddRoute(netip.MustParsePrefix("10.66.0.0/16"), netip.MustParseAddr("172.30.0.250")),
	)
}

// boxOf is where the i-th local workload is, and what its interface is called.
func (p *policyWorld) boxOf(i int) (*box, string) {
	if b := p.own[i]; b != nil {
		return b, "eth0"
	}
	return p.rest, fmt.Sprint("eth", i)
}

// addLocal wires the local workloads and writes their endpoints.
func (p *policyWorld) addLocal(ctx context.Context) error {
	var list []v3.Object
	for i := range p.count {
		b, name := p.boxOf(i)
		iface := fmt.Sprint("cali", i)
		if err := p.site.Cable(iface, b.site, name); err != nil {
			return err
		}
		bits := 32
		if b != p.rest {
			bits = 16 // the host answers for all the others
		}
		if err := b.site.AddAddress(name, netip.PrefixFrom(localAddr(i), bits)); err != nil {
			return err
		}
	}
	macs := map[*box]map[string]string{}
	for i := range p.count {
		b, name := p.boxOf(i)
		if macs[b] == nil {
			var err error
			if macs[b], err = b.addresses(); err != nil {
				return err
			}
		}
		e := endpoint(p.host.name, i, localAddr(i), localLabels(i))
		e.Spec.InterfaceName, e.Spec.MAC = fmt.Sprint("cali", i), macs[b][name]
		if i != serverIndex { // which nobody reaches before a policy says so
			e.Spec.Profiles = []string{"projectcalico-default-allow"}
		}
		list = append(list, e)
	}
	return p.create(ctx, list)
}

// addresses are the MAC addresses of a box by the name of the link.
func (b *box) addresses() (map[string]string, error) {
	out := map[string]string{}
	err := netns.Do(b.ns, func() error {
		list, err := net.Interfaces()
		for _, i := range list {
			out[i.Name] = i.HardwareAddr.String()
		}
		return err
	})
	return out, err
}

func localLabels(i int) map[string]string {
	tag := i % tags
	if i == clientIndex {
		tag = 0
	}
	return map[string]string{"group": fmt.Sprint("g", i%groups), fmt.Sprint("t", tag): "yes", "pod": fmt.Sprint("p", i)}
}

// endpoint is a workload somewhere.
func endpoint(node string, i int, addr netip.Addr, labels map[string]string) *v3.WorkloadEndpoint {
	e := &v3.WorkloadEndpoint{TypeMeta: v3.TypeMeta{Kind: "WorkloadEndpoint", APIVersion: v3.Group}}
	container := fmt.Sprint("c", i)
	e.Namespace, e.Name, e.Labels = "default", node+"-cni-"+container+"-eth0", labels
	e.Spec = v3.WorkloadEndpointSpec{
		Orchestrator: "cni", Node: node, ContainerID: container, Endpoint: "eth0",
		InterfaceName: fmt.Sprint("cali", i), IPNetworks: []string{netip.PrefixFrom(addr, 32).String()},
		MAC: fmt.Sprintf("02:00:00:00:%02x:%02x", byte(i>>8), byte(i)),
	}
	return e
}

// create writes objects, eight at a time.
func (p *policyWorld) create(ctx context.Context, list []v3.Object) error {
	var all sync.WaitGroup
	var next atomic.Int64
	errs := make([]error, writers)
	for k := range writers {
		all.Go(func() {
			for errs[k] == nil {
				i := int(next.Add(1)) - 1
				if i >= len(list) {
					return
				}
				if _, err := p.objects.Create(ctx, list[i]); err != nil {
					errs[k] = fmt.Errorf("create %s: %w", list[i].Meta().Name, err)
				}
			}
		})
	}
	all.Wait()
	return errors.Join(errs...)
}

// bigSet is a set of n addresses with one label.
func bigSet(name string, n int, more ...string) v3.Object {
	s := &v3.GlobalNetworkSet{TypeMeta: v3.TypeMeta{Kind: "GlobalNetworkSet", APIVersion: v3.Group}}
	s.Name, s.Labels = name, map[string]string{name: "yes"}
	s.Spec.Nets = more
	for i := range n - len(more) {
		s.Spec.Nets = append(s.Spec.Nets, netip.AddrFrom4([4]byte{192, 168, byte(i >> 8), byte(i)}).String())
	}
	return s
}

// policy is the i-th policy: on a tenth of the endpoints, with four rules by
// labels that other policies use too, and one by the large set; and more.
func policy(i int, more ...v3.Rule) *v3.GlobalNetworkPolicy {
	order := float64(i)
	g := &v3.GlobalNetworkPolicy{TypeMeta: v3.TypeMeta{Kind: "GlobalNetworkPolicy", APIVersion: v3.Group}}
	g.Name = fmt.Sprint("p", i)
	g.Spec.Order, g.Spec.Types = &order, []v3.PolicyType{v3.TypeIngress}
	g.Spec.Selector = fmt.Sprintf("group == 'g%d'", i%groups)
	for j := range 4 {
		g.Spec.Ingress = append(g.Spec.Ingress, allow("TCP", fmt.Sprintf("has(t%d)", (i*4+j)%tags), uint16(80+i)))
	}
	g.Spec.Ingress = append(g.Spec.Ingress, allow("TCP", "has(big)", uint16(80+i)))
	g.Spec.Ingress = append(g.Spec.Ingress, more...)
	return g
}

// allow is a rule for a port and who may reach it.
func allow(protocol, from string, ports ...uint16) v3.Rule {
	r := v3.Rule{Action: v3.ActionAllow, Protocol: &v3.Protocol{Name: protocol}}
	r.Source.Selector = from
	for _, n := range ports {
		r.Destination.Ports = append(r.Destination.Ports, v3.PortNumber(n))
	}
	return r
}

// modify changes what the policy over the server has beyond its five rules.
func (p *policyWorld) modify(ctx context.Context, more ...v3.Rule) error {
	_, err := client.Modify(ctx, p.objects, "", policy(serverIndex).Name, func(g *v3.GlobalNetworkPolicy) error {
		g.Spec.Ingress = policy(serverIndex, more...).Spec.Ingress
		return nil
	})
	return err
}

// enforced makes a change and returns how long after its begin the kernel
// put in force what lets the probe pass, or stops it.
func (p *policyWorld) enforced(ctx context.Context, q *prober, pass bool, change func() error) (time.Duration, error) {
	if got, err := q.passes(!pass); err != nil || got == pass {
		return 0, errors.Join(err, fmt.Errorf("before the change the probe passes: %v", got))
	}
	p.commits.forget()
	begin := time.Now()
	if err := change(); err != nil {
		return 0, err
	}
	at, err := p.commits.until(ctx, time.Minute, func() (bool, error) {
		got, err := q.passes(pass)
		return got == pass, err
	})
	if err != nil {
		return 0, fmt.Errorf("wait for the kernel to enforce a change: %w (log: %s)", err, p.host.agent.tail())
	}
	return at.Sub(begin), nil
}

func (p *policyWorld) close() {
	p.commits.close()
	p.probe.close()
	for _, b := range slices.AppendSeq([]*box{p.rest, p.far}, maps.Values(p.own)) {
		b.close()
	}
	if p.site != nil {
		p.site.Close()
	}
	p.world.close()
}
