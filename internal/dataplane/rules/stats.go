package rules

// Stats says how much of a program is decided by look-ups.
type Stats struct {
	Groups   int // of endpoints with the same rules, a direction each
	Small    int // of these, those with too few rules for look-ups to be worth it
	Compiled int // those that are decided by look-ups
	// Broken are those that should be and are not, as a whole or for some of
	// their addresses: they have too many rows, or there are too many classes or
	// groups. Plain rules decide there.
	Broken  int
	Classes int // of addresses, besides that of all others
	Rows    int // elements of the maps of rows
	// PlainRows are those that leave a class, protocol or port to the plain rules.
	PlainRows int
}

// Stats counts. The work is in proportion to the groups.
func (b *Builder) Stats() Stats {
	s := Stats{Groups: len(b.groups)}
	if b.compiler == nil {
		s.Small = s.Groups
		return s
	}
	for _, of := range b.compiler.space.classes {
		s.Classes += len(of)
	}
	broken := make(map[string]bool, len(b.groups))
	for _, g := range b.compiler.groups {
		broken[g.key.plain] = broken[g.key.plain] || g.broken || g.full
		s.PlainRows += g.plain
		s.Rows += g.count - len(g.rows) // without the elements that say that there are any
		if g.rows[0] != nil {
			s.Rows++ // the class of nothing has none
		}
	}
	crowded := b.compiler.given.highest >= 1<<groupBits
	for name := range b.groups {
		bad, there := broken[name]
		switch {
		case !b.compiler.askedBy(name).many:
			s.Small++
		case bad || !there && crowded:
			s.Broken++
		default:
			s.Compiled++
		}
	}
	return s
}
