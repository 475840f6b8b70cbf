package model

import (
	"net/netip"
	"slices"
	"strconv"
	"strings"

	v3 "github.com/brindle-net/brindle/api/v3"
	"github.com/brindle-net/brindle/internal/prefix"
	"github.com/brindle-net/brindle/internal/selector"
)

// ruleReader reads the rules of one policy or profile, and gathers what is
// wrong with them.
type ruleReader struct {
	namespace string         // of the policy; "" for a global one and a profile
	unread    v3.FieldErrors // fields that could not be decoded
	errs      v3.FieldErrors
}

// rules reads a list of rules; each keeps its place. A rule that cannot be
// read matches nothing if it allows or logs, and otherwise denies everything;
// so does a list that is none.
func (r *ruleReader) rules(path string, rules []v3.Rule) []Rule {
	if len(rules) == 0 && len(r.unread) == 0 {
		return nil
	}
	out := make([]Rule, 0, len(rules))
	for i := range rules {
		at := path + "[" + strconv.Itoa(i) + "]"
		before := len(r.errs)
		rule := r.rule(at, &rules[i])
		if len(r.errs) > before || slices.ContainsFunc(r.unread, func(e v3.FieldError) bool { return within(e.Path, at) }) {
			rule = unreadable(rule)
		}
		out = append(out, rule)
	}
	if slices.ContainsFunc(r.unread, func(e v3.FieldError) bool { return e.Path == path || e.Path == "spec" }) {
		out = append(out, unreadable(Rule{}))
	}
	if len(out) == 0 {
		return nil
	}
	return out
}

// within reports whether a path is that of a field or of a part of it.
func within(path, field string) bool {
	rest, ok := strings.CutPrefix(path, field)
	return ok && (rest == "" || rest[0] == '.' || rest[0] == '[')
}

// unreadable is what stands in for a rule that was not understood.
func unreadable(r Rule) Rule {
	switch r.Action {
	case Allow, Log:
		return Rule{Action: r.Action, Families: IPv4 | IPv6, Never: true, Name: r.Name}
	}
	return Rule{Action: Deny, Families: IPv4 | IPv6, Name: r.Name}
}

// place is a field of something whose path is known. Its own path is put
// together when somebody must be told.
type place struct{ of, field string }

func (p place) String() string { return p.of + p.field }

func (r *ruleReader) wrong(path, value, rule string) {
	r.errs = append(r.errs, v3.FieldError{Path: path, Value: value, Rule: rule})
}

func (r *ruleReader) rule(path string, in *v3.Rule) Rule {
	out := Rule{
		Action:      r.action(place{path, ".action"}, in.Action),
		Protocol:    r.protocol(place{path, ".protocol"}, in.Protocol),
		NotProtocol: r.protocol(place{path, ".notProtocol"}, in.NotProtocol),
		ICMP:        r.icmp(place{path, ".icmp"}, in.ICMP),
		NotICMP:     r.icmp(place{path, ".notICMP"}, in.NotICMP),
		Source:      r.entity(path+".source", &in.Source),
		Destination: r.entity(path+".destination", &in.Destination),
		HTTP:        in.HTTP != nil,
	}
	out.Destination.ServicePorts = out.Destination.Service != nil
	if in.Metadata != nil {
		out.Name = in.Metadata.Annotations["name"]
	}
	if out.HTTP && out.Action == Allow {
		// Nothing here looks into requests: to allow would allow too much.
		out.Action = Deny
	}
	out.Families = r.families(place{path, ".ipVersion"}, in.IPVersion)
	for _, nets := range [][]netip.Prefix{
		out.Source.Nets, out.Source.NotNets, out.Destination.Nets, out.Destination.NotNets,
	} {
		out.Families &= familiesOf(nets)
	}
	if out.Families == 0 {
		out.Families, out.Never = IPv4|IPv6, true
	}
	return out
}

func (r *ruleReader) action(at place, a v3.Action) Action {
	switch a {
	case v3.ActionAllow:
		return Allow
	case v3.ActionDeny:
		return Deny
	case v3.ActionPass:
		return Pass
	case v3.ActionLog:
		return Log
	}
	r.wrong(at.String(), string(a), "must be one of Allow, Deny, Log, Pass")
	return 0
}

