package agent

import (
	"fmt"

	"github.com/brindle-net/brindle/internal/dataplane/rules"
	"github.com/brindle-net/brindle/internal/health"
)

// fallenBack says what policy costs more than it should, if anything does: it
// is enforced all the same.
func fallenBack(s rules.Stats) string {
	if s.Broken == 0 {
		return ""
	}
	return fmt.Sprintf("%d of %d groups of endpoints are judged by all their rules, since look-ups for them would need too many rows, classes or groups (%d rows and %d classes now): new connections take longer there",
		s.Broken, s.Groups, s.Rows, s.Classes)
}

// lookUpSamples say how much of policy is decided by look-ups.
func lookUpSamples(s rules.Stats) []health.Sample {
	groups := func(judged string, n int) health.Sample {
		return health.Sample{
			Name: "brindle_policy_groups", Help: "Groups of endpoints with the same rules, a direction each, by what judges their new connections.",
			Labels: map[string]string{"judged": judged}, Value: float64(n),
		}
	}
	return []health.Sample{
		groups("look-ups", s.Compiled), groups("few-rules", s.Small), groups("all-rules", s.Broken),
		{Name: "brindle_policy_classes", Help: "Classes of addresses that rules tell apart.", Value: float64(s.Classes)},
		{Name: "brindle_policy_rows", Help: "Rows of the look-ups.", Value: float64(s.Rows)},
		{Name: "brindle_policy_plain_rows", Help: "Rows that leave the decision to the rules.", Value: float64(s.PlainRows)},
	}
}
