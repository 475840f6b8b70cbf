package calc

import (
	"encoding/binary"
	"math"
	"net/netip"
	"slices"
	"strings"

	"github.com/brindle-net/brindle/internal/model"
	"github.com/brindle-net/brindle/internal/selector"
)

// packed is a policy in few bytes: most policies of a cluster select nothing
// on this host, and wait. First come the numbers of its texts, that of whom it
// selects before all others. Last comes the number of its body, which is a text
// too: all that the core needs, which takes the texts in that order. So policies
// that differ in names only have one body. Equal policies are equal as packed.
type packed string

// What a policy is besides its rules, as the first byte after the texts.
const (
	packIngress = 1 << iota
	packEgress
	packHostsOnly // untracked or before translation: workloads have none
	packHTTP
	packTitle // the title is not what the ID says
	packName  // nor is the name
)

// What a rule has, in two bytes.
const (
	ruleNever = 1 << iota
	ruleHTTP
	ruleICMP
	ruleNotICMP
	ruleName
)

// What an entity has.
const (
	entityPeers = 1 << iota
	entityNot
	entityNets
	entityNotNets
	entityPorts
	entityNotPorts
	entityService
	entityServicePorts
)

// packer writes one policy.
type packer struct {
	texts *texts
	held  []textID
	body  []byte
	out   []byte
}

// pack returns a policy in the form of packed, with its texts held. The result
// is good until the next call.
func (p *packer) pack(v *model.Policy) []byte {
	p.held, p.body, p.out = p.held[:0], p.body[:0], p.out[:0]
	p.text(v.Selects.String())
	p.text(v.Tier)
	flags := flagsOf(v)
	p.body = append(p.body, flags)
	p.body = binary.BigEndian.AppendUint64(p.body, math.Float64bits(v.Order))
	if flags&packTitle != 0 {
		p.text(v.Title)
	}
	if flags&packName != 0 {
		p.text(v.Name)
		p.text(v.Namespace)
		p.text(v.APIKind)
	}
	p.rules(v.Ingress.Rules)
	p.rules(v.Egress.Rules)
	p.out = binary.AppendUvarint(p.out, uint64(len(p.held)))
	for _, id := range p.held {
		p.out = binary.AppendUvarint(p.out, uint64(id))
	}
	p.out = binary.AppendUvarint(p.out, uint64(p.texts.holdBytes(p.body)))
	return p.out
}

func flagsOf(v *model.Policy) byte {
	var flags byte
	if v.Ingress.Applies {
		flags |= packIngress
	}
	if v.Egress.Applies {
		flags |= packEgress
	}
	if v.DoNotTrack || v.PreDNAT {
		flags |= packHostsOnly
	}
	if !titled(v) {
		flags |= packTitle
	}
	if !named(v) {
		flags |= packName
	}
	for _, d := range []model.Direction{v.Ingress, v.Egress} {
		for i := range d.Rules {
			if d.Applies && d.Rules[i].HTTP {
				flags |= packHTTP
			}
		}
	}
	return flags
}

// titled reports whether a policy's title is what its ID says, as nearly all
// are; false may be wrong.
func titled(v *model.Policy) bool {
	rest, ok := strings.CutPrefix(v.Title, v.APIKind+" ")
	if ok && v.Namespace != "" {
		if rest, ok = strings.CutPrefix(rest, v.Namespace); ok {
			rest, ok = strings.CutPrefix(rest, "/")
		}
	}
	return ok && rest == v.Name && named(v)
}

// named reports whether a policy's name is what its ID says.
func named(v *model.Policy) bool {
	kind, name, _ := strings.Cut(v.ID.Name, "/")
	return kind == v.APIKind && name == v.Name && v.ID.Namespace == v.Namespace
}

func (p *packer) text(s string) { p.held = append(p.held, p.texts.hold(s)) }

func (p *packer) number(n int) { p.body = binary.AppendUvarint(p.body, uint64(n)) }

func (p *packer) rules(rules []model.Rule) {
	p.number(len(rules))
	for i := range rules {
		p.rule(&rules[i])
	}
}

