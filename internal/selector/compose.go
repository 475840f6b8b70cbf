package selector

import (
	"errors"
	"fmt"
	"strings"
)

// Label keys that stand for more than the user's own labels.
const (
	// NamespaceLabel is on every workload endpoint and network set that is in
	// a namespace; its value is the namespace.
	NamespaceLabel = "projectcalico.org/namespace"
	// ServiceAccountLabel is on every workload endpoint that has a service
	// account; its value is the account's name.
	ServiceAccountLabel = "projectcalico.org/serviceaccount"
	// OrchestratorLabel is on every workload endpoint.
	OrchestratorLabel = "projectcalico.org/orchestrator"
	// NamespacePrefix stands before the keys of a namespace's labels, where
	// an endpoint inherits them.
	NamespacePrefix = "pcns."
	// ServiceAccountPrefix stands before the keys of a service account's
	// labels, where an endpoint inherits them.
	ServiceAccountPrefix = "pcsa."
)

// ErrUnquotable is in the chain of the error for a name that no selector can
// hold, because both kinds of quote are in it.
var ErrUnquotable = errors.New("holds both kinds of quote, which no selector can express")

// ForNetworkPolicy returns which endpoints a NetworkPolicy applies to: those of
// its namespace that match selector and serviceAccountSelector. Empty texts
// do not restrict. The error names the field.
func ForNetworkPolicy(namespace, selector, serviceAccountSelector string) (Selector, error) {
	own, err := parseField("selector", selector)
	if err != nil {
		return Selector{}, err
	}
	ns, err := inNamespace(namespace)
	if err != nil {
		return Selector{}, err
	}
	sa, err := prefixedField("serviceAccountSelector", serviceAccountSelector, ServiceAccountPrefix)
	if err != nil {
		return Selector{}, err
	}
	return checked(and(own, ns, sa))
}

// ForGlobalNetworkPolicy returns which endpoints a GlobalNetworkPolicy applies
// to. Empty texts do not restrict; a policy with an empty namespaceSelector
// reaches host endpoints too.
//
// A namespaceSelector makes each all() in it and in selector mean "is in a
// namespace", and a serviceAccountSelector makes each all() that is left mean
// "has a service account". In selector this is a rewrite of the text, which
// does not see "all( )": documented Calico behaviour, quirk included.
func ForGlobalNetworkPolicy(selector, namespaceSelector, serviceAccountSelector string) (Selector, error) {
	if _, err := parseField("selector", selector); err != nil {
		return Selector{}, err // with columns of the text as given
	}
	ns, err := prefixedField("namespaceSelector", namespaceSelector, NamespacePrefix)
	if err != nil {
		return Selector{}, err
	}
	sa, err := prefixedField("serviceAccountSelector", serviceAccountSelector, ServiceAccountPrefix)
	if err != nil {
		return Selector{}, err
	}
	if ns != nil {
		ns = replaceAll(ns, has(NamespaceLabel))
		selector = strings.ReplaceAll(selector, "all()", "has("+NamespaceLabel+")")
	}
	if sa != nil {
		sa = replaceAll(sa, has(ServiceAccountLabel))
		selector = strings.ReplaceAll(selector, "all()", "has("+ServiceAccountLabel+")")
	}
	own, err := parseField("selector", selector)
	if err != nil {
		return Selector{}, err
	}
	return checked(and(own, ns, sa))
}

// Entity is the part of a rule's source or destination that selects endpoints
// by labels, as its API fields have it.
type Entity struct {
	Namespace              string // of the policy; "" for a global one
	Selector               string
	NotSelector            string
	NamespaceSelector      string
	ServiceAccountSelector string
	ServiceAccountNames    []string
}

// Peers is what an Entity comes to.
type Peers struct {
	// Restricted says that the other side must be an address of an endpoint
	// or network set that Selector matches; else any address will do.
	Restricted bool
	Selector   Selector
	// Excluding says that the other side must not be an address of an
	// endpoint or network set, in any namespace, that Not matches.
	Excluding bool
	Not       Selector
}

