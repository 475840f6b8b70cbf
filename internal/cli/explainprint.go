package cli

import (
	"fmt"
	"strings"

	"github.com/brindle-net/brindle/internal/desired"
	"github.com/brindle-net/brindle/internal/model"
	"github.com/brindle-net/brindle/internal/oracle"
)

// mostRules is how many rules of one end are listed: what decided, and what
// came nearest, is told in any case.
const mostRules = 40

// printAnswers writes answers for people.
func printAnswers(e *Env, answers []*answer) {
	for i, a := range answers {
		if i > 0 {
			fmt.Fprintln(e.Stdout)
		}
		f := a.verdict.Flow
		said := yesNo(a.verdict.Allowed, "ALLOWED", "DENIED")
		fmt.Fprintf(e.Stdout, "%s  %s\n", heading(e, said),
			word(fmt.Sprintf("%s → %s %s (%v → %v)", a.from.Name, a.to.Name, a.target, f.Source, f.Dest)))
		for _, note := range a.verdict.Notes {
			fmt.Fprintln(e.Stdout, "  "+word(note))
		}
		printDecision(e, a.from.Name, a.verdict.Egress)
		printDecision(e, a.to.Name, a.verdict.Ingress)
		for _, r := range a.rules {
			r.print(e)
		}
		if a.probe != nil {
			fmt.Fprintf(e.Stdout, "\nprobe: %s\n", word(a.probe.text))
		}
	}
}

// printDecision writes what one end makes of the flow, and every step to it.
func printDecision(e *Env, who string, d *oracle.Decision) {
	if d == nil {
		return
	}
	say := func(indent int, text string) {
		fmt.Fprintln(e.Stdout, strings.Repeat("  ", indent)+word(text))
	}
	fmt.Fprintln(e.Stdout)
	say(0, fmt.Sprintf("%v of %s: %s: %s", d.Direction, who, yesNo(d.Allowed, "allowed", "denied"), d.Reason))
	if d.By.LastWriter != "" {
		say(1, "last written: "+d.By.LastWriter)
	}
	if d.Nearest != nil {
		say(1, "nearest: "+d.Nearest.Rule.String(d.Direction)+": "+d.Nearest.Reason)
		if d.Nearest.Rule.LastWriter != "" {
			say(1, "         last written: "+d.Nearest.Rule.LastWriter)
		}
	}
	left := mostRules
	for _, t := range d.Tiers {
		say(1, tierText(t))
		for _, p := range t.Policies {
			left = printStep(say, p, d.Direction, left)
		}
	}
	if len(d.Profiles) > 0 {
		say(1, "profiles, as no tier decided")
	}
	for _, p := range d.Profiles {
		left = printStep(say, p, d.Direction, left)
	}
	if left < 0 {
		say(2, fmt.Sprintf("… and %d more rules: -o json lists them", -left))
	}
}

func tierText(t oracle.TierStep) string {
	s := "tier " + t.Tier
	if t.Missing {
		s += " (does not exist)"
	}
	switch t.Outcome {
	case oracle.OutcomeEndDeny:
		return s + ": no rule matched, its end denies"
	case oracle.OutcomeEndPass:
		return s + ": no rule matched, its end passes on"
	case oracle.OutcomeStaged:
		return s + ": has staged policies only"
	case oracle.OutcomePass:
		return s + ": passed on"
	}
	return s + ": " + outcomeText(t.Outcome)
}

func outcomeText(outcome string) string {
	switch outcome {
	case oracle.OutcomeAllow:
		return "allows"
	case oracle.OutcomeDeny:
		return "denies"
	case oracle.OutcomePass:
		return "passes on"
	}
	return "no rule matched"
}

// printStep writes one policy or profile, and as many of its rules as are left
// to write; it returns how many more may be.
func printStep(say func(int, string), p oracle.Step, d desired.Direction, left int) int {
	text := p.Owner + ": " + outcomeText(p.Outcome)
	if p.Staged {
		text += " (staged: without effect)"
	}
	if p.Note != "" {
		text += " (" + p.Note + ")"
	}
	if left > 0 {
		say(2, text)
	}
	for _, r := range p.Rules {
		if left--; left < 0 {
			continue
		}
		text := fmt.Sprintf("%v[%d] %s: ", d, r.Index, r.Action)
		if r.Name != "" {
			text = fmt.Sprintf("%v[%d] %q %s: ", d, r.Index, r.Name, r.Action)
		}
		if r.Matched {
			text += "matches"
		} else {
			text += r.Reason
		}
		if r.Note != "" {
			text += " (" + r.Note + ")"
		}
		say(3, text)
	}
	return left
}

// jsonExplanation is what -o json prints: allowed is that of all answers.
type jsonExplanation struct {
	Allowed bool         `json:"allowed"`
	Answers []jsonAnswer `json:"answers"`
}

