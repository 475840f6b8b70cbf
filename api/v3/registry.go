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
// caller's.
func Kinds() []KindInfo {
	return []KindInfo{
		{"BGPConfiguration", "bgpconfigurations", []string{"bgpconfig", "bgpconfigs"}, false, false, func() Object { return typed(&BGPConfiguration{}, "BGPConfiguration") }},
		{"BGPFilter", "bgpfilters", []string{"bgpf", "bf"}, false, false, func() Object { return typed(&BGPFilter{}, "BGPFilter") }},
		{"BGPPeer", "bgppeers", []string{"bgpp", "bp"}, false, false, func() Object { return typed(&BGPPeer{}, "BGPPeer") }},
		{"BlockAffinity", "blockaffinities", []string{"affinity", "affinities"}, false, true, func() Object { return typed(&BlockAffinity{}, "BlockAffinity") }},
		{"CalicoNodeStatus", "caliconodestatuses", []string{"nodestatus", "nodestatuses"}, false, false, func() Object { return typed(&CalicoNodeStatus{}, "CalicoNodeStatus") }},
		{"ClusterInformation", "clusterinformations", []string{"clusterinfo", "clusterinfos"}, false, true, func() Object { return typed(&ClusterInformation{}, "ClusterInformation") }},
		{"FelixConfiguration", "felixconfigurations", []string{"felixconfig", "felixconfigs"}, false, false, func() Object { return typed(&FelixConfiguration{}, "FelixConfiguration") }},
		{"GlobalNetworkPolicy", "globalnetworkpolicies", []string{"gnp", "gnps", "cgnp"}, false, false, func() Object { return typed(&GlobalNetworkPolicy{}, "GlobalNetworkPolicy") }},
		{"GlobalNetworkSet", "globalnetworksets", []string{"gnetset", "gnetsets", "gns"}, false, false, func() Object { return typed(&GlobalNetworkSet{}, "GlobalNetworkSet") }},
		{"HostEndpoint", "hostendpoints", []string{"hep", "heps"}, false, false, func() Object { return typed(&HostEndpoint{}, "HostEndpoint") }},
		{"IPAMBlock", "ipamblocks", nil, false, true, func() Object { return typed(&IPAMBlock{}, "IPAMBlock") }},
		{"IPAMConfiguration", "ipamconfigurations", []string{"ipamconfig", "ipamconfigs"}, false, false, func() Object { return typed(&IPAMConfiguration{}, "IPAMConfiguration") }},
		{"IPAMHandle", "ipamhandles", nil, false, true, func() Object { return typed(&IPAMHandle{}, "IPAMHandle") }},
		{"IPPool", "ippools", []string{"ipp", "ipps", "pool", "pools"}, false, false, func() Object { return typed(&IPPool{}, "IPPool") }},
		{"IPReservation", "ipreservations", []string{"reservation", "reservations"}, false, false, func() Object { return typed(&IPReservation{}, "IPReservation") }},
		{"KubeControllersConfiguration", "kubecontrollersconfigurations", []string{"kubecontrollersconfig", "kcc", "kccs"}, false, false, func() Object { return typed(&KubeControllersConfiguration{}, "KubeControllersConfiguration") }},
		{"LiveMigration", "livemigrations", nil, true, true, func() Object { return typed(&LiveMigration{}, "LiveMigration") }},
		{"NetworkPolicy", "networkpolicies", []string{"policy", "policies", "np", "pol", "pols", "cnp", "caliconetworkpolicy"}, true, false, func() Object { return typed(&NetworkPolicy{}, "NetworkPolicy") }},
		{"NetworkSet", "networksets", []string{"netset", "netsets"}, true, false, func() Object { return typed(&NetworkSet{}, "NetworkSet") }},
		{"Node", "nodes", []string{"no"}, false, false, func() Object { return typed(&Node{}, "Node") }},
		{"Profile", "profiles", []string{"pro", "pros"}, false, false, func() Object { return typed(&Profile{}, "Profile") }},
		{"StagedGlobalNetworkPolicy", "stagedglobalnetworkpolicies", []string{"sgnp"}, false, false, func() Object { return typed(&StagedGlobalNetworkPolicy{}, "StagedGlobalNetworkPolicy") }},
		{"StagedKubernetesNetworkPolicy", "stagedkubernetesnetworkpolicies", []string{"stagedkubernetespolicy", "sknp", "skpol"}, true, false, func() Object { return typed(&StagedKubernetesNetworkPolicy{}, "StagedKubernetesNetworkPolicy") }},
		{"StagedNetworkPolicy", "stagednetworkpolicies", []string{"stagedpolicy", "snp", "scnp", "spol"}, true, false, func() Object { return typed(&StagedNetworkPolicy{}, "StagedNetworkPolicy") }},
		{"Tier", "tiers", nil, false, false, func() Object { return typed(&Tier{}, "Tier") }},
		{"WorkloadEndpoint", "workloadendpoints", []string{"wep", "weps"}, true, false, func() Object { return typed(&WorkloadEndpoint{}, "WorkloadEndpoint") }},
	}
}

// typed writes an object's kind and version into it.
func typed[T Object](o T, kind string) T {
	*o.Type() = TypeMeta{Kind: kind, APIVersion: Group}
	return o
}

// LookupKind finds a kind by its name, its plural or an alias, in any case.
func LookupKind(name string) (KindInfo, bool) {
	name = strings.ToLower(name)
	for _, k := range Kinds() {
		if slices.Contains(k.names(), name) {
			return k, true
		}
	}
	return KindInfo{}, false
}

// SuggestKind returns the name of a kind nearest to what was written: the
// kind's own name in its own spelling. It returns "" when nothing is near.
func SuggestKind(name string) string {
	lower := strings.ToLower(name)
	best, distance := "", len(lower)/3+1
	for _, k := range Kinds() {
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
	best, distance := "", len(lower)/3+2
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
