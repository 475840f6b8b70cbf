package cli

import (
	"fmt"
	"net/netip"
	"strings"

	v3 "github.com/brindle-net/brindle/api/v3"
)

type v1Policy struct {
	v3.TypeMeta `json:",inline"`
	Metadata    struct {
		Name        string            `json:"name"`
		Annotations map[string]string `json:"annotations"`
	} `json:"metadata"`
	Spec struct {
		Order          *float64 `json:"order"`
		Selector       string   `json:"selector"`
		Types          []string `json:"types"`
		DoNotTrack     bool     `json:"doNotTrack"`
		PreDNAT        bool     `json:"preDNAT"`
		ApplyOnForward bool     `json:"applyOnForward"`
		Ingress        []v1Rule `json:"ingress"`
		Egress         []v1Rule `json:"egress"`
	} `json:"spec"`
}

type v1Profile struct {
	v3.TypeMeta `json:",inline"`
	Metadata    struct {
		Name   string            `json:"name"`
		Labels map[string]string `json:"labels"`
		Tags   []string          `json:"tags"`
	} `json:"metadata"`
	Spec struct {
		Ingress []v1Rule `json:"ingress"`
		Egress  []v1Rule `json:"egress"`
	} `json:"spec"`
}

type v1Rule struct {
	Action      string         `json:"action"`
	IPVersion   *int           `json:"ipVersion"`
	Protocol    *v3.Protocol   `json:"protocol"`
	ICMP        *v3.ICMPFields `json:"icmp"`
	NotProtocol *v3.Protocol   `json:"notProtocol"`
	NotICMP     *v3.ICMPFields `json:"notICMP"`
	Source      v1Entity       `json:"source"`
	Destination v1Entity       `json:"destination"`
}

type v1Entity struct {
	Tag         string    `json:"tag"`
	Net         string    `json:"net"`
	Nets        []string  `json:"nets"`
	Selector    string    `json:"selector"`
	Ports       []v3.Port `json:"ports"`
	NotTag      string    `json:"notTag"`
	NotNet      string    `json:"notNet"`
	NotNets     []string  `json:"notNets"`
	NotSelector string    `json:"notSelector"`
	NotPorts    []v3.Port `json:"notPorts"`
}

// Meta implements v3.Object.
func (o *v1Policy) Meta() *v3.ObjectMeta { return new(named(o.Metadata.Name)) }

// Meta implements v3.Object.
func (o *v1Profile) Meta() *v3.ObjectMeta { return new(named(o.Metadata.Name)) }

func (o *v1Policy) convert() (v3.Object, v3.FieldErrors) {
	s := o.Spec
	wrong := mustHave("metadata.name", o.Metadata.Name)
	out := &v3.GlobalNetworkPolicy{TypeMeta: typeOf("GlobalNetworkPolicy"), ObjectMeta: named(policyName(o.Metadata.Name))}
	out.Annotations = o.Metadata.Annotations
	out.Spec.Order, out.Spec.Selector = s.Order, newSelector(s.Selector)
	out.Spec.DoNotTrack, out.Spec.PreDNAT = s.DoNotTrack, s.PreDNAT
	out.Spec.ApplyOnForward = s.ApplyOnForward || s.DoNotTrack || s.PreDNAT
	for i, t := range s.Types {
		switch strings.ToLower(t) {
		case "ingress":
			out.Spec.Types = append(out.Spec.Types, v3.TypeIngress)
		case "egress":
			out.Spec.Types = append(out.Spec.Types, v3.TypeEgress)
		default:
			wrong = append(wrong, v3.OneOf(fmt.Sprintf("spec.types[%d]", i), t, "ingress", "egress")...)
		}
	}
	if len(s.Types) == 0 { // as it was meant, whatever a later version takes for the default
		if len(s.Ingress) > 0 || len(s.Egress) == 0 {
			out.Spec.Types = append(out.Spec.Types, v3.TypeIngress)
		}
		if len(s.Egress) > 0 {
			out.Spec.Types = append(out.Spec.Types, v3.TypeEgress)
		}
	}
	var wrong1, wrong2 v3.FieldErrors
	out.Spec.Ingress, wrong1 = newRules("spec.ingress", s.Ingress)
	out.Spec.Egress, wrong2 = newRules("spec.egress", s.Egress)
	return out, append(append(wrong, wrong1...), wrong2...)
}

func (o *v1Profile) convert() (v3.Object, v3.FieldErrors) {
	wrong := mustHave("metadata.name", o.Metadata.Name)
	out := &v3.Profile{TypeMeta: typeOf("Profile"), ObjectMeta: named(profileName(o.Metadata.Name))}
	out.Spec.LabelsToApply = newLabels(o.Metadata.Labels)
	for i, tag := range o.Metadata.Tags {
		if value, ok := out.Spec.LabelsToApply[tag]; ok && value != "" {
			wrong = append(wrong, v3.FieldError{Path: fmt.Sprintf("metadata.tags[%d]", i), Value: tag, Rule: "is a label too: tags become labels without a value", Hint: "give one of them another name"})
			continue
		}
		if out.Spec.LabelsToApply == nil {
			out.Spec.LabelsToApply = map[string]string{}
		}
		out.Spec.LabelsToApply[tag] = ""
	}
	var wrong1, wrong2 v3.FieldErrors
	out.Spec.Ingress, wrong1 = newRules("spec.ingress", o.Spec.Ingress)
	out.Spec.Egress, wrong2 = newRules("spec.egress", o.Spec.Egress)
	return out, append(append(wrong, wrong1...), wrong2...)
}

