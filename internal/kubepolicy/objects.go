package kubepolicy

import (
	"crypto/sha256"
	"encoding/hex"
	"maps"
	"strings"

	v3 "github.com/brindle-net/brindle/api/v3"
)

// How the names of converted policies begin. Nobody else may write policies
// with such names, so that none can clash: the first is Calico's own name for
// policies that mirror Kubernetes'.
const (
	NetworkPrefix = "knp.default."
	ClusterPrefix = "kcnp."
)

// SourceAnnotation is on every converted policy, and says of what it was made:
// "networking.k8s.io/v1 NetworkPolicy web".
const SourceAnnotation = "brindle.net/converted-from"

// Reserved reports whether a name is one that only conversion gives to
// policies of a kind of the v3 API.
func Reserved(kind, name string) bool {
	switch kind {
	case "NetworkPolicy":
		return strings.HasPrefix(name, NetworkPrefix)
	case "GlobalNetworkPolicy":
		return strings.HasPrefix(name, ClusterPrefix)
	}
	return false
}

// Stored returns the policy of the v3 API that a policy of Kubernetes is
// stored as, with what Kubernetes would have filled in. false for an object
// of any other kind. The errors say what is wrong, as Validate does.
func Stored(o v3.Object) (v3.Object, v3.FieldErrors, bool) {
	switch o := o.(type) {
	case *KubeNetworkPolicy:
		errs := Validate(o)
		spec := o.Spec
		if len(spec.PolicyTypes) == 0 {
			spec.PolicyTypes = []v3.PolicyType{v3.TypeIngress}
			if len(spec.Egress) > 0 {
				spec.PolicyTypes = []v3.PolicyType{v3.TypeIngress, v3.TypeEgress}
			}
		}
		out := &v3.NetworkPolicy{TypeMeta: v3.TypeMeta{Kind: "NetworkPolicy", APIVersion: v3.Group}}
		out.ObjectMeta = storedMeta(o, NetworkPrefix+o.Name)
		if len(errs) == 0 {
			out.Spec, errs = NetworkPolicy(&spec)
		}
		return out, errs, true
	case *ClusterNetworkPolicy:
		errs := Validate(o)
		out := &v3.GlobalNetworkPolicy{TypeMeta: v3.TypeMeta{Kind: "GlobalNetworkPolicy", APIVersion: v3.Group}}
		out.ObjectMeta = storedMeta(o, clusterName(o.Name))
		if len(errs) == 0 {
			out.Spec, errs, _ = Cluster(&o.Spec)
		}
		return out, errs, true
	}
	return nil, nil, false
}

// storedMeta is the metadata of a converted object: what the user wrote, and
// nothing that Kubernetes' own datastore gave.
func storedMeta(o v3.Object, name string) v3.ObjectMeta {
	m := o.Meta()
	annotations := map[string]string{SourceAnnotation: o.Type().APIVersion + " " + o.Type().Kind + " " + m.Name}
	for k, v := range m.Annotations {
		if k != "kubectl.kubernetes.io/last-applied-configuration" {
			annotations[k] = v
		}
	}
	return v3.ObjectMeta{Name: name, Namespace: m.Namespace, Labels: maps.Clone(m.Labels), Annotations: annotations}
}

// clusterName makes a name that a GlobalNetworkPolicy may have: two parts of
// at most 63 letters. A longer name, or one with dots, is told apart from
// others by a hash.
func clusterName(name string) string {
	const most = 63
	if len(name) <= most && !strings.Contains(name, ".") {
		return ClusterPrefix + name
	}
	sum := sha256.Sum256([]byte(name))
	hash := "-" + hex.EncodeToString(sum[:5])
	short := strings.ReplaceAll(name, ".", "-")
	if len(short) > most-len(hash) {
		short = short[:most-len(hash)]
	}
	return ClusterPrefix + strings.TrimRight(short, "-") + hash
}
