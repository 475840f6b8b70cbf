package oracle

import (
	"encoding/json"
	"fmt"
	"strings"
	"unicode"

	"github.com/brindle-net/brindle/internal/desired"
	"github.com/brindle-net/brindle/internal/model"
)

// Text writes a verdict for people: for each end whether it allows the flow,
// what decided, and of a denial what came closest to allowing. With steps,
// also each tier, policy and rule that was looked at. It ends with a newline,
// and holds no other control characters, whatever is in the datastore.
func (v Verdict) Text(steps bool) string {
	var t text
	t.line(0, "%v: %s", v.Flow, word(v.Allowed))
	for _, d := range []*Decision{v.Egress, v.Ingress} {
		if d != nil {
			t.decision(d, steps)
		}
	}
	for _, n := range v.Notes {
		t.line(0, "note: %s", n)
	}
	return t.String()
}

// Text writes a decision for people, as Verdict.Text does.
func (d Decision) Text(steps bool) string {
	var t text
	t.decision(&d, steps)
	return t.String()
}

func word(allowed bool) string {
	if allowed {
		return "allowed"
	}
	return "denied"
}

// text gathers lines.
type text struct{ strings.Builder }

func (t *text) line(indent int, format string, args ...any) {
	t.WriteString(strings.Repeat("  ", indent))
	t.WriteString(strings.Map(func(r rune) rune {
		if unicode.IsControl(r) || !unicode.IsGraphic(r) {
			return ' '
		}
		return r
	}, fmt.Sprintf(format, args...)))
	t.WriteByte('\n')
}

func (t *text) decision(d *Decision, steps bool) {
	t.line(0, "%v of %v: %s", d.Direction, d.Endpoint, word(d.Allowed))
	t.line(1, "%s", d.Reason)
	if d.By.LastWriter != "" {
		t.line(1, "%s: %s", d.By.Owner, d.By.LastWriter)
	}
	if n := d.Nearest; n != nil {
		t.line(1, "nearest: %s would allow it, but %s", n.Rule.String(d.Direction), n.Reason)
	}
	if !steps {
		return
	}
	for _, tier := range d.Tiers {
		t.line(1, "tier %s: %s", tier.Tier, tierWords(tier))
		for _, p := range tier.Policies {
			t.step(2, d.Direction, p)
		}
	}
	for _, p := range d.Profiles {
		t.step(1, d.Direction, p)
	}
}

func tierWords(s TierStep) string {
	out := map[string]string{
		OutcomeAllow: "allows", OutcomeDeny: "denies", OutcomePass: "passes the flow on",
		OutcomeEndDeny: "no rule matched, and its end denies",
		OutcomeEndPass: "no rule matched, and its end passes the flow on",
		OutcomeStaged:  "all its policies are staged: it does nothing",
	}[s.Outcome]
	switch {
	case s.Missing:
		out += " (the tier does not exist)"
	case s.Lost && s.Outcome == OutcomeEndDeny:
		out = "denies everything (the tier cannot be read)"
	}
	return out
}

func (t *text) step(indent int, d desired.Direction, s Step) {
	staged := ""
	if s.Staged {
		staged = " (staged: without effect)"
	}
	t.line(indent, "%s%s: %s", s.Owner, staged, map[string]string{
		OutcomeAllow: "allows", OutcomeDeny: "denies", OutcomePass: "passes the flow on", OutcomeNone: "no rule matched",
	}[s.Outcome])
	if s.Note != "" {
		t.line(indent+1, "%s", s.Note)
	}
	for _, r := range s.Rules {
		what := "matched"
		if !r.Matched {
			what = "did not match: " + r.Reason
		}
		if r.Note != "" {
			what += " (" + r.Note + ")"
		}
		name := ""
		if r.Name != "" {
			name = fmt.Sprintf(" %q", r.Name)
		}
		t.line(indent+1, "%v[%d]%s %v: %s", d, r.Index, name, r.Action, what)
	}
}

