package workload

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/containernetworking/cni/pkg/types"
	types100 "github.com/containernetworking/cni/pkg/types/100"
	"github.com/containernetworking/cni/pkg/types/create"

	"github.com/brindle-net/brindle/internal/agentapi"
	"github.com/brindle-net/brindle/internal/ipam"
	"github.com/brindle-net/brindle/internal/store"
)

// delegateTimeout bounds one call of an IPAM plugin: time for a DHCP server to
// answer, and for the wire after it.
const delegateTimeout = 45 * time.Second

// checkDelegate refuses what cannot be passed on to another IPAM plugin.
func checkDelegate(conf netConf, req agentapi.CNIRequest) error {
	if conf.IPAM.Type == "" {
		return invalid(`ipam.type is not set: write "ipam": {"type": "brindle-ipam"}`)
	}
	if strings.Contains(strings.ToLower(string(req.Config)), `"usepodcidr`) {
		return invalid("ipam: usePodCidr: hosts have no podCIDR without Kubernetes: write the host's own subnet")
	}
	if _, err := findPlugin(conf.IPAM.Type, req.Env.Path); err != nil {
		return invalid("%v", err)
	}
	return nil
}

// cniDelegated adds a workload whose addresses another IPAM plugin gives.
// Added again, it has the addresses of the first time, and the plugin is not
// asked.
func (m *Manager) cniDelegated(ctx context.Context, conf netConf, req agentapi.CNIRequest, add agentapi.AddRequest) (json.RawMessage, error) {
	if err := checkDelegate(conf, req); err != nil {
		return nil, err
	}
	id, err := identify(m.cfg.Node, m.cfg.Prefix, refOf(add))
	if err != nil {
		return nil, err
	}
	if err := m.cfg.Ready(); err != nil {
		return nil, &Error{"notReady", err}
	}
	// What is queued about the container takes the same lock.
	if err := m.settle(ctx, add.ContainerID); err != nil {
		return nil, err
	}
	unlock, err := m.lock(ctx, delegationKey(id.Handle))
	if err != nil {
		return nil, err
	}
	defer unlock()
	d, again := m.delegations.get(id.Handle)
	again = again && d.Result != nil
	if !again {
		d = delegation{Handle: id.Handle, Plugin: conf.IPAM.Type, Ref: refOf(add), Env: req.Env, Config: req.Config}
		if d, err = m.delegate(ctx, d); err != nil {
			return nil, err
		}
	}
	out, err := m.attachDelegated(ctx, conf, req, add, d)
	if err != nil && !again {
		// An address is free only when nothing answers for it: where the wire
		// could not be removed, the container's removal gives it back.
		if _, wired := m.records.get(id.Handle); !wired {
			err = errors.Join(err, m.returnDelegated(context.WithoutCancel(ctx), d))
		}
	}
	return out, err
}

// delegationKey is the lock under which the addresses of one attachment are
// delegated. It is no workload's key: those have no space.
func delegationKey(handle string) string { return "delegated " + handle }

// underWay reports whether somebody holds a lock.
func (m *Manager) underWay(key string) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	_, ok := m.busy[key]
	return ok
}

// delegate asks the plugin for addresses, and notes what it takes to give them
// back before it does.
func (m *Manager) delegate(ctx context.Context, d delegation) (delegation, error) {
	if old, ok := m.delegations.get(d.Handle); ok { // an agent was killed while it asked
		if err := m.returnDelegated(ctx, old); err != nil {
			return d, err
		}
	}
	if err := m.delegations.put(d); err != nil {
		return d, err
	}
	asked, cancel := context.WithTimeout(ctx, delegateTimeout)
	defer cancel()
	out, err := callPlugin(asked, "ADD", d.Plugin, d.Env, d.Config)
	if err == nil {
		d.Result = out
		_, err = m.checkDelegated(ctx, d)
	}
	if err == nil {
		err = m.delegations.put(d)
	}
	if err != nil {
		return d, errors.Join(err, m.returnDelegated(context.WithoutCancel(ctx), d))
	}
	return d, nil
}

// returnDelegated has the plugin take addresses back.
func (m *Manager) returnDelegated(ctx context.Context, d delegation) error {
	ctx, cancel := context.WithTimeout(ctx, delegateTimeout)
	defer cancel()
	if _, err := callPlugin(ctx, "DEL", d.Plugin, d.Env, d.Config); err != nil {
		return fmt.Errorf("give delegated addresses back: %w", err)
	}
	return m.delegations.drop(d.Handle)
}

