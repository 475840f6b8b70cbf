package oracle

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/brindle-net/brindle/internal/desired"
	"github.com/brindle-net/brindle/internal/model"
)

// Verdict says what both ends of a flow make of it, and why. To ask much of
// one snapshot, make a View of it once.
func (s Snapshot) Verdict(f Flow) Verdict { return NewView(s).Verdict(f) }

// Decide says what the policy of one workload makes of a flow in one
// direction, and why. A workload that is not there is allowed nothing.
func (s Snapshot) Decide(endpoint model.ID, d desired.Direction, f Flow) Decision {
	return NewView(s).Decide(endpoint, d, f)
}

// Verdict says what both ends of a flow make of it, and why.
func (v *View) Verdict(f Flow) Verdict { return v.verdict(f, true) }

// Outcome is Verdict without the steps and reasons: only what decided at each
// end, and that fast.
func (v *View) Outcome(f Flow) Verdict { return v.verdict(f, false) }

// Decide says what the policy of one workload makes of a flow in one
// direction, and why. A workload that is not there is allowed nothing.
func (v *View) Decide(endpoint model.ID, d desired.Direction, f Flow) Decision {
	x, _ := v.all[endpoint].(*model.Workload)
	if x == nil {
		return Decision{Endpoint: endpoint, Direction: d, By: Rule{Index: -1}, Reason: endpoint.String() + " is no workload"}
	}
	return v.decide(x, d, f, true)
}

func (v *View) verdict(f Flow, explain bool) Verdict {
	f.Source, f.Dest = f.Source.Unmap(), f.Dest.Unmap()
	out := Verdict{Flow: f, Allowed: true}
	from, to := v.WorkloadAt(f.Source), v.WorkloadAt(f.Dest)
	if from != nil && from == to {
		out.Notes = append(out.Notes, "both addresses are "+from.ID.String()+
			": what it says to itself does not leave it, and no policy is asked")
		return out
	}
	own := from != nil && to == nil && v.hosts[f.Dest] == from.Node
	switch {
	case from == nil:
		out.Notes = append(out.Notes, v.outside("source", f.Source))
	case own && ofLink(f):
		out.Egress = &Decision{
			Endpoint: from.ID, Direction: desired.Egress, Allowed: true, Exempt: true, By: Rule{Index: -1},
			Reason: "neighbour discovery and multicast listeners may always speak to their own host",
		}
		return out
	default:
		d := v.decide(from, desired.Egress, f, explain)
		out.Egress, out.Allowed = &d, d.Allowed
	}
	switch {
	case own:
		action := v.toHost(from.Node)
		out.Allowed = out.Allowed && (action == "Accept" || action == "Return")
		out.Notes = append(out.Notes, fmt.Sprintf("destination %v is %s, the workload's own host: of what its policies allow, "+
			"defaultEndpointToHostAction decides, which is %s", f.Dest, from.Node, action))
		return out
	case to == nil:
		out.Notes = append(out.Notes, v.outside("destination", f.Dest))
		return out
	}
	d := v.exempt(to, f)
	if d == nil {
		asked := v.decide(to, desired.Ingress, f, explain)
		d = &asked
	}
	out.Ingress, out.Allowed = d, out.Allowed && d.Allowed
	return out
}

// ofLink reports whether a flow is of messages that hosts take from their
// workloads ahead of policy (documented Calico behaviour): ICMPv6 of neighbour
// discovery and of multicast listeners.
func ofLink(f Flow) bool {
	return f.Protocol == model.ProtocolICMPv6 && f.Dest.Is6() &&
		slices.Contains([]uint8{130, 131, 132, 133, 135, 136}, f.ICMPType)
}

// toHost is what becomes of what workloads send to their own host, as far as
// the datastore says: FelixConfiguration of the host, then that of all.
func (v *View) toHost(node string) string {
	for _, name := range []string{"node." + node, "default"} {
		c, ok := v.all[model.ID{Kind: model.KindConfig, Name: name}].(*model.Config)
		if !ok {
			continue
		}
		for _, action := range []string{"Drop", "Reject", "Return", "Accept"} {
			if strings.EqualFold(c.Object.Spec.DefaultEndpointToHostAction, action) {
				return action
			}
		}
	}
	return "Drop"
}

// outside says what an address is that no workload has.
func (v *View) outside(end string, a netip.Addr) string {
	if host, ok := v.hosts[a]; ok {
		return fmt.Sprintf("%s %v is host %s: policy of hosts is not looked at", end, a, host)
	}
	return fmt.Sprintf("%s %v is no workload: no policy is asked at that end", end, a)
}

