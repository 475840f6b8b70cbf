package bgp

import (
	"context"
	"fmt"

	"github.com/brindle-net/brindle/internal/desired"
	"github.com/brindle-net/brindle/internal/reconcile"
)

// Speakers returns the target that holds the one setting of the speaker as a
// whole, under the key "". A change of AS or router id ends all sessions and
// begins new ones; a change of the listening addresses restarts them
// gracefully.
func (s *Server) Speakers() reconcile.Target[string, desired.Speaker] { return speakers{s} }

type speakers struct{ *Server }

// List returns the setting in force, if any.
func (t speakers) List(context.Context) (map[string]desired.Speaker, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	out := map[string]desired.Speaker{}
	if t.engine != nil {
		out[""] = *t.speaker
	}
	return out, nil
}

// Apply starts, restarts or stops the speaker.
func (t speakers) Apply(_ context.Context, p reconcile.Plan[string, desired.Speaker]) map[string]error {
	t.mu.Lock()
	defer t.mu.Unlock()
	failed := map[string]error{}
	for _, key := range p.Delete {
		if key == "" {
			t.stopEngine(false)
			t.speaker = nil
			t.learned.forget()
			t.poke()
		}
	}
	for _, e := range p.Set {
		if err := t.set(e.Key, e.Value); err != nil {
			failed[e.Key] = err
		}
	}
	return failed
}

func (t speakers) set(key string, v desired.Speaker) error {
	switch {
	case t.stopped:
		return ErrStopped
	case key != "":
		return fmt.Errorf("start BGP speaker %q: there is only one speaker, and its key is empty", key)
	case !v.RouterID.Is4():
		return fmt.Errorf("start BGP speaker: router id %v is not written as an IPv4 address (RFC 4271, section 4.2)", v.RouterID)
	case v.AS == 0:
		return fmt.Errorf("start BGP speaker: AS number 0 is reserved (RFC 7607)")
	}
	same := t.speaker != nil && t.speaker.AS == v.AS && t.speaker.RouterID == v.RouterID
	t.stopEngine(same)
	t.speaker = &v
	if err := t.startEngine(); err != nil {
		return fmt.Errorf("start BGP speaker on port %d: %w", listenPort(v), err)
	}
	return nil
}
