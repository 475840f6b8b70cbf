package cli

import (
	"context"
	"crypto/sha1"
	"encoding/json"
	"fmt"
	"net/netip"
	"regexp"
	"strings"

	"github.com/spf13/cobra"

	v3 "github.com/brindle-net/brindle/api/v3"
)

// newConvert builds `brindle convert`.
func newConvert(e *Env) *cobra.Command {
	var output string
	var unchecked bool
	files := fileFlags{old: true}
	c := &cobra.Command{
		Use: "convert -f FILE", Short: "Convert files for Calico 2 to projectcalico.org/v3", GroupID: "resources", Args: cobra.NoArgs,
		Long: `Convert resources of the API that Calico had before its version 3 (apiVersion v1:
bgpPeer, hostEndpoint, ipPool, node, policy, profile), and policies of
Kubernetes, to projectcalico.org/v3, and print them. What is of v3 already is
printed as it is. Names follow from the old ones as with calicoctl: in lower
case, and with a hash where that is not the same. No datastore is asked.
Endpoints of workloads are not converted: whoever sets up the workload makes
them anew.`,
		Example: `  brindle convert -f old.yaml > new.yaml
  brindle convert -f - -o json < policy.json`,
		RunE: func(c *cobra.Command, _ []string) error {
			if output == "yml" {
				output = "yaml"
			}
			if output != "yaml" && output != "json" {
				return fmt.Errorf("output format %q: must be yaml or json", output)
			}
			docs, err := files.read(e)
			if err != nil {
				return err
			}
			if !unchecked {
				if err := checkCopies(c.Context(), docs); err != nil {
					return err
				}
			}
			p, err := newPrinter(e, output)
			if err != nil || len(docs) == 0 {
				return err
			}
			list := make([]v3.Object, len(docs))
			for i, d := range docs {
				list[i] = d.Object
			}
			return p.objects(c.Context(), list)
		},
	}
	files.add(c)
	c.Flags().StringVarP(&output, "output", "o", "yaml", "yaml or json")
	c.Flags().BoolVar(&unchecked, "ignore-validation", false, "print what comes out although it is not valid")
	completeFlag(c, "output", oneOf("yaml", "json"))
	return c
}

// checkCopies checks documents by themselves, and leaves them without defaults.
func checkCopies(ctx context.Context, docs []v3.Document) error {
	copies := make([]v3.Document, len(docs))
	for i, d := range docs {
		text, err := json.Marshal(d.Object)
		if err != nil {
			return err
		}
		copies[i] = d
		copies[i].Object = kindOf(d.Object).New()
		if err := json.Unmarshal(text, copies[i].Object); err != nil {
			return err
		}
	}
	return check(ctx, nil, copies)
}

// v1Object is a resource of the API before v3.
type v1Object interface {
	v3.Object
	convert() (v3.Object, v3.FieldErrors)
}

// v1Kinds are the kinds of that API.
func v1Kinds() []v3.ExtraKind {
	return []v3.ExtraKind{
		{Kind: "bgpPeer", APIVersion: "v1", New: func() v3.Object { return &v1BGPPeer{} }},
		{Kind: "hostEndpoint", APIVersion: "v1", New: func() v3.Object { return &v1HostEndpoint{} }},
		{Kind: "ipPool", APIVersion: "v1", New: func() v3.Object { return &v1IPPool{} }},
		{Kind: "node", APIVersion: "v1", New: func() v3.Object { return &v1Node{} }},
		{Kind: "policy", APIVersion: "v1", New: func() v3.Object { return &v1Policy{} }},
		{Kind: "profile", APIVersion: "v1", New: func() v3.Object { return &v1Profile{} }},
		{Kind: "workloadEndpoint", APIVersion: "v1", New: func() v3.Object { return &v1Workload{} }},
	}
}

// converted3 converts the documents that are older than v3. All that cannot be
// converted is told at once.
func converted3(docs []v3.Document) ([]v3.Document, error) {
	var all v3.DocumentErrors
	for i, d := range docs {
		old, ok := d.Object.(v1Object)
		if !ok {
			continue
		}
		o, wrong := old.convert()
		all = append(all, d.Errors(wrong)...)
		if o != nil {
			docs[i].Object = o
		}
	}
	return docs, all.Err()
}

// named is the metadata of a converted object, or of an old one for messages.
func named(name string) v3.ObjectMeta { return v3.ObjectMeta{Name: name} }

