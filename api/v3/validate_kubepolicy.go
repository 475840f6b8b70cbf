package v3

import (
	"fmt"
	"maps"
	"net/netip"
	"reflect"
	"regexp"
	"slices"
	"strconv"

	"github.com/brindle-net/brindle/internal/prefix"
)

// kubePortRegexp is the form of a port's name (RFC 6335, section 5.1), but for
// the letter it must have and the hyphens it must not have in a row.
var kubePortRegexp = regexp.MustCompile(`^[a-z0-9]([-a-z0-9]{0,13}[a-z0-9])?$`)

func (c *checker) stagedKubernetesPolicy(s *StagedKubernetesNetworkPolicySpec) {
	c.staged(s.StagedAction)
	if s.StagedAction == StagedDelete {
		c.onlyDelete(reflect.ValueOf(*s))
		return
	}
	c.labelSelector("spec.podSelector", &s.PodSelector)
	c.must(len(s.Ingress) <= maxRules, "spec.ingress", count(len(s.Ingress), "rule"), "must have at most 1024 rules")
	for i := range s.Ingress {
		at := indexed("spec.ingress", i)
		c.kubePorts(at+".ports", s.Ingress[i].Ports)
		c.kubePeers(at+".from", s.Ingress[i].From)
	}
	c.must(len(s.Egress) <= maxRules, "spec.egress", count(len(s.Egress), "rule"), "must have at most 1024 rules")
	for i := range s.Egress {
		at := indexed("spec.egress", i)
		c.kubePorts(at+".ports", s.Egress[i].Ports)
		c.kubePeers(at+".to", s.Egress[i].To)
	}
	c.types("spec.policyTypes", s.PolicyTypes)
}

// labelSelector checks a selector in the shape of Kubernetes.
func (c *checker) labelSelector(path string, s *LabelSelector) {
	if s == nil {
		return
	}
	c.labels(path+".matchLabels", s.MatchLabels)
	for i, e := range s.MatchExpressions {
		at := indexed(path+".matchExpressions", i)
		if e.Key == "" || !isLabelKey(e.Key) {
			c.wrong(at+".key", e.Key, "must be a label key", "")
		}
		c.required(at+".operator", e.Operator)
		oneOf(c, at+".operator", e.Operator, "In", "NotIn", "Exists", "DoesNotExist")
		switch e.Operator {
		case "In", "NotIn":
			c.must(len(e.Values) > 0, at+".values", "", "must have a value for operator "+e.Operator)
		case "Exists", "DoesNotExist":
			c.must(len(e.Values) == 0, at+".values", fmt.Sprint(e.Values), "must have no values for operator "+e.Operator)
		}
		for j, v := range e.Values {
			c.must(v == "" || len(v) <= maxLabel && labelTextRegexp.MatchString(v), indexed(at+".values", j), v, "must be a label value")
		}
	}
}

func (c *checker) kubePorts(path string, ports []KubernetesPolicyPort) {
	for i, p := range ports {
		at := indexed(path, i)
		if p.Protocol != nil {
			c.must(*p.Protocol != "", at+".protocol", "", "must be one of TCP, UDP, SCTP")
			oneOf(c, at+".protocol", *p.Protocol, ProtocolTCP, ProtocolUDP, ProtocolSCTP)
		}
		switch {
		case p.Port == nil:
		case p.Port.Is:
			c.match(at+".port", p.Port.Str, kubePortRegexp, "must be a port number or a name of at most 15 lower-case letters, digits and -")
		default:
			c.between(at+".port", int64(p.Port.Int), 1, 65535)
		}
		if p.EndPort == nil {
			continue
		}
		if p.Port == nil || p.Port.Is {
			c.wrong(at+".endPort", strconv.Itoa(int(*p.EndPort)), "must not be set without a port number", "set port to the first port of the range")
			continue
		}
		c.between(at+".endPort", int64(*p.EndPort), int64(p.Port.Int), 65535)
	}
}

