package kubepolicy

import (
	"net/netip"
	"slices"
	"strings"

	v3 "github.com/brindle-net/brindle/api/v3"
)

// firstAddress is where pods that have no address yet are counted from, in
// the range that is shared address space (RFC 6598) and nobody's own.
func firstAddress() netip.Addr { return netip.AddrFrom4([4]byte{100, 64, 0, 1}) }

// Policies puts in place of each policy of Kubernetes what it is stored as,
// and leaves other documents as they are. Objects of Kubernetes' namespaced
// kinds without a namespace are in the one that is given. The error is
// DocumentErrors with all that is wrong with them.
func Policies(docs []v3.Document, namespace string) ([]v3.Document, error) {
	out := slices.Clone(docs)
	var wrong v3.DocumentErrors
	for i, d := range docs {
		place(d.Object, namespace)
		stored, errs, ok := Stored(d.Object)
		if !ok {
			continue
		}
		wrong = append(wrong, d.Errors(errs)...)
		out[i].Object = stored
	}
	return out, wrong.Err()
}

// place gives an object of a namespaced kind of Kubernetes its namespace.
func place(o v3.Object, namespace string) {
	switch o.(type) {
	case *KubeNetworkPolicy, *Pod, *ServiceAccount, *Service, *EndpointSlice:
		if o.Meta().Namespace == "" {
			o.Meta().Namespace = namespace
		}
	}
}

// Manifests is what a set of manifests describes, as the v3 API says it.
type Manifests struct {
	Docs     []v3.Document // policies, profiles, endpoints, and what was v3 already
	Services []Ends
	Notes    []string // what was assumed or passed over, for whoever reads the outcome
}

// Read turns every object of Kubernetes among docs into what it means: policies
// as Policies does, pods into endpoints, namespaces and service accounts into
// profiles. What a cluster would have added is added: the namespaces and
// accounts of pods that have none among docs, and an address of 100.64.0.0/10
// for each pod without one. Finished pods, and those with the network of their
// host, are left out.
func Read(docs []v3.Document, namespace string) (Manifests, error) {
	docs, err := Policies(docs, namespace)
	if err != nil {
		return Manifests{}, err
	}
	r := &manifestReader{profiles: map[string]bool{}}
	var objects []v3.Object
	for _, d := range docs {
		objects = append(objects, d.Object)
		r.read(d)
	}
	r.address()
	r.complete()
	r.out.Services = Services(objects, r.pods)
	return r.out, nil
}

// manifestReader gathers what manifests describe.
type manifestReader struct {
	out      Manifests
	pods     []*v3.WorkloadEndpoint
	profiles map[string]bool // by name
}

func (r *manifestReader) add(d v3.Document, o v3.Object) {
	d.Object = o
	r.out.Docs = append(r.out.Docs, d)
	if _, ok := o.(*v3.Profile); ok {
		r.profiles[o.Meta().Name] = true
	}
}

func (r *manifestReader) read(d v3.Document) {
	switch o := d.Object.(type) {
	case *Namespace:
		r.add(d, NamespaceProfile(o.Name, o.Labels))
	case *ServiceAccount:
		r.add(d, AccountProfile(o.Namespace, o.Name, o.Labels))
	case *Pod:
		w, ok := o.Endpoint()
		if !ok {
			r.note("Pod " + o.Namespace + "/" + o.Name + " is finished, or has the network of its host: no policy applies to it")
			return
		}
		r.pods = append(r.pods, w)
		r.add(d, w)
	case *Service, *EndpointSlice:
	default:
		r.add(d, o)
	}
}

func (r *manifestReader) note(s string) { r.out.Notes = append(r.out.Notes, s) }

// address gives pods without an address one each, in order of their names.
func (r *manifestReader) address() {
	var without []*v3.WorkloadEndpoint
	taken := map[string]bool{}
	for _, w := range r.pods {
		if len(w.Spec.IPNetworks) == 0 {
			without = append(without, w)
		}
		for _, n := range w.Spec.IPNetworks {
			taken[n] = true
		}
	}
	slices.SortStableFunc(without, func(a, b *v3.WorkloadEndpoint) int {
		return strings.Compare(a.Namespace+"/"+a.Name, b.Namespace+"/"+b.Name)
	})
	next := firstAddress()
	for _, w := range without {
		for taken[next.String()+"/32"] {
			next = next.Next()
		}
		w.Spec.IPNetworks = []string{next.String() + "/32"}
		r.note("Pod " + w.Namespace + "/" + w.Spec.Pod + " has no address: it is taken to have " + next.String())
		next = next.Next()
	}
}

// complete adds the profiles that pods name and that no document gives.
func (r *manifestReader) complete() {
	for _, w := range r.pods {
		if n := namespaceProfile + w.Namespace; !r.profiles[n] {
			r.add(v3.Document{File: "assumed"}, NamespaceProfile(w.Namespace, nil))
		}
		account := w.Spec.ServiceAccountName
		if n := accountProfile + w.Namespace + "." + account; !r.profiles[n] {
			r.add(v3.Document{File: "assumed"}, AccountProfile(w.Namespace, account, nil))
		}
	}
}
