package oracle

import (
	"github.com/brindle-net/brindle/internal/desired"
	"github.com/brindle-net/brindle/internal/model"
)

// Flow is the first packet of a connection.
type Flow = model.Flow

// Verdict is what both ends say of a flow. A flow is allowed if every end
// that is a workload allows it.
type Verdict struct {
	Flow    Flow
	Allowed bool
	Egress  *Decision // nil: the source is no workload
	Ingress *Decision // nil: the destination is no workload
	// Notes say what of the way of the flow is not for policy to decide.
	Notes []string
}

// Decision is what one endpoint's policy says of a flow in one direction, and
// every step to it.
type Decision struct {
	Endpoint  model.ID
	Direction desired.Direction
	Allowed   bool
	Exempt    bool       // policy was not asked: Reason says why
	Tiers     []TierStep // in order, up to the one that decided
	Profiles  []Step     // those asked, if no tier decided
	By        Rule       // what decided
	Reason    string     // the same in words
	Nearest   *Miss      // of a denial: the rule that came closest to allowing
}

// Rule names a rule, or the end of a tier or of all profiles.
type Rule struct {
	Tier       string // "" for a profile
	Owner      string // "NetworkPolicy default/allow-web", "Profile kns.default"; "" for an end
	Index      int    // of the rule in its list; -1 for an end
	Name       string // the rule's own, if it has one
	LastWriter string // of the policy, as far as it is known
}

// The outcomes of tiers, policies and profiles.
const (
	OutcomeAllow   = "allow"
	OutcomeDeny    = "deny"
	OutcomePass    = "pass"
	OutcomeNone    = "none"     // no rule matched
	OutcomeEndDeny = "end-deny" // the end of the tier denied
	OutcomeEndPass = "end-pass" // the end of the tier let the flow go on
	OutcomeStaged  = "staged"   // all policies of the tier are staged: it does nothing
)

// TierStep is one tier that has policies for the endpoint in this direction.
type TierStep struct {
	Tier     string
	Missing  bool // policies name it and it does not exist: it comes last, and denies at its end
	Lost     bool // nobody knows where it comes: it comes first, and denies everything
	Pass     bool // its default action
	Policies []Step
	Outcome  string // "allow", "deny", "pass", "end-deny", "end-pass", "staged"
}

// Step is one policy or profile that was looked at.
type Step struct {
	Owner      string
	Staged     bool // evaluated and reported, without effect
	Rules      []RuleStep
	Outcome    string // "allow", "deny", "pass" or "none"
	Note       string // what is special about it: it does not exist, it is broken
	LastWriter string
}

// RuleStep is one rule that was looked at.
type RuleStep struct {
	Index   int
	Name    string
	Action  model.Action
	Matched bool
	Reason  string   // why it did not match: the first criterion that failed
	Note    string   // what is special about it: HTTP criteria
	States  []string // the kinds of criteria that the rule has, as in Kinds
	Failed  []string // those of them that failed
}

// Miss is the rule that came closest to allowing a flow: the one with the
// fewest criteria that failed.
type Miss struct {
	Rule   Rule
	Failed []string // the kinds of criteria that failed
	// Reason has all of them in words: `source 10.65.0.3 (WorkloadEndpoint
	// prod/fe) has no label role, selector wants role == "fe"`.
	Reason string
}

// The kinds of criteria that a rule may have. Those of an end are prefixed
// with "source " or "destination ".
const (
	KindFamily      = "IP version"
	KindProtocol    = "protocol"
	KindNotProtocol = "notProtocol"
	KindICMP        = "icmp"
	KindNotICMP     = "notICMP"
	KindNets        = "nets"
	KindNotNets     = "notNets"
	KindSelector    = "selector"
	KindNotSelector = "notSelector"
	KindPorts       = "ports"
	KindNamedPorts  = "named ports"
	KindMixedPorts  = "ports or named ports"
	KindNotPorts    = "notPorts"
	KindNotNamed    = "not named ports"
	KindServices    = "services"
)

// Kinds lists every kind of criterion that RuleStep.States and Failed can
// have, in the order in which a rule's criteria are looked at.
func Kinds() []string {
	out := []string{KindFamily, KindProtocol, KindNotProtocol, KindICMP, KindNotICMP}
	for _, end := range []string{"source ", "destination "} {
		for _, k := range []string{
			KindNets, KindNotNets, KindSelector, KindNotSelector,
			KindPorts, KindNamedPorts, KindMixedPorts, KindNotPorts, KindNotNamed, KindServices,
		} {
			out = append(out, end+k)
		}
	}
	return out
}