// delegated reads the result of an IPAM plugin.
func (d delegation) delegated() (*types100.Result, []netip.Addr, error) {
	wrong := func(format string, args ...any) error {
		return fmt.Errorf("ipam plugin %s: its result: %w", d.Plugin, fmt.Errorf(format, args...))
	}
	var said struct {
		CNIVersion string `json:"cniVersion"`
	}
	if err := json.Unmarshal(d.Result, &said); err != nil {
		return nil, nil, wrong("%w", err)
	}
	if said.CNIVersion == "" {
		said.CNIVersion = versionOf(d.Config)
	}
	any, err := create.Create(said.CNIVersion, d.Result)
	if err != nil {
		return nil, nil, wrong("%w", err)
	}
	r, err := types100.NewResultFromResult(any)
	if err != nil {
		return nil, nil, wrong("%w", err)
	}
	var addrs []netip.Addr
	for _, ip := range r.IPs {
		a, _ := netip.AddrFromSlice(ip.Address.IP)
		addrs = append(addrs, a.Unmap())
	}
	if addrs, err = usable(addrs); err != nil {
		return nil, nil, wrong("%w", err)
	}
	return r, addrs, nil
}

// usable checks addresses that come from somebody else: at least one, at most
// one of each family, and each one that a workload can have. IPv4 first.
func usable(addrs []netip.Addr) ([]netip.Addr, error) {
	if len(addrs) == 0 {
		return nil, errors.New("no address: a workload needs at least one")
	}
	for i, a := range addrs {
		if !a.IsGlobalUnicast() {
			return nil, fmt.Errorf("address %s: no workload can have it", a)
		}
		if slices.ContainsFunc(addrs[:i], func(b netip.Addr) bool { return b.Is4() == a.Is4() }) {
			return nil, fmt.Errorf("address %s: at most one of each family", a)
		}
	}
	return slices.SortedFunc(slices.Values(addrs), netip.Addr.Compare), nil
}

// checkDelegated refuses addresses that somebody else has: another attachment
// of this host, or one in the datastore's blocks.
func (m *Manager) checkDelegated(ctx context.Context, d delegation) ([]netip.Addr, error) {
	_, addrs, err := d.delegated()
	if err != nil {
		return nil, err
	}
	for _, other := range m.delegations.list() {
		if _, theirs, err := other.delegated(); other.Handle != d.Handle && err == nil {
			for _, a := range theirs {
				if slices.Contains(addrs, a) {
					return nil, &Error{"conflict", fmt.Errorf("ipam plugin %s gave %s, which container %s has", d.Plugin, a, other.Ref.ContainerID)}
				}
			}
		}
	}
	for _, a := range addrs {
		use, err := m.cfg.IPAM.AssignmentAttributes(ctx, a)
		switch {
		case err == nil:
			return nil, &Error{"conflict", fmt.Errorf("ipam plugin %s gave %s, which handle %q has in the datastore: keep its range out of the pools that brindle-ipam uses", d.Plugin, a, use.Attribute.Handle)}
		case !errors.Is(err, ipam.ErrNotAssigned) && !errors.Is(err, store.ErrNotFound):
			return nil, err
		}
	}
	return addrs, nil
}

// attachDelegated sets up the workload with the addresses of a delegation, and
// answers with what the plugin said of routes and name servers.
func (m *Manager) attachDelegated(ctx context.Context, conf netConf, req agentapi.CNIRequest, add agentapi.AddRequest, d delegation) (json.RawMessage, error) {
	r, addrs, err := d.delegated()
	if err != nil {
		return nil, err
	}
	add.AssignIPv4, add.AssignIPv6, add.Addresses = false, false, nil
	s := special(&add)
	s.Given, s.Routes = nil, insideRoutes(r.Routes, addrs, conf.DefaultRoutes)
	for _, a := range addrs {
		s.Given = append(s.Given, a.String())
	}
	a, err := m.attach(ctx, add)
	if err != nil {
		return nil, err
	}
	out, err := resultOf(a, req.Env.Netns)
	if err != nil {
		return nil, err
	}
	out.DNS = r.DNS
	for _, route := range r.Routes {
		out.Routes = append(out.Routes, &types.Route{Dst: route.Dst})
	}
	return asVersion(out, versionOf(req.Config))
}

// insideRoutes are what goes through the host inside the workload: what the
// plugin says, in the families that there are addresses of; everything where
// it says nothing. Documented: include_default_routes adds the defaults.
func insideRoutes(routes []*types.Route, addrs []netip.Addr, defaults bool) []string {
	if len(routes) == 0 {
		return nil
	}
	var out []string
	add := func(p netip.Prefix) {
		family := func(a netip.Addr) bool { return a.Is4() == p.Addr().Is4() }
		if s := p.Masked().String(); p.IsValid() && slices.ContainsFunc(addrs, family) && !slices.Contains(out, s) {
			out = append(out, s)
		}
	}
	for _, r := range routes {
		a, _ := netip.AddrFromSlice(r.Dst.IP)
		bits, _ := r.Dst.Mask.Size()
		add(netip.PrefixFrom(a.Unmap(), bits))
	}
	if defaults {
		add(netip.PrefixFrom(netip.IPv4Unspecified(), 0))
		add(netip.PrefixFrom(netip.IPv6Unspecified(), 0))
	}
	return out
}