type v1BGPPeer struct {
	v3.TypeMeta `json:",inline"`
	Metadata    struct {
		Scope  string `json:"scope"`
		Node   string `json:"node"`
		PeerIP string `json:"peerIP"`
	} `json:"metadata"`
	Spec struct {
		ASNumber v3.ASNumber `json:"asNumber"`
	} `json:"spec"`
}

// Meta implements v3.Object.
func (o *v1BGPPeer) Meta() *v3.ObjectMeta { return new(named(o.Metadata.PeerIP)) }

func (o *v1BGPPeer) convert() (v3.Object, v3.FieldErrors) {
	m := o.Metadata
	wrong := v3.OneOf("metadata.scope", m.Scope, "global", "node")
	if (m.Scope == "node") != (m.Node != "") {
		wrong = append(wrong, v3.FieldError{Path: "metadata.node", Value: m.Node, Rule: "must be given with scope node, and only then"})
	}
	addr, err := netip.ParseAddr(m.PeerIP)
	if err != nil {
		return nil, append(wrong, v3.FieldError{Path: "metadata.peerIP", Value: m.PeerIP, Rule: "must be an IP address"})
	}
	out := &v3.BGPPeer{TypeMeta: typeOf("BGPPeer"), ObjectMeta: named(nameOfAddr(addr))}
	if m.Node != "" {
		out.Spec.Node = plainName(m.Node)
		out.Name = out.Spec.Node + "." + out.Name
	}
	out.Spec.PeerIP, out.Spec.ASNumber = addr.String(), o.Spec.ASNumber
	return out, wrong
}

type v1HostEndpoint struct {
	v3.TypeMeta `json:",inline"`
	Metadata    struct {
		Name   string            `json:"name"`
		Node   string            `json:"node"`
		Labels map[string]string `json:"labels"`
	} `json:"metadata"`
	Spec struct {
		InterfaceName string            `json:"interfaceName"`
		ExpectedIPs   []string          `json:"expectedIPs"`
		Profiles      []string          `json:"profiles"`
		Ports         []v3.EndpointPort `json:"ports"`
	} `json:"spec"`
}

// Meta implements v3.Object.
func (o *v1HostEndpoint) Meta() *v3.ObjectMeta { return new(named(o.Metadata.Name)) }

func (o *v1HostEndpoint) convert() (v3.Object, v3.FieldErrors) {
	m := o.Metadata
	wrong := append(mustHave("metadata.name", m.Name), mustHave("metadata.node", m.Node)...)
	out := &v3.HostEndpoint{TypeMeta: typeOf("HostEndpoint")}
	out.Spec.Node, out.Spec.InterfaceName, out.Spec.ExpectedIPs = plainName(m.Node), o.Spec.InterfaceName, o.Spec.ExpectedIPs
	out.Name, out.Labels = newName(out.Spec.Node+"."+m.Name), newLabels(m.Labels)
	for _, p := range o.Spec.Profiles {
		out.Spec.Profiles = append(out.Spec.Profiles, profileName(p))
	}
	for _, p := range o.Spec.Ports {
		p.Protocol = newProtocol(p.Protocol)
		out.Spec.Ports = append(out.Spec.Ports, p)
	}
	return out, wrong
}

type v1IPPool struct {
	v3.TypeMeta `json:",inline"`
	Metadata    struct {
		CIDR string `json:"cidr"`
	} `json:"metadata"`
	Spec struct {
		IPIP *struct {
			Enabled *bool  `json:"enabled"`
			Mode    string `json:"mode"`
		} `json:"ipip"`
		NATOutgoing bool `json:"nat-outgoing"`
		Disabled    bool `json:"disabled"`
	} `json:"spec"`
}

// Meta implements v3.Object.
func (o *v1IPPool) Meta() *v3.ObjectMeta { return new(named(o.Metadata.CIDR)) }

func (o *v1IPPool) convert() (v3.Object, v3.FieldErrors) {
	cidr, wrong := newNet("metadata.cidr", o.Metadata.CIDR)
	out := &v3.IPPool{TypeMeta: typeOf("IPPool"), ObjectMeta: named(strings.NewReplacer(".", "-", ":", "-", "/", "-").Replace(cidr))}
	out.Spec.CIDR, out.Spec.IPIPMode = cidr, "Never"
	out.Spec.NATOutgoing, out.Spec.Disabled = o.Spec.NATOutgoing, o.Spec.Disabled
	if ipip := o.Spec.IPIP; ipip != nil {
		wrong = append(wrong, v3.OneOf("spec.ipip.mode", ipip.Mode, "", "always", "cross-subnet")...)
		switch {
		case ipip.Enabled == nil: // its documentation says that this means yes, and its program took it for no
			wrong = append(wrong, v3.FieldError{Path: "spec.ipip.enabled", Rule: "must be true or false"})
		case *ipip.Enabled && ipip.Mode == "cross-subnet":
			out.Spec.IPIPMode = "CrossSubnet"
		case *ipip.Enabled:
			out.Spec.IPIPMode = "Always"
		}
	}
	return out, wrong
}

