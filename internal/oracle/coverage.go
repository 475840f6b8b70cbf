package oracle

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/brindle-net/brindle/internal/model"
)

// Coverage counts what decided, over many decisions. A kind of criterion has
// decided by matching when the rule that decided states it, and by failing
// when a rule that was looked at failed by it alone and would have decided
// otherwise.
type Coverage struct {
	Decisions int
	Matched   map[string]int // by kind of criterion, as in Kinds
	Missed    map[string]int
	Ends      map[string]int // "allow by a rule", "deny by the end of a tier"…
	Allowed   int
}

// NewCoverage returns a coverage that has counted nothing.
func NewCoverage() *Coverage {
	return &Coverage{Matched: map[string]int{}, Missed: map[string]int{}, Ends: map[string]int{}}
}

// Count counts a decision that was made with its steps.
func (c *Coverage) Count(d Decision) {
	if d.Exempt {
		return
	}
	c.Decisions++
	if d.Allowed {
		c.Allowed++
	}
	c.Ends[endOf(d)]++
	for _, t := range d.Tiers {
		c.Ends["tier: "+t.Outcome]++
		for _, s := range t.Policies {
			c.steps(d, s)
		}
	}
	for _, s := range d.Profiles {
		c.steps(d, s)
	}
}

func (c *Coverage) steps(d Decision, s Step) {
	if s.Staged {
		c.Ends["a staged policy: "+s.Outcome]++
		return
	}
	for _, r := range s.Rules {
		decided := s.Owner == d.By.Owner && r.Index == d.By.Index
		otherwise := r.Action == model.Allow && !d.Allowed || r.Action == model.Deny && d.Allowed
		switch {
		case r.Matched && r.Action == model.Log:
			c.Ends["a rule that logs"]++
		case r.Matched && r.Action == model.Pass:
			c.Ends["a rule that passes"]++
		}
		switch {
		case decided && r.Note != "":
			c.Ends["an HTTP rule"]++
			fallthrough
		case decided:
			for _, k := range r.States {
				c.Matched[k]++
			}
		case len(r.Failed) == 1 && otherwise:
			c.Missed[r.Failed[0]]++
		}
	}
}

// endOf says how a decision came about.
func endOf(d Decision) string {
	what := "deny by "
	if d.Allowed {
		what = "allow by "
	}
	switch {
	case d.By.Index >= 0 && d.By.Tier != "":
		return what + "a rule of a policy"
	case d.By.Index >= 0:
		return what + "a rule of a profile"
	case d.By.Tier != "":
		return what + "the end of a tier"
	}
	return what + "the end of the profiles"
}

// Seldom lists what has decided less often than it should, sorted: kinds of
// criteria by matching and by failing, and the verdicts, which should each
// end a fifth of the decisions.
func (c *Coverage) Seldom(least int) []string {
	var out []string
	for _, k := range Kinds() {
		if n := c.Matched[k]; n < least {
			out = append(out, fmt.Sprintf("%s decided %d times by matching", k, n))
		}
		if n := c.Missed[k]; n < least {
			out = append(out, fmt.Sprintf("%s decided %d times by failing", k, n))
		}
	}
	for verdict, n := range map[string]int{"allow": c.Allowed, "deny": c.Decisions - c.Allowed} {
		if 5*n < c.Decisions {
			out = append(out, fmt.Sprintf("%s ended %d of %d flows", verdict, n, c.Decisions))
		}
	}
	slices.Sort(out)
	return out
}

// String writes the counts, one a line.
func (c *Coverage) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%d decisions, %d allowed\n", c.Decisions, c.Allowed)
	for _, k := range Kinds() {
		fmt.Fprintf(&b, "%-36s matched %6d  failed %6d\n", k, c.Matched[k], c.Missed[k])
	}
	for _, k := range slices.Sorted(maps.Keys(c.Ends)) {
		fmt.Fprintf(&b, "%-36s %6d\n", k, c.Ends[k])
	}
	return b.String()
}
