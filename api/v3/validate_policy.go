package v3

import (
	"fmt"
	"math"
	"reflect"
	"slices"
	"strconv"
)

const maxRules = 1024

// AssumeNeededOnEveryNode is the performance hint that has every agent prepare
// for a policy that selects nothing on its node yet.
const AssumeNeededOnEveryNode = "AssumeNeededOnEveryNode"

func (c *checker) networkPolicy(s *NetworkPolicySpec) {
	c.tierOf(s.Tier)
	c.order(s.Order)
	rules := ruleContext{namespaced: true}
	c.rules("spec.ingress", s.Ingress, rules.facing(TypeIngress))
	c.rules("spec.egress", s.Egress, rules.facing(TypeEgress))
	c.selector("spec.selector", s.Selector, maxSelector)
	c.types("spec.types", s.Types)
	c.selector("spec.serviceAccountSelector", s.ServiceAccountSelector, maxSelector)
	c.hints(s.PerformanceHints)
}

func (c *checker) globalPolicy(s *GlobalNetworkPolicySpec) {
	c.tierOf(s.Tier)
	c.order(s.Order)
	rules := ruleContext{}
	c.rules("spec.ingress", s.Ingress, rules.facing(TypeIngress))
	c.rules("spec.egress", s.Egress, rules.facing(TypeEgress))
	c.selector("spec.selector", s.Selector, maxSelector)
	c.types("spec.types", s.Types)
	c.hostFlags(s)
	c.selector("spec.serviceAccountSelector", s.ServiceAccountSelector, maxSelector)
	c.selector("spec.namespaceSelector", s.NamespaceSelector, maxSelector)
	c.hints(s.PerformanceHints)
}

// hostFlags checks the variants of policy for hosts.
func (c *checker) hostFlags(s *GlobalNetworkPolicySpec) {
	if s.DoNotTrack && s.PreDNAT {
		c.wrong("spec.preDNAT", "true", "must be false when doNotTrack is true", "make two policies")
	}
	if s.DoNotTrack && !s.ApplyOnForward {
		c.wrong("spec.doNotTrack", "true", "must be false unless applyOnForward is true", "set applyOnForward: true")
	}
	if s.PreDNAT && !s.ApplyOnForward {
		c.wrong("spec.preDNAT", "true", "must be false unless applyOnForward is true", "set applyOnForward: true")
	}
	if !s.PreDNAT {
		return
	}
	if len(s.Egress) > 0 {
		c.wrong("spec.egress", count(len(s.Egress), "rule"), "must be empty when preDNAT is true: it is about traffic coming in", "put the egress rules into another policy")
	}
	if i := slices.Index(s.Types, TypeEgress); i >= 0 {
		c.wrong(indexed("spec.types", i), string(TypeEgress), "must not be Egress when preDNAT is true", "set types to [Ingress]")
	}
}

func count(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return strconv.Itoa(n) + " " + what + "s"
}

func (c *checker) tierOf(name string) {
	if name != "" {
		c.named("spec.tier", name, isDNSLabel, ruleDNSLabel)
	}
}

func (c *checker) order(order *float64) {
	if order != nil && (math.IsNaN(*order) || math.IsInf(*order, 0)) {
		c.wrong("spec.order", fmt.Sprint(*order), "must be a number", "leave it out to come last")
	}
}

func (c *checker) types(path string, types []PolicyType) {
	c.atMost(path, len(types), 2)
	for i, t := range types {
		c.must(t != "", indexed(path, i), "", "must be one of Ingress, Egress")
		oneOf(c, indexed(path, i), t, TypeIngress, TypeEgress)
	}
	unique(c, path, types)
}

func (c *checker) hints(hints []string) {
	for i, h := range hints {
		c.must(h != "", indexed("spec.performanceHints", i), "", "must be "+AssumeNeededOnEveryNode)
		oneOf(c, indexed("spec.performanceHints", i), h, AssumeNeededOnEveryNode)
	}
	unique(c, "spec.performanceHints", hints)
}

func (c *checker) stagedPolicy(s *StagedNetworkPolicySpec) {
	c.staged(s.StagedAction)
	if s.StagedAction == StagedDelete {
		rest := s.NetworkPolicySpec
		rest.Tier = ""
		c.onlyDelete(reflect.ValueOf(rest))
		c.tierOf(s.Tier)
		return
	}
	c.networkPolicy(&s.NetworkPolicySpec)
}

func (c *checker) stagedGlobalPolicy(s *StagedGlobalNetworkPolicySpec) {
	c.staged(s.StagedAction)
	if s.StagedAction == StagedDelete {
		rest := s.GlobalNetworkPolicySpec
		rest.Tier = ""
		c.onlyDelete(reflect.ValueOf(rest))
		c.tierOf(s.Tier)
		return
	}
	c.globalPolicy(&s.GlobalNetworkPolicySpec)
}

func (c *checker) staged(a StagedAction) {
	oneOf(c, "spec.stagedAction", a, StagedSet, StagedDelete, StagedLearn, StagedIgnore)
}

// onlyDelete wants nothing but the staged action: what is to be deleted has
// its spec already. Empty lists say nothing.
func (c *checker) onlyDelete(spec reflect.Value) {
	for _, f := range fieldsOf(spec.Type()) {
		v := spec.FieldByIndex(f.index)
		empty := v.IsZero() || v.Kind() == reflect.Slice && v.Len() == 0
		if !empty && f.name != "stagedAction" {
			c.wrong("spec."+f.name, "", "must not be set when stagedAction is Delete", "remove it")
		}
	}
}

func (c *checker) tier(name string, s *TierSpec) {
	c.order(s.Order)
	if s.DefaultAction != nil {
		oneOf(c, "spec.defaultAction", *s.DefaultAction, ActionDeny, ActionPass)
		c.must(*s.DefaultAction != "", "spec.defaultAction", "", "must be one of Deny, Pass")
	}
	b, ok := builtInTiers[name]
	if !ok {
		return
	}
	if s.Order != nil && *s.Order != *b.Order {
		c.wrong("spec.order", fmt.Sprint(*s.Order), fmt.Sprintf("must be %.0f, the fixed order of tier %s", *b.Order, name), "make a tier of your own")
	}
	if s.DefaultAction != nil && *s.DefaultAction != *b.DefaultAction {
		c.wrong("spec.defaultAction", string(*s.DefaultAction), "must be "+string(*b.DefaultAction)+", the fixed action of tier "+name, "make a tier of your own")
	}
}

func (c *checker) profile(s *ProfileSpec) {
	rules := ruleContext{}
	c.rules("spec.ingress", s.Ingress, rules.facing(TypeIngress))
	c.rules("spec.egress", s.Egress, rules.facing(TypeEgress))
	c.inheritedLabels("spec.labelsToApply", s.LabelsToApply)
}
