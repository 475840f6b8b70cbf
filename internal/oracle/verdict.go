package oracle

import (
	"net/netip"

	"github.com/brindle-net/brindle/internal/desired"
	"github.com/brindle-net/brindle/internal/model"
)

// Flow is the first packet of a connection.
type Flow struct {
	Protocol             uint8
	Source, Dest         netip.Addr
	SourcePort, DestPort uint16 // of TCP, UDP and SCTP
	ICMPType, ICMPCode   uint8  // of ICMP and ICMPv6
}

// Decision is what one endpoint's policy says of a flow in one direction, and
// every step to it.
type Decision struct {
	Endpoint  model.ID
	Direction desired.Direction
	Allowed   bool
	Tiers     []TierStep // in order, up to the one that decided
	Profiles  []Step     // those asked, if no tier decided
	By        Rule       // what decided
	Nearest   *Miss      // of a denial: the rule that came closest to allowing
}

// Rule names a rule, or the end of a tier or of all profiles.
type Rule struct {
	Tier  string // "" for a profile
	Owner string // "NetworkPolicy default/allow-web", "Profile kns.default"; "" for an end
	Index int    // of the rule in its list; -1 for an end
	Name  string // the rule's own, if it has one
}

// TierStep is one tier that has policies for the endpoint.
type TierStep struct {
	Tier     string
	Policies []Step
	Outcome  string // "allow", "deny", "pass", "end-deny", "end-pass"
}

// Step is one policy or profile that was looked at.
type Step struct {
	Owner  string
	Staged bool // evaluated and reported, without effect
	Rules  []RuleStep
	// Outcome is "allow", "deny", "pass" or "none" if no rule matched.
	Outcome string
}

// RuleStep is one rule that was looked at.
type RuleStep struct {
	Index   int
	Action  model.Action
	Matched bool
	Reason  string // why it did not match: the first criterion that failed
}

// Miss is a rule that would have allowed the flow had one thing been other.
type Miss struct {
	Rule   Rule
	Reason string // "source lacks label role == \"fe\"", "port is 81, not 80 or 443"
}

// Verdict is what both ends say of a flow.
type Verdict struct {
	Flow    Flow
	Allowed bool
	Egress  *Decision // nil: the source is no workload
	Ingress *Decision // nil: the destination is no workload
}
