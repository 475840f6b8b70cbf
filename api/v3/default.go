package v3

import (
	"encoding/json"
	"fmt"
	"strings"
	"time"
)

// AnnotationMetadata holds an object's own name as the user wrote it. Policies
// carry it, whatever name they are stored under.
const AnnotationMetadata = "projectcalico.org/metadata"

// DefaultName is the name of the object of a configuration kind that counts for
// the whole cluster.
const DefaultName = "default"

// DefaultTierOrder is the order of a tier that states none.
const DefaultTierOrder = 1_000_000

// Default writes into o what clients write into every object of its kind that
// they store (documented Calico behaviour): values of fields left out, and
// labels and annotations that follow from the rest. It changes nothing when
// called again. Defaults that hold without being stored are not written: the
// reference of fields lists all.
func Default(o Object) {
	switch o := o.(type) {
	case *IPPool:
		defaultPool(&o.Spec)
	case *IPAMConfiguration:
		orElse(&o.Spec.AutoAllocateBlocks, true)
	case *BGPConfiguration:
		if o.Name == DefaultName {
			orText(&o.Spec.ServiceLoadBalancerAggregation, "Enabled")
		}
	case *FelixConfiguration:
		defaultFelix(o)
	case *KubeControllersConfiguration:
		orText(&o.Spec.HealthChecks, "Enabled")
		orElse(&o.Spec.PrometheusMetricsPort, 9094)
		if n := o.Spec.Controllers.Node; n != nil {
			orElse(&n.LeakGracePeriod, Duration{15 * time.Minute})
		}
	case *Tier:
		defaultTier(o)
	case *WorkloadEndpoint:
		label(&o.ObjectMeta, LabelNamespace, o.Namespace)
		label(&o.ObjectMeta, LabelOrchestrator, o.Spec.Orchestrator)
		label(&o.ObjectMeta, LabelServiceAccount, o.Spec.ServiceAccountName)
	default:
		defaultPolicy(o)
	}
}

func defaultPool(s *IPPoolSpec) {
	orText(&s.VXLANMode, EncapNever)
	orText(&s.IPIPMode, EncapNever)
	orText(&s.NodeSelector, "all()")
	orText(&s.AssignmentMode, AssignAutomatic)
	if s.BlockSize == 0 {
		s.BlockSize = 26
		if strings.Contains(s.CIDR, ":") {
			s.BlockSize = 122
		}
	}
	if len(s.AllowedUses) == 0 {
		s.AllowedUses = []AllowedUse{UseWorkload, UseTunnel}
		if s.NamespaceSelector != "" {
			// A tunnel has no namespace: with Tunnel written out, the object
			// would be refused when it is applied again.
			s.AllowedUses = []AllowedUse{UseWorkload}
		}
	}
}

// defaultFelix fills only the object for the whole cluster: on a narrower one
// a default that is written out would win over what the cluster's object says.
func defaultFelix(o *FelixConfiguration) {
	if o.Name != DefaultName {
		return
	}
	orElse(&o.Spec.BPFConnectTimeLoadBalancing, "TCP")
	orElse(&o.Spec.BPFHostNetworkedNATWithoutCTLB, "Enabled")
	orElse(&o.Spec.FloatingIPs, "Disabled")
	orElse(&o.Spec.NFTablesFlowTableOffload, "Disabled")
	orElse(&o.Spec.NFTablesMode, "Auto")
}

// builtInTiers are the order and action of the tiers that always exist.
var builtInTiers = map[string]TierSpec{
	TierKubeAdmin:    {Order: new(1_000.0), DefaultAction: new(ActionPass)},
	TierDefault:      {Order: new(float64(DefaultTierOrder)), DefaultAction: new(ActionDeny)},
	TierKubeBaseline: {Order: new(10_000_000.0), DefaultAction: new(ActionPass)},
}

// BuiltInTiers returns the tiers that always exist, in their order.
func BuiltInTiers() []*Tier {
	var all []*Tier
	for _, name := range []string{TierKubeAdmin, TierDefault, TierKubeBaseline} {
		t := &Tier{TypeMeta: typed("Tier"), ObjectMeta: ObjectMeta{Name: name}}
		defaultTier(t)
		all = append(all, t)
	}
	return all
}

func defaultTier(o *Tier) {
	order, action := float64(DefaultTierOrder), ActionDeny
	if b, ok := builtInTiers[o.Name]; ok {
		order, action = *b.Order, *b.DefaultAction
	}
	orElse(&o.Spec.Order, order)
	orElse(&o.Spec.DefaultAction, action)
}

func defaultPolicy(o Object) {
	switch o := o.(type) {
	case *NetworkPolicy:
		defaultTiered(&o.ObjectMeta, &o.Spec.Tier)
		orTypes(&o.Spec.Types, len(o.Spec.Ingress), len(o.Spec.Egress))
	case *GlobalNetworkPolicy:
		defaultTiered(&o.ObjectMeta, &o.Spec.Tier)
		orTypes(&o.Spec.Types, len(o.Spec.Ingress), len(o.Spec.Egress))
	case *StagedNetworkPolicy:
		orText(&o.Spec.StagedAction, StagedSet)
		defaultTiered(&o.ObjectMeta, &o.Spec.Tier)
		if o.Spec.StagedAction != StagedDelete { // which says nothing else
			orTypes(&o.Spec.Types, len(o.Spec.Ingress), len(o.Spec.Egress))
		}
	case *StagedGlobalNetworkPolicy:
		orText(&o.Spec.StagedAction, StagedSet)
		defaultTiered(&o.ObjectMeta, &o.Spec.Tier)
		if o.Spec.StagedAction != StagedDelete {
			orTypes(&o.Spec.Types, len(o.Spec.Ingress), len(o.Spec.Egress))
		}
	case *StagedKubernetesNetworkPolicy:
		orText(&o.Spec.StagedAction, StagedSet)
		if len(o.Spec.PolicyTypes) == 0 && o.Spec.StagedAction != StagedDelete {
			o.Spec.PolicyTypes = []PolicyType{TypeIngress}
			if len(o.Spec.Egress) > 0 {
				o.Spec.PolicyTypes = []PolicyType{TypeIngress, TypeEgress}
			}
		}
	}
}

// defaultTiered fills a policy's tier and what follows from tier and name.
func defaultTiered(m *ObjectMeta, tier *string) {
	orText(tier, TierDefault)
	label(m, LabelTier, *tier)
	if m.Name == "" {
		return
	}
	name, err := json.Marshal(m.Name)
	if err != nil {
		return // text always encodes
	}
	if m.Annotations == nil {
		m.Annotations = map[string]string{}
	}
	m.Annotations[AnnotationMetadata] = fmt.Sprintf(`{"name":%s}`, name)
}

// orTypes infers a policy's directions from its rules when it states none.
func orTypes(types *[]PolicyType, ingress, egress int) {
	switch {
	case len(*types) > 0:
	case egress == 0:
		*types = []PolicyType{TypeIngress}
	case ingress == 0:
		*types = []PolicyType{TypeEgress}
	default:
		*types = []PolicyType{TypeIngress, TypeEgress}
	}
}

// label sets a label that follows from the rest of the object; none for "".
func label(m *ObjectMeta, key, value string) {
	if value == "" {
		return
	}
	if m.Labels == nil {
		m.Labels = map[string]string{}
	}
	m.Labels[key] = value
}

// orElse sets a field that is not set.
func orElse[T any](field **T, value T) {
	if *field == nil {
		*field = &value
	}
}

// orText sets a text field that is empty.
func orText[T ~string](field *T, value T) {
	if *field == "" {
		*field = value
	}
}
