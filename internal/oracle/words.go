package oracle

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/brindle-net/brindle/internal/model"
	"github.com/brindle-net/brindle/internal/selector"
)

// mostNamed is how many entries of a list a reason names.
const mostNamed = 4

func wordsNever() string { return "the rule can match no packet" }

func wordsFamily(f Flow) string {
	if f.Source.Is4() {
		return "the packet is IPv4, the rule is for IPv6 only"
	}
	return "the packet is IPv6, the rule is for IPv4 only"
}

func wordsProtocol(f Flow, want uint8) string {
	return "the protocol is " + model.ProtocolName(f.Protocol) + ", the rule wants " + model.ProtocolName(want)
}

func wordsNotProtocol(not uint8) string {
	return "the protocol is " + model.ProtocolName(not) + ", which notProtocol leaves out"
}

func wordsICMP(f Flow, want *model.ICMP) string {
	if !f.HasICMPType() {
		return "the protocol is " + model.ProtocolName(f.Protocol) + ", the rule wants messages of " + icmpText(want)
	}
	return fmt.Sprintf("the message is of type %d code %d, the rule wants %s", f.ICMPType, f.ICMPCode, icmpText(want))
}

func wordsNotICMP(not *model.ICMP) string {
	return "the message is of " + icmpText(not) + ", which notICMP leaves out"
}

func icmpText(m *model.ICMP) string {
	s := "type " + strconv.Itoa(int(m.Type))
	if m.Code >= 0 {
		s += " code " + strconv.Itoa(int(m.Code))
	}
	return s
}

// list writes "a", "a or b", "a, b or c", and of a long list its beginning.
func list[T any](of []T, text func(T) string) string {
	var names []string
	for _, x := range of {
		names = append(names, text(x))
	}
	if more := len(names) - mostNamed; more > 1 {
		names = append(names[:mostNamed], strconv.Itoa(more)+" more")
	}
	if len(names) < 2 {
		return strings.Join(names, "")
	}
	last := len(names) - 1
	return strings.Join(names[:last], ", ") + " or " + names[last]
}

func (at *end) wordsNets(nets []netip.Prefix) string {
	return fmt.Sprintf("%s %v is not in %s", at.name, at.addr, list(nets, netip.Prefix.String))
}

func (at *end) wordsNotNets(nets []netip.Prefix) string {
	i := slices.IndexFunc(nets, func(n netip.Prefix) bool { return n.Contains(at.addr) })
	return fmt.Sprintf("%s %v is in %v, which notNets leaves out", at.name, at.addr, nets[i])
}

// who writes the address with what is there: "10.65.0.3 (WorkloadEndpoint
// prod/fe)".
func (at *end) who(t thing) string { return fmt.Sprintf("%s %v (%s)", at.name, at.addr, t.id) }

func (at *end) wordsNotSelector(not selector.Selector) string {
	for _, t := range at.things {
		if not.Matches(t.labels) {
			return at.who(t) + " matches " + not.String() + ", which notSelector leaves out"
		}
	}
	return ""
}

// gaps lists what labels lack for a selector, as far as it can be told for
// each label alone.
func gaps(s selector.Selector, labels selector.Labels) []selector.Requirement {
	var out []selector.Requirement
	for _, r := range s.Requires() {
		if v, ok := labels.Get(r.Key); !ok || !r.AnyValue && !slices.Contains(r.Values, v) {
			out = append(out, r)
		}
	}
	return out
}

// nearest returns what is at the end and lacks least for a selector, nil if
// nothing is there.
func (at *end) nearest(s selector.Selector) (*thing, []selector.Requirement) {
	var best *thing
	var lacks []selector.Requirement
	for i := range at.things {
		g := gaps(s, at.things[i].labels)
		if best == nil || len(g) < len(lacks) {
			best, lacks = &at.things[i], g
		}
	}
	return best, lacks
}