func newRules(path string, old []v1Rule) ([]v3.Rule, v3.FieldErrors) {
	var out []v3.Rule
	var wrong v3.FieldErrors
	for i, r := range old {
		at := fmt.Sprintf("%s[%d]", path, i)
		rule := v3.Rule{IPVersion: r.IPVersion, ICMP: r.ICMP, NotICMP: r.NotICMP}
		switch strings.ToLower(r.Action) {
		case "allow":
			rule.Action = v3.ActionAllow
		case "deny":
			rule.Action = v3.ActionDeny
		case "log":
			rule.Action = v3.ActionLog
		case "pass", "next-tier":
			rule.Action = v3.ActionPass
		default:
			wrong = append(wrong, v3.OneOf(at+".action", r.Action, "allow", "deny", "log", "pass")...)
		}
		if r.Protocol != nil {
			rule.Protocol = new(newProtocol(*r.Protocol))
		}
		if r.NotProtocol != nil {
			rule.NotProtocol = new(newProtocol(*r.NotProtocol))
		}
		var wrong1, wrong2 v3.FieldErrors
		rule.Source, wrong1 = newEntity(at+".source", r.Source)
		rule.Destination, wrong2 = newEntity(at+".destination", r.Destination)
		out, wrong = append(out, rule), append(append(wrong, wrong1...), wrong2...)
	}
	return out, wrong
}

// newEntity converts one end of a rule. A single network stands behind the
// others, and a tag is a label without a value.
func newEntity(path string, old v1Entity) (v3.EntityRule, v3.FieldErrors) {
	out := v3.EntityRule{Selector: newSelector(old.Selector), NotSelector: newSelector(old.NotSelector), Ports: old.Ports, NotPorts: old.NotPorts}
	if old.Tag != "" {
		out.Selector = alsoTag(out.Selector, "&&", old.Tag)
	}
	if old.NotTag != "" { // neither of the two: not one or the other
		out.NotSelector = alsoTag(out.NotSelector, "||", old.NotTag)
	}
	var wrong1, wrong2 v3.FieldErrors
	out.Nets, wrong1 = newNets(path+".nets", old.Nets, path+".net", old.Net)
	out.NotNets, wrong2 = newNets(path+".notNets", old.NotNets, path+".notNet", old.NotNet)
	return out, append(wrong1, wrong2...)
}

func alsoTag(selector, operator, tag string) string {
	tag += " == ''"
	if selector == "" {
		return tag
	}
	return "(" + selector + ") " + operator + " " + tag
}

func newNets(path string, nets []string, lastPath, last string) ([]string, v3.FieldErrors) {
	var out []string
	var all v3.FieldErrors
	for i, s := range nets {
		n, wrong := newNet(fmt.Sprintf("%s[%d]", path, i), s)
		out, all = append(out, n), append(all, wrong...)
	}
	if last != "" {
		n, wrong := newNet(lastPath, last)
		out, all = append(out, n), append(all, wrong...)
	}
	return out, all
}

// newNet is a network without bits beyond its length.
func newNet(path, s string) (string, v3.FieldErrors) {
	if a, err := netip.ParseAddr(s); err == nil && a.Zone() == "" {
		return netip.PrefixFrom(a, a.BitLen()).String(), nil
	}
	p, err := netip.ParsePrefix(s)
	if err != nil {
		return s, v3.FieldErrors{{Path: path, Value: s, Rule: "must be a CIDR"}}
	}
	return p.Masked().String(), nil
}

// newProtocol is a protocol as v3 spells it.
func newProtocol(p v3.Protocol) v3.Protocol {
	for _, name := range []string{v3.ProtocolTCP, v3.ProtocolUDP, v3.ProtocolICMP, v3.ProtocolICMPv6, v3.ProtocolSCTP, v3.ProtocolUDPLite} {
		if strings.EqualFold(p.Name, name) {
			p.Name = name
		}
	}
	return p
}

// Labels that v3 calls otherwise: that of the namespace, and those that
// endpoints have of their namespace.
const (
	oldNamespace       = "calico/k8s_ns"
	oldNamespaceLabels = "k8s_ns/label/"
	newNamespaceLabels = "pcns."
)

func newLabels(old map[string]string) map[string]string {
	if old == nil {
		return nil
	}
	out := map[string]string{}
	for name, value := range old {
		if name == oldNamespace {
			name = v3.LabelNamespace
		}
		if label, ok := strings.CutPrefix(name, oldNamespaceLabels); ok {
			name = newNamespaceLabels + label
		}
		out[name] = value
	}
	return out
}

// newSelector renames labels in a selector, and leaves what is in quotes.
func newSelector(old string) string {
	var b strings.Builder
	for rest := old; rest != ""; {
		quote := strings.IndexAny(rest, `'"`)
		if quote < 0 {
			quote = len(rest)
		}
		b.WriteString(strings.NewReplacer(oldNamespace, v3.LabelNamespace, oldNamespaceLabels, newNamespaceLabels).Replace(rest[:quote]))
		rest = rest[quote:]
		if rest == "" {
			break
		}
		end := strings.IndexByte(rest[1:], rest[0]) + 2
		if end == 1 {
			end = len(rest)
		}
		b.WriteString(rest[:end])
		rest = rest[end:]
	}
	return b.String()
}
