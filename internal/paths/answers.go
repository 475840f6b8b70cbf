package paths

import (
	"errors"
	"net"
	"sync"

	"github.com/brindle-net/brindle/internal/netns"
)

// answers is the answerers of this host. It belongs to one goroutine.
type answers struct {
	cfg     Config
	open    map[End]*answerer
	running sync.WaitGroup
}

func newAnswers(cfg Config) *answers { return &answers{cfg: cfg, open: map[End]*answerer{}} }

// want opens and closes answerers. One whose interface was made anew, or whose
// address went and came back, is opened again.
func (s *answers) want(w wanted) error {
	wanted := map[End]bool{}
	for _, e := range w.ends {
		e.Offload = false // which makes no difference here
		wanted[e] = true
	}
	for e, a := range s.open {
		if !wanted[e] || !current(s.cfg.NS, a) {
			s.shut(e, a)
		}
	}
	var failed error
	for e := range wanted {
		if s.open[e] == nil {
			a, err := openAnswerer(s.cfg.NS, e, s.cfg.Port, s.cfg.Log)
			if err != nil {
				failed = errors.Join(failed, err)
				continue
			}
			s.open[e] = a
			a.know(w.known)
			s.running.Go(a.run)
		}
		s.open[e].know(w.known)
	}
	return failed
}

// current reports whether an answerer's interface is still that of its name.
func current(ns *netns.NS, a *answerer) bool {
	return within(ns, func() error {
		index, err := indexOf(a.end.Device)
		if err == nil && index != a.index {
			err = net.ErrClosed
		}
		return err
	}) == nil
}

func (s *answers) shut(e End, a *answerer) {
	delete(s.open, e)
	if err := a.close(); err != nil {
		s.cfg.Log.Warn("answerer of probes not closed", "device", e.Device, "err", err)
	}
}

// close ends them all.
func (s *answers) close() {
	for e, a := range s.open {
		s.shut(e, a)
	}
	s.running.Wait()
}
