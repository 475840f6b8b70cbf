package v3

import (
	"net/netip"
	"strconv"
	"strings"
)

const (
	maxNets  = 256
	maxPorts = 50
	maxHTTP  = 20 // methods, and paths
)

// ruleContext is where a rule stands.
type ruleContext struct {
	direction  PolicyType
	namespaced bool // of a policy that is in a namespace
}

func (r ruleContext) facing(d PolicyType) ruleContext {
	r.direction = d
	return r
}

func (c *checker) rules(path string, rules []Rule, in ruleContext) {
	c.must(len(rules) <= maxRules, path, count(len(rules), "rule"), "must have at most "+strconv.Itoa(maxRules)+" rules")
	for i := range rules {
		c.rule(indexed(path, i), &rules[i], in)
	}
}

func (c *checker) rule(path string, r *Rule, in ruleContext) {
	action := path + ".action"
	c.must(r.Action != "", action, "", "must be one of Allow, Deny, Log, Pass")
	oneOf(c, action, r.Action, ActionAllow, ActionDeny, ActionLog, ActionPass)
	if v := r.IPVersion; v != nil && *v != 4 && *v != 6 {
		c.wrong(path+".ipVersion", strconv.Itoa(*v), "must be 4 or 6", "")
	}
	if r.Protocol != nil {
		c.protocol(path+".protocol", *r.Protocol)
	}
	if r.NotProtocol != nil {
		c.protocol(path+".notProtocol", *r.NotProtocol)
	}
	c.icmp(path, r)
	c.entity(path+".source", &r.Source, in)
	c.entity(path+".destination", &r.Destination, in)
	c.rulePorts(path+".source", &r.Source, r.Protocol)
	c.rulePorts(path+".destination", &r.Destination, r.Protocol)
	c.ruleServices(path, r, in)
	c.ruleFamilies(path, r)
	if r.HTTP != nil {
		c.http(path+".http", r, in)
	}
	if r.Metadata != nil {
		size := 0
		for k, v := range r.Metadata.Annotations {
			size += len(k) + len(v)
		}
		c.must(size <= maxAnnotations, path+".metadata.annotations", strconv.Itoa(size)+" bytes", "must be at most 256 KiB together")
	}
}

func (c *checker) icmp(path string, r *Rule) {
	if n := protocolNumber(r.Protocol); r.ICMP != nil && n != 1 && n != 58 {
		c.wrong(path+".icmp", "", "must not be set unless protocol is ICMP or ICMPv6", "set protocol: ICMP")
	}
	if r.ICMP != nil {
		c.icmpFields(path+".icmp", r.ICMP)
	}
	if r.NotICMP != nil {
		c.icmpFields(path+".notICMP", r.NotICMP)
	}
	if r.IPVersion == nil {
		return
	}
	c.icmpVersion(path+".protocol", r.Protocol, *r.IPVersion)
	c.icmpVersion(path+".notProtocol", r.NotProtocol, *r.IPVersion)
}

// icmpVersion holds the two kinds of ICMP to the version of IP they belong to.
func (c *checker) icmpVersion(path string, p *Protocol, version int) {
	switch n := protocolNumber(p); {
	case n == 1 && version == 6:
		c.wrong(path, p.String(), "must not be ICMP when ipVersion is 6", "did you mean ICMPv6?")
	case n == 58 && version == 4:
		c.wrong(path, p.String(), "must not be ICMPv6 when ipVersion is 4", "did you mean ICMP?")
	}
}

func (c *checker) icmpFields(path string, f *ICMPFields) {
	if f == nil {
		return
	}
	if f.Type != nil {
		c.between(path+".type", int64(*f.Type), 0, 254)
	}
	if f.Code != nil {
		c.between(path+".code", int64(*f.Code), 0, 255)
		c.must(f.Type != nil, path+".code", strconv.Itoa(*f.Code), "must not be set without type")
	}
}

func (c *checker) entity(path string, e *EntityRule, in ruleContext) {
	nets := func(name string, list []string, negated bool) {
		if len(list) > 0 {
			c.ruleNets(path+name, list, negated)
		}
	}
	selects := func(name, value string, check func(path, value string)) {
		if value != "" {
			check(path+name, value)
		}
	}
	ports := func(name string, list []Port) {
		if len(list) > 0 {
			c.rulePortList(path+name, list)
		}
	}
	one := func(path, value string) { c.selector(path, value, 0) }
	nets(".nets", e.Nets, false)
	selects(".selector", e.Selector, one)
	selects(".namespaceSelector", e.NamespaceSelector, c.ruleNamespaces)
	ports(".ports", e.Ports)
	nets(".notNets", e.NotNets, true)
	selects(".notSelector", e.NotSelector, one)
	ports(".notPorts", e.NotPorts)
	if a := e.ServiceAccounts; a != nil {
		for i, n := range a.Names {
			c.subdomain(indexed(path+".serviceAccounts.names", i), n)
		}
		c.selector(path+".serviceAccounts.selector", a.Selector, 0)
	}
	if e.Services != nil {
		c.services(path, e, in)
	}
}

// ruleNets checks the networks of one end. A rule that excludes everything
// would match nothing.
func (c *checker) ruleNets(path string, nets []string, negated bool) {
	c.atMost(path, len(nets), maxNets)
	for i, n := range nets {
		if p, ok := c.cidr(indexed(path, i), n); ok && negated && p.Bits() == 0 {
			c.wrong(indexed(path, i), n, "must not be every address: the rule could never match", "remove the rule or narrow the network")
		}
	}
}

func (c *checker) rulePortList(path string, ports []Port) {
	c.atMost(path, len(ports), maxPorts)
	for i, p := range ports {
		c.port(indexed(path, i), p)
	}
}

