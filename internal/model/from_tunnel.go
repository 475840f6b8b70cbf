package model

import (
	"crypto/sha1"
	"encoding/hex"
	"net/netip"
	"strings"

	v3 "github.com/brindle-net/brindle/api/v3"
	"github.com/brindle-net/brindle/internal/desired"
)

// tunnels reads the ends of a node's tunnels.
func (n *Node) tunnels(o *v3.Node) error {
	ipip := ""
	if o.Spec.BGP != nil {
		ipip = o.Spec.BGP.IPv4IPIPTunnelAddr
	}
	for _, f := range []struct {
		path, text string
		four       bool
		to         *netip.Addr
	}{
		{"spec.bgp.ipv4IPIPTunnelAddr", ipip, true, &n.IPIP},
		{"spec.ipv4VXLANTunnelAddr", o.Spec.IPv4VXLANTunnelAddr, true, &n.VXLAN4.Addr},
		{"spec.ipv6VXLANTunnelAddr", o.Spec.IPv6VXLANTunnelAddr, false, &n.VXLAN6.Addr},
	} {
		if f.text == "" {
			continue
		}
		p, err := parsePrefix(f.text)
		if err != nil || !p.IsSingleIP() || p.Addr().Is4() != f.four || p.Addr().IsLinkLocalUnicast() {
			return wrong(f.path, f.text, "must be one address of the family that a host can have")
		}
		*f.to = p.Addr()
	}
	for _, f := range []struct {
		path, text string
		to         *string
	}{
		{"spec.vxlanTunnelMACAddr", o.Spec.VXLANTunnelMACAddr, &n.VXLAN4.MAC},
		{"spec.vxlanTunnelMACAddrV6", o.Spec.VXLANTunnelMACAddrV6, &n.VXLAN6.MAC},
	} {
		if f.text == "" {
			continue
		}
		mac, ok := hostMAC(f.text)
		if !ok {
			return wrong(f.path, f.text, "must be six pairs of hexadecimal digits, with colons between, of one host and not zero")
		}
		*f.to = mac
	}
	return nil
}

// hostMAC reads a MAC address that a host can have: not of a group and not
// zero.
func hostMAC(s string) (string, bool) {
	if !macAddress.MatchString(s) {
		return "", false
	}
	s = strings.ToLower(strings.ReplaceAll(s, "-", ":"))
	group := strings.IndexByte("13579bdf", s[1]) >= 0
	return s, !group && s != "00:00:00:00:00:00"
}

// accepts reads which forms an agent says it accepts, false if it says
// nothing. Words that mean nothing here are left out: they may be a later
// version's.
func accepts(annotations map[string]string) (desired.Forms, bool) {
	text, ok := annotations[AnnotationAccepts]
	if !ok {
		return 0, false
	}
	var out desired.Forms
	for word := range strings.SplitSeq(text, ",") {
		for _, f := range []desired.Form{desired.Direct, desired.IPIP, desired.VXLAN} {
			if strings.TrimSpace(word) == f.String() {
				out |= desired.FormsOf(f)
			}
		}
	}
	return out, true
}

// VTEPMAC is the MAC address of a host's VXLAN interface of a family (4 or 6)
// unless its Node says another: 66 and the beginning of the SHA-1 of its name,
// for IPv6 of its name with "-v6" (documented Calico behaviour). Lower case,
// with colons.
func VTEPMAC(node string, family int) string {
	if family == 6 {
		node += "-v6"
	}
	sum := sha1.Sum([]byte(node))
	mac := []byte("66:00:00:00:00:00")
	for i, b := range sum[:5] {
		hex.Encode(mac[3+3*i:], []byte{b})
	}
	return string(mac)
}

// VXLAN returns the node's end of the VXLAN tunnels of a family (4 or 6), with
// the MAC address that it has: the Node's or that of its name.
func (n *Node) VXLAN(family int) TunnelEnd {
	end := n.VXLAN4
	if family == 6 {
		end = n.VXLAN6
	}
	if end.MAC == "" {
		end.MAC = VTEPMAC(n.Name, family)
	}
	return end
}
