package oracle

import (
	"maps"
	"strings"

	"github.com/brindle-net/brindle/internal/model"
)

// Enforced returns the snapshot as it would be if every staged policy were
// made real: one to be set takes the place of the policy of its name, one that
// stands for a deletion takes that policy away, and one to be ignored or still
// learning does nothing. The snapshot itself stays as it is.
func (s Snapshot) Enforced() Snapshot {
	out := maps.Clone(s)
	for id, v := range s {
		p, ok := v.(*model.Policy)
		if !ok || !p.Staged {
			continue
		}
		delete(out, id)
		real := p.Becomes()
		switch p.StagedAction {
		case "Delete":
			delete(out, real)
		case "Set", "":
			next := *p
			next.ID, next.Title = real, real.String()
			next.APIKind, next.Name, _ = strings.Cut(real.Name, "/")
			next.Staged, next.StagedAction = false, ""
			out[real] = &next
		}
	}
	return out
}