// jsonAnswer is the answer for one pair of addresses.
type jsonAnswer struct {
	From    string        `json:"from"`
	To      string        `json:"to"`
	Source  string        `json:"source"`
	Dest    string        `json:"destination"`
	Target  string        `json:"target"`
	Allowed bool          `json:"allowed"`
	Notes   []string      `json:"notes,omitempty"`
	Egress  *jsonDecision `json:"egress,omitempty"`
	Ingress *jsonDecision `json:"ingress,omitempty"`
	Rules   []kernelRules `json:"rules,omitempty"`
	Probe   *jsonProbe    `json:"probe,omitempty"`
}

type jsonDecision struct {
	Endpoint string     `json:"endpoint"`
	Allowed  bool       `json:"allowed"`
	Reason   string     `json:"reason"`
	By       *jsonRule  `json:"by,omitempty"`
	Nearest  *jsonMiss  `json:"nearest,omitempty"`
	Tiers    []jsonTier `json:"tiers,omitempty"`
	Profiles []jsonStep `json:"profiles,omitempty"`
}

type jsonRule struct {
	Text       string `json:"text"`
	Tier       string `json:"tier,omitempty"`
	Owner      string `json:"owner,omitempty"`
	Index      int    `json:"index"` // -1: the end of a tier or of the profiles
	Name       string `json:"name,omitempty"`
	LastWriter string `json:"lastWriter,omitempty"`
}

type jsonMiss struct {
	Rule   jsonRule `json:"rule"`
	Failed []string `json:"failed"`
	Reason string   `json:"reason"`
}

type jsonTier struct {
	Tier     string     `json:"tier"`
	Missing  bool       `json:"missing,omitempty"`
	Outcome  string     `json:"outcome"`
	Policies []jsonStep `json:"policies"`
}

type jsonStep struct {
	Owner      string         `json:"owner"`
	Staged     bool           `json:"staged,omitempty"`
	Outcome    string         `json:"outcome"`
	Note       string         `json:"note,omitempty"`
	LastWriter string         `json:"lastWriter,omitempty"`
	Rules      []jsonRuleStep `json:"rules"`
}

type jsonRuleStep struct {
	Index   int    `json:"index"`
	Name    string `json:"name,omitempty"`
	Action  string `json:"action"`
	Matched bool   `json:"matched"`
	Reason  string `json:"reason,omitempty"`
	Note    string `json:"note,omitempty"`
}

type jsonProbe struct {
	Measured string `json:"measured"` // answered, silent or unmeasured
	Agrees   bool   `json:"agrees"`
	Text     string `json:"text"`
}

func jsonAnswers(answers []*answer) jsonExplanation {
	out := jsonExplanation{Allowed: true}
	for _, a := range answers {
		f := a.verdict.Flow
		j := jsonAnswer{
			From: a.from.Name, To: a.to.Name, Source: f.Source.String(), Dest: f.Dest.String(), Target: a.target,
			Allowed: a.verdict.Allowed, Notes: a.verdict.Notes, Rules: a.rules,
			Egress: decisionJSON(a.verdict.Egress), Ingress: decisionJSON(a.verdict.Ingress),
		}
		if a.probe != nil {
			j.Probe = &jsonProbe{a.probe.measured, !a.probe.disagrees, a.probe.text}
		}
		out.Answers = append(out.Answers, j)
		out.Allowed = out.Allowed && j.Allowed
	}
	return out
}

func decisionJSON(d *oracle.Decision) *jsonDecision {
	if d == nil {
		return nil
	}
	out := &jsonDecision{Endpoint: d.Endpoint.String(), Allowed: d.Allowed, Reason: d.Reason}
	if !d.Exempt {
		by := ruleJSON(d.By, d.Direction)
		out.By = &by
	}
	if d.Nearest != nil {
		out.Nearest = &jsonMiss{ruleJSON(d.Nearest.Rule, d.Direction), d.Nearest.Failed, d.Nearest.Reason}
	}
	for _, t := range d.Tiers {
		out.Tiers = append(out.Tiers, jsonTier{t.Tier, t.Missing, t.Outcome, stepsJSON(t.Policies)})
	}
	out.Profiles = stepsJSON(d.Profiles)
	return out
}

func ruleJSON(r oracle.Rule, d desired.Direction) jsonRule {
	return jsonRule{r.String(d), r.Tier, r.Owner, r.Index, r.Name, r.LastWriter}
}

func stepsJSON(steps []oracle.Step) []jsonStep {
	var out []jsonStep
	for _, s := range steps {
		j := jsonStep{Owner: s.Owner, Staged: s.Staged, Outcome: s.Outcome, Note: s.Note, LastWriter: s.LastWriter, Rules: []jsonRuleStep{}}
		for _, r := range s.Rules {
			j.Rules = append(j.Rules, jsonRuleStep{r.Index, r.Name, model.Action.String(r.Action), r.Matched, r.Reason, r.Note})
		}
		out = append(out, j)
	}
	return out
}
