package rules

import (
	"encoding/binary"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
)

// String writes the whole program: the same program gives the same text.
func (p *Program) String() string {
	var b strings.Builder
	for _, name := range slices.Sorted(maps.Keys(p.Counters)) {
		b.WriteString(p.Counters[name].String() + "\n")
	}
	for _, name := range slices.Sorted(maps.Keys(p.Sets)) {
		b.WriteString("\n" + p.Sets[name].String())
	}
	for _, name := range slices.Sorted(maps.Keys(p.Chains)) {
		b.WriteString("\n" + p.Chains[name].String())
	}
	return b.String()
}

// String writes one line: "counter c-… NetworkPolicy default/web ingress 0".
func (c Counter) String() string {
	what := c.What
	if what == "" {
		what = fmt.Sprintf("%s %s %d", c.Rule.Owner, c.Rule.Direction, c.Index)
	}
	return c.Table.prefix() + "counter " + c.Name + ": " + what
}

func (t Table) prefix() string {
	if t == ARP {
		return "arp "
	}
	return ""
}

// String writes the definition and, in order, the elements.
func (s *Set) String() string {
	var b strings.Builder
	b.WriteString(s.header() + "\n")
	for _, lo := range slices.Sorted(maps.Keys(s.Elements)) {
		b.WriteString("  " + s.Element(s.Elements[lo]) + "\n")
	}
	return b.String()
}

func (s *Set) header() string {
	kind := "set "
	if s.Value != NoValue {
		kind = "map "
	}
	if s.Interval {
		kind = "interval " + kind
	}
	words := make([]string, len(s.Key))
	for i, t := range s.Key {
		words[i] = t.String()
	}
	return s.Table.prefix() + kind + s.Name + ": " + strings.Join(words, " . ") +
		[...]string{"", " -> chain", " -> number", " -> counter"}[s.Value&3]
}

// Element writes one element of the set.
func (s *Set) Element(e Element) string {
	var words []string
	lo, hi := e.Lo, e.Hi
	for _, t := range s.Key {
		n := min(t.Size(), len(lo))
		r := Range{lo[:n], lo[:n]}
		if lo = lo[n:]; hi != "" {
			r.Hi, hi = hi[:n], hi[n:]
		}
		words = append(words, t.rangeText(r))
	}
	text := strings.Join(words, " . ")
	switch s.Value {
	case ChainValue, CounterValue:
		text += " -> " + e.Name
	case NumberValue:
		text += fmt.Sprintf(" -> %#x", e.Number)
	}
	return text
}

// String writes the chain and its rules, one a line.
func (c *Chain) String() string {
	var b strings.Builder
	b.WriteString(c.Table.prefix() + "chain " + c.Name)
	if c.Hook != nil {
		fmt.Fprintf(&b, " at %v %d", c.Hook.Point, c.Hook.Priority)
		if c.Hook.NAT {
			b.WriteString(" nat")
		}
	}
	if c.Note != "" {
		b.WriteString(" # " + c.Note)
	}
	b.WriteByte('\n')
	for _, r := range c.Rules {
		b.WriteString("  " + r.String() + "\n")
	}
	return b.String()
}

// String returns "prerouting", "input", "forward", "output" or "postrouting".
func (p Point) String() string {
	return [...]string{"prerouting", "input", "forward", "output", "postrouting"}[p%5]
}

// String writes matches, statements and the note.
func (r Rule) String() string {
	words := make([]string, 0, len(r.Matches)+len(r.Do)+1)
	for _, m := range r.Matches {
		words = append(words, m.String())
	}
	for _, s := range r.Do {
		words = append(words, s.String())
	}
	if r.Note != "" {
		words = append(words, "# "+r.Note)
	}
	return strings.Join(words, " ")
}

// String writes "source4 in @a4-…", "mark/0x20000 is 0x20000".
func (m Match) String() string {
	text := fieldsText(m.Fields)
	not := ""
	if m.Not {
		not = " not"
	}
	switch {
	case len(m.Fields) == 1 && m.Fields[0] == State:
		return text + not + " in " + ConnState(m.Mask).String()
	case m.Set != "":
		return text + not + " in @" + m.Set
	case m.Mask != 0:
		text += fmt.Sprintf("/%#x", m.Mask)
	}
	if len(m.Fields) == 0 {
		return "nothing"
	}
	values := make([]string, len(m.In))
	for i, r := range m.In {
		values[i] = m.Fields[0].Type().rangeText(r)
	}
	if len(values) == 1 {
		return text + " is" + not + " " + values[0]
	}
	return text + not + " in {" + strings.Join(values, ", ") + "}"
}

func fieldsText(fields []Field) string {
	words := make([]string, len(fields))
	for i, f := range fields {
		words[i] = f.String()
	}
	return strings.Join(words, " . ")
}

