package model

import (
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	v3 "github.com/brindle-net/brindle/api/v3"
	"github.com/brindle-net/brindle/internal/kubepolicy"
	"github.com/brindle-net/brindle/internal/selector"
)

// staged reports whether an ID is that of a staged policy.
func staged(id ID) bool { return id.Kind == KindPolicy && strings.HasPrefix(id.Name, "Staged") }

// fromPolicy reads a policy. One that breaks the rules is not ignored, for it
// may forbid something: what can be read of it holds, and what cannot counts
// against the flow.
func fromPolicy(id ID, o v3.Object, unread v3.FieldErrors) (Value, error) {
	kind, _, _ := strings.Cut(id.Name, "/")
	m := o.Meta()
	p := &policyReader{unread: unread, errs: slices.Clone(unread), out: &Policy{
		ID: id, APIKind: kind, Name: m.Name, Namespace: m.Namespace, Title: id.String(),
		Order: math.Inf(1), Staged: staged(id), LastWriter: lastWriter(m),
	}}
	switch o := o.(type) {
	case *v3.NetworkPolicy:
		p.namespaced(&o.Spec)
	case *v3.StagedNetworkPolicy:
		p.namespaced(&o.Spec.NetworkPolicySpec)
		p.staged(o.Spec.StagedAction)
	case *v3.GlobalNetworkPolicy:
		p.global(&o.Spec)
	case *v3.StagedGlobalNetworkPolicy:
		p.global(&o.Spec.GlobalNetworkPolicySpec)
		p.staged(o.Spec.StagedAction)
	case *v3.StagedKubernetesNetworkPolicy:
		p.kubernetes(&o.Spec)
		p.staged(o.Spec.StagedAction)
	default:
		return nil, fmt.Errorf("kind %q is no policy", o.Type().Kind)
	}
	p.out.Broken = broken(p.errs)
	return p.out, nil
}

// broken tells what is wrong, "" for nothing.
func broken(errs v3.FieldErrors) string {
	if len(errs) == 0 {
		return ""
	}
	return errs.Error()
}

// managedBy is the label of the program that an object is managed with
// (Kubernetes, recommended labels).
const managedBy = "app.kubernetes.io/managed-by"

// lastWriter says what the metadata has about who wrote an object, and when.
func lastWriter(m *v3.ObjectMeta) string {
	var parts []string
	if t := m.CreationTimestamp; t != nil && !t.IsZero() {
		parts = append(parts, "created "+t.UTC().Format(time.RFC3339))
	}
	if of := m.Annotations[kubepolicy.SourceAnnotation]; of != "" {
		parts = append(parts, "made of "+of)
	}
	for _, o := range m.OwnerReferences {
		parts = append(parts, "owned by "+o.Kind+" "+o.Name)
	}
	if by := m.Labels[managedBy]; by != "" {
		parts = append(parts, "managed by "+by)
	}
	return strings.Join(parts, ", ")
}

// policyReader reads one policy.
type policyReader struct {
	out    *Policy
	unread v3.FieldErrors // fields that could not be decoded
	errs   v3.FieldErrors
}

// lost reports whether a field, or a part of it, could not be decoded.
func (p *policyReader) lost(field string) bool {
	return slices.ContainsFunc(p.unread, func(e v3.FieldError) bool { return within(e.Path, field) })
}

// understood reports whether all that says whom a policy is for, and when it
// is asked, could be decoded.
func (p *policyReader) understood() bool {
	return !slices.ContainsFunc(p.unread, func(e v3.FieldError) bool {
		return within(e.Path, "spec") && !within(e.Path, "spec.ingress") && !within(e.Path, "spec.egress") && !within(e.Path, "spec.types")
	})
}

func (p *policyReader) wrong(path, value, rule string) {
	p.errs = append(p.errs, v3.FieldError{Path: path, Value: value, Rule: rule})
}

func (p *policyReader) namespaced(s *v3.NetworkPolicySpec) {
	sel, err := selector.ForNetworkPolicy(p.out.Namespace, s.Selector, s.ServiceAccountSelector)
	if err != nil {
		p.wrong("spec", "", err.Error())
		sel, _ = selector.ForNetworkPolicy(p.out.Namespace, "", "")
	}
	p.placed(s.Tier, s.Order)
	p.directions("spec.types", s.Types)
	p.rules(s.Ingress, s.Egress)
	p.selects(sel, err == nil)
}

