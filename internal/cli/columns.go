package cli

import (
	"cmp"
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"

	v3 "github.com/brindle-net/brindle/api/v3"
)

// column is one column of a kind's table. Wide ones are shown with -o wide
// only.
type column struct {
	name string
	only string // "" or "wide"
	cell func(o v3.Object, ctx cellContext) string
}

// cellContext is what a cell may need beyond its object.
type cellContext struct {
	globalAS string // the AS number of nodes that have none of their own
}

// in makes the cell function of a kind from one of its own type.
func in[T any](f func(*T) string) func(v3.Object, cellContext) string {
	return func(o v3.Object, _ cellContext) string {
		if t, ok := any(o).(*T); ok {
			return f(t)
		}
		return ""
	}
}

func nameColumn() column {
	return column{"NAME", "", func(o v3.Object, _ cellContext) string { return o.Meta().Name }}
}

// columnsOf returns the columns of a kind: those that calicoctl prints.
func columnsOf(kind string) []column {
	if f, ok := map[string]func() []column{
		"BGPConfiguration": bgpConfigColumns, "BGPFilter": bgpFilterColumns, "BGPPeer": bgpPeerColumns,
		"CalicoNodeStatus": nodeStatusColumns, "ClusterInformation": clusterColumns,
		"GlobalNetworkPolicy": gnpColumns, "NetworkPolicy": npColumns, "StagedNetworkPolicy": snpColumns,
		"StagedGlobalNetworkPolicy": sgnpColumns, "StagedKubernetesNetworkPolicy": sknpColumns,
		"GlobalNetworkSet": gnsColumns, "NetworkSet": netsetColumns, "HostEndpoint": hepColumns,
		"IPAMConfiguration": ipamConfigColumns, "IPPool": poolColumns, "IPReservation": reservationColumns,
		"Node": nodeColumns, "Profile": profileColumns, "Tier": tierColumns, "WorkloadEndpoint": wepColumns,
	}[kind]; ok {
		return f()
	}
	return []column{nameColumn()}
}

func bgpConfigColumns() []column {
	return []column{nameColumn(),
		{"LOGSEVERITY", "", in(func(o *v3.BGPConfiguration) string { return o.Spec.LogSeverityScreen })},
		{"MESHENABLED", "", in(func(o *v3.BGPConfiguration) string { return optional(o.Spec.NodeToNodeMeshEnabled) })},
		{"ASNUMBER", "", in(func(o *v3.BGPConfiguration) string { return optional(o.Spec.ASNumber) })},
	}
}

func bgpFilterColumns() []column {
	count := func(f func(*v3.BGPFilter) []v3.BGPFilterRule) func(v3.Object, cellContext) string {
		return in(func(o *v3.BGPFilter) string { return strconv.Itoa(len(f(o))) })
	}
	return []column{nameColumn(),
		{"NUMEXPORTV4", "", count(func(o *v3.BGPFilter) []v3.BGPFilterRule { return o.Spec.ExportV4 })},
		{"NUMIMPORTV4", "", count(func(o *v3.BGPFilter) []v3.BGPFilterRule { return o.Spec.ImportV4 })},
		{"NUMEXPORTV6", "", count(func(o *v3.BGPFilter) []v3.BGPFilterRule { return o.Spec.ExportV6 })},
		{"NUMIMPORTV6", "", count(func(o *v3.BGPFilter) []v3.BGPFilterRule { return o.Spec.ImportV6 })},
	}
}

func bgpPeerColumns() []column {
	return []column{nameColumn(),
		{"PEERIP", "", in(func(o *v3.BGPPeer) string { return o.Spec.PeerIP })},
		{"NODE", "", in(func(o *v3.BGPPeer) string { return cmp.Or(o.Spec.Node, o.Spec.NodeSelector, "(global)") })},
		{"ASN", "", in(func(o *v3.BGPPeer) string { return fmt.Sprint(o.Spec.ASNumber) })},
	}
}

func nodeStatusColumns() []column {
	return []column{nameColumn(),
		{"NODE", "", in(func(o *v3.CalicoNodeStatus) string { return o.Spec.Node })},
		{"CLASSES", "wide", in(func(o *v3.CalicoNodeStatus) string { return join(o.Spec.Classes) })},
	}
}

