package capture

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"
)

// A Filter chooses packets.
type Filter func(*Packet) bool

// FilterHelp describes the language of ParseFilter, for people.
const FilterHelp = `A filter is made of words about the outermost packet:

  ip, ip6, arp, icmp, tcp, udp, sctp   what it is (icmp: of either version)
  ipip, vxlan, bare                    it carries another packet so, or none
  in, out                              its direction, when all interfaces are read
  df, fragment                         it may not be fragmented, it is a fragment
  host A, src A, dst A                 an address or a network: 10.48.0.0/16
  port N, src port N, dst port N       of tcp, udp or sctp
  mac M, src mac M, dst mac M          a hardware address
  vni N, ttl N, tos N, proto N, type N a number: VXLAN's network, time to live,
                                       DSCP and ECN, protocol, ICMP's type
  less N, greater N                    the length of the IP packet, N included

put together with and (which may be left out), or, not and parentheses. "inner"
before a word or a parenthesis is about the packet that is carried:

  vxlan vni 4096 inner (icmp src 10.48.0.9)`

// ParseFilter reads a filter in the language of FilterHelp. An empty text
// chooses everything.
func ParseFilter(text string) (Filter, error) {
	text = strings.NewReplacer("(", " ( ", ")", " ) ").Replace(text)
	p := &parser{words: strings.Fields(text)}
	if len(p.words) == 0 {
		return func(*Packet) bool { return true }, nil
	}
	f, err := p.or()
	if err == nil && len(p.words) > 0 {
		err = fmt.Errorf("%q was not expected", p.words[0])
	}
	if err != nil {
		return nil, fmt.Errorf("capture filter: %w", err)
	}
	return f, nil
}

// parser reads words from left to right.
type parser struct{ words []string }

func (p *parser) peek() string {
	if len(p.words) == 0 {
		return ""
	}
	return p.words[0]
}

func (p *parser) next() string {
	w := p.peek()
	if w != "" {
		p.words = p.words[1:]
	}
	return w
}

func (p *parser) or() (Filter, error) {
	left, err := p.and()
	for err == nil && p.peek() == "or" {
		p.next()
		a := left
		var b Filter
		b, err = p.and()
		left = func(x *Packet) bool { return a(x) || b(x) }
	}
	return left, err
}

func (p *parser) and() (Filter, error) {
	left, err := p.unary()
	for err == nil && p.peek() != "" && p.peek() != "or" && p.peek() != ")" {
		if p.peek() == "and" {
			p.next()
		}
		a := left
		var b Filter
		b, err = p.unary()
		left = func(x *Packet) bool { return a(x) && b(x) }
	}
	return left, err
}

func (p *parser) unary() (Filter, error) {
	switch p.peek() {
	case "not":
		p.next()
		f, err := p.unary()
		return func(x *Packet) bool { return !f(x) }, err
	case "inner":
		p.next()
		f, err := p.unary()
		return func(x *Packet) bool { return x.Inner != nil && f(x.Inner) }, err
	case "(":
		p.next()
		f, err := p.or()
		if err == nil && p.next() != ")" {
			err = fmt.Errorf("a parenthesis is not closed")
		}
		return f, err
	}
	return p.term()
}

// plain are the words that stand alone.
func plain(word string) (Filter, bool) {
	protocols := map[string][]uint8{
		"icmp": {protoICMP, protoICMPv6}, "tcp": {protoTCP}, "udp": {protoUDP}, "sctp": {protoSCTP},
	}
	if list, ok := protocols[word]; ok {
		return func(p *Packet) bool {
			return p.Source.IsValid() && (p.Protocol == list[0] || p.Protocol == list[len(list)-1])
		}, true
	}
	f, ok := map[string]Filter{
		"ip":       func(p *Packet) bool { return p.EtherType == typeIPv4 },
		"ip6":      func(p *Packet) bool { return p.EtherType == typeIPv6 },
		"arp":      func(p *Packet) bool { return p.EtherType == typeARP },
		"ipip":     func(p *Packet) bool { return p.Form() == "ipip" },
		"vxlan":    func(p *Packet) bool { return p.Form() == "vxlan" },
		"bare":     func(p *Packet) bool { return p.Form() == "direct" },
		"in":       func(p *Packet) bool { return !p.Outgoing },
		"out":      func(p *Packet) bool { return p.Outgoing },
		"df":       func(p *Packet) bool { return p.DF },
		"fragment": func(p *Packet) bool { return p.Fragment },
	}[word]
	return f, ok
}

