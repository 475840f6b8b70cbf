package kernel

import (
	"cmp"
	"context"
	"fmt"
	"net/netip"

	"golang.org/x/sys/unix"

	"github.com/brindle-net/brindle/internal/desired"
	"github.com/brindle-net/brindle/internal/kernel/rtnl"
	"github.com/brindle-net/brindle/internal/reconcile"
)

// ifaProto is IFA_PROTO: who put an address there (Linux 5.18).
const ifaProto = 11

// Addresses is the table of addresses that we put on links of ours. The
// kernel keeps our protocol number with each, by which it is recognised. On
// the interface of a tunnel every address is ours but the link-local ones.
type Addresses struct{ k *Kernel }

// Addresses returns the table of addresses.
func (k *Kernel) Addresses() *Addresses { return &Addresses{k} }

// CompareAddrs orders addresses by interface and prefix.
func CompareAddrs(a, b desired.AddrKey) int {
	return cmp.Or(cmp.Compare(a.Interface, b.Interface), a.Prefix.Compare(b.Prefix))
}

// List reads the addresses that are ours.
func (a *Addresses) List(context.Context) (map[desired.AddrKey]struct{}, error) {
	have := map[desired.AddrKey]struct{}{}
	names := a.k.names()
	err := a.k.with(func(c *rtnl.Conn) error {
		if err := takeTurn(c, loopback); err != nil {
			return err
		}
		all, err := readAddresses(c)
		if err != nil {
			return err
		}
		tunnels, err := readTunnels(c)
		if err != nil {
			return err
		}
		for _, m := range all {
			if m.Protocol != desired.ProtocolAgent && !(tunnels[m.Index] && m.onTunnel()) {
				continue
			}
			name, err := names.nameOf(m.Index)
			if err != nil {
				return err
			}
			if name != "" {
				have[desired.AddrKey{Interface: name, Prefix: m.Prefix}] = struct{}{}
			}
		}
		return nil
	})
	return have, err
}

// Apply adds and removes addresses. One that somebody else put on the same
// link becomes ours.
func (a *Addresses) Apply(_ context.Context, p reconcile.Plan[desired.AddrKey, struct{}]) map[desired.AddrKey]error {
	w := newWriter[desired.AddrKey](a.k)
	for _, e := range p.Set {
		w.add(e.Key, "add address", func(b *rtnl.Batch) error {
			index, err := w.names.indexOf(e.Key.Interface)
			if err == nil {
				newAddress(b, index, e.Key.Prefix)
				b.Uint8(ifaProto, desired.ProtocolAgent)
			}
			return err
		})
	}
	for _, key := range p.Delete {
		w.remove(key, "remove address", func(b *rtnl.Batch) error {
			index, err := w.names.indexOf(key.Interface)
			if err == nil {
				oldAddress(b, index, key.Prefix)
			}
			return err
		})
	}
	return w.send()
}

// An addressMessage is one address as netlink has it.
type addressMessage struct {
	Index    int
	Prefix   netip.Prefix
	Protocol uint8
	Scope    uint8
	Flags    uint32 // IFA_F_
}

// readAddresses reads all addresses of both families.
func readAddresses(c *rtnl.Conn) ([]addressMessage, error) {
	var b rtnl.Batch
	b.Start(unix.RTM_GETADDR, unix.NLM_F_DUMP, make([]byte, unix.SizeofIfAddrmsg))
	var all []addressMessage
	err := c.Get(&b, func() { all = nil }, func(m rtnl.Message) error {
		a, err := parseAddress(m)
		all = append(all, a)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("read addresses: %w", err)
	}
	return all, nil
}

func parseAddress(m rtnl.Message) (addressMessage, error) {
	if len(m.Body) < unix.SizeofIfAddrmsg {
		return addressMessage{}, rtnl.ErrMalformed
	}
	h := m.Body
	a := addressMessage{Flags: uint32(h[2]), Scope: h[3], Index: int(rtnl.Uint32(h[4:8]))}
	var local, address netip.Addr
	err := rtnl.Attrs(h[unix.SizeofIfAddrmsg:], func(kind uint16, v []byte) {
		switch kind {
		case unix.IFA_LOCAL:
			local = rtnl.Addr(v)
		case unix.IFA_ADDRESS:
			address = rtnl.Addr(v)
		case unix.IFA_FLAGS:
			a.Flags = rtnl.Uint32(v)
		case ifaProto:
			if len(v) == 1 {
				a.Protocol = v[0]
			}
		}
	})
	if !local.IsValid() { // IPv6 has the local address in IFA_ADDRESS unless there is a peer
		local = address
	}
	a.Prefix = netip.PrefixFrom(local, int(h[1]))
	return a, err
}

// oldAddress adds a request that removes an address.
func oldAddress(b *rtnl.Batch, index int, p netip.Prefix) {
	b.Start(unix.RTM_DELADDR, 0, addressHeader(p.Addr(), p.Bits(), index))
	b.Addr(unix.IFA_LOCAL, p.Addr())
	b.Addr(unix.IFA_ADDRESS, p.Addr())
}
