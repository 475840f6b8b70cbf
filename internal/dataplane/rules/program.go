// Package rules turns the policy that a host should enforce into a rule
// program: chains of matches and statements, sets and counters, in no back
// end's terms. A back end translates the program, and Update says what of it
// changes, so that nothing else has to be touched. A program prints itself as
// text, and traces a packet through itself.
package rules

import (
	"net/netip"
	"strings"

	"github.com/brindle-net/brindle/internal/desired"
)

// Program is all that the back end has to put in place. Names are unique
// within each of the maps, over both tables. A chain is never changed once it
// is in a program, only replaced.
type Program struct {
	Chains   map[string]*Chain
	Sets     map[string]*Set
	Counters map[string]Counter
}

// Table separates what sees IP packets from what sees ARP. Objects refer only
// to objects of their own table.
type Table uint8

// The tables.
const (
	IP  Table = iota // IPv4 and IPv6
	ARP              // ARP over Ethernet
)

// Chain is a list of rules. A chain with a hook is where packets come in; all
// others are reached by Jump, Goto and Dispatch. A packet that gets to the end
// of a chain with a hook goes on as after Accept.
type Chain struct {
	Name  string
	Table Table
	Hook  *Hook
	Note  string // for people, as a rule's
	Rules []Rule
}

// Hook is where in the host a chain sees packets. Chains of one point see them
// in order of priority; Accept ends the one chain, Drop the packet.
type Hook struct {
	Point    Point
	Priority int  // as the kernel counts: connection tracking is at -200, filters are at 0
	NAT      bool // only first packets of connections come by, and SourceNAT may be done
}

// Point is a place on the way of a packet.
type Point uint8

// The points. ARP has Input and Output only.
const (
	Prerouting Point = iota
	Input
	Forward
	Output
	Postrouting
)

// Rule does its statements in order with each packet that all matches match.
type Rule struct {
	Matches []Match
	Do      []Statement
	Note    string // for people: at most 120 bytes of printable ASCII
}

// Field is something that a packet has. A rule that uses a field of one
// family, or a port, or a part of an ICMP message, has a match before it that
// makes sure that the packet has it.
type Field uint8

// The fields.
const (
	InInterface  Field = iota + 1 // name, padded with zeroes
	OutInterface                  // the same
	Family                        // 4 or 6
	Protocol                      // that of the transport header, behind IPv6 extension headers
	EthSource                     // source address of the frame
	Source4
	Destination4
	Source6
	Destination6
	SourcePort // of TCP, UDP or SCTP
	DestinationPort
	ICMPType // of ICMP and ICMPv6
	ICMPCode
	NDTarget  // target address of a neighbour advertisement or solicitation
	About4    // destination of the packet that an error of ICMP speaks of
	About6    // the same of ICMPv6
	State     // what connection tracking says
	ConnMark  // mark of the connection
	Mark      // mark of the packet
	ARPOp     // 1 request, 2 reply
	ARPMAC    // sender's hardware address
	ARPSource // sender's IPv4 address
	SourceIs  // what the routing tables say of the source address: RouteLocal or something else
	DestinationIs
	// SourceBy is the number of the interface that the packet came by if packets
	// to its source leave there, too; else 0. Before the packet is delivered.
	SourceBy
	VNI // network identifier of a UDP datagram that is VXLAN (RFC 7348)
)

// RouteLocal is the value of SourceIs and DestinationIs for this host's own
// addresses (RTN_LOCAL of rtnetlink(7)).
const RouteLocal = "\x00\x00\x00\x02"

// Elsewhere is the value of SourceBy of a packet to whose source no packets
// leave by the interface that it came by.
const Elsewhere = "\x00\x00\x00\x00"

// Type is that of a field's value, which is a string of bytes of fixed length,
// in network order.
type Type uint8

// The types.
const (
	InterfaceType Type = iota + 1 // 16 bytes
	MACType                       // 6
	Addr4Type                     // 4
	Addr6Type                     // 16
	ProtocolType                  // 1
	PortType                      // 2
	ByteType                      // 1
	ShortType                     // 2
	MarkType                      // 4; a number
	RouteType                     // 4; a number
	VNIType                       // 3; a number
)

// ConnState is a set of states of connections.
type ConnState uint32

// The states.
const (
	StateInvalid ConnState = 1 << iota
	StateEstablished
	StateRelated
	StateNew
	StateUntracked
)

// Match is true or false of a packet.
type Match struct {
	// Fields has one field, or with Set as many as the set's key.
	Fields []Field
	// Mask: of a mark only these bits are compared, all if it is 0. For State,
	// which has neither In nor Set, the states of which the packet has one.
	Mask uint32
	Not  bool    // the opposite
	In   []Range // the value is in one of these, which are disjoint and in order
	Set  string  // or the values are an element of this set
}

// Range is the values from Lo to Hi, both included; the same for one value.
// One range of an interface's name stands for all names with a prefix: there
// Hi is Lo with 0xff for each of Lo's zeroes.
type Range struct{ Lo, Hi string }

// Statement does something: one of the types below.
type Statement interface {
	statement()
	String() string
}

// Count adds the packet to a counter.
type Count struct{ Counter string }

// Limit ends the rule for packets that come faster than Rate per Seconds,
// beyond a burst.
type Limit struct {
	Rate    uint32
	Seconds uint32 // 1, 60, 3600 or 86400
	Burst   uint32
}

// Log writes a line about the packet: to the kernel's log if Group is 0, else
// to those who listen to this group.
type Log struct {
	Prefix string
	Group  uint16
}

// SetMark sets bits of the packet's mark: those of Mask to those of Value.
type SetMark struct{ Mask, Value uint32 }

