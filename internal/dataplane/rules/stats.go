package rules

import "strings"

// Stats says how much of a program is decided by look-ups.
type Stats struct {
	Groups   int // of endpoints with the same rules, a direction each
	Compiled int // of these, those that are decided by look-ups
	Broken   int // compiled ones that have too many rows, or classes: plain after all
	Classes  int // of addresses, besides that of all others
	Rows     int
	// PlainRows are those that leave a class, protocol or port to the plain rules.
	PlainRows int
}

// Stats counts. The work is in proportion to the rows.
func (b *Builder) Stats() Stats {
	s := Stats{Groups: len(b.groups)}
	if b.compiler == nil {
		return s
	}
	for _, of := range b.compiler.space.classes {
		s.Classes += len(of)
	}
	broken := map[string]bool{}
	for _, g := range b.compiler.groups {
		broken[g.key.plain] = broken[g.key.plain] || g.broken || g.full
	}
	for _, bad := range broken {
		s.Compiled++
		if bad {
			s.Broken++
		}
	}
	for name, set := range b.prog.Sets {
		if !strings.HasPrefix(name, "row-") {
			continue
		}
		s.Rows += len(set.Elements)
		for _, e := range set.Elements {
			if e.Number&markPlain != 0 {
				s.PlainRows++
			}
		}
	}
	return s
}