// protocol reads a protocol; none is 0.
func (r *ruleReader) protocol(at place, p *v3.Protocol) uint8 {
	if p == nil {
		return 0
	}
	n, ok := p.IP()
	if !ok || n == 0 {
		r.wrong(at.String(), p.String(), "must be one of TCP, UDP, ICMP, ICMPv6, SCTP, UDPLite or a number from 1 to 255")
	}
	return n
}

// icmp reads a type and code; one without either says nothing.
func (r *ruleReader) icmp(at place, f *v3.ICMPFields) *ICMP {
	switch {
	case f == nil || f.Type == nil && f.Code == nil:
		return nil
	case f.Type == nil:
		r.wrong(at.String()+".code", strconv.Itoa(*f.Code), "must not be set without type")
		return nil
	case *f.Type < 0 || *f.Type > 254:
		r.wrong(at.String()+".type", strconv.Itoa(*f.Type), "must be from 0 to 254")
		return nil
	case f.Code == nil:
		return &ICMP{Type: uint8(*f.Type), Code: -1}
	case *f.Code < 0 || *f.Code > 255:
		r.wrong(at.String()+".code", strconv.Itoa(*f.Code), "must be from 0 to 255")
		return nil
	}
	return &ICMP{Type: uint8(*f.Type), Code: int16(*f.Code)}
}

func (r *ruleReader) families(at place, version *int) Families {
	switch {
	case version == nil:
		return IPv4 | IPv6
	case *version == 4:
		return IPv4
	case *version == 6:
		return IPv6
	}
	r.wrong(at.String(), strconv.Itoa(*version), "must be 4 or 6")
	return 0
}

// familiesOf returns which families a rule with a list of networks can match:
// those that the list has a network of, all for an empty list.
func familiesOf(nets []netip.Prefix) Families {
	if len(nets) == 0 {
		return IPv4 | IPv6
	}
	var f Families
	for _, n := range nets {
		if n.Addr().Is4() {
			f |= IPv4
		} else {
			f |= IPv6
		}
	}
	return f
}

func (r *ruleReader) entity(path string, in *v3.EntityRule) Entity {
	out := Entity{
		Nets: r.nets(place{path, ".nets"}, in.Nets), NotNets: r.nets(place{path, ".notNets"}, in.NotNets),
		Ports: r.ports(place{path, ".ports"}, in.Ports), NotPorts: r.ports(place{path, ".notPorts"}, in.NotPorts),
	}
	e := selector.Entity{
		Namespace: r.namespace, Selector: in.Selector, NotSelector: in.NotSelector,
		NamespaceSelector: in.NamespaceSelector,
	}
	if a := in.ServiceAccounts; a != nil {
		e.ServiceAccountSelector, e.ServiceAccountNames = a.Selector, a.Names
	}
	var err error
	if out.Peers, err = e.Compose(); err != nil {
		r.wrong(path, "", err.Error())
	}
	if s := in.Services; s != nil {
		out.Service = r.service(path+".services", s)
	}
	return out
}

// service reads a reference to a service; without a namespace it is in that
// of the policy.
func (r *ruleReader) service(path string, s *v3.ServiceMatch) *ServiceRef {
	ref := &ServiceRef{Namespace: s.Namespace, Name: s.Name}
	if ref.Namespace == "" {
		ref.Namespace = r.namespace
	}
	if ref.Name == "" {
		r.wrong(path+".name", "", "must be set")
	}
	if ref.Namespace == "" {
		r.wrong(path+".namespace", "", "must be set where the policy itself is in no namespace")
	}
	return ref
}

// nets reads networks; bits beyond their length do not count.
func (r *ruleReader) nets(at place, nets []string) []netip.Prefix {
	var out []netip.Prefix
	for i, s := range nets {
		p, err := prefix.ParseLoose(s)
		if err != nil {
			r.wrong(at.String()+"["+strconv.Itoa(i)+"]", s, "must be a CIDR such as 10.0.0.0/16 or fd00::/64")
			continue
		}
		out = append(out, p)
	}
	return out
}

func (r *ruleReader) ports(at place, ports []v3.Port) []PortMatch {
	var out []PortMatch
	for i, p := range ports {
		if p.Name == "" && (p.Min == 0 || p.Max < p.Min) {
			r.wrong(at.String()+"["+strconv.Itoa(i)+"]", p.String(), `must be a port number from 1 to 65535, a range "min:max", or a port name`)
		}
		out = append(out, PortMatch{Min: p.Min, Max: p.Max, Name: p.Name})
	}
	return out
}
