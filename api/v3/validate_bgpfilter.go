package v3

import (
	"net/netip"
	"strconv"
)

const maxOperations = 10 // of a rule, and AS numbers to prepend

func (c *checker) bgpFilter(s *BGPFilterSpec) {
	for _, l := range []struct {
		path  string
		rules []BGPFilterRule
		v6    bool
	}{
		{"spec.exportV4", s.ExportV4, false}, {"spec.importV4", s.ImportV4, false},
		{"spec.exportV6", s.ExportV6, true}, {"spec.importV6", s.ImportV6, true},
	} {
		for i := range l.rules {
			c.filterRule(indexed(l.path, i), &l.rules[i], l.v6)
		}
	}
}

func (c *checker) filterRule(path string, r *BGPFilterRule, v6 bool) {
	c.filterCIDR(path, r, v6)
	oneOf(c, path+".source", r.Source, "RemotePeers")
	if r.Interface != "" {
		c.match(path+".interface", r.Interface, globRegexp, "must be an interface name of at most 15 characters, in which * stands for anything")
	}
	oneOf(c, path+".peerType", r.PeerType, "eBGP", "iBGP")
	if m := r.Communities; m != nil {
		c.must(len(m.Values) == 1, path+".communities.values", strconv.Itoa(len(m.Values))+" entries", "must have exactly one entry")
		for i, v := range m.Values {
			c.must(isCommunity(v), indexed(path+".communities.values", i), v, ruleCommunity)
		}
	}
	c.priority(path+".priority", r.Priority)
	c.required(path+".action", r.Action)
	oneOf(c, path+".action", r.Action, "Accept", "Reject")
	if len(r.Operations) > 0 && r.Action != "Accept" {
		c.wrong(path+".operations", count(len(r.Operations), "operation"), "must not be set unless action is Accept", "")
	}
	c.atMost(path+".operations", len(r.Operations), maxOperations)
	for i := range r.Operations {
		c.operation(indexed(path+".operations", i), &r.Operations[i])
	}
}

// filterCIDR checks the match on the route's prefix.
func (c *checker) filterCIDR(path string, r *BGPFilterRule, v6 bool) {
	oneOf(c, path+".matchOperator", r.MatchOperator, "Equal", "NotEqual", "In", "NotIn")
	if r.CIDR == "" {
		c.must(r.MatchOperator == "", path+".cidr", "", "must be set when matchOperator is")
		c.must(r.PrefixLength == nil, path+".cidr", "", "must be set when prefixLength is")
		return
	}
	c.must(r.MatchOperator != "", path+".matchOperator", "", "must be set when cidr is: one of Equal, NotEqual, In, NotIn")
	cidr, ok := c.cidr(path+".cidr", r.CIDR)
	if !ok {
		return
	}
	c.family(path+".cidr", r.CIDR, cidr.Addr(), v6)
	if r.PrefixLength != nil {
		c.prefixLength(path+".prefixLength", r.PrefixLength, cidr)
	}
}

func (c *checker) prefixLength(path string, l *PrefixLengthRange, cidr netip.Prefix) {
	low, high := int64(cidr.Bits()), int64(cidr.Addr().BitLen())
	if l.Min != nil {
		low = int64(*l.Min)
		c.between(path+".min", low, 0, high)
	}
	if l.Max != nil {
		c.between(path+".max", int64(*l.Max), 0, high)
		c.must(int64(*l.Max) >= low, path+".max", strconv.Itoa(*l.Max), "must not be below min, which is "+strconv.FormatInt(low, 10))
	}
}

func (c *checker) operation(path string, o *BGPFilterOperation) {
	set := 0
	if o.AddCommunity != nil {
		set++
		c.must(isCommunity(o.AddCommunity.Value), path+".addCommunity.value", o.AddCommunity.Value, ruleCommunity)
	}
	if o.PrependASPath != nil {
		set++
		n := len(o.PrependASPath.Prefix)
		c.must(n >= 1 && n <= maxOperations, path+".prependASPath.prefix", strconv.Itoa(n)+" entries", "must have 1 to 10 entries")
	}
	if o.SetPriority != nil {
		set++
		c.must(o.SetPriority.Value != nil, path+".setPriority.value", "", "must be set")
		c.priority(path+".setPriority.value", o.SetPriority.Value)
	}
	c.must(set == 1, path, strconv.Itoa(set)+" set", "must have exactly one of addCommunity, prependASPath and setPriority")
}
