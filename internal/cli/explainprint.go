package cli

import (
	"fmt"

	"github.com/brindle-net/brindle/internal/oracle"
	"github.com/brindle-net/brindle/internal/policytest"
)

// manyRules is how many rules are looked at before the steps are left out of
// the text, unless they are asked for.
const manyRules = 40

// printAnswers writes answers for people.
func printAnswers(e *Env, answers []*answer, steps bool) {
	for i, a := range answers {
		if i > 0 {
			fmt.Fprintln(e.Stdout)
		}
		f := a.verdict.Flow
		fmt.Fprintf(e.Stdout, "%s  %s\n", heading(e, yesNo(a.verdict.Allowed, "ALLOWED", "DENIED")),
			word(fmt.Sprintf("%s → %s %s (%v → %v)", a.from.Name, a.to.Name, a.target, f.Source, f.Dest)))
		for _, note := range a.verdict.Notes {
			fmt.Fprintln(e.Stdout, "  "+word(note))
		}
		if a.staged.Allowed != a.verdict.Allowed {
			fmt.Fprintf(e.Stdout, "  if the staged policies were enforced: %s: %s\n",
				yesNo(a.staged.Allowed, "allowed", "denied"), word(policytest.Why(a.staged)))
		}
		n := 0
		for _, d := range []*oracle.Decision{a.verdict.Egress, a.verdict.Ingress} {
			if d != nil {
				n += rulesIn(d)
			}
		}
		for _, d := range []*oracle.Decision{a.verdict.Egress, a.verdict.Ingress} {
			if d != nil {
				fmt.Fprint(e.Stdout, "\n"+clean(d.Text(steps || n <= manyRules)))
			}
		}
		if !steps && n > manyRules {
			fmt.Fprintf(e.Stdout, "\n%d rules were looked at: --steps lists them.\n", n)
		}
		for _, r := range a.rules {
			r.print(e)
		}
		if a.probe != nil {
			fmt.Fprintf(e.Stdout, "\nprobe: %s\n", word(a.probe.text))
		}
	}
}

// rulesIn counts the rules that a decision looked at.
func rulesIn(d *oracle.Decision) int {
	n := 0
	for _, t := range d.Tiers {
		for _, p := range t.Policies {
			n += len(p.Rules)
		}
	}
	for _, p := range d.Profiles {
		n += len(p.Rules)
	}
	return n
}

// jsonExplanation is what -o json prints: allowed is that of all answers.
type jsonExplanation struct {
	Allowed bool         `json:"allowed"`
	Answers []jsonAnswer `json:"answers"`
}

// jsonAnswer is the answer for one pair of addresses.
type jsonAnswer struct {
	From    string         `json:"from"`
	To      string         `json:"to"`
	Target  string         `json:"target"` // "80/tcp"
	Verdict oracle.Verdict `json:"verdict"`
	Staged  *jsonStaged    `json:"staged,omitempty"` // only if staged policies would change the answer
	Rules   []kernelRules  `json:"rules,omitempty"`
	Probe   *jsonProbe     `json:"probe,omitempty"`
}

// jsonStaged is what would be if staged policies were enforced.
type jsonStaged struct {
	Allowed bool   `json:"allowed"`
	Reason  string `json:"reason"`
}

// jsonProbe is what a real packet met.
type jsonProbe struct {
	Measured string `json:"measured"` // answered, silent or unmeasured
	Agrees   bool   `json:"agrees"`
	Text     string `json:"text"`
}

func jsonAnswers(answers []*answer) jsonExplanation {
	out := jsonExplanation{Allowed: true}
	for _, a := range answers {
		j := jsonAnswer{From: a.from.Name, To: a.to.Name, Target: a.target, Verdict: a.verdict, Rules: a.rules}
		if a.staged.Allowed != a.verdict.Allowed {
			j.Staged = &jsonStaged{a.staged.Allowed, policytest.Why(a.staged)}
		}
		if a.probe != nil {
			j.Probe = &jsonProbe{a.probe.measured, !a.probe.disagrees, a.probe.text}
		}
		out.Answers = append(out.Answers, j)
		out.Allowed = out.Allowed && a.verdict.Allowed
	}
	return out
}