// number are the words that a number follows, with its size in bits.
func number(word string) (func(*Packet, int) bool, int) {
	switch word {
	case "port":
		return func(p *Packet, n int) bool { return int(p.SourcePort) == n || int(p.DestPort) == n }, 16
	case "src port":
		return func(p *Packet, n int) bool { return int(p.SourcePort) == n }, 16
	case "dst port":
		return func(p *Packet, n int) bool { return int(p.DestPort) == n }, 16
	case "vni":
		return func(p *Packet, n int) bool { return p.Form() == "vxlan" && int(p.VNI) == n }, 24
	case "ttl":
		return func(p *Packet, n int) bool { return p.Source.IsValid() && int(p.TTL) == n }, 8
	case "tos":
		return func(p *Packet, n int) bool { return p.Source.IsValid() && int(p.TOS) == n }, 8
	case "proto":
		return func(p *Packet, n int) bool { return p.Source.IsValid() && int(p.Protocol) == n }, 8
	case "type":
		return func(p *Packet, n int) bool {
			return p.Head && (p.Protocol == protoICMP || p.Protocol == protoICMPv6) && int(p.ICMP[0]) == n
		}, 8
	case "less":
		return func(p *Packet, n int) bool { return p.Source.IsValid() && p.Length <= n }, 31
	case "greater":
		return func(p *Packet, n int) bool { return p.Source.IsValid() && p.Length >= n }, 31
	}
	return nil, 0
}

// address are the words that an address or a network follows.
func address(word string) func(*Packet, netip.Prefix) bool {
	switch word {
	case "host":
		return func(p *Packet, n netip.Prefix) bool { return n.Contains(p.Source) || n.Contains(p.Dest) }
	case "src":
		return func(p *Packet, n netip.Prefix) bool { return n.Contains(p.Source) }
	case "dst":
		return func(p *Packet, n netip.Prefix) bool { return n.Contains(p.Dest) }
	}
	return nil
}

// hardware are the words that a hardware address follows.
func hardware(word string) func(*Packet, string) bool {
	switch word {
	case "mac":
		return func(p *Packet, m string) bool { return p.SourceMAC == m || p.DestMAC == m }
	case "src mac":
		return func(p *Packet, m string) bool { return p.SourceMAC == m }
	case "dst mac":
		return func(p *Packet, m string) bool { return p.DestMAC == m }
	}
	return nil
}

func (p *parser) term() (Filter, error) {
	word := p.next()
	if word == "" {
		return nil, fmt.Errorf("it ends where a word was expected")
	}
	if f, ok := plain(word); ok {
		return f, nil
	}
	if next := p.peek(); (word == "src" || word == "dst") && (next == "port" || next == "mac") {
		word += " " + p.next()
	}
	if f, bits := number(word); f != nil {
		n, err := strconv.ParseUint(p.peek(), 10, bits)
		if err != nil {
			return nil, fmt.Errorf("%s %q: must be a number of %d bits", word, p.peek(), bits)
		}
		p.next()
		return func(x *Packet) bool { return f(x, int(n)) }, nil
	}
	if f := hardware(word); f != nil {
		m := strings.ToLower(p.next())
		if len(m) != len("00:00:00:00:00:00") {
			return nil, fmt.Errorf("%s %q: must be a hardware address such as 66:01:02:03:04:05", word, m)
		}
		return func(x *Packet) bool { return f(x, m) }, nil
	}
	f := address(word)
	if f == nil {
		return nil, fmt.Errorf("%q is no word of it: see `brindle lab capture --help`", word)
	}
	n, err := readNetwork(p.peek())
	if err != nil {
		return nil, fmt.Errorf("%s %q: must be an address or a network", word, p.peek())
	}
	p.next()
	return func(x *Packet) bool { return f(x, n) }, nil
}

func readNetwork(s string) (netip.Prefix, error) {
	if a, err := netip.ParseAddr(s); err == nil {
		return netip.PrefixFrom(a, a.BitLen()), nil
	}
	return netip.ParsePrefix(s)
}