// Jump goes through a chain and comes back.
type Jump struct{ Chain string }

// Goto goes through a chain and comes back to where the present chain was
// jumped to from.
type Goto struct{ Chain string }

// Dispatch is a Goto to the chain that the map has for the fields' values. If
// it has none, the rule ends here.
type Dispatch struct {
	Fields []Field
	Map    string
}

// MarkBy sets the packet's whole mark to the number that the map has for the
// fields' values. If it has none, the rule ends here.
type MarkBy struct {
	Fields []Field
	Map    string
}

// CountBy adds the packet to the counter that the map has for the fields'
// values. If it has none, the rule ends here.
type CountBy struct {
	Fields []Field
	Map    string
}

// Decide looks up in one step what rows say of the packet, and leaves no trace
// of it in the packet: the class of its far address, with that and a group's
// bits and other fields a decision, and the decision's counter, to which it
// adds the packet. The rule ends here where one of these is not there.
type Decide struct {
	Far     Field
	Classes string // map from far address to class; "": the class of nothing
	Group   uint32 // bits beside the class's, in what rows are looked up by
	Fields  []Field
	Rows    string // map from class and group, and the fields, to a decision
	Mask    uint32 // bits of a decision of which the rule asks
	Is      uint32 // what they must be, or the rule ends here
	Counted string // map from decision to counter; "": it counts nothing
}

// SourceNAT gives the packet's connection another source, and ends the chain
// as Accept does. It is for chains with Hook.NAT, and those that they lead to.
type SourceNAT struct {
	To    netip.Addr        // not valid: an address of the interface that the packet leaves by
	Ports desired.PortRange // of protocols with ports, which the rule has asked for; {0, 0}: any
}

// Untrack keeps the packet out of connection tracking, of which it is ahead.
type Untrack struct{}

// Return goes back to where the chain was jumped to from.
type Return struct{}

// Accept ends the hook's chain.
type Accept struct{}

// Drop ends the packet.
type Drop struct{}

// Reject ends the packet and tells its sender: administratively prohibited.
type Reject struct{}

func (Count) statement()     {}
func (Limit) statement()     {}
func (Log) statement()       {}
func (SetMark) statement()   {}
func (Jump) statement()      {}
func (Goto) statement()      {}
func (Dispatch) statement()  {}
func (MarkBy) statement()    {}
func (CountBy) statement()   {}
func (Decide) statement()    {}
func (SourceNAT) statement() {}
func (Untrack) statement()   {}
func (Return) statement()    {}
func (Accept) statement()    {}
func (Drop) statement()      {}
func (Reject) statement()    {}

// Value says what the elements of a set have beside their key.
type Value uint8

// The kinds of value.
const (
	NoValue      Value = iota // a plain set
	ChainValue                // for Dispatch
	NumberValue               // for MarkBy
	CounterValue              // for CountBy
)

// Set is a set, or a map if its elements have values.
type Set struct {
	Name     string
	Table    Table
	Key      []Type
	Interval bool // elements are ranges, field by field; no two overlap
	Value    Value
	Elements map[string]Element // by Lo
}

// Element is one key, or range of keys, of a set. Keys are the values of the
// fields one after the other, without padding.
type Element struct {
	Lo, Hi string // Hi is "" unless the set has Interval; both included
	Number uint32
	Name   string // of a chain or a counter
}

// Counter counts packets and bytes. What says whose it is.
type Counter struct {
	Name  string
	Table Table
	// Rule and Index name the policy rule that is counted. Owner is "" for
	// what is dropped outside of rules.
	Rule  desired.RulesID
	Index int
	What  string // "end of tier default, ingress"; "" for a policy rule
}

// Type returns the type of the field's values.
func (f Field) Type() Type {
	switch f {
	case InInterface, OutInterface:
		return InterfaceType
	case EthSource, ARPMAC:
		return MACType
	case Source4, Destination4, About4, ARPSource:
		return Addr4Type
	case Source6, Destination6, NDTarget, About6:
		return Addr6Type
	case Protocol:
		return ProtocolType
	case SourcePort, DestinationPort:
		return PortType
	case ARPOp:
		return ShortType
	case State, ConnMark, Mark:
		return MarkType
	case SourceIs, DestinationIs, SourceBy:
		return RouteType
	case VNI:
		return VNIType
	}
	return ByteType
}

// Size returns how many bytes a value of the type has.
func (t Type) Size() int {
	switch t {
	case InterfaceType, Addr6Type:
		return 16
	case MACType:
		return 6
	case Addr4Type, MarkType, RouteType:
		return 4
	case VNIType:
		return 3
	case PortType, ShortType:
		return 2
	}
	return 1
}

// Delta is what differs between two programs.
type Delta struct {
	Chains   desired.Patch[string, *Chain]
	Sets     map[string]SetDelta
	Counters desired.Patch[string, Counter]
}

// SetDelta changes one set.
type SetDelta struct {
	Define *Set // not nil: the set is new, with its elements
	Gone   bool // the set goes, after all that refers to it
	// Remove comes before Add: an element whose value changes is in both.
	Add, Remove []Element
}

// Sorted returns the elements in the order of where they begin.
func (s *Set) Sorted() []Element { return sorted(s.Elements) }

// Empty reports whether nothing differs.
func (d Delta) Empty() bool {
	return d.Chains.Empty() && len(d.Sets) == 0 && d.Counters.Empty()
}

// Stem returns the prefix of interface names that the range stands for, if it
// does.
func (r Range) Stem() (string, bool) {
	stem := strings.TrimRight(r.Lo, "\x00")
	return stem, r.Lo != r.Hi && r.Hi == stem+strings.Repeat("\xff", len(r.Lo)-len(stem))
}