func (p *packer) rule(r *model.Rule) {
	var has byte
	set := func(bit byte, yes bool) {
		if yes {
			has |= bit
		}
	}
	set(ruleNever, r.Never)
	set(ruleHTTP, r.HTTP)
	set(ruleICMP, r.ICMP != nil)
	set(ruleNotICMP, r.NotICMP != nil)
	set(ruleName, r.Name != "")
	p.body = append(p.body, has, byte(r.Action)<<4|byte(r.Families), r.Protocol, r.NotProtocol)
	for _, i := range []*model.ICMP{r.ICMP, r.NotICMP} {
		if i != nil {
			p.body = append(p.body, i.Type)
			p.number(int(i.Code) + 1)
		}
	}
	if r.Name != "" {
		p.text(r.Name)
	}
	p.entity(&r.Source)
	p.entity(&r.Destination)
}

func (p *packer) entity(e *model.Entity) {
	var has byte
	set := func(bit byte, yes bool) {
		if yes {
			has |= bit
		}
	}
	set(entityPeers, e.Peers.Restricted)
	set(entityNot, e.Peers.Excluding)
	set(entityNets, len(e.Nets) > 0)
	set(entityNotNets, len(e.NotNets) > 0)
	set(entityPorts, len(e.Ports) > 0)
	set(entityNotPorts, len(e.NotPorts) > 0)
	set(entityService, e.Service != nil)
	set(entityServicePorts, e.ServicePorts)
	p.body = append(p.body, has)
	if e.Peers.Restricted {
		p.text(e.Peers.Selector.String())
	}
	if e.Peers.Excluding {
		p.text(e.Peers.Not.String())
	}
	p.nets(e.Nets)
	p.nets(e.NotNets)
	p.ports(e.Ports)
	p.ports(e.NotPorts)
	if e.Service != nil {
		p.text(e.Service.Namespace)
		p.text(e.Service.Name)
	}
}

func (p *packer) nets(nets []netip.Prefix) {
	if len(nets) == 0 {
		return
	}
	p.number(len(nets))
	for _, n := range nets {
		a := n.Addr()
		p.body = append(p.body, byte(a.BitLen()), byte(n.Bits()))
		p.body = append(p.body, a.AsSlice()...)
	}
}

func (p *packer) ports(ports []model.PortMatch) {
	if len(ports) == 0 {
		return
	}
	p.number(len(ports))
	for _, m := range ports {
		p.body = binary.BigEndian.AppendUint16(binary.BigEndian.AppendUint16(p.body, m.Min), m.Max)
		if m.Name != "" {
			p.body = append(p.body, 1)
			p.text(m.Name)
		} else {
			p.body = append(p.body, 0)
		}
	}
}

// unpacker reads what packer wrote.
type unpacker struct {
	texts *texts
	held  packed // numbers of texts not yet taken
	body  packed
	read  readSelectors
}

// readSelectors are those that need not be read again: that of whom the policy
// selects, and those of the sets in use. With no sets there are none.
type readSelectors struct {
	own  selector.Selector
	sets *memberSets
}

// open begins to read a policy.
func (p packed) open(t *texts) unpacker {
	n, rest := uvarint(p)
	u := unpacker{texts: t, held: rest}
	for range n {
		_, rest = uvarint(rest)
	}
	u.held = u.held[:len(u.held)-len(rest)]
	body, _ := uvarint(rest)
	u.body = packed(t.of(textID(body)))
	return u
}

// release lets go of the texts of a policy.
func (p packed) release(t *texts) {
	if p == "" {
		return
	}
	for _, rest := uvarint(p); len(rest) > 0; {
		var id uint64
		id, rest = uvarint(rest)
		t.release(textID(id))
	}
}

func uvarint(p packed) (uint64, packed) {
	var n uint64
	for i := 0; ; i++ {
		n |= uint64(p[i]&0x7f) << (7 * i)
		if p[i] < 0x80 {
			return n, p[i+1:]
		}
	}
}

func (u *unpacker) text() string {
	var id uint64
	id, u.held = uvarint(u.held)
	return u.texts.of(textID(id))
}

func (u *unpacker) number() int {
	var n uint64
	n, u.body = uvarint(u.body)
	return int(n)
}

func (u *unpacker) byte() byte {
	b := u.body[0]
	u.body = u.body[1:]
	return b
}

