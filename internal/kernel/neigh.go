package kernel

import (
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/brindle-net/brindle/internal/desired"
	"github.com/brindle-net/brindle/internal/kernel/rtnl"
	"github.com/brindle-net/brindle/internal/reconcile"
)

// aliasPrefix begins the alias of every link that is ours.
const aliasPrefix = "brindle:"

// Neighbours is the table of static neighbours and, on tunnels, of forwarding
// entries. On a link whose alias begins with "brindle:" every permanent entry
// is ours; on other links none is.
type Neighbours struct{ k *Kernel }

// Neighbours returns the table of static neighbours.
func (k *Kernel) Neighbours() *Neighbours { return &Neighbours{k} }

// CompareNeighs orders neighbours by interface, address and hardware address.
func CompareNeighs(a, b desired.NeighKey) int {
	return cmp.Or(cmp.Compare(a.Interface, b.Interface), a.Addr.Compare(b.Addr), cmp.Compare(a.MAC, b.MAC))
}

// List reads the permanent entries on our links.
func (n *Neighbours) List(context.Context) (map[desired.NeighKey]desired.Neigh, error) {
	have := map[desired.NeighKey]desired.Neigh{}
	err := n.k.with(func(c *rtnl.Conn) error {
		links, err := readLinks(c)
		if err != nil {
			return err
		}
		ours, tunnels := map[int]string{}, false
		for _, l := range links {
			if strings.HasPrefix(l.Alias, aliasPrefix) {
				ours[l.Index] = l.Name
				tunnels = tunnels || l.Kind == "vxlan"
			}
		}
		found, err := readNeighbours(c, unix.AF_UNSPEC)
		if err != nil {
			return err
		}
		if tunnels {
			forwarding, err := readNeighbours(c, unix.AF_BRIDGE)
			if err != nil {
				return err
			}
			found = append(found, forwarding...)
		}
		for _, m := range found {
			if name, ok := ours[m.Index]; ok && m.ours() {
				key, value := m.entry(name)
				if _, twice := have[key]; twice {
					value = desired.Neigh{} // frames go to several
				}
				have[key] = value
			}
		}
		return nil
	})
	return have, err
}

// Apply adds, changes and removes entries.
func (n *Neighbours) Apply(_ context.Context, p reconcile.Plan[desired.NeighKey, desired.Neigh]) map[desired.NeighKey]error {
	w := newWriter[desired.NeighKey](n.k)
	for _, e := range p.Set {
		if e.Exists && !e.Key.Addr.IsValid() {
			// To replace one leaves its other destinations.
			n.remove(w, e.Key)
		}
		w.add(e.Key, "set neighbour", func(b *rtnl.Batch) error {
			m, err := n.message(w.names, e.Key, e.Value)
			if err == nil {
				m.put(b, unix.RTM_NEWNEIGH, unix.NLM_F_CREATE|unix.NLM_F_REPLACE)
			}
			return err
		})
	}
	for _, key := range p.Delete {
		n.remove(w, key)
	}
	return w.send()
}

func (n *Neighbours) remove(w *writer[desired.NeighKey], key desired.NeighKey) {
	w.remove(key, "remove neighbour", func(b *rtnl.Batch) error {
		m, err := n.message(w.names, key, desired.Neigh{})
		if err == nil {
			m.put(b, unix.RTM_DELNEIGH, 0)
		}
		return err
	})
}

func (n *Neighbours) message(names *names, key desired.NeighKey, value desired.Neigh) (neighMessage, error) {
	index, err := names.indexOf(key.Interface)
	if err != nil {
		return neighMessage{}, err
	}
	m := neighMessage{Index: index, State: unix.NUD_PERMANENT, Dst: key.Addr}
	mac := value.MAC
	if !key.Addr.IsValid() {
		m.Family, m.Flags, m.Dst, mac = unix.AF_BRIDGE, unix.NTF_SELF, value.Dst, key.MAC
	}
	if mac != "" {
		if m.MAC, err = net.ParseMAC(mac); err != nil {
			return neighMessage{}, fmt.Errorf("hardware address %q: %w", mac, err)
		}
	}
	return m, nil
}

