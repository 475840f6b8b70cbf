package cli

import "fmt"

// progress tells on a terminal how far a long command is: one line that is
// written again and again, and goes when it ends.
type progress struct {
	e     *Env
	what  string // "applied"
	total int
	shown int // per cent; -1: nothing
}

// progressFrom is how many steps a command must have to tell of them.
const progressFrom = 100

// newProgress returns nil, which says nothing, unless standard error is a
// terminal and there is much to do.
func newProgress(e *Env, what string, total int) *progress {
	if !e.ErrTerminal || e.jsonErrors || total < progressFrom {
		return nil
	}
	return &progress{e: e, what: what, total: total, shown: -1}
}

// step says that so many are done. It writes a hundred times at most.
func (p *progress) step(done int) {
	if p == nil {
		return
	}
	if percent := done * 100 / p.total; percent != p.shown {
		p.shown = percent
		fmt.Fprintf(p.e.Stderr, "\r%s %d of %d (%d%%)", p.what, done, p.total, percent)
	}
}

// clear takes the line away, before something else is said and at the end. The
// next step writes it again.
func (p *progress) clear() {
	if p != nil && p.shown >= 0 {
		fmt.Fprint(p.e.Stderr, "\r\x1b[K")
		p.shown = -1
	}
}
