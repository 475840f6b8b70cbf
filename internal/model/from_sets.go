package model

import (
	"maps"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	v3 "github.com/brindle-net/brindle/api/v3"
	"github.com/brindle-net/brindle/internal/prefix"
	"github.com/brindle-net/brindle/internal/selector"
)

// namespaceProfile is what the name of the profile of a namespace begins with.
const namespaceProfile = "kns."

func fromProfile(o *v3.Profile, unread v3.FieldErrors) *Profile {
	r := ruleReader{unread: unread, errs: slices.Clone(unread)}
	return &Profile{
		Name: o.Name, Labels: o.Spec.LabelsToApply,
		Ingress: r.rules("spec.ingress", o.Spec.Ingress), Egress: r.rules("spec.egress", o.Spec.Egress),
		Broken: broken(r.errs),
	}
}

// fromNetworkSet reads a set of networks. One in a namespace has its label,
// and the labels of the namespace from its profile.
func fromNetworkSet(id ID, o v3.Object, nets []string, unread v3.FieldErrors) *NetworkSet {
	m := o.Meta()
	out := &NetworkSet{ID: id, Labels: ownLabels(m.Labels)}
	delete(out.Labels, selector.NamespaceLabel)
	if m.Namespace != "" {
		out.Labels[selector.NamespaceLabel] = m.Namespace
		out.Profiles = []string{namespaceProfile + m.Namespace}
	}
	errs := slices.Clone(unread)
	for i, n := range nets {
		p, err := prefix.ParseLoose(n)
		if err != nil {
			errs = append(errs, v3.FieldError{
				Path: "spec.nets[" + strconv.Itoa(i) + "]", Value: n, Rule: "must be a CIDR or an IP address",
			})
			continue
		}
		out.Nets = append(out.Nets, p)
	}
	slices.SortFunc(out.Nets, netip.Prefix.Compare)
	out.Nets = slices.Compact(out.Nets)
	out.Broken = broken(errs)
	return out
}

// ownLabels copies the labels of an endpoint or network set. What looks like
// the label of a namespace or service account is left out: those come from
// profiles, and nobody may make them up.
func ownLabels(labels map[string]string) map[string]string {
	out := make(map[string]string, len(labels)+1)
	maps.Copy(out, labels)
	maps.DeleteFunc(out, func(k, _ string) bool {
		return strings.HasPrefix(k, selector.NamespacePrefix) ||
			strings.HasPrefix(k, selector.ServiceAccountPrefix)
	})
	return out
}
