package v3

import (
	"encoding/json"
	"reflect"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestNotHonoured(t *testing.T) {
	table := map[string]string{
		"IPPool.spec.cidr":               "proof",
		"NetworkPolicy.spec.ingress":     "proof",
		"NetworkPolicy.spec.tier":        "proof",
		"Rule.action":                    "proof",
		"Rule.source.nets":               "proof",
		"BGPFilter.spec.exportV4[].cidr": "proof",
		"KubeControllersConfiguration.spec.controllers.policy": "proof",
	}
	tests := []struct {
		name string
		in   Object
		want []string
	}{
		{"nothing set", &IPPool{TypeMeta: typed("IPPool")}, nil},
		{"set and proven", &IPPool{TypeMeta: typed("IPPool"), Spec: IPPoolSpec{CIDR: "10.0.0.0/8"}}, nil},
		{"set and not proven",
			&IPPool{TypeMeta: typed("IPPool"), Spec: IPPoolSpec{CIDR: "10.0.0.0/8", VXLANMode: EncapAlways, Disabled: true}},
			[]string{"spec.vxlanMode", "spec.disabled"}},
		{"asks for nothing", &IPPool{TypeMeta: typed("IPPool"), Spec: IPPoolSpec{VXLANMode: EncapNever}}, nil},
		{"asks for nothing by a pointer",
			&FelixConfiguration{TypeMeta: typed("FelixConfiguration"), Spec: FelixConfigurationSpec{BPFEnabled: new(false), FloatingIPs: new("Disabled"), WireguardPersistentKeepAlive: &Duration{}}}, nil},
		{"switches off what is on",
			&FelixConfiguration{TypeMeta: typed("FelixConfiguration"), Spec: FelixConfigurationSpec{IPv6Support: new(false)}},
			[]string{"spec.ipv6Support"}},
		{"an empty list that says something",
			&FelixConfiguration{TypeMeta: typed("FelixConfiguration"), Spec: FelixConfigurationSpec{FailsafeInboundHostPorts: &[]ProtoPort{}}},
			[]string{"spec.failsafeInboundHostPorts"}},
		{"an empty block that says something",
			&KubeControllersConfiguration{TypeMeta: typed("KubeControllersConfiguration"), Spec: KubeControllersConfigurationSpec{Controllers: ControllersConfig{Policy: &ReconcilerConfig{}, Namespace: &ReconcilerConfig{}}}},
			[]string{"spec.controllers.namespace"}},
		{"rules, each path once",
			&NetworkPolicy{TypeMeta: typed("NetworkPolicy"), Spec: NetworkPolicySpec{
				Tier:    "a",
				Ingress: []Rule{{Action: ActionAllow, Source: EntityRule{Nets: []string{"10.0.0.0/8"}, Ports: []Port{PortNumber(1)}}}, {Action: ActionDeny, Source: EntityRule{Ports: []Port{PortNumber(2)}}}},
				Egress:  []Rule{{Action: ActionAllow}}}},
			[]string{"spec.ingress[].source.ports", "spec.egress[].action"}},
		{"a list of blocks",
			&BGPFilter{TypeMeta: typed("BGPFilter"), Spec: BGPFilterSpec{ExportV4: []BGPFilterRule{{CIDR: "10.0.0.0/8", PrefixLength: &PrefixLengthRange{Min: new(26)}}}}},
			[]string{"spec.exportV4[].prefixLength.min"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if d := cmp.Diff(tt.want, notHonoured(tt.in, table)); d != "" {
				t.Errorf("-want +got:\n%s", d)
			}
		})
	}
}

func TestFieldsNamesEveryFieldOnce(t *testing.T) {
	seen := map[string]bool{}
	for _, f := range Fields() {
		if seen[f.Key()] {
			t.Errorf("%s is there twice", f.Key())
		}
		seen[f.Key()] = true
	}
	var missing []string
	for _, key := range []string{
		"metadata.labels", "IPPool.spec.cidr", "IPPool.status.conditions[].type",
		"StagedGlobalNetworkPolicy.spec.stagedAction", "StagedGlobalNetworkPolicy.spec.preDNAT",
		"Profile.spec.egress[].destination.services.namespace", "BGPFilter.spec.importV6[].operations[].prependASPath.prefix",
		"FelixConfiguration.spec.routeTableRanges[].min", "FelixConfiguration.spec.istioDSCPMark",
		"StagedKubernetesNetworkPolicy.spec.ingress[].from[].podSelector.matchExpressions[].values",
		"CalicoNodeStatus.status.bgp.peersV4[].state", "LiveMigration.spec.source.workloadEndpoint.hostname",
	} {
		if !seen[key] {
			missing = append(missing, key)
		}
	}
	if len(missing) > 0 {
		t.Errorf("missing %v", missing)
	}
}

func TestTagsAgreeWithDefaults(t *testing.T) {
	for _, k := range Kinds() {
		o := k.New()
		o.Meta().Name = DefaultName
		Default(o)
		for _, f := range fieldsOf(reflect.TypeOf(o).Elem()) {
			if f.name != "spec" {
				continue
			}
			spec := reflect.ValueOf(o).Elem().FieldByIndex(f.index)
			for _, f := range fieldsOf(spec.Type()) {
				v, tag := spec.FieldByIndex(f.index), f.tag.Get("default")
				inner, _ := innermost(f.typ)
				if v.IsZero() || inner.Kind() == reflect.Struct && !isScalar(inner) {
					continue
				}
				written, err := json.Marshal(v.Interface())
				if err != nil {
					t.Fatal(err)
				}
				want := strings.NewReplacer(`"`, "", ",", ", ").Replace(string(written))
				if got, _, _ := strings.Cut(tag, " ("); got != want && tag != "by the rules present" {
					t.Errorf("%s.spec.%s: Default writes %s, the tag says %q", k.Kind, f.name, written, tag)
				}
			}
		}
	}
}