// String writes the states, with commas between.
func (s ConnState) String() string {
	var words []string
	for i, w := range [...]string{"invalid", "established", "related", "new", "untracked"} {
		if s&(1<<i) != 0 {
			words = append(words, w)
		}
	}
	return strings.Join(words, ",")
}

// String returns the field's name.
func (f Field) String() string {
	names := [...]string{"", "in", "out", "family", "protocol", "eth-source", "source4", "destination4",
		"source6", "destination6", "source-port", "destination-port", "icmp-type", "icmp-code",
		"nd-target", "about4", "about6", "state", "connection-mark", "mark", "arp-op", "arp-mac", "arp-source",
		"source-is", "destination-is", "source-by", "vni"}
	if int(f) < len(names) {
		return names[f]
	}
	return "field" + strconv.Itoa(int(f))
}

// String returns the type's name.
func (t Type) String() string {
	names := [...]string{"", "interface", "mac", "ipv4", "ipv6", "protocol", "port", "byte", "short", "mark", "route", "vni"}
	if int(t) < len(names) {
		return names[t]
	}
	return "type" + strconv.Itoa(int(t))
}

func (t Type) rangeText(r Range) string {
	if t == InterfaceType {
		if stem, ok := r.Stem(); ok {
			return strconv.Quote(stem + "*")
		}
	}
	if r.Lo == r.Hi {
		return t.valueText(r.Lo)
	}
	return t.valueText(r.Lo) + "-" + t.valueText(r.Hi)
}

func (t Type) valueText(v string) string {
	switch t {
	case InterfaceType:
		return strconv.Quote(strings.TrimRight(v, "\x00"))
	case MACType:
		return net.HardwareAddr(v).String()
	case RouteType:
		if v == RouteLocal {
			return "local"
		}
	case Addr4Type, Addr6Type:
		a, _ := netip.AddrFromSlice([]byte(v))
		return a.String()
	}
	var n [8]byte
	copy(n[8-min(8, len(v)):], v)
	if t == MarkType {
		return fmt.Sprintf("%#x", binary.BigEndian.Uint64(n[:]))
	}
	return strconv.FormatUint(binary.BigEndian.Uint64(n[:]), 10)
}

// String writes "count c-…".
func (s Count) String() string { return "count " + s.Counter }

// String writes "limit 10/60s burst 5".
func (s Limit) String() string {
	return fmt.Sprintf("limit %d/%ds burst %d", s.Rate, s.Seconds, s.Burst)
}

// String writes the prefix, quoted, and the group.
func (s Log) String() string {
	if s.Group == 0 {
		return fmt.Sprintf("log %q", s.Prefix)
	}
	return fmt.Sprintf("log %q group %d", s.Prefix, s.Group)
}

// String writes "mark 0x20000/0x20000".
func (s SetMark) String() string { return fmt.Sprintf("mark %#x/%#x", s.Value, s.Mask) }

// String writes "jump CHAIN".
func (s Jump) String() string { return "jump " + s.Chain }

// String writes "goto CHAIN".
func (s Goto) String() string { return "goto " + s.Chain }

// String writes "goto FIELDS @MAP".
func (s Dispatch) String() string { return "goto " + fieldsText(s.Fields) + " @" + s.Map }

// String writes "mark by FIELDS @MAP".
func (s MarkBy) String() string { return "mark by " + fieldsText(s.Fields) + " @" + s.Map }

// String writes "count by FIELDS @MAP".
func (s CountBy) String() string { return "count by " + fieldsText(s.Fields) + " @" + s.Map }

// String writes "decide by source4 @class4 | 0x40000 . protocol @row-protocols /0x20000000 is 0 count @counted1".
func (s Decide) String() string {
	words := []string{"decide by"}
	if s.Classes != "" {
		words = append(words, s.Far.String(), "@"+s.Classes, "|")
	}
	words = append(words, fmt.Sprintf("%#x", s.Group))
	for _, f := range s.Fields {
		words = append(words, ".", f.String())
	}
	words = append(words, "@"+s.Rows)
	if s.Mask != 0 {
		words = append(words, fmt.Sprintf("/%#x is %#x", s.Mask, s.Is))
	}
	if s.Counted != "" {
		words = append(words, "count", "@"+s.Counted)
	}
	return strings.Join(words, " ")
}

// String writes "masquerade", "source 192.0.2.1 ports 1024-4788".
func (s SourceNAT) String() string {
	text := "masquerade"
	if s.To.IsValid() {
		text = "source " + s.To.String()
	}
	if s.Ports.Max != 0 {
		text += fmt.Sprintf(" ports %d-%d", s.Ports.Min, s.Ports.Max)
	}
	return text
}

// String returns "untrack".
func (Untrack) String() string { return "untrack" }

// String returns "return".
func (Return) String() string { return "return" }

// String returns "accept".
func (Accept) String() string { return "accept" }

// String returns "drop".
func (Drop) String() string { return "drop" }

// String returns "reject".
func (Reject) String() string { return "reject" }