// exempt is the decision on what a host says to its own workloads, which is
// always allowed; nil for all else.
func (v *View) exempt(to *model.Workload, f Flow) *Decision {
	if host, ok := v.hosts[f.Source]; !ok || host != to.Node {
		return nil
	}
	return &Decision{
		Endpoint: to.ID, Direction: desired.Ingress, Allowed: true, Exempt: true, By: Rule{Index: -1},
		Reason: "a host is always allowed to reach its own workloads",
	}
}

// evaluation is one decision in the making.
type evaluation struct {
	*View
	*packet
	Decision
	best int // distance of Nearest
}

func (v *View) decide(x *model.Workload, d desired.Direction, f Flow, explain bool) Decision {
	e := evaluation{View: v, packet: v.packet(f, explain)}
	e.Endpoint, e.Direction = x.ID, d
	if !e.byTiers(v.policiesOf(x, d == desired.Ingress)) {
		e.byProfiles(x.Profiles)
	}
	if e.Allowed {
		e.Nearest = nil
	}
	return e.Decision
}

// byTiers goes through the tiers and reports whether one decided.
func (e *evaluation) byTiers(policies [][]*model.Policy) bool {
	for i, t := range e.tiers {
		if len(policies[i]) == 0 {
			continue // no policy here is about the endpoint: the tier says nothing
		}
		if e.byTier(t, policies[i]) {
			return true
		}
	}
	return false
}

// byTier goes through the policies of a tier and reports whether it decided.
func (e *evaluation) byTier(t tier, policies []*model.Policy) bool {
	step := TierStep{Tier: t.name, Missing: t.missing, Lost: t.lost, Pass: t.pass, Outcome: OutcomeNone}
	var last *model.Policy // that is enforced
	for _, p := range policies {
		if t.lost && !p.Staged {
			step.Policies = append(step.Policies, Step{Owner: p.Title, Outcome: OutcomeNone, LastWriter: p.LastWriter,
				Note: "is not looked at: the tier cannot be read"})
			last = p
			continue
		}
		s, by := e.byRules(p.Title, t.name, e.rulesOf(p), p.Staged)
		s.Staged, s.LastWriter, by.LastWriter = p.Staged, p.LastWriter, p.LastWriter
		s.Note = policyNote(p)
		step.Policies = append(step.Policies, s)
		if p.Staged {
			continue
		}
		last = p
		if s.Outcome != OutcomeNone {
			step.Outcome, e.By = s.Outcome, by
			break
		}
	}
	if step.Outcome == OutcomeNone {
		switch {
		case last == nil:
			step.Outcome = OutcomeStaged
		case t.pass:
			step.Outcome = OutcomeEndPass
		default:
			step.Outcome, e.By = OutcomeEndDeny, Rule{Tier: t.name, Index: -1}
		}
	}
	e.Tiers = append(e.Tiers, step)
	return e.settle(step.Outcome)
}

// settle takes an outcome for the decision if it is one.
func (e *evaluation) settle(outcome string) bool {
	switch outcome {
	case OutcomeAllow:
		e.Allowed = true
	case OutcomeDeny, OutcomeEndDeny:
		e.Allowed = false
	default:
		return false
	}
	e.Reason = e.words(outcome)
	return true
}

func policyNote(p *model.Policy) string {
	var notes []string
	switch p.StagedAction {
	case "Delete":
		notes = append(notes, "stands for the deletion of a policy")
	case "Ignore":
		notes = append(notes, "is to be ignored")
	}
	if p.Broken != "" {
		notes = append(notes, "breaks the rules, and what cannot be read of it allows nothing: "+p.Broken)
	}
	return strings.Join(notes, "; ")
}

func (e *evaluation) rulesOf(p *model.Policy) []model.Rule {
	if e.Direction == desired.Ingress {
		return p.Ingress.Rules
	}
	return p.Egress.Rules
}

// byRules goes through the rules of a policy or profile to the first that
// matches and is not a Log.
func (e *evaluation) byRules(owner, tier string, rules []model.Rule, staged bool) (Step, Rule) {
	s := Step{Owner: owner, Outcome: OutcomeNone}
	for i := range rules {
		r := &rules[i]
		name := Rule{Tier: tier, Owner: owner, Index: i, Name: r.Name}
		rs, distance := e.byRule(i, r)
		if e.explain {
			s.Rules = append(s.Rules, rs.RuleStep)
		}
		if !rs.Matched {
			if r.Action == model.Allow && !staged && !r.Never && e.explain && (e.Nearest == nil || distance < e.best) {
				e.best = distance
				e.Nearest = &Miss{Rule: name, Failed: rs.Failed, Reason: strings.Join(rs.reasons, "; ")}
			}
			continue
		}
		switch r.Action {
		case model.Allow:
			s.Outcome = OutcomeAllow
		case model.Pass:
			s.Outcome = OutcomePass
		case model.Log:
			continue
		default: // what is not known denies
			s.Outcome = OutcomeDeny
		}
		return s, name
	}
	return s, Rule{Index: -1}
}

