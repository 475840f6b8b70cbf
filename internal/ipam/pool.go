package ipam

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	v3 "github.com/brindle-net/brindle/api/v3"
	"github.com/brindle-net/brindle/internal/prefix"
	"github.com/brindle-net/brindle/internal/selector"
	"github.com/brindle-net/brindle/internal/store"
)

// UseKind is what an address is for, as pools allow it; "" is nothing in
// particular.
type UseKind = v3.AllowedUse

// Pool is an IPPool as far as addresses go.
type Pool struct {
	Name              string
	CIDR              netip.Prefix
	BlockSize         int // prefix length of its blocks
	NodeSelector      selector.Selector
	NamespaceSelector selector.Selector
	Uses              []UseKind
	IPIP, VXLAN       bool   // packets to its addresses travel in tunnels, always or across subnets
	Manual            bool   // used only when asked for by name or CIDR
	Unusable          string // why nothing may be assigned from it; "" if it may
}

// NewPool reads a resource. Defaults fill what it leaves out.
func NewPool(res *v3.IPPool) (Pool, error) {
	p := Pool{
		Name:      res.Name,
		BlockSize: res.Spec.BlockSize,
		Uses:      res.Spec.AllowedUses,
		IPIP:      encapsulates(res.Spec.IPIPMode),
		VXLAN:     encapsulates(res.Spec.VXLANMode),
		Manual:    res.Spec.AssignmentMode == v3.AssignManual,
		Unusable:  unusable(res),
	}
	cidr, err := prefix.Parse(res.Spec.CIDR)
	if err != nil {
		return Pool{}, fmt.Errorf("pool %q: %w: %w", res.Name, ErrCorrupt, err)
	}
	p.CIDR = cidr
	if p.BlockSize == 0 {
		p.BlockSize = 26
		if cidr.Addr().Is6() {
			p.BlockSize = 122
		}
	}
	if len(p.Uses) == 0 {
		p.Uses = []UseKind{v3.UseWorkload, v3.UseTunnel}
	}
	if host := cidr.Addr().BitLen() - p.BlockSize; p.Unusable == "" && (p.BlockSize < cidr.Bits() || host < 0 || 1<<host > MaxBlockAddrs) {
		p.Unusable = fmt.Sprintf("its blockSize /%d does not fit", p.BlockSize)
	}
	for _, sel := range []struct {
		field, text string
		into        *selector.Selector
	}{
		{"nodeSelector", res.Spec.NodeSelector, &p.NodeSelector},
		{"namespaceSelector", res.Spec.NamespaceSelector, &p.NamespaceSelector},
	} {
		parsed, err := selector.Parse(sel.text)
		if err != nil && p.Unusable == "" {
			p.Unusable = fmt.Sprintf("its %s cannot be read: %v", sel.field, err)
		}
		*sel.into = parsed
	}
	return p, nil
}

func encapsulates(m v3.EncapMode) bool { return m != "" && m != v3.EncapNever }

// unusable says why a pool takes no assignments at all.
func unusable(res *v3.IPPool) string {
	switch {
	case res.DeletionTimestamp != nil:
		return "it is being deleted"
	case res.Spec.Disabled:
		return "it is disabled"
	case res.Status == nil:
		return ""
	}
	for _, c := range res.Status.Conditions {
		if c.Type == v3.ConditionAllocatable && c.Status == "False" {
			return fmt.Sprintf("it is not allocatable (%s)", c.Reason)
		}
	}
	return ""
}

func (p Pool) is(f Family) bool { return p.CIDR.Addr().Is4() == (f == IPv4) }

// selects reports whether a host may have blocks of the pool unasked.
func (p Pool) selects(hostLabels map[string]string) bool {
	return p.Unusable == "" && !p.Manual && p.NodeSelector.Matches(selector.Map(hostLabels))
}

// choice is what pools are chosen by.
type choice struct {
	family          Family
	requested       []string // names or CIDRs; empty: whatever qualifies
	use             UseKind
	host            string
	hostLabels      map[string]string
	namespaceLabels map[string]string
}