// selector reads one of our own making: it can be read.
func (u *unpacker) selector() selector.Selector {
	text := u.text()
	if u.read.sets != nil {
		if text == u.read.own.String() {
			return u.read.own
		}
		if id, ok := u.read.sets.by[setKey{selected, text, ""}]; ok {
			return u.read.sets.all.at(id).selects
		}
	}
	s, _ := selector.Parse(text)
	return s
}

// head is what a policy is besides whom it selects and its rules.
type head struct {
	flags byte
	tier  string
	order float64
	title string
	key   string // decides ties of order
}

// head reads the beginning of a policy.
func (u *unpacker) head(id model.ID) head {
	_ = u.text() // whom it selects
	h := head{tier: u.text(), flags: u.byte()}
	var bits uint64
	for range 8 {
		bits = bits<<8 | uint64(u.byte())
	}
	h.order, h.title = math.Float64frombits(bits), ""
	if h.flags&packTitle != 0 {
		h.title = u.text()
	} else {
		h.title = id.String()
	}
	if h.flags&packName != 0 {
		name, namespace := u.text(), u.text()
		h.key = name + "/" + namespace + "/" + u.text()
		return h
	}
	for i := range len(id.Name) {
		if id.Name[i] == '/' {
			h.key = id.Name[i+1:] + "/" + id.Namespace + "/" + id.Name[:i]
			break
		}
	}
	return h
}

// skipHead goes on to the rules.
func (u *unpacker) skipHead() {
	texts := 2
	flags := u.body[0]
	if flags&packTitle != 0 {
		texts++
	}
	if flags&packName != 0 {
		texts += 3
	}
	for range texts {
		_, u.held = uvarint(u.held)
	}
	u.body = u.body[1+8:]
}

// rules reads the rules of a direction into a list that is not needed any
// more, or nil.
func (u *unpacker) rules(to []model.Rule) []model.Rule {
	n := u.number()
	if n == 0 {
		return nil
	}
	to = slices.Grow(to[:0], n)[:n]
	clear(to)
	for i := range to {
		u.rule(&to[i])
	}
	return to
}

func (u *unpacker) rule(r *model.Rule) {
	has, what := u.byte(), u.byte()
	r.Never, r.HTTP = has&ruleNever != 0, has&ruleHTTP != 0
	r.Action, r.Families = model.Action(what>>4), model.Families(what&0xf)
	r.Protocol, r.NotProtocol = u.byte(), u.byte()
	if has&ruleICMP != 0 {
		r.ICMP = &model.ICMP{Type: u.byte(), Code: int16(u.number() - 1)}
	}
	if has&ruleNotICMP != 0 {
		r.NotICMP = &model.ICMP{Type: u.byte(), Code: int16(u.number() - 1)}
	}
	if has&ruleName != 0 {
		r.Name = u.text()
	}
	u.entity(&r.Source)
	u.entity(&r.Destination)
}

func (u *unpacker) entity(e *model.Entity) {
	has := u.byte()
	e.ServicePorts = has&entityServicePorts != 0
	if has&entityPeers != 0 {
		e.Peers.Restricted, e.Peers.Selector = true, u.selector()
	}
	if has&entityNot != 0 {
		e.Peers.Excluding, e.Peers.Not = true, u.selector()
	}
	if has&entityNets != 0 {
		e.Nets = u.nets()
	}
	if has&entityNotNets != 0 {
		e.NotNets = u.nets()
	}
	if has&entityPorts != 0 {
		e.Ports = u.ports()
	}
	if has&entityNotPorts != 0 {
		e.NotPorts = u.ports()
	}
	if has&entityService != 0 {
		e.Service = &model.ServiceRef{Namespace: u.text(), Name: u.text()}
	}
}

func (u *unpacker) nets() []netip.Prefix {
	out := make([]netip.Prefix, u.number())
	for i := range out {
		length, bits := int(u.byte())/8, int(u.byte())
		a, _ := netip.AddrFromSlice([]byte(u.body[:length]))
		u.body = u.body[length:]
		out[i] = netip.PrefixFrom(a, bits)
	}
	return out
}

func (u *unpacker) ports() []model.PortMatch {
	out := make([]model.PortMatch, u.number())
	for i := range out {
		out[i].Min = uint16(u.byte())<<8 | uint16(u.byte())
		out[i].Max = uint16(u.byte())<<8 | uint16(u.byte())
		if u.byte() == 1 {
			out[i].Name = u.text()
		}
	}
	return out
}