// A neighMessage is one neighbour as netlink has it (struct ndmsg).
type neighMessage struct {
	Family uint8 // 0: that of Dst
	Index  int
	State  uint16
	Flags  uint8
	Dst    netip.Addr
	MAC    net.HardwareAddr
	Odd    bool // FDB: to a port, VNI or interface other than the device's
}

// ours reports whether the entry is of the kind that we make.
func (m neighMessage) ours() bool {
	return m.State&unix.NUD_PERMANENT != 0 && m.Flags&unix.NTF_PROXY == 0 && m.Dst.IsValid()
}

func (m neighMessage) entry(link string) (desired.NeighKey, desired.Neigh) {
	if m.Family == unix.AF_BRIDGE {
		if m.Odd {
			m.Dst = netip.Addr{}
		}
		return desired.NeighKey{Interface: link, MAC: m.MAC.String()}, desired.Neigh{Dst: m.Dst}
	}
	return desired.NeighKey{Interface: link, Addr: m.Dst}, desired.Neigh{MAC: m.MAC.String()}
}

// ndmsgLen is the size of struct ndmsg.
const ndmsgLen = 12

func (m neighMessage) put(b *rtnl.Batch, kind, flags uint16) {
	h := make([]byte, ndmsgLen)
	h[0] = m.Family
	if h[0] == 0 {
		h[0] = familyOf(m.Dst)
	}
	putUint32(h[4:], uint32(m.Index))
	binary.NativeEndian.PutUint16(h[8:], m.State)
	h[10] = m.Flags
	b.Start(kind, flags, h)
	if m.Dst.IsValid() {
		b.Addr(unix.NDA_DST, m.Dst)
	}
	if m.MAC != nil {
		b.Bytes(unix.NDA_LLADDR, m.MAC)
	}
}

// newNeighbour adds a request for a permanent neighbour.
func newNeighbour(b *rtnl.Batch, index int, a netip.Addr, mac net.HardwareAddr) {
	m := neighMessage{Index: index, State: unix.NUD_PERMANENT, Dst: a, MAC: mac}
	m.put(b, unix.RTM_NEWNEIGH, unix.NLM_F_CREATE|unix.NLM_F_REPLACE)
}

// readNeighbours reads all entries of a family.
func readNeighbours(c *rtnl.Conn, family uint8) ([]neighMessage, error) {
	var b rtnl.Batch
	h := make([]byte, ndmsgLen)
	h[0] = family
	b.Start(unix.RTM_GETNEIGH, unix.NLM_F_DUMP, h)
	var found []neighMessage
	err := c.Get(&b, func() { found = nil }, func(m rtnl.Message) error {
		n, err := parseNeigh(m)
		found = append(found, n)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("read neighbours: %w", err)
	}
	return found, nil
}

func parseNeigh(m rtnl.Message) (neighMessage, error) {
	if len(m.Body) < ndmsgLen {
		return neighMessage{}, rtnl.ErrMalformed
	}
	h := m.Body
	n := neighMessage{
		Family: h[0], Index: int(rtnl.Uint32(h[4:8])), State: rtnl.Uint16(h[8:10]), Flags: h[10],
	}
	err := rtnl.Attrs(h[ndmsgLen:], func(kind uint16, v []byte) {
		switch kind {
		case unix.NDA_DST:
			n.Dst = rtnl.Addr(v)
		case unix.NDA_LLADDR:
			n.MAC = append(net.HardwareAddr(nil), v...)
		case unix.NDA_PORT, unix.NDA_VNI, unix.NDA_IFINDEX:
			n.Odd = true
		}
	})
	return n, err
}

// gone reports whether a removal failed because there was nothing to remove.
func gone(err error) bool {
	for _, e := range []error{unix.ENOENT, unix.ESRCH, unix.ENODEV, unix.EADDRNOTAVAIL, ErrNoLink} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}
