package v3

import (
	"errors"
	"net"
	"net/netip"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/brindle-net/brindle/internal/prefix"
	"github.com/brindle-net/brindle/internal/selector"
)

// maxSelector is the most bytes of a selector in the specs of policies, pools
// and FelixConfiguration.
const maxSelector = 1024

var (
	guidRegexp      = regexp.MustCompile(`^[0-9a-f]{32}$`)
	interfaceRegexp = regexp.MustCompile(`^[a-zA-Z0-9_.-]{1,15}$`)
	globRegexp      = regexp.MustCompile(`^[a-zA-Z0-9_.*-]{1,15}$`)
	portNameRegexp  = regexp.MustCompile(`^[a-zA-Z0-9_.-]{1,128}$`)
)

// didYouMean is the hint that names a likely spelling, "" for none.
func didYouMean(likely string) string {
	if likely == "" {
		return ""
	}
	return "did you mean " + likely + "?"
}

// oneOf wants a value from a list, as it is written there. An empty value
// counts as not set.
func oneOf[T ~string](c *checker, path string, value T, allowed ...T) {
	if value == "" || slices.Contains(allowed, value) {
		return
	}
	names := make([]string, len(allowed))
	for i, a := range allowed {
		names[i] = string(a)
	}
	rule := "must be one of " + strings.Join(names, ", ")
	if len(names) == 1 {
		rule = "must be " + names[0]
	}
	c.wrong(path, string(value), rule, didYouMean(nearest(string(value), names)))
}

// match wants a text of a form.
func (c *checker) match(path, value string, form *regexp.Regexp, rule string) {
	c.must(form.MatchString(value), path, value, rule)
}

// cidr wants a prefix with no bits set beyond its length.
func (c *checker) cidr(path, value string) (netip.Prefix, bool) {
	p, ok := c.parsed(path, value, "must be a CIDR such as 10.0.0.0/16 or fd00::/64", prefix.Parse)
	if ok && !strings.Contains(value, "/") {
		c.wrong(path, value, "must be a CIDR, with the length of the prefix", "write "+p.String())
		return p, false
	}
	return p, ok
}

// network wants a prefix or an address, bits beyond the length allowed.
func (c *checker) network(path, value string) (netip.Prefix, bool) {
	return c.parsed(path, value, "must be a CIDR or an IP address", prefix.ParseLoose)
}

// networks wants prefixes or addresses, none of them twice.
func (c *checker) networks(path string, values []string) {
	seen := map[netip.Prefix]bool{}
	for i, v := range values {
		if p, ok := c.network(indexed(path, i), v); ok {
			c.must(!seen[p], indexed(path, i), v, "must not be in the list twice")
			seen[p] = true
		}
	}
}

// address wants an IP address.
func (c *checker) address(path, value string) (netip.Addr, bool) {
	p, ok := c.parsed(path, value, "must be an IP address", func(s string) (netip.Prefix, error) {
		a, err := prefix.ParseAddr(s)
		if err != nil {
			return netip.Prefix{}, err
		}
		return prefix.Host(a), nil
	})
	return p.Addr(), ok
}

// interfaceAddress wants an address, with or without the length of its subnet.
func (c *checker) interfaceAddress(path, value string) (netip.Prefix, bool) {
	return c.parsed(path, value, "must be an IP address, with the length of its subnet if that is known", prefix.ParseInterface)
}

// parsed applies a parser; rule is for what none of the parsers can read.
func (c *checker) parsed(path, value, rule string, parse func(string) (netip.Prefix, error)) (netip.Prefix, bool) {
	p, err := parse(value)
	if err == nil {
		return p, true
	}
	hint := ""
	if e := (*prefix.Error)(nil); errors.As(err, &e) && e.Fix != "" {
		hint = "write " + e.Fix
	}
	switch {
	case errors.Is(err, prefix.ErrHostBits):
		rule = "must have no bits set beyond the length of the prefix"
	case errors.Is(err, prefix.ErrMapped):
		rule = "must not be an IPv4 address written as IPv6"
	case errors.Is(err, prefix.ErrZone):
		rule = "must have no zone"
	}
	c.wrong(path, value, rule, hint)
	return netip.Prefix{}, false
}

// ofFamily wants an optional address of a family, bare.
func (c *checker) ofFamily(path, value string, v6 bool) {
	if value == "" {
		return
	}
	if a, ok := c.address(path, value); ok {
		c.family(path, value, a, v6)
	}
}