// The forms of a verdict in JSON. Fields are only ever added.
type (
	verdictJSON struct {
		Flow    flowJSON      `json:"flow"`
		Allowed bool          `json:"allowed"`
		Egress  *decisionJSON `json:"egress,omitempty"`
		Ingress *decisionJSON `json:"ingress,omitempty"`
		Notes   []string      `json:"notes,omitempty"`
	}
	flowJSON struct {
		Protocol   string `json:"protocol"`
		Source     string `json:"source"`
		Dest       string `json:"destination"`
		SourcePort uint16 `json:"sourcePort,omitempty"`
		DestPort   uint16 `json:"destinationPort,omitempty"`
		ICMPType   *uint8 `json:"icmpType,omitempty"`
		ICMPCode   *uint8 `json:"icmpCode,omitempty"`
	}
	decisionJSON struct {
		Endpoint  string     `json:"endpoint"`
		Direction string     `json:"direction"`
		Allowed   bool       `json:"allowed"`
		Exempt    bool       `json:"exempt,omitempty"`
		Reason    string     `json:"reason"`
		By        ruleJSON   `json:"by"`
		Nearest   *missJSON  `json:"nearest,omitempty"`
		Tiers     []tierJSON `json:"tiers,omitempty"`
		Profiles  []stepJSON `json:"profiles,omitempty"`
	}
	ruleJSON struct {
		Tier       string `json:"tier,omitempty"`
		Owner      string `json:"owner,omitempty"`
		Index      *int   `json:"index,omitempty"` // none for an end
		Name       string `json:"name,omitempty"`
		LastWriter string `json:"lastWriter,omitempty"`
		Text       string `json:"text"`
	}
	missJSON struct {
		Rule   ruleJSON `json:"rule"`
		Failed []string `json:"failed"`
		Reason string   `json:"reason"`
	}
	tierJSON struct {
		Tier     string     `json:"tier"`
		Lost     bool       `json:"lost,omitempty"`
		Missing  bool       `json:"missing,omitempty"`
		Outcome  string     `json:"outcome"`
		Policies []stepJSON `json:"policies"`
	}
	stepJSON struct {
		Owner      string         `json:"owner"`
		Staged     bool           `json:"staged,omitempty"`
		Outcome    string         `json:"outcome"`
		Note       string         `json:"note,omitempty"`
		LastWriter string         `json:"lastWriter,omitempty"`
		Rules      []ruleStepJSON `json:"rules,omitempty"`
	}
	ruleStepJSON struct {
		Index   int      `json:"index"`
		Name    string   `json:"name,omitempty"`
		Action  string   `json:"action"`
		Matched bool     `json:"matched"`
		Reason  string   `json:"reason,omitempty"`
		Note    string   `json:"note,omitempty"`
		Failed  []string `json:"failed,omitempty"`
	}
)

// MarshalJSON writes the verdict with all its steps, in a form that only
// grows.
func (v Verdict) MarshalJSON() ([]byte, error) {
	f := v.Flow
	flow := flowJSON{
		Protocol: model.ProtocolName(f.Protocol), Source: f.Source.String(), Dest: f.Dest.String(),
		SourcePort: f.SourcePort, DestPort: f.DestPort,
	}
	if f.HasICMPType() {
		flow.ICMPType, flow.ICMPCode = &f.ICMPType, &f.ICMPCode
	}
	return json.Marshal(verdictJSON{
		Flow: flow, Allowed: v.Allowed, Notes: v.Notes,
		Egress: v.Egress.json(), Ingress: v.Ingress.json(),
	})
}

// MarshalJSON writes the decision with all its steps, in a form that only
// grows.
func (d Decision) MarshalJSON() ([]byte, error) { return json.Marshal(d.json()) }

func (d *Decision) json() *decisionJSON {
	if d == nil {
		return nil
	}
	out := &decisionJSON{
		Endpoint: d.Endpoint.String(), Direction: d.Direction.String(), Allowed: d.Allowed, Exempt: d.Exempt,
		Reason: d.Reason, By: d.By.json(d.Direction), Profiles: stepsJSON(d.Profiles),
	}
	if n := d.Nearest; n != nil {
		out.Nearest = &missJSON{Rule: n.Rule.json(d.Direction), Failed: n.Failed, Reason: n.Reason}
	}
	for _, t := range d.Tiers {
		out.Tiers = append(out.Tiers, tierJSON{
			Tier: t.Tier, Missing: t.Missing, Lost: t.Lost, Outcome: t.Outcome, Policies: stepsJSON(t.Policies),
		})
	}
	return out
}

func (r Rule) json(d desired.Direction) ruleJSON {
	out := ruleJSON{Tier: r.Tier, Owner: r.Owner, Name: r.Name, LastWriter: r.LastWriter, Text: r.String(d)}
	if r.Index >= 0 {
		out.Index = &r.Index
	}
	return out
}

func stepsJSON(steps []Step) []stepJSON {
	var out []stepJSON
	for _, s := range steps {
		j := stepJSON{Owner: s.Owner, Staged: s.Staged, Outcome: s.Outcome, Note: s.Note, LastWriter: s.LastWriter}
		for _, r := range s.Rules {
			j.Rules = append(j.Rules, ruleStepJSON{
				Index: r.Index, Name: r.Name, Action: r.Action.String(), Matched: r.Matched,
				Reason: r.Reason, Note: r.Note, Failed: r.Failed,
			})
		}
		out = append(out, j)
	}
	return out
}
