package v3

import (
	"slices"
	"strings"
)

// KindInfo says what there is to know about a kind without an object of it.
type KindInfo struct {
	Kind       string
	Plural     string   // as it stands in the datastore's keys, lower case
	Aliases    []string // other names that users may write, lower case
	Namespaced bool
	ReadOnly   bool // written by components only, never by users
	New        func() Object
}

// Kinds returns every kind of the API, sorted by name. The slice is the
// caller's, the aliases in it are only to be read.
func Kinds() []KindInfo { return slices.Clone(kinds) }

// kinds is only read.
var kinds = []KindInfo{
	{Kind: "BGPConfiguration", Plural: "bgpconfigurations", Aliases: []string{"bgpconfig", "bgpconfigs"}, New: func() Object { return &BGPConfiguration{TypeMeta: typed("BGPConfiguration")} }},
	{Kind: "BGPFilter", Plural: "bgpfilters", Aliases: []string{"bgpf", "bf"}, New: func() Object { return &BGPFilter{TypeMeta: typed("BGPFilter")} }},
	{Kind: "BGPPeer", Plural: "bgppeers", Aliases: []string{"bgpp", "bp"}, New: func() Object { return &BGPPeer{TypeMeta: typed("BGPPeer")} }},
	{Kind: "BlockAffinity", Plural: "blockaffinities", Aliases: []string{"affinity", "affinities"}, ReadOnly: true, New: func() Object { return &BlockAffinity{TypeMeta: typed("BlockAffinity")} }},
	{Kind: "CalicoNodeStatus", Plural: "caliconodestatuses", Aliases: []string{"nodestatus", "nodestatuses"}, New: func() Object { return &CalicoNodeStatus{TypeMeta: typed("CalicoNodeStatus")} }},
	{Kind: "ClusterInformation", Plural: "clusterinformations", Aliases: []string{"clusterinfo", "clusterinfos"}, ReadOnly: true, New: func() Object { return &ClusterInformation{TypeMeta: typed("ClusterInformation")} }},
	{Kind: "FelixConfiguration", Plural: "felixconfigurations", Aliases: []string{"felixconfig", "felixconfigs"}, New: func() Object { return &FelixConfiguration{TypeMeta: typed("FelixConfiguration")} }},
	{Kind: "GlobalNetworkPolicy", Plural: "globalnetworkpolicies", Aliases: []string{"gnp", "gnps", "cgnp"}, New: func() Object { return &GlobalNetworkPolicy{TypeMeta: typed("GlobalNetworkPolicy")} }},
	{Kind: "GlobalNetworkSet", Plural: "globalnetworksets", Aliases: []string{"gnetset", "gnetsets", "gns"}, New: func() Object { return &GlobalNetworkSet{TypeMeta: typed("GlobalNetworkSet")} }},
	{Kind: "HostEndpoint", Plural: "hostendpoints", Aliases: []string{"hep", "heps"}, New: func() Object { return &HostEndpoint{TypeMeta: typed("HostEndpoint")} }},
	{Kind: "IPAMBlock", Plural: "ipamblocks", ReadOnly: true, New: func() Object { return &IPAMBlock{TypeMeta: typed("IPAMBlock")} }},
	{Kind: "IPAMConfiguration", Plural: "ipamconfigurations", Aliases: []string{"ipamconfig", "ipamconfigs"}, New: func() Object { return &IPAMConfiguration{TypeMeta: typed("IPAMConfiguration")} }},
	{Kind: "IPAMHandle", Plural: "ipamhandles", ReadOnly: true, New: func() Object { return &IPAMHandle{TypeMeta: typed("IPAMHandle")} }},
	{Kind: "IPPool", Plural: "ippools", Aliases: []string{"ipp", "ipps", "pool", "pools"}, New: func() Object { return &IPPool{TypeMeta: typed("IPPool")} }},
	{Kind: "IPReservation", Plural: "ipreservations", Aliases: []string{"reservation", "reservations"}, New: func() Object { return &IPReservation{TypeMeta: typed("IPReservation")} }},
	{Kind: "KubeControllersConfiguration", Plural: "kubecontrollersconfigurations", Aliases: []string{"kubecontrollersconfig", "kcc", "kccs"}, New: func() Object { return &KubeControllersConfiguration{TypeMeta: typed("KubeControllersConfiguration")} }},
	{Kind: "LiveMigration", Plural: "livemigrations", Namespaced: true, ReadOnly: true, New: func() Object { return &LiveMigration{TypeMeta: typed("LiveMigration")} }},
	{Kind: "NetworkPolicy", Plural: "networkpolicies", Aliases: []string{"policy", "policies", "np", "pol", "pols", "cnp", "caliconetworkpolicy"}, Namespaced: true, New: func() Object { return &NetworkPolicy{TypeMeta: typed("NetworkPolicy")} }},
	{Kind: "NetworkSet", Plural: "networksets", Aliases: []string{"netset", "netsets"}, Namespaced: true, New: func() Object { return &NetworkSet{TypeMeta: typed("NetworkSet")} }},
	{Kind: "Node", Plural: "nodes", Aliases: []string{"no"}, New: func() Object { return &Node{TypeMeta: typed("Node")} }},
	{Kind: "Profile", Plural: "profiles", Aliases: []string{"pro", "pros"}, New: func() Object { return &Profile{TypeMeta: typed("Profile")} }},
	{Kind: "StagedGlobalNetworkPolicy", Plural: "stagedglobalnetworkpolicies", Aliases: []string{"sgnp"}, New: func() Object { return &StagedGlobalNetworkPolicy{TypeMeta: typed("StagedGlobalNetworkPolicy")} }},
	{Kind: "StagedKubernetesNetworkPolicy", Plural: "stagedkubernetesnetworkpolicies", Aliases: []string{"stagedkubernetespolicy", "sknp", "skpol"}, Namespaced: true, New: func() Object { return &StagedKubernetesNetworkPolicy{TypeMeta: typed("StagedKubernetesNetworkPolicy")} }},
	{Kind: "StagedNetworkPolicy", Plural: "stagednetworkpolicies", Aliases: []string{"stagedpolicy", "snp", "scnp", "spol"}, Namespaced: true, New: func() Object { return &StagedNetworkPolicy{TypeMeta: typed("StagedNetworkPolicy")} }},
	{Kind: "Tier", Plural: "tiers", New: func() Object { return &Tier{TypeMeta: typed("Tier")} }},
	{Kind: "WorkloadEndpoint", Plural: "workloadendpoints", Aliases: []string{"wep", "weps"}, Namespaced: true, New: func() Object { return &WorkloadEndpoint{TypeMeta: typed("WorkloadEndpoint")} }},
}