// manyMisses weighs a criterion against the single things of one, so that the
// nearest rule is that with the fewest criteria that failed.
const manyMisses = 1 << 16

// ruleLook is a RuleStep with the reason of every criterion that failed.
type ruleLook struct {
	RuleStep
	reasons []string
}

// byRule looks at one rule, and says how far it is from matching.
func (e *evaluation) byRule(i int, r *model.Rule) (ruleLook, int) {
	look := ruleLook{RuleStep: RuleStep{Index: i, Name: r.Name, Action: r.Action, Matched: true}}
	distance := 0
	e.criteria(r, e.packet, func(c criterion) bool {
		if !c.ok {
			look.Matched = false
		}
		if !e.explain {
			return c.ok
		}
		look.States = append(look.States, c.kind)
		if !c.ok {
			distance += manyMisses + c.miss
			look.Failed = append(look.Failed, c.kind)
			look.reasons = append(look.reasons, c.why)
		}
		return true
	})
	if len(look.reasons) > 0 {
		look.Reason = look.reasons[0]
	}
	if r.HTTP {
		look.Note = "has HTTP criteria, which nothing here enforces: what it would allow is denied"
	}
	return look, distance
}

// byProfiles goes through the profiles of the endpoint, and denies in the end.
func (e *evaluation) byProfiles(names []string) {
	for _, name := range names {
		rules, note := e.profile(name)
		s, by := e.byRules("Profile "+name, "", rules, false)
		s.Note = note
		e.Profiles = append(e.Profiles, s)
		e.By = by
		if e.settle(s.Outcome) {
			return
		}
	}
	e.By = Rule{Index: -1}
	e.settle(OutcomeEndDeny)
}

// profile returns the rules of a profile in the direction. One that does not
// exist denies everything.
func (e *evaluation) profile(name string) (rules []model.Rule, note string) {
	everything := model.Rule{Families: model.IPv4 | model.IPv6}
	p := e.profiles[name]
	switch {
	case name == model.DefaultAllow:
		everything.Action = model.Allow
		return []model.Rule{everything}, "always exists and allows everything"
	case p == nil:
		everything.Action = model.Deny
		return []model.Rule{everything}, "does not exist, which denies everything"
	}
	if p.Broken != "" {
		note = "breaks the rules, and what cannot be read of it allows nothing: " + p.Broken
	}
	if e.Direction == desired.Ingress {
		return p.Ingress, note
	}
	return p.Egress, note
}

// words says what decided.
func (e *evaluation) words(outcome string) string {
	by := e.By
	switch {
	case outcome == OutcomeEndDeny && by.Tier != "":
		t := e.Tiers[len(e.Tiers)-1]
		n := len(t.Policies) - countStaged(t.Policies)
		s := "tier " + by.Tier + " denies what none of its " + strconv.Itoa(n) + " policies for the endpoint matched"
		if n == 1 {
			s = "tier " + by.Tier + " denies what its one policy for the endpoint did not match"
		}
		if t.Missing {
			s += "; the tier does not exist, so its policies come last"
		}
		if t.Lost {
			s = "tier " + by.Tier + " cannot be read: nobody knows where it comes, so it denies everything to the endpoints that its policies are for"
		}
		return s
	case outcome == OutcomeEndDeny && len(e.Profiles) == 0:
		return "no policy decided and the endpoint has no profile, which denies"
	case outcome == OutcomeEndDeny:
		return "no policy and no profile of the endpoint decided, which denies"
	}
	verb := map[string]string{OutcomeAllow: " allows it", OutcomeDeny: " denies it"}[outcome]
	note := ""
	if by.Tier == "" {
		note = e.Profiles[len(e.Profiles)-1].Note
	} else if t := e.Tiers[len(e.Tiers)-1]; e.explain {
		p := t.Policies[len(t.Policies)-1]
		note = p.Rules[len(p.Rules)-1].Note
	}
	if note != "" {
		note = " (" + note + ")"
	}
	return by.String(e.Direction) + verb + note
}

func countStaged(steps []Step) int {
	return len(slices.DeleteFunc(slices.Clone(steps), func(s Step) bool { return !s.Staged }))
}

// String names the rule for people: `ingress[0] "web" of NetworkPolicy
// prod/web in tier default`, "the end of tier default", "the end of the
// profiles".
func (r Rule) String(d desired.Direction) string {
	switch {
	case r.Index < 0 && r.Tier != "":
		return "the end of tier " + r.Tier
	case r.Index < 0:
		return "the end of the profiles"
	}
	s := fmt.Sprintf("%v[%d]", d, r.Index)
	if r.Name != "" {
		s += " " + strconv.Quote(r.Name)
	}
	s += " of " + r.Owner
	if r.Tier != "" {
		s += " in tier " + r.Tier
	}
	return s
}