// choose returns the pools to assign from, in order. The error says of every
// pool why it does not qualify.
func (s *Settings) choose(c choice) ([]Pool, error) {
	if len(c.requested) > 0 {
		return s.chooseRequested(c)
	}
	var chosen []Pool
	var refusals []string
	for _, p := range s.Pools {
		if !p.is(c.family) {
			continue
		}
		if why := p.refuses(c); why != "" {
			refusals = append(refusals, p.Name+": "+why)
			continue
		}
		chosen = append(chosen, p)
	}
	if len(chosen) > 0 {
		return chosen, nil
	}
	if len(refusals) == 0 {
		return nil, fmt.Errorf("%w: there is no %s pool; create one", ErrNoPool, c.family)
	}
	return nil, fmt.Errorf("%w for %s on host %s: %s", ErrNoPool, c.family, c.host, strings.Join(refusals, "; "))
}

// refuses says why a pool is not used unasked, "" if it is.
func (p Pool) refuses(c choice) string {
	switch {
	case p.Unusable != "":
		return p.Unusable
	case p.Manual:
		return "its assignmentMode is Manual: ask for it by name"
	case c.use != "" && !slices.Contains(p.Uses, c.use):
		return fmt.Sprintf("its allowedUses %v lack %s", p.Uses, c.use)
	case !p.NodeSelector.Matches(selector.Map(c.hostLabels)):
		return fmt.Sprintf("its nodeSelector %s does not match the host's labels %s", p.NodeSelector, labelText(c.hostLabels))
	case !p.NamespaceSelector.Matches(selector.Map(c.namespaceLabels)):
		return fmt.Sprintf("its namespaceSelector %s does not match the namespace's labels %s", p.NamespaceSelector, labelText(c.namespaceLabels))
	}
	return ""
}

// chooseRequested returns the pools asked for. Selectors and assignment mode
// do not matter then.
func (s *Settings) chooseRequested(c choice) ([]Pool, error) {
	var chosen []Pool
	var wrong []string
	for _, want := range c.requested {
		i := slices.IndexFunc(s.Pools, func(p Pool) bool { return p.named(want) })
		if i < 0 {
			wrong = append(wrong, fmt.Sprintf("requested pool %q does not exist", want))
			continue
		}
		switch p := s.Pools[i]; {
		case !p.is(c.family):
			wrong = append(wrong, fmt.Sprintf("requested pool %q is not an %s pool", want, c.family))
		case p.Unusable != "":
			wrong = append(wrong, fmt.Sprintf("requested pool %q: %s", want, p.Unusable))
		case c.use != "" && !slices.Contains(p.Uses, c.use):
			wrong = append(wrong, fmt.Sprintf("requested pool %q: its allowedUses %v lack %s", want, p.Uses, c.use))
		default:
			chosen = append(chosen, p)
		}
	}
	if len(wrong) > 0 {
		return nil, fmt.Errorf("%w: %s", ErrNoPool, strings.Join(wrong, "; "))
	}
	return chosen, nil
}

// named reports whether a pool is asked for by this name or CIDR.
func (p Pool) named(want string) bool {
	if p.Name == want {
		return true
	}
	cidr, err := netip.ParsePrefix(want)
	return err == nil && prefix.Canonical(cidr) == p.CIDR
}

func labelText(labels map[string]string) string {
	if len(labels) == 0 {
		return "(none)"
	}
	var parts []string
	for k, v := range labels {
		parts = append(parts, k+"="+v)
	}
	slices.Sort(parts)
	return "{" + strings.Join(parts, ", ") + "}"
}

// Family is an address family.
type Family uint8

// The families.
const (
	IPv4 Family = 4
	IPv6 Family = 6
)

// String returns "IPv4" or "IPv6".
func (f Family) String() string { return fmt.Sprintf("IPv%d", uint8(f)) }

// blocks is what the keys of all blocks of a family begin with.
func (f Family) blocks() string { return store.BlockRoot + strings.ToLower(f.String()) + "/" }

func familyOf(a netip.Addr) Family {
	if a.Is4() {
		return IPv4
	}
	return IPv6
}
