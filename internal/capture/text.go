package capture

import (
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"
)

// String writes a packet on one line, outermost first: "172.30.1.11 >
// 172.30.2.13 ipip ttl 64 df length 104 | 10.48.0.1 > 10.48.0.65 icmp …".
func (p *Packet) String() string {
	var b strings.Builder
	switch {
	case p.Source.IsValid():
		fmt.Fprintf(&b, "%s > %s %s ttl %d", end(p.Source, p.SourcePort), end(p.Dest, p.DestPort), p.what(), p.TTL)
		if p.TOS != 0 {
			fmt.Fprintf(&b, " tos %#x", p.TOS)
		}
		if p.DF && p.EtherType == typeIPv4 {
			b.WriteString(" df")
		}
		if p.Fragment {
			b.WriteString(" fragment")
		}
		fmt.Fprintf(&b, " length %d", p.Length)
	case p.EtherType == typeARP:
		fmt.Fprintf(&b, "arp %s > %s", p.SourceMAC, p.DestMAC)
	default:
		fmt.Fprintf(&b, "ethertype %#04x %s > %s", p.EtherType, p.SourceMAC, p.DestMAC)
	}
	if p.Inner != nil {
		b.WriteString(" | ")
		if p.Inner.DestMAC != "" && p.Inner.Source.IsValid() {
			fmt.Fprintf(&b, "%s > %s ", p.Inner.SourceMAC, p.Inner.DestMAC)
		}
		b.WriteString(p.Inner.String())
	}
	return b.String()
}

func end(a netip.Addr, port uint16) string {
	if port == 0 {
		return a.String()
	}
	return net.JoinHostPort(a.String(), strconv.Itoa(int(port)))
}

// what names what an IP packet holds.
func (p *Packet) what() string {
	switch {
	case p.Form() == "vxlan":
		return fmt.Sprintf("vxlan vni %d", p.VNI)
	case p.Head && (p.Protocol == protoICMP || p.Protocol == protoICMPv6):
		return fmt.Sprintf("icmp type %d code %d", p.ICMP[0], p.ICMP[1])
	}
	names := map[uint8]string{protoICMP: "icmp", protoICMPv6: "icmp", protoIPIP: "ipip", protoTCP: "tcp", protoUDP: "udp", protoSCTP: "sctp"}
	if n, ok := names[p.Protocol]; ok {
		return n
	}
	return fmt.Sprintf("proto %d", p.Protocol)
}