// rulePorts holds ports to a protocol that has them. Named ports bring their
// own protocol.
func (c *checker) rulePorts(path string, e *EntityRule, p *Protocol) {
	if p != nil && p.hasPorts() {
		return
	}
	check := func(path string, ports []Port) {
		for i, port := range ports {
			switch {
			case p != nil:
				c.wrong(indexed(path, i), port.String(), "must not be set: protocol "+p.String()+" has no ports", "set protocol to TCP, UDP or SCTP")
			case port.Name == "":
				c.wrong(indexed(path, i), port.String(), "must not be set without a protocol", "set protocol to TCP, UDP or SCTP")
			default:
				continue
			}
			return // once is enough
		}
	}
	check(path+".ports", e.Ports)
	check(path+".notPorts", e.NotPorts)
}

// services checks what a service match excludes at its own end.
func (c *checker) services(path string, e *EntityRule, in ruleContext) {
	s := path + ".services"
	if c.required(s+".name", e.Services.Name) {
		c.subdomain(s+".name", e.Services.Name)
	}
	switch ns := e.Services.Namespace; {
	case ns != "":
		c.named(s+".namespace", ns, isDNSLabel, ruleDNSLabel)
	case !in.namespaced:
		c.wrong(s+".namespace", "", "must be set where the policy itself is in no namespace", "")
	}
	for _, f := range []struct {
		name string
		set  bool
	}{
		{"selector", e.Selector != ""},
		{"notSelector", e.NotSelector != ""},
		{"namespaceSelector", e.NamespaceSelector != ""},
		{"serviceAccounts", e.ServiceAccounts != nil && (len(e.ServiceAccounts.Names) > 0 || e.ServiceAccounts.Selector != "")},
		{"nets", len(e.Nets) > 0},
		{"notNets", len(e.NotNets) > 0},
	} {
		if f.set {
			c.wrong(path+"."+f.name, "", "must not be set beside services", "make two rules")
		}
	}
}

// ruleServices allows services only at the far end of a connection.
func (c *checker) ruleServices(path string, r *Rule, in ruleContext) {
	source, destination := r.Source.Services != nil, r.Destination.Services != nil
	if source && in.direction == TypeEgress {
		c.wrong(path+".source.services", r.Source.Services.Name, "must not be set in an egress rule", "services go into the destination of an egress rule")
	}
	if destination && in.direction == TypeIngress {
		c.wrong(path+".destination.services", r.Destination.Services.Name, "must not be set in an ingress rule", "services go into the source of an ingress rule")
	}
	if !destination {
		return
	}
	if len(r.Destination.Ports) > 0 {
		c.wrong(path+".destination.ports", "", "must not be set beside services: the service says which ports", "remove the ports")
	}
	if len(r.Destination.NotPorts) > 0 {
		c.wrong(path+".destination.notPorts", "", "must not be set beside services: the service says which ports", "remove the ports")
	}
}

// ruleFamilies wants one address family in all networks of a rule.
func (c *checker) ruleFamilies(path string, r *Rule) {
	type list struct {
		path string
		nets []string
	}
	first, firstPath := 0, ""
	if r.IPVersion != nil {
		first, firstPath = *r.IPVersion, path+".ipVersion"
	}
	for _, l := range []list{
		{".source.nets", r.Source.Nets}, {".source.notNets", r.Source.NotNets},
		{".destination.nets", r.Destination.Nets}, {".destination.notNets", r.Destination.NotNets},
	} {
		for i, n := range l.nets {
			p, err := netip.ParsePrefix(n)
			if err != nil {
				continue // reported as no CIDR
			}
			family := 4
			if p.Addr().Is6() {
				family = 6
			}
			if first == 0 {
				first, firstPath = family, indexed(path+l.path, i)
			}
			if family != first && (first == 4 || first == 6) {
				c.wrong(indexed(path+l.path, i), n, "must be of the same IP version as "+firstPath, "make a rule for each IP version")
				return
			}
		}
	}
}

func (c *checker) http(path string, r *Rule, in ruleContext) {
	if r.Action != ActionAllow {
		c.wrong(path, "", "must not be set unless action is Allow", "")
	}
	if r.Protocol != nil && protocolNumber(r.Protocol) != 6 {
		c.wrong(path, "", "must not be set unless protocol is TCP or left out", "set protocol: TCP")
	}
	if in.direction != TypeIngress {
		c.wrong(path, "", "must not be set except in ingress rules", "")
	}
	c.atMost(path+".methods", len(r.HTTP.Methods), maxHTTP)
	unique(c, path+".methods", r.HTTP.Methods)
	for i, m := range r.HTTP.Methods {
		c.must(m != "" && !strings.ContainsAny(m, " \t\r\n"), indexed(path+".methods", i), m, "must be an HTTP method such as GET")
	}
	c.atMost(path+".paths", len(r.HTTP.Paths), maxHTTP)
	for i, p := range r.HTTP.Paths {
		at := indexed(path+".paths", i)
		switch {
		case (p.Exact == "") == (p.Prefix == ""):
			c.wrong(at, "", "must have exactly one of exact and prefix", "")
		case p.Exact != "":
			c.httpPath(at+".exact", p.Exact)
		default:
			c.httpPath(at+".prefix", p.Prefix)
		}
	}
}

// protocolNumber is 0 for none and for a name that is not known.
func protocolNumber(p *Protocol) uint8 {
	if p == nil {
		return 0
	}
	n, _ := p.IP()
	return n
}

func (c *checker) httpPath(path, value string) {
	good := strings.HasPrefix(value, "/") && !strings.ContainsAny(value, " ?#")
	c.must(good, path, value, "must start with / and have no space, ? or #")
}
