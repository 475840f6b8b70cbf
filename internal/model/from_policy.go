package model

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	v3 "github.com/brindle-net/brindle/api/v3"
	"github.com/brindle-net/brindle/internal/selector"
)

// staged reports whether an ID is that of a staged policy.
func staged(id ID) bool { return id.Kind == KindPolicy && strings.HasPrefix(id.Name, "Staged") }

// fromPolicy holds a policy to every rule of the API, also those about rules
// that are not read here: who cannot be understood whole may be forbidding
// something.
func fromPolicy(id ID, o v3.Object) (Value, error) {
	if err := v3.Validate(o).Err(); err != nil {
		return nil, err
	}
	p := &Policy{ID: id, Title: id.String(), Staged: staged(id)}
	var err error
	switch o := o.(type) {
	case *v3.NetworkPolicy:
		p.Selects, err = namespaced(o.Namespace, &o.Spec)
	case *v3.StagedNetworkPolicy:
		p.Selects, err = namespaced(o.Namespace, &o.Spec.NetworkPolicySpec)
	case *v3.GlobalNetworkPolicy:
		p.Selects, err = global(&o.Spec)
	case *v3.StagedGlobalNetworkPolicy:
		p.Selects, err = global(&o.Spec.GlobalNetworkPolicySpec)
	case *v3.StagedKubernetesNetworkPolicy:
		p.Selects, err = kubernetes(o.Namespace, &o.Spec.PodSelector)
	default:
		err = fmt.Errorf("kind %q is no policy", o.Type().Kind)
	}
	if err != nil {
		return nil, err
	}
	return p, nil
}

func namespaced(namespace string, s *v3.NetworkPolicySpec) (selector.Selector, error) {
	sel, err := selector.ForNetworkPolicy(namespace, s.Selector, s.ServiceAccountSelector)
	return sel, at("spec", s.Selector, err)
}

func global(s *v3.GlobalNetworkPolicySpec) (selector.Selector, error) {
	sel, err := selector.ForGlobalNetworkPolicy(s.Selector, s.NamespaceSelector, s.ServiceAccountSelector)
	return sel, at("spec", s.Selector, err)
}

// kubernetes translates the label selector of a Kubernetes policy, which
// holds for pods only.
func kubernetes(namespace string, s *v3.LabelSelector) (selector.Selector, error) {
	terms := []string{selector.OrchestratorLabel + " == 'k8s'"}
	for k, v := range s.MatchLabels {
		terms = append(terms, k+" == "+strconv.Quote(v))
	}
	for i, e := range s.MatchExpressions {
		var values []string
		for _, v := range e.Values {
			values = append(values, strconv.Quote(v))
		}
		set := "{" + strings.Join(values, ", ") + "}"
		switch e.Operator {
		case "In":
			terms = append(terms, e.Key+" in "+set)
		case "NotIn":
			terms = append(terms, e.Key+" not in "+set)
		case "Exists":
			terms = append(terms, "has("+e.Key+")")
		case "DoesNotExist":
			terms = append(terms, "!has("+e.Key+")")
		default:
			return selector.Selector{}, wrong("spec.podSelector.matchExpressions["+strconv.Itoa(i)+"].operator",
				e.Operator, "must be In, NotIn, Exists or DoesNotExist")
		}
	}
	slices.Sort(terms)
	text := strings.Join(terms, " && ")
	sel, err := selector.ForNetworkPolicy(namespace, text, "")
	return sel, at("spec.podSelector", text, err)
}