func (c *checker) kubePeers(path string, peers []KubernetesPolicyPeer) {
	for i, p := range peers {
		at := indexed(path, i)
		selects := p.PodSelector != nil || p.NamespaceSelector != nil
		switch {
		case p.IPBlock == nil && !selects:
			c.wrong(at, "", "must have one of podSelector, namespaceSelector and ipBlock", "to mean everyone, remove the peer list")
		case p.IPBlock != nil && selects:
			c.wrong(at+".ipBlock", p.IPBlock.CIDR, "must not be set beside podSelector or namespaceSelector", "make two peers")
		}
		c.labelSelector(at+".podSelector", p.PodSelector)
		c.labelSelector(at+".namespaceSelector", p.NamespaceSelector)
		if p.IPBlock != nil {
			c.ipBlock(at+".ipBlock", p.IPBlock)
		}
	}
}

func (c *checker) ipBlock(path string, b *IPBlock) {
	outer, ok := netip.Prefix{}, false
	if c.required(path+".cidr", b.CIDR) {
		outer, ok = c.cidr(path+".cidr", b.CIDR)
	}
	for i, e := range b.Except {
		at := indexed(path+".except", i)
		inner, good := c.cidr(at, e)
		if good && ok && (!prefix.Contains(outer, inner) || inner == outer) {
			c.wrong(at, e, "must be a smaller part of "+b.CIDR, "")
		}
	}
}

func (c *checker) controllers(s *KubeControllersConfigurationSpec) {
	c.oneOfAnyCase("spec.logSeverityScreen", s.LogSeverityScreen, "None", "Debug", "Info", "Warning", "Error", "Fatal", "Panic")
	oneOf(c, "spec.healthChecks", s.HealthChecks, "Enabled", "Disabled")
	if s.PrometheusMetricsPort != nil {
		c.between("spec.prometheusMetricsPort", int64(*s.PrometheusMetricsPort), 0, 65535)
	}
	if s.DebugProfilePort != nil {
		c.between("spec.debugProfilePort", int64(*s.DebugProfilePort), 0, 65535)
	}
	if n := s.Controllers.Node; n != nil {
		oneOf(c, "spec.controllers.node.syncLabels", n.SyncLabels, "Enabled", "Disabled")
		if n.HostEndpoint != nil {
			c.autoHostEndpoints("spec.controllers.node.hostEndpoint", n.HostEndpoint)
		}
	}
	if l := s.Controllers.LoadBalancer; l != nil {
		oneOf(c, "spec.controllers.loadBalancer.assignIPs", l.AssignIPs, "AllServices", "RequestedServicesOnly")
	}
	if m := s.Controllers.Migration; m != nil {
		oneOf(c, "spec.controllers.migration.policyNameMigrator", m.PolicyNameMigrator, "Enabled", "Disabled")
	}
}

func (c *checker) autoHostEndpoints(path string, h *AutoHostEndpointConfig) {
	oneOf(c, path+".autoCreate", h.AutoCreate, "Enabled", "Disabled")
	oneOf(c, path+".createDefaultHostEndpoint", h.CreateDefaultHostEndpoint, "Enabled", "Disabled")
	for i, t := range h.Templates {
		at := indexed(path+".templates", i)
		if t.GenerateName != "" {
			c.named(at+".generateName", t.GenerateName, isSubdomain, ruleSubdomain)
		}
		c.must(len(t.InterfaceCIDRs) > 0 || t.InterfacePattern != "", at, "", "must have interfaceCIDRs or interfacePattern")
		for j, n := range t.InterfaceCIDRs {
			c.cidr(indexed(at+".interfaceCIDRs", j), n)
		}
		c.regex(at+".interfacePattern", t.InterfacePattern)
		c.labels(at+".labels", t.Labels)
		for _, key := range slices.Sorted(maps.Keys(t.Annotations)) {
			c.must(isLabelKey(key), dotted(at+".annotations", key), key, "must be an annotation key")
		}
		c.selector(at+".nodeSelector", t.NodeSelector, 0)
	}
}