func (p *policyReader) global(s *v3.GlobalNetworkPolicySpec) {
	sel, err := selector.ForGlobalNetworkPolicy(s.Selector, s.NamespaceSelector, s.ServiceAccountSelector)
	if err != nil {
		p.wrong("spec", "", err.Error())
		sel, _ = selector.ForGlobalNetworkPolicy("has("+selector.NamespaceLabel+")", "", "")
	}
	p.out.DoNotTrack, p.out.PreDNAT, p.out.ApplyOnForward = s.DoNotTrack, s.PreDNAT, s.ApplyOnForward
	p.placed(s.Tier, s.Order)
	p.directions("spec.types", s.Types)
	p.rules(s.Ingress, s.Egress)
	p.selects(sel, err == nil)
}

// kubernetes reads a staged Kubernetes policy as the NetworkPolicy that the
// policy would become.
func (p *policyReader) kubernetes(s *v3.StagedKubernetesNetworkPolicySpec) {
	k := s.Kubernetes()
	if len(k.PolicyTypes) == 0 {
		k.PolicyTypes = []v3.PolicyType{v3.TypeIngress}
		if len(k.Egress) > 0 {
			k.PolicyTypes = []v3.PolicyType{v3.TypeIngress, v3.TypeEgress}
		}
	}
	spec, errs := kubepolicy.NetworkPolicy(&k)
	p.errs = append(p.errs, errs...)
	p.namespaced(&spec)
}

func (p *policyReader) placed(tier string, order *float64) {
	if p.out.Tier = tier; tier == "" {
		p.out.Tier = v3.TierDefault
	}
	switch {
	case p.lost("spec.order"):
		p.out.Order = math.Inf(-1) // it may forbid what others allow
	case order != nil:
		p.out.Order = *order
	}
}

// directions reads a policy's types. None, which only an object has that came
// past the defaults, is both (documented Calico behaviour); so is what cannot
// be read.
func (p *policyReader) directions(path string, types []v3.PolicyType) {
	in, out := slices.Contains(types, v3.TypeIngress), slices.Contains(types, v3.TypeEgress)
	for i, t := range types {
		if t != v3.TypeIngress && t != v3.TypeEgress {
			p.wrong(path+"["+strconv.Itoa(i)+"]", string(t), "must be one of Ingress, Egress")
			in, out = true, true
		}
	}
	if len(types) == 0 || p.lost(path) {
		in, out = true, true
	}
	p.out.Ingress.Applies, p.out.Egress.Applies = in, out
}

func (p *policyReader) rules(ingress, egress []v3.Rule) {
	r := ruleReader{namespace: p.out.Namespace, unread: p.unread}
	p.out.Ingress.Rules = r.rules("spec.ingress", ingress)
	p.out.Egress.Rules = r.rules("spec.egress", egress)
	p.errs = append(p.errs, r.errs...)
}

// selects says whom the policy is for. If that could not be read, the policy
// is for everybody it might be for, and allows nothing to anybody.
func (p *policyReader) selects(s selector.Selector, known bool) {
	p.out.Selects = s
	if known && p.understood() {
		return
	}
	for _, rules := range [][]Rule{p.out.Ingress.Rules, p.out.Egress.Rules} {
		for i := range rules {
			switch rules[i].Action {
			case Allow:
				rules[i].Never = true
			case Pass:
				rules[i].Action = Deny
			}
		}
	}
}

// staged reads what is to become of a staged policy. One that stands for a
// deletion, or is to be ignored, says nothing about flows.
func (p *policyReader) staged(a v3.StagedAction) {
	p.out.StagedAction = string(a)
	switch a {
	case "":
		p.out.StagedAction = string(v3.StagedSet)
	case v3.StagedDelete, v3.StagedIgnore:
		p.out.Ingress, p.out.Egress = Direction{}, Direction{}
	case v3.StagedSet, v3.StagedLearn:
	default:
		p.wrong("spec.stagedAction", string(a), "must be one of Set, Delete, Learn, Ignore")
	}
}