// Compose works out what an entity selects, as documented: a policy's
// namespace restricts a rule only if the rule selects by labels at all. The
// error names the field.
func (e Entity) Compose() (Peers, error) {
	ns, err := e.namespaces()
	if err != nil {
		return Peers{}, err
	}
	sa, err := e.serviceAccounts()
	if err != nil {
		return Peers{}, err
	}
	own, err := parseField("selector", e.Selector)
	if err != nil {
		return Peers{}, err
	}
	if sa == nil && own == nil && e.NotSelector == "" && e.NamespaceSelector == "" {
		ns = nil
	}
	var p Peers
	if positive := and(ns, sa, own); positive != nil {
		p.Restricted = true
		if p.Selector, err = checked(positive); err != nil {
			return Peers{}, err
		}
	}
	if e.NotSelector != "" {
		p.Excluding = true
		if p.Not, err = Parse(e.NotSelector); err != nil {
			return Peers{}, fmt.Errorf("notSelector: %w", err)
		}
	}
	return p, nil
}

// namespaces returns the restriction on namespaces, nil if there is none.
func (e Entity) namespaces() (node, error) {
	if e.NamespaceSelector == "" {
		if e.Namespace == "" {
			return nil, nil
		}
		return inNamespace(e.Namespace)
	}
	ns, err := prefixedField("namespaceSelector", e.NamespaceSelector, NamespacePrefix)
	if err != nil {
		return nil, err
	}
	ns = replaceAll(ns, has(NamespaceLabel))
	return rewrite(ns, func(n node) node {
		if n == (global{}) {
			return negate(has(NamespaceLabel))
		}
		return n
	}), nil
}

// serviceAccounts returns the restriction on service accounts, nil if there
// is none.
func (e Entity) serviceAccounts() (node, error) {
	sa, err := prefixedField("serviceAccounts.selector", e.ServiceAccountSelector, ServiceAccountPrefix)
	if err != nil || len(e.ServiceAccountNames) == 0 {
		return sa, err
	}
	for _, name := range e.ServiceAccountNames {
		if !quotable(name) {
			return nil, fmt.Errorf("serviceAccounts.names: %q: %w", name, ErrUnquotable)
		}
	}
	return and(sa, newMember(ServiceAccountLabel, e.ServiceAccountNames, false)), nil
}

// WithPrefix returns s with prefix before each label key. It fails where a
// key becomes longer than MaxKey.
func (s Selector) WithPrefix(prefix string) (Selector, error) {
	n, err := withPrefix(s.root, prefix)
	if err != nil {
		return Selector{}, err
	}
	return checked(n)
}

// And returns the selector that matches what both match.
func (s Selector) And(t Selector) (Selector, error) { return checked(and(s.root, t.root)) }

// parseField parses one API field; nil for an empty one. A blank one is
// all().
func parseField(field, text string) (node, error) {
	if text == "" {
		return nil, nil
	}
	n, err := parse(text)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", field, err)
	}
	if n == nil {
		return all{}, nil
	}
	return n, nil
}

func prefixedField(field, text, prefix string) (node, error) {
	n, err := parseField(field, text)
	if err != nil {
		return nil, err
	}
	if n, err = withPrefix(n, prefix); err != nil {
		return nil, fmt.Errorf("%s: %w", field, err)
	}
	return n, nil
}

func withPrefix(n node, prefix string) (node, error) {
	var err error
	add := func(key string) string {
		if len(prefix)+len(key) > MaxKey {
			err = fmt.Errorf("label key %q with prefix %q: longer than %d bytes", cut(key, 40), prefix, MaxKey)
		}
		return prefix + key
	}
	n = rewrite(n, func(n node) node {
		switch n := n.(type) {
		case has:
			return has(add(string(n)))
		case *compare:
			return &compare{key: add(n.key), op: n.op, value: n.value}
		case member:
			n.key = add(n.key)
			return n
		default:
			return n
		}
	})
	return n, err
}

// replaceAll puts instead for each all() in n.
func replaceAll(n, instead node) node {
	return rewrite(n, func(n node) node {
		if n == (all{}) {
			return instead
		}
		return n
	})
}

func inNamespace(namespace string) (node, error) {
	if !quotable(namespace) {
		return nil, fmt.Errorf("namespace: %q: %w", namespace, ErrUnquotable)
	}
	return &compare{key: NamespaceLabel, op: equal, value: [1]string{namespace}}, nil
}

func quotable(value string) bool {
	return !strings.Contains(value, `"`) || !strings.Contains(value, `'`)
}

// checked builds a composed selector and holds it to the limits.
func checked(n node) (Selector, error) {
	s := build(n)
	return s, s.checkSize(s.text)
}
