package feed

import (
	"time"

	"github.com/brindle-net/brindle/internal/store"
)

// Status tells how a Run is doing. The zero value is ready for use; any
// goroutine may read it.
type Status struct {
	parts   [3]store.FollowStatus // one for each of prefixes
	passage passage
}

// State is how a Run is doing at one moment.
type State struct {
	Connected bool      // every part of the datastore answers and is being watched
	Since     time.Time // when Connected became what it is; zero before the first answer
	InSync    bool      // everything has been read once
	LastError error     // the latest failure, nil if there was none
	ErrorAt   time.Time // when that was
}

// Age says for how long the datastore has been out of sight at a moment: how
// old what we know may be. 0 while connected, and before the first answer.
func (s State) Age(now time.Time) time.Duration {
	if s.Connected || s.Since.IsZero() {
		return 0
	}
	return now.Sub(s.Since)
}

// State returns the state now: that of the worst part. It is connected since
// its last part is, and disconnected since its first part is.
func (s *Status) State() State {
	out := State{Connected: true, InSync: true}
	for i := range s.parts {
		p := s.parts[i].State()
		out.Connected, out.InSync = out.Connected && p.Connected, out.InSync && p.InSync
		if p.ErrorAt.After(out.ErrorAt) {
			out.LastError, out.ErrorAt = p.LastError, p.ErrorAt
		}
	}
	for i := range s.parts {
		p := s.parts[i].State()
		switch {
		case p.Connected != out.Connected:
			continue
		case p.Since.IsZero():
			out.Since = time.Time{}
			return out
		case out.Since.IsZero() || out.Connected == p.Since.After(out.Since):
			out.Since = p.Since
		}
	}
	return out
}