func (at *end) wordsSelector(s selector.Selector, nearest *thing, lacks []selector.Requirement) string {
	if nearest == nil {
		return fmt.Sprintf("%s %v is no endpoint and in no network set, selector wants %s", at.name, at.addr, s)
	}
	if len(lacks) == 0 {
		return at.who(*nearest) + " has " + labelsText(s.Keys(), nearest.labels) + ", selector wants " + s.String()
	}
	var has, wants []string
	for _, r := range lacks {
		has = append(has, labelText(r.Key, nearest.labels))
		wants = append(wants, requirementText(r))
	}
	if slices.ContainsFunc(lacks, func(r selector.Requirement) bool { return r.AnyValue || len(r.Values) == 0 }) {
		wants = []string{s.String()} // a value is not all it takes
	}
	return at.who(*nearest) + " has " + strings.Join(has, " and ") + ", selector wants " + strings.Join(wants, " and ")
}

func labelsText(keys []string, labels selector.Labels) string {
	if len(keys) == 0 {
		return "its labels"
	}
	var out []string
	for _, k := range keys {
		out = append(out, labelText(k, labels))
	}
	return strings.Join(out, " and ")
}

// labelText says what a label is: `role = "fe"`, "no label role".
func labelText(key string, labels selector.Labels) string {
	if v, ok := labels.Get(key); ok {
		return keyText(key) + " = " + strconv.Quote(v)
	}
	if name := keyText(key); name != key {
		return "no " + name
	}
	return "no label " + key
}

// keyText names a label; one that comes from the namespace or the service
// account by what it is there.
func keyText(key string) string {
	switch key {
	case selector.NamespaceLabel:
		return "namespace"
	case selector.ServiceAccountLabel:
		return "service account"
	}
	if k, ok := strings.CutPrefix(key, selector.NamespacePrefix); ok {
		return "namespace label " + k
	}
	if k, ok := strings.CutPrefix(key, selector.ServiceAccountPrefix); ok {
		return "service account label " + k
	}
	return key
}

func requirementText(r selector.Requirement) string {
	if len(r.Values) == 1 {
		return keyText(r.Key) + " == " + strconv.Quote(r.Values[0])
	}
	return keyText(r.Key) + " to be " + list(r.Values, strconv.Quote)
}

func portText(m model.PortMatch) string {
	switch {
	case m.Name != "":
		return strconv.Quote(m.Name)
	case m.Min == m.Max:
		return strconv.Itoa(int(m.Min))
	}
	return strconv.Itoa(int(m.Min)) + ":" + strconv.Itoa(int(m.Max))
}

func (at *end) wordsPorts(ports []model.PortMatch, f Flow) string {
	if !model.HasPorts(f.Protocol) {
		return "the protocol is " + model.ProtocolName(f.Protocol) + ", which has no ports, the rule wants " +
			at.name + " port " + list(ports, portText)
	}
	s := fmt.Sprintf("%s port is %d, not %s", at.name, at.port, list(ports, portText))
	_, names := split(ports)
	for _, m := range names {
		s += ", and " + at.wordsName(m.Name, f.Protocol)
	}
	return s
}

// wordsName says what a port's name stands for at the end.
func (at *end) wordsName(name string, protocol uint8) string {
	for _, t := range at.things {
		for _, n := range t.ports {
			if n.Name == name && (n.Protocol != protocol || n.Port != at.port) {
				return fmt.Sprintf("%q of %s is %s port %d", name, t.id, model.ProtocolName(n.Protocol), n.Port)
			}
			if n.Name == name {
				return fmt.Sprintf("%q of %s counts only where the selector matches it", name, t.id)
			}
		}
	}
	return fmt.Sprintf("nothing at %v has a port named %q", at.addr, name)
}

func (at *end) wordsNotPorts(ports []model.PortMatch) string {
	return fmt.Sprintf("%s port %d is %s, which notPorts leaves out", at.name, at.port, list(ports, portText))
}

func (at *end) wordsService(e *model.Entity, known bool, f Flow) string {
	name := e.Service.Namespace + "/" + e.Service.Name
	if !known {
		return "service " + name + " is not known"
	}
	if e.ServicePorts {
		return fmt.Sprintf("%s %v %s port %d is not behind service %s",
			at.name, at.addr, model.ProtocolName(f.Protocol), at.port, name)
	}
	return fmt.Sprintf("%s %v is not behind service %s", at.name, at.addr, name)
}
