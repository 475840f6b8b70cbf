package lab

import (
	"context"
	"time"
)

// undoTimeout bounds the removal of what an add left behind.
const undoTimeout = 10 * time.Second

// abandon has the agent take back what it did for an add that failed, as a
// container runtime does. When the agent cannot, because it was killed in the
// middle, the removal is done when it runs again.
func (s *Supervisor) abandon(ctx context.Context, w Workload) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), undoTimeout)
	defer cancel()
	if err := s.remove(ctx, w); err != nil {
		s.log.InfoContext(ctx, "what is left of a failed add is removed later", "workload", w.Name, "host", w.Host, "err", err)
		s.mu.Lock()
		s.abandoned[w.Name] = w
		s.mu.Unlock()
	}
}

// reclaim removes what failed adds left on a host, on every host when its
// name is empty.
func (s *Supervisor) reclaim(ctx context.Context, host string) {
	s.mu.Lock()
	var due []Workload
	for name, w := range s.abandoned {
		if host == "" || w.Host == host {
			due = append(due, w)
			delete(s.abandoned, name)
		}
	}
	s.mu.Unlock()
	for _, w := range due {
		s.abandon(ctx, w)
	}
}

// resume forgets what is left of an earlier add of the same name: this one
// goes on where that one stopped.
func (s *Supervisor) resume(name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.abandoned, name)
}