func clusterColumns() []column {
	return []column{nameColumn(),
		{"CLUSTERGUID", "", in(func(o *v3.ClusterInformation) string { return o.Spec.ClusterGUID })},
		{"CLUSTERTYPE", "", in(func(o *v3.ClusterInformation) string { return o.Spec.ClusterType })},
		{"CALICOVERSION", "", in(func(o *v3.ClusterInformation) string { return o.Spec.CalicoVersion })},
		{"DATASTOREREADY", "", in(func(o *v3.ClusterInformation) string { return optional(o.Spec.DatastoreReady) })},
	}
}

// policyColumns are those of every kind of policy but Kubernetes' own.
func policyColumns(spec func(v3.Object) (tier string, order *float64, selector string)) []column {
	cell := func(i int) func(v3.Object, cellContext) string {
		return func(o v3.Object, _ cellContext) string {
			tier, order, selector := spec(o)
			return []string{tier, number(order), selector}[i]
		}
	}
	return []column{nameColumn(), {"TIER", "", cell(0)}, {"ORDER", "wide", cell(1)}, {"SELECTOR", "wide", cell(2)}}
}

func gnpColumns() []column {
	return policyColumns(func(o v3.Object) (string, *float64, string) {
		s := o.(*v3.GlobalNetworkPolicy).Spec
		return s.Tier, s.Order, s.Selector
	})
}

func npColumns() []column {
	return policyColumns(func(o v3.Object) (string, *float64, string) {
		s := o.(*v3.NetworkPolicy).Spec
		return s.Tier, s.Order, s.Selector
	})
}

func snpColumns() []column {
	return policyColumns(func(o v3.Object) (string, *float64, string) {
		s := o.(*v3.StagedNetworkPolicy).Spec
		return s.Tier, s.Order, s.Selector
	})
}

func sgnpColumns() []column {
	return policyColumns(func(o v3.Object) (string, *float64, string) {
		s := o.(*v3.StagedGlobalNetworkPolicy).Spec
		return s.Tier, s.Order, s.Selector
	})
}

func sknpColumns() []column {
	return []column{nameColumn(),
		{"PODSELECTOR", "wide", in(func(o *v3.StagedKubernetesNetworkPolicy) string { return labels(o.Spec.PodSelector.MatchLabels) })},
	}
}

func gnsColumns() []column {
	return []column{nameColumn(), {"NETS", "wide", in(func(o *v3.GlobalNetworkSet) string { return cut(join(o.Spec.Nets)) })}}
}

func netsetColumns() []column {
	return []column{nameColumn(), {"NETS", "wide", in(func(o *v3.NetworkSet) string { return cut(join(o.Spec.Nets)) })}}
}

func hepColumns() []column {
	return []column{nameColumn(),
		{"NODE", "", in(func(o *v3.HostEndpoint) string { return o.Spec.Node })},
		{"INTERFACE", "wide", in(func(o *v3.HostEndpoint) string { return o.Spec.InterfaceName })},
		{"IPS", "wide", in(func(o *v3.HostEndpoint) string { return join(o.Spec.ExpectedIPs) })},
		{"PROFILES", "wide", in(func(o *v3.HostEndpoint) string { return join(o.Spec.Profiles) })},
	}
}

func ipamConfigColumns() []column {
	return []column{nameColumn(),
		{"STRICTAFFINITY", "", in(func(o *v3.IPAMConfiguration) string { return fmt.Sprint(o.Spec.StrictAffinity) })},
		{"AUTOALLOCATEBLOCKS", "", in(func(o *v3.IPAMConfiguration) string { return fmt.Sprint(o.Spec.AutoAllocateBlocks) })},
		{"MAXBLOCKSPERHOST", "wide", in(func(o *v3.IPAMConfiguration) string { return fmt.Sprint(o.Spec.MaxBlocksPerHost) })},
	}
}

