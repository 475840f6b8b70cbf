package ipam

import (
	"context"
	"math/big"
	"net/netip"
	"slices"

	"github.com/brindle-net/brindle/internal/prefix"
)

// Usage counts the addresses of a pool or a block. Pools of IPv6 have more of
// them than fit a machine's numbers.
type Usage struct {
	Pool  string // name; "" for a block that lies in no pool
	CIDR  netip.Prefix
	Host  string // of a block: whom it belongs to, as in Block.Affinity
	Total *big.Int
	// InUse and Reserved may overlap: an address may be reserved after it was
	// assigned.
	InUse    *big.Int
	Reserved *big.Int
	Cooling  *big.Int // released, not to be used again yet
	Free     *big.Int // none of these
	Borrowed int      // in use by other hosts than the block's
	Blocks   []Usage  // of a pool, sorted
}

// Usage counts the addresses of every pool, in the order of their names, and
// of every block in it. Blocks outside all pools come last, in one entry
// without name.
func (m *Manager) Usage(ctx context.Context) ([]Usage, error) {
	s, err := m.settings(ctx)
	if err != nil {
		return nil, err
	}
	inv, err := m.readAll(ctx)
	if err != nil {
		return nil, err
	}
	return s.usage(inv), nil
}

func (s *Settings) usage(inv *inventory) []Usage {
	out := make([]Usage, 0, len(s.Pools)+1)
	for _, p := range s.Pools {
		out = append(out, s.emptyUsage(p.Name, p.CIDR))
	}
	outside := Usage{Total: new(big.Int), InUse: new(big.Int), Reserved: new(big.Int), Cooling: new(big.Int), Free: new(big.Int)}
	for _, b := range inv.blocks {
		i := slices.IndexFunc(s.Pools, func(p Pool) bool { return prefix.Contains(p.CIDR, b.CIDR) })
		into := &outside
		if i >= 0 {
			into = &out[i]
		}
		one := s.blockUsage(b, into.Pool)
		into.Blocks = append(into.Blocks, one)
		into.InUse.Add(into.InUse, one.InUse)
		into.Cooling.Add(into.Cooling, one.Cooling)
		into.Borrowed += one.Borrowed
		if i >= 0 { // of what was free before anybody looked into the block
			one := s.emptyUsage("", b.CIDR).Free
			into.Free.Sub(into.Free, one.Sub(one, into.Blocks[len(into.Blocks)-1].Free))
			continue
		}
		into.Total.Add(into.Total, one.Total)
		into.Reserved.Add(into.Reserved, one.Reserved)
		into.Free.Add(into.Free, one.Free)
	}
	if len(outside.Blocks) > 0 {
		out = append(out, outside)
	}
	return out
}

// emptyUsage is the usage of a CIDR of which nothing is used.
func (s *Settings) emptyUsage(pool string, cidr netip.Prefix) Usage {
	u := Usage{Pool: pool, CIDR: cidr, Total: prefix.Size(cidr), InUse: new(big.Int), Reserved: new(big.Int), Cooling: new(big.Int)}
	for _, part := range s.Reserved.within(cidr) {
		u.Reserved.Add(u.Reserved, prefix.Size(part))
	}
	u.Free = new(big.Int).Sub(u.Total, u.Reserved)
	return u
}

func (s *Settings) blockUsage(b *Block, pool string) Usage {
	u := s.emptyUsage(pool, b.CIDR)
	u.Host = b.Affinity
	one := big.NewInt(1)
	for _, use := range b.Uses() {
		if !s.Reserved.Has(use.Addr) {
			u.Free.Sub(u.Free, one)
		}
		if use.CoolingDown() {
			u.Cooling.Add(u.Cooling, one)
			continue
		}
		u.InUse.Add(u.InUse, one)
		if node := use.Attribute.Owner[AttrNode]; node != "" && node != b.Host() {
			u.Borrowed++
		}
	}
	return u
}

// Percent is n of total in whole percent, rounded.
func Percent(n, total *big.Int) int {
	if total.Sign() == 0 {
		return 0
	}
	twice := new(big.Int).Mul(n, big.NewInt(200))
	return int(twice.Add(twice, total).Div(twice, new(big.Int).Lsh(total, 1)).Int64())
}

// Loan is an address that is used on another host than its block's.
type Loan struct {
	Addr      netip.Addr
	Borrower  string // host
	Block     netip.Prefix
	Owner     string // of the block, as in Block.Affinity; "" for none
	Type      string // "Pod", "Tunnel", "Unknown"…
	Allocated string // to whom: namespace/pod, or the handle
}

// Borrowed lists the addresses that are used on other hosts than their block
// belongs to, sorted, and counts those of which nobody knows where they are
// used.
func (m *Manager) Borrowed(ctx context.Context) (loans []Loan, unknown int, err error) {
	inv, err := m.readAll(ctx)
	if err != nil {
		return nil, 0, err
	}
	for _, b := range inv.blocks {
		for _, u := range b.Uses() {
			at := u.Attribute
			node := at.Owner[AttrNode]
			if u.CoolingDown() || at.Handle == WindowsReservedHandle {
				continue
			}
			if node == "" {
				unknown++
				continue
			}
			if node == b.Host() {
				continue
			}
			kind, to := at.describe()
			loans = append(loans, Loan{u.Addr, node, b.CIDR, b.Affinity, kind, to})
		}
	}
	return loans, unknown, nil
}

// describe says in words who an attribute is about.
func (a Attribute) describe() (kind, to string) {
	switch {
	case a.Owner[AttrPod] != "":
		return "Pod", a.Owner[AttrNamespace] + "/" + a.Owner[AttrPod]
	case a.Owner[AttrService] != "":
		return "Service", a.Owner[AttrNamespace] + "/" + a.Owner[AttrService]
	case TunnelHandle(a.Owner[AttrType], "x") != "":
		return "Tunnel", a.Owner[AttrNode]
	}
	return "Workload", a.Handle
}