// typed returns the type of an object of a kind.
func typed(kind string) TypeMeta { return TypeMeta{Kind: kind, APIVersion: Group} }

// kindNamed finds a kind by its exact name.
func kindNamed(name string) (KindInfo, bool) {
	i, ok := slices.BinarySearchFunc(kinds, name, func(k KindInfo, n string) int { return strings.Compare(k.Kind, n) })
	if !ok {
		return KindInfo{}, false
	}
	return kinds[i], true
}

// LookupKind finds a kind by its name, its plural or an alias, in any case.
func LookupKind(name string) (KindInfo, bool) {
	name = strings.ToLower(name)
	for i := range kinds {
		if kinds[i].called(name) {
			return kinds[i], true
		}
	}
	return KindInfo{}, false
}

// called reports whether a kind has a name, which is in lower case.
func (k *KindInfo) called(name string) bool {
	plural, _ := strings.CutSuffix(name, ".projectcalico.org")
	return plural == k.Plural || strings.EqualFold(name, k.Kind) || slices.Contains(k.Aliases, name)
}

// SuggestKind returns the name of a kind nearest to what was written: the
// kind's own name in its own spelling. It returns "" when nothing is near.
func SuggestKind(name string) string {
	lower := strings.ToLower(name)
	best, distance := "", len(lower)/3+1
	for _, k := range kinds {
		for _, n := range k.names() {
			if d := editDistance(lower, n); d < distance {
				best, distance = k.Kind, d
			}
		}
	}
	return best
}

// names returns every lower-case name of a kind.
func (k KindInfo) names() []string {
	return append([]string{strings.ToLower(k.Kind), k.Plural, k.Plural + ".projectcalico.org"}, k.Aliases...)
}

// nearest returns the candidate that a writer most likely meant, "" when none
// is near. Case counts for nothing, earlier candidates win ties.
func nearest(written string, candidates []string) string {
	lower := strings.ToLower(written)
	best, distance := "", len(lower)/3+1
	for _, c := range candidates {
		if d := editDistance(lower, strings.ToLower(c)); d < distance {
			best, distance = c, d
		}
	}
	return best
}

// editDistance counts the single-byte changes between a and b, a swap of two
// neighbours as one (optimal string alignment).
func editDistance(a, b string) int {
	if len(a) > 64 || len(b) > 64 {
		return max(len(a), len(b)) // no name is that long: don't spend time on it
	}
	var older, prev, row [65]int
	for j := range len(b) + 1 {
		prev[j] = j
	}
	for i := range len(a) {
		row[0] = i + 1
		for j := range len(b) {
			cost := 1
			if a[i] == b[j] {
				cost = 0
			}
			row[j+1] = min(prev[j+1]+1, row[j]+1, prev[j]+cost)
			if i > 0 && j > 0 && a[i] == b[j-1] && a[i-1] == b[j] {
				row[j+1] = min(row[j+1], older[j-1]+1)
			}
		}
		older, prev = prev, row
	}
	return prev[len(b)]
}