// family wants an address to be of a family.
func (c *checker) family(path, value string, a netip.Addr, v6 bool) {
	name := "an IPv4 address"
	if v6 {
		name = "an IPv6 address"
	}
	c.must(a.Is6() == v6, path, value, "must be "+name)
}

// selector wants a selector in which global() does not stand. most limits its
// bytes, 0 does not.
func (c *checker) selector(path, value string, most int) {
	if c.parseSelector(path, value, most) && strings.Contains(value, "global(") {
		c.wrong(path, value, "must not use global()", "global() has a meaning only as the namespaceSelector of a rule")
	}
}

// ruleNamespaces wants a selector that may be global(), alone.
func (c *checker) ruleNamespaces(path, value string) {
	s, err := selector.Parse(value)
	if c.parseSelector(path, value, 0) && err == nil && s.HasGlobal() && !s.IsGlobal() {
		c.wrong(path, value, "must not combine global() with anything", "write global() alone")
	}
}

func (c *checker) parseSelector(path, value string, most int) bool {
	if most > 0 && len(value) > most {
		c.wrong(path, strconv.Itoa(len(value))+" bytes", "must have at most "+strconv.Itoa(most)+" bytes", "")
		return false
	}
	_, err := selector.Parse(value)
	if err == nil {
		return true
	}
	rule, hint := "must be a selector", ""
	if e := (*selector.SyntaxError)(nil); errors.As(err, &e) {
		rule += ": column " + strconv.Itoa(e.Column) + ": found " + e.Found + ", expected " + e.Want
		hint = e.Hint
	}
	c.wrong(path, value, rule, hint)
	return false
}

// regex wants a regular expression, or nothing.
func (c *checker) regex(path, value string) {
	_, err := regexp.Compile(value)
	c.must(err == nil, path, value, "must be a regular expression (RE2)")
}

// mac wants an Ethernet address, or nothing.
func (c *checker) mac(path, value string) {
	m, err := net.ParseMAC(value)
	c.must(value == "" || err == nil && len(m) == 6, path, value, "must be a MAC address such as ee:ee:ee:ee:ee:ee")
}

// numericPort wants port numbers above 0, one or a range.
func (c *checker) numericPort(path string, p Port) {
	switch {
	case p.Name != "":
		c.wrong(path, p.Name, `must be a port number from 1 to 65535 or a range "min:max"`, "")
	case p.Min == 0 || p.Max < p.Min:
		c.wrong(path, p.String(), `must be a port number from 1 to 65535 or a range "min:max"`, "")
	}
}

// port wants port numbers above 0, or a name.
func (c *checker) port(path string, p Port) {
	if p.Name == "" {
		c.numericPort(path, p)
		return
	}
	c.match(path, p.Name, portNameRegexp, "must be a port number, a range, or a name of at most 128 letters, digits, _, . and -")
}

// protocol wants one of the known names, or a number from 1.
func (c *checker) protocol(path string, p Protocol) {
	if p.Name == "" {
		c.must(p.Number > 0, path, p.String(), "must be a number from 1 to 255")
		return
	}
	oneOf(c, path, p.Name, ProtocolTCP, ProtocolUDP, ProtocolICMP, ProtocolICMPv6, ProtocolSCTP, ProtocolUDPLite)
}

// hasPorts reports whether ports of the protocol can be matched.
func (p Protocol) hasPorts() bool {
	n, ok := p.IP()
	return ok && (n == 6 || n == 17 || n == 132)
}

// protocolWithPorts wants a protocol whose ports can be matched.
func (c *checker) protocolWithPorts(path string, p Protocol) {
	if p == (Protocol{}) {
		c.wrong(path, "", "must be TCP, UDP or SCTP", "")
		return
	}
	before := len(c.errs)
	c.protocol(path, p)
	if len(c.errs) == before && !p.hasPorts() {
		c.wrong(path, p.String(), "must be TCP, UDP or SCTP, which have ports", "")
	}
}

// dscp wants a differentiated services code point: a number from 0 to 63 or
// one of its names (RFC 2474, 2597, 3246, 5865, 8622).
func (c *checker) dscp(path string, v IntOrString) {
	n, err := int(v.Int), error(nil)
	if v.Is {
		n, err = strconv.Atoi(v.Str)
	}
	known := err == nil && n >= 0 && n <= 63
	if err != nil {
		known = dscpRegexp.MatchString(strings.ToUpper(v.Str))
	}
	c.must(known, path, v.String(), "must be a number from 0 to 63 or a name such as AF11, CS1 or EF")
}

var dscpRegexp = regexp.MustCompile(`^(DF|EF|LE|VA|VOICE-ADMIT|CS[0-7]|AF[1-4][1-3])$`)