func poolColumns() []column {
	pool := func(name, only string, f func(v3.IPPoolSpec) string) column {
		return column{name, only, in(func(o *v3.IPPool) string { return f(o.Spec) })}
	}
	return []column{nameColumn(),
		pool("CIDR", "", func(s v3.IPPoolSpec) string { return s.CIDR }),
		pool("NAT", "wide", func(s v3.IPPoolSpec) string { return fmt.Sprint(s.NATOutgoing) }),
		pool("IPIPMODE", "wide", func(s v3.IPPoolSpec) string { return string(s.IPIPMode) }),
		pool("VXLANMODE", "wide", func(s v3.IPPoolSpec) string { return string(s.VXLANMode) }),
		pool("DISABLED", "wide", func(s v3.IPPoolSpec) string { return fmt.Sprint(s.Disabled) }),
		pool("DISABLEBGPEXPORT", "wide", func(s v3.IPPoolSpec) string { return fmt.Sprint(s.DisableBGPExport) }),
		pool("SELECTOR", "", func(s v3.IPPoolSpec) string { return s.NodeSelector }),
		pool("ASSIGNMENTMODE", "wide", func(s v3.IPPoolSpec) string { return string(s.AssignmentMode) }),
	}
}

func reservationColumns() []column {
	return []column{nameColumn(), {"CIDRS", "wide", in(func(o *v3.IPReservation) string { return join(o.Spec.ReservedCIDRs) })}}
}

func nodeColumns() []column {
	bgp := func(o *v3.Node) v3.NodeBGPSpec {
		if o.Spec.BGP == nil {
			return v3.NodeBGPSpec{}
		}
		return *o.Spec.BGP
	}
	return []column{nameColumn(),
		{"ASN", "wide", func(o v3.Object, ctx cellContext) string {
			if as := bgp(o.(*v3.Node)).ASNumber; as != nil {
				return fmt.Sprint(*as)
			}
			return "(" + cmp.Or(ctx.globalAS, "64512") + ")"
		}},
		{"IPV4", "wide", in(func(o *v3.Node) string { return bgp(o).IPv4Address })},
		{"IPV6", "wide", in(func(o *v3.Node) string { return bgp(o).IPv6Address })},
	}
}

func profileColumns() []column {
	return []column{nameColumn(), {"LABELS", "wide", in(func(o *v3.Profile) string { return labels(o.Spec.LabelsToApply) })}}
}

func tierColumns() []column {
	return []column{nameColumn(), {"ORDER", "", in(func(o *v3.Tier) string { return number(o.Spec.Order) })}}
}

func wepColumns() []column {
	wep := func(name, only string, f func(v3.WorkloadEndpointSpec) string) column {
		return column{name, only, in(func(o *v3.WorkloadEndpoint) string { return f(o.Spec) })}
	}
	name := nameColumn()
	name.only = "wide"
	return []column{name,
		wep("WORKLOAD", "", func(s v3.WorkloadEndpointSpec) string { return cmp.Or(s.Pod, s.Workload) }),
		wep("NODE", "", func(s v3.WorkloadEndpointSpec) string { return s.Node }),
		wep("NETWORKS", "", func(s v3.WorkloadEndpointSpec) string { return join(s.IPNetworks) }),
		wep("INTERFACE", "", func(s v3.WorkloadEndpointSpec) string { return s.InterfaceName }),
		wep("PROFILES", "wide", func(s v3.WorkloadEndpointSpec) string { return join(s.Profiles) }),
		wep("NATS", "wide", func(s v3.WorkloadEndpointSpec) string {
			var out []string
			for _, n := range s.IPNATs {
				out = append(out, n.InternalIP+"->"+n.ExternalIP)
			}
			return join(out)
		}),
	}
}

// optional prints what a pointer points to, nothing for nil.
func optional[T any](p *T) string {
	if p == nil {
		return ""
	}
	return fmt.Sprint(*p)
}

// number prints an order, in digits as long as a reader can count them.
func number(p *float64) string {
	if p == nil {
		return ""
	}
	if math.Abs(*p) < 1e15 {
		return strconv.FormatFloat(*p, 'f', -1, 64)
	}
	return strconv.FormatFloat(*p, 'g', -1, 64)
}

func join[T ~string](list []T) string {
	out := make([]string, len(list))
	for i, s := range list {
		out[i] = string(s)
	}
	return strings.Join(out, ",")
}

func labels(m map[string]string) string {
	var out []string
	for _, k := range slices.Sorted(maps.Keys(m)) {
		out = append(out, k+"="+m[k])
	}
	return strings.Join(out, ",")
}

// maxCell is where a long list is cut (documented Calico behaviour).
const maxCell = 80

func cut(s string) string { return truncate(s, maxCell) }

// truncate cuts a text to at most so many characters, the last three dots.
func truncate(s string, most int) string {
	runes := []rune(s)
	if len(runes) <= most || most < 3 {
		return s
	}
	return string(runes[:most-3]) + "..."
}