// cniRemove removes a workload, and then has the IPAM plugin take back what it
// gave: the one that was asked, as it was asked, whatever the configuration
// says by now.
func (m *Manager) cniRemove(ctx context.Context, conf netConf, req agentapi.CNIRequest, ref agentapi.WorkloadRef) error {
	id, err := identify(m.cfg.Node, m.cfg.Prefix, ref)
	if err != nil {
		return err
	}
	if _, ok := m.delegations.get(id.Handle); !ok && (conf.IPAM.ours() || conf.IPAM.Type == "") {
		return m.Remove(ctx, ref)
	}
	unlock, err := m.lock(ctx, delegationKey(id.Handle))
	if err != nil {
		return err
	}
	defer unlock()
	if err := m.Remove(ctx, ref); err != nil {
		return err
	}
	d, ok := m.delegations.get(id.Handle)
	if !ok {
		d = delegation{Handle: id.Handle, Plugin: conf.IPAM.Type, Env: req.Env, Config: req.Config}
	}
	if !ok && conf.IPAM.ours() {
		return nil // it was given back while we waited
	}
	if !ok {
		if err := checkDelegate(conf, req); err != nil {
			// What no add gets past was never asked for anything by us, and the
			// container must be able to end.
			m.cfg.Log.WarnContext(ctx, "ipam plugin cannot be asked to take addresses back", "container", ref.ContainerID, "err", err)
			return nil
		}
	}
	if ref.Netns != "" {
		d.Env.Netns = ref.Netns
	}
	err = m.returnDelegated(ctx, d)
	if errors.Is(err, errNoPlugin) && req.Env.Path != d.Env.Path { // it may have moved
		d.Env.Path = req.Env.Path
		err = m.returnDelegated(ctx, d)
	}
	if errors.Is(err, errNoPlugin) {
		// The workload is gone, and the container must be able to end. What the
		// plugin gave stays with it; what it takes to give that back stays with
		// us, for the next collection (GC) after it is there again.
		m.cfg.Log.WarnContext(ctx, "delegated addresses not given back; the ipam plugin is gone", "container", ref.ContainerID,
			"plugin", d.Plugin, "addresses", d.given(), "err", err)
		return nil
	}
	return err
}

// given lists the addresses of a delegation, as far as they are known.
func (d delegation) given() []netip.Addr {
	if d.Result == nil {
		return nil
	}
	_, addrs, _ := d.delegated()
	return addrs
}

// cniCheckDelegate passes CHECK on to the IPAM plugin.
func (m *Manager) cniCheckDelegate(ctx context.Context, req agentapi.CNIRequest, add agentapi.AddRequest) error {
	id, err := identify(m.cfg.Node, m.cfg.Prefix, refOf(add))
	if err != nil {
		return err
	}
	d, ok := m.delegations.get(id.Handle)
	if !ok {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, delegateTimeout)
	defer cancel()
	_, err = callPlugin(ctx, "CHECK", d.Plugin, req.Env, req.Config)
	return err
}

// cniGCDelegate gives back what was delegated for attachments that are not
// alive any more, and has the plugin look itself, if it can. Attachments that
// a call is about are left alone: one that is being set up is in no list yet.
func (m *Manager) cniGCDelegate(ctx context.Context, conf netConf, req agentapi.CNIRequest, valid []agentapi.GCAttachment) error {
	var errs []error
	for _, d := range m.delegations.list() {
		alive := slices.Contains(valid, agentapi.GCAttachment{ContainerID: d.Ref.ContainerID, IfName: d.Ref.IfName})
		if alive || d.Ref.Network != conf.Name || m.underWay(delegationKey(d.Handle)) {
			continue
		}
		errs = append(errs, m.cniRemove(ctx, conf, req, d.Ref))
	}
	if conf.IPAM.ours() || conf.IPAM.Type == "" {
		return errors.Join(errs...)
	}
	ctx, cancel := context.WithTimeout(ctx, delegateTimeout)
	defer cancel()
	able, err := speaks(ctx, conf.IPAM.Type, req.Env, "1.1.0")
	if err == nil && able {
		_, err = callPlugin(ctx, "GC", conf.IPAM.Type, req.Env, req.Config)
	}
	return errors.Join(append(errs, err)...)
}

// cniStatusDelegate asks the IPAM plugin whether it could give addresses. One
// that does not know the question only has to be there.
func cniStatusDelegate(ctx context.Context, conf netConf, req agentapi.CNIRequest) error {
	if _, err := findPlugin(conf.IPAM.Type, req.Env.Path); err != nil {
		return err
	}
	if err := checkDelegate(conf, req); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, delegateTimeout)
	defer cancel()
	able, err := speaks(ctx, conf.IPAM.Type, req.Env, "1.1.0")
	if err != nil || !able {
		return err
	}
	_, err = callPlugin(ctx, "STATUS", conf.IPAM.Type, req.Env, req.Config)
	return err
}
