package model

import (
	"fmt"
	"net/netip"
	"strconv"
)

// IP protocol numbers that policy gives a meaning of its own (IANA, Assigned
// Internet Protocol Numbers).
const (
	ProtocolICMP    = 1
	ProtocolTCP     = 6
	ProtocolUDP     = 17
	ProtocolICMPv6  = 58
	ProtocolSCTP    = 132
	ProtocolUDPLite = 136
)

// Flow is the first packet of a connection.
type Flow struct {
	Protocol             uint8
	Source, Dest         netip.Addr
	SourcePort, DestPort uint16 // of TCP, UDP and SCTP
	ICMPType, ICMPCode   uint8  // of ICMP and ICMPv6
}

// HasPorts reports whether rules can match the ports of a protocol.
func HasPorts(protocol uint8) bool {
	return protocol == ProtocolTCP || protocol == ProtocolUDP || protocol == ProtocolSCTP
}

// ProtocolName writes a protocol as the API does: its name, or its number.
func ProtocolName(protocol uint8) string {
	switch protocol {
	case ProtocolICMP:
		return "ICMP"
	case ProtocolTCP:
		return "TCP"
	case ProtocolUDP:
		return "UDP"
	case ProtocolICMPv6:
		return "ICMPv6"
	case ProtocolSCTP:
		return "SCTP"
	case ProtocolUDPLite:
		return "UDPLite"
	}
	return strconv.Itoa(int(protocol))
}

// HasICMPType reports whether the flow is of ICMP messages that rules can
// match by type: ICMP over IPv4 or ICMPv6 over IPv6.
func (f Flow) HasICMPType() bool {
	return f.Protocol == ProtocolICMP && f.Source.Is4() || f.Protocol == ProtocolICMPv6 && f.Source.Is6()
}

// String writes the flow for people: "TCP 10.65.0.3 to 10.65.0.5 port 80".
func (f Flow) String() string {
	s := fmt.Sprintf("%s %v to %v", ProtocolName(f.Protocol), f.Source, f.Dest)
	switch {
	case HasPorts(f.Protocol):
		s += " port " + strconv.Itoa(int(f.DestPort))
	case f.HasICMPType():
		s += fmt.Sprintf(" type %d code %d", f.ICMPType, f.ICMPCode)
	}
	return s
}
