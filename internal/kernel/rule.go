package kernel

import (
	"cmp"
	"context"
	"fmt"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/brindle-net/brindle/internal/desired"
	"github.com/brindle-net/brindle/internal/kernel/rtnl"
	"github.com/brindle-net/brindle/internal/reconcile"
)

// Priorities that rules of ours may have: after the rule for local addresses
// (0), before those for the main and default tables (32766, 32767).
const (
	FirstRule = 1
	LastRule  = 32765
)

const (
	ruleHeaderLen   = 12 // struct fib_rule_hdr
	ruleToTable     = 1  // FR_ACT_TO_TBL
	ruleInvert      = 2  // FIB_RULE_INVERT
	ruleFlagsOffset = 8
)

// Rules is the table of policy routing rules with our protocol number and a
// priority from FirstRule to LastRule. Rules of others are not ours, also at
// the same priority.
type Rules struct{ k *Kernel }

// Rules returns the table of policy routing rules.
func (k *Kernel) Rules() *Rules { return &Rules{k} }

// CompareRules orders rules by family and priority.
func CompareRules(a, b desired.RuleKey) int {
	return cmp.Or(cmp.Compare(a.Family, b.Family), cmp.Compare(a.Priority, b.Priority))
}

// List reads our rules.
func (r *Rules) List(context.Context) (map[desired.RuleKey]desired.Rule, error) {
	have := map[desired.RuleKey]desired.Rule{}
	err := r.k.with(func(c *rtnl.Conn) error {
		all, err := readRules(c, parseRule)
		for _, m := range all {
			if !m.ours() {
				continue
			}
			if _, twice := have[m.Key]; twice {
				m.Rule = desired.Rule{} // equal to nothing that can be wanted
			}
			have[m.Key] = m.Rule
		}
		return err
	})
	return have, err
}

// Apply adds, replaces and removes rules. The kernel replaces no rule, so the
// new one is added behind the old one, which then goes: no packet ever finds
// neither.
func (r *Rules) Apply(_ context.Context, p reconcile.Plan[desired.RuleKey, desired.Rule]) map[desired.RuleKey]error {
	w := newWriter[desired.RuleKey](r.k)
	old := map[desired.RuleKey][]desired.Rule{}
	err := r.k.with(func(c *rtnl.Conn) error {
		all, err := readRules(c, parseRule)
		for _, m := range all {
			if m.ours() {
				old[m.Key] = append(old[m.Key], m.Rule)
			}
		}
		return err
	})
	if err != nil {
		for _, e := range p.Set {
			w.failed[e.Key] = err
		}
		for _, key := range p.Delete {
			w.failed[key] = err
		}
		return w.failed
	}
	for _, e := range p.Set {
		rest := old[e.Key]
		if i := slices.Index(rest, e.Value); i >= 0 {
			r.remove(w, e.Key, slices.Delete(rest, i, i+1))
			continue
		}
		w.add(e.Key, "add rule", func(b *rtnl.Batch) error {
			err := checkRule(e.Key, e.Value)
			if err == nil {
				putRule(b, unix.RTM_NEWRULE, unix.NLM_F_CREATE, e.Key, e.Value)
			}
			return err
		})
		if w.failed[e.Key] == nil {
			r.remove(w, e.Key, rest)
		}
	}
	for _, key := range p.Delete {
		r.remove(w, key, old[key])
	}
	return w.send()
}

// remove removes rules of ours at a priority.
func (r *Rules) remove(w *writer[desired.RuleKey], key desired.RuleKey, rules []desired.Rule) {
	for _, rule := range rules {
		w.remove(key, "remove rule", func(b *rtnl.Batch) error {
			putRule(b, unix.RTM_DELRULE, 0, key, rule)
			return nil
		})
	}
}

func checkRule(key desired.RuleKey, rule desired.Rule) error {
	switch {
	case key.Family != 4 && key.Family != 6:
		return fmt.Errorf("family %d: must be 4 or 6", key.Family)
	case key.Priority < FirstRule || key.Priority > LastRule:
		return fmt.Errorf("priority %d: must be from %d to %d", key.Priority, FirstRule, LastRule)
	case rule.Table <= 0:
		return fmt.Errorf("table %d: must be positive", rule.Table)
	}
	return nil
}

// A ruleMessage is one rule as netlink has it.
type ruleMessage struct {
	Key      desired.RuleKey
	Rule     desired.Rule
	Protocol uint8
}

func (m ruleMessage) ours() bool {
	return m.Protocol == desired.ProtocolAgent && m.Key.Priority >= FirstRule && m.Key.Priority <= LastRule
}

// putRule adds a request about a rule.
func putRule(b *rtnl.Batch, kind, flags uint16, key desired.RuleKey, rule desired.Rule) {
	h := make([]byte, ruleHeaderLen)
	h[0], h[7] = unix.AF_INET, ruleToTable
	if key.Family == 6 {
		h[0] = unix.AF_INET6
	}
	if rule.Invert {
		putUint32(h[ruleFlagsOffset:], ruleInvert)
	}
	b.Start(kind, flags, h)
	b.Uint32(unix.FRA_PRIORITY, uint32(key.Priority))
	b.Uint8(unix.FRA_PROTOCOL, desired.ProtocolAgent)
	b.Uint32(unix.FRA_TABLE, uint32(rule.Table))
	b.Uint32(unix.FRA_FWMARK, rule.Mark)
	b.Uint32(unix.FRA_FWMASK, rule.Mask)
}

// readRules reads all rules of both families, IPv4 first, as parse has them.
// With an error comes what was read until then.
func readRules[T any](c *rtnl.Conn, parse func(m rtnl.Message, family uint8) (T, error)) ([]T, error) {
	var all []T
	for _, family := range []uint8{4, 6} {
		if family == 6 && !hasIPv6() {
			continue
		}
		var b rtnl.Batch
		h := make([]byte, ruleHeaderLen)
		h[0] = map[uint8]uint8{4: unix.AF_INET, 6: unix.AF_INET6}[family]
		b.Start(unix.RTM_GETRULE, unix.NLM_F_DUMP, h)
		first := len(all)
		err := c.Get(&b, func() { all = all[:first] }, func(m rtnl.Message) error {
			r, err := parse(m, family)
			all = append(all, r)
			return err
		})
		if err != nil {
			return all, fmt.Errorf("read rules: %w", err)
		}
	}
	return all, nil
}

func parseRule(m rtnl.Message, family uint8) (ruleMessage, error) {
	if len(m.Body) < ruleHeaderLen {
		return ruleMessage{}, rtnl.ErrMalformed
	}
	h := m.Body
	r := ruleMessage{Key: desired.RuleKey{Family: family}}
	r.Rule.Table = int(h[4])
	r.Rule.Invert = rtnl.Uint32(h[ruleFlagsOffset:ruleHeaderLen])&ruleInvert != 0
	err := rtnl.Attrs(h[ruleHeaderLen:], func(kind uint16, v []byte) {
		switch kind {
		case unix.FRA_PRIORITY:
			r.Key.Priority = int(rtnl.Uint32(v))
		case unix.FRA_TABLE:
			r.Rule.Table = int(rtnl.Uint32(v))
		case unix.FRA_FWMARK:
			r.Rule.Mark = rtnl.Uint32(v)
		case unix.FRA_FWMASK:
			r.Rule.Mask = rtnl.Uint32(v)
		case unix.FRA_PROTOCOL:
			if len(v) == 1 {
				r.Protocol = v[0]
			}
		}
	})
	return r, err
}