type v1Node struct {
	v3.TypeMeta `json:",inline"`
	Metadata    struct {
		Name string `json:"name"`
	} `json:"metadata"`
	Spec struct {
		BGP *struct {
			ASNumber    *v3.ASNumber `json:"asNumber"`
			IPv4Address string       `json:"ipv4Address"`
			IPv6Address string       `json:"ipv6Address"`
		} `json:"bgp"`
		OrchRefs []v3.OrchRef `json:"orchRefs"`
	} `json:"spec"`
}

// Meta implements v3.Object.
func (o *v1Node) Meta() *v3.ObjectMeta { return new(named(o.Metadata.Name)) }

func (o *v1Node) convert() (v3.Object, v3.FieldErrors) {
	out := &v3.Node{TypeMeta: typeOf("Node"), ObjectMeta: named(plainName(o.Metadata.Name))}
	out.Spec.OrchRefs = o.Spec.OrchRefs
	if b := o.Spec.BGP; b != nil && (b.ASNumber != nil || b.IPv4Address != "" || b.IPv6Address != "") {
		out.Spec.BGP = &v3.NodeBGPSpec{ASNumber: b.ASNumber, IPv4Address: b.IPv4Address, IPv6Address: b.IPv6Address}
	}
	return out, mustHave("metadata.name", o.Metadata.Name)
}

// v1Workload is refused whatever it says.
type v1Workload struct {
	v3.TypeMeta `json:",inline"`
	Metadata    v1WorkloadMeta `json:"metadata"`
}

type v1WorkloadMeta struct {
	Name     string `json:"name"`
	Workload string `json:"workload"`
}

// Partial implements v3.Partial.
func (*v1Workload) Partial() {}

// Partial implements v3.Partial.
func (*v1WorkloadMeta) Partial() {}

// Meta implements v3.Object.
func (o *v1Workload) Meta() *v3.ObjectMeta {
	return new(named(o.Metadata.Workload + "/" + o.Metadata.Name))
}

func (o *v1Workload) convert() (v3.Object, v3.FieldErrors) {
	return nil, v3.FieldErrors{{Path: "kind", Value: o.Kind, Rule: "cannot be converted: whoever sets up the workload makes its endpoint anew", Hint: "leave it out"}}
}

func typeOf(kind string) v3.TypeMeta { return v3.TypeMeta{Kind: kind, APIVersion: v3.Group} }

func mustHave(path, value string) v3.FieldErrors {
	if value != "" {
		return nil
	}
	return v3.FieldErrors{{Path: path, Rule: "must be given"}}
}

var (
	strangeRunes = regexp.MustCompile(`[^a-z0-9.-]+`)
	dotted       = regexp.MustCompile(`-*\.[.-]*`)
)

// plainName is an old name as v3 can have it.
func plainName(old string) string {
	name := strings.ReplaceAll(strings.ToLower(old), "/", ".")
	name = dotted.ReplaceAllString(strangeRunes.ReplaceAllString(name, "-"), ".")
	return strings.Trim(name, ".-")
}

// newName is plainName with a hash behind it if it is another name: old names
// that differ must stay so.
func newName(old string) string { return hashed(plainName(old), old) }

// policyName is newName for policies, of whose names only a tier has dots.
func policyName(old string) string {
	return hashed(strings.ReplaceAll(plainName(old), ".", "-"), old)
}

// profileName is newName for profiles. Those of namespaces are called after
// them.
func profileName(old string) string {
	if namespace, ok := strings.CutPrefix(old, "k8s_ns."); ok {
		old = "kns." + namespace
	}
	return newName(old)
}

func hashed(name, old string) string {
	const most, hash = 253, 8
	if name == old && len(name) <= most {
		return name
	}
	sum := fmt.Sprintf("%x", sha1.Sum([]byte(old)))
	return name[:min(len(name), most-hash-1)] + "-" + sum[:hash]
}

// nameOfAddr is an address as a name: all of it, with dashes.
func nameOfAddr(a netip.Addr) string {
	return strings.NewReplacer(".", "-", ":", "-").Replace(a.Unmap().StringExpanded())
}
