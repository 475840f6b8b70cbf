package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"os/user"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	v3 "github.com/brindle-net/brindle/api/v3"
	"github.com/brindle-net/brindle/internal/client"
)

// waiting are the flags of commands that write: they can wait until what they
// wrote is enforced on every host, and note it.
type waiting struct {
	on      bool
	timeout time.Duration
	given   func() bool      // a timeout; nil: there are no such flags
	rec     *client.Recorder // nil: not waiting, or nothing written yet
}

// lateStatus is the exit status of a command that wrote all that it was to
// write, and did not see it enforced everywhere.
const lateStatus = 3

func (w *waiting) add(c *cobra.Command, ds *datastoreFlags) {
	c.Flags().StringVar(&ds.auditLog, "audit-log", "", "add a line of JSON to this file for every change (default: "+auditVariable+")")
	w.given = func() bool { return c.Flags().Changed("timeout") }
	c.Flags().BoolVar(&w.on, "wait", false, "wait until the change is enforced on every host; exit status 3 if it is written and some host is late")
	c.Flags().DurationVar(&w.timeout, "timeout", time.Minute, "how long --wait waits at most")
}

// check checks the flags.
func (w *waiting) check(dry bool) error {
	switch {
	case w.given == nil:
		return nil
	case !w.on && w.given():
		return errors.New("--timeout says how long --wait waits, and --wait is not given")
	case w.on && w.timeout <= 0:
		return fmt.Errorf("--timeout %s: must be more than nothing", w.timeout)
	case w.on && dry:
		return errors.New("--wait and --dry-run: what is not written is never enforced")
	}
	return nil
}

// session returns the datastore to write to, so that it is known afterwards
// what to wait for.
func (w *waiting) session(db *session) *session {
	if !w.on {
		return db
	}
	w.rec = client.Record(db.driver)
	return newSessionOn(w.rec, db.close)
}

// saw takes an object as it is stored now, written or found as it should be.
func (w *waiting) saw(is v3.Object) {
	if w.rec != nil && is != nil {
		w.rec.Saw(is)
	}
}

// finish waits for what was written, if that was asked for. failed is what went
// wrong with writing; what was written nonetheless is waited for.
func (w *waiting) finish(ctx context.Context, e *Env, quiet bool, failed error) error {
	if w.rec == nil {
		return failed
	}
	written, err := w.rec.Written()
	if err != nil {
		return errors.Join(failed, fmt.Errorf("written, and not waited for: %w", err))
	}
	if written.Nothing() {
		return failed
	}
	if ctx.Err() != nil {
		return errors.Join(failed, errors.New("interrupted: what was written is not waited for"))
	}
	began, line := time.Now(), waitLine{e: e}
	state, err := client.WaitEnforced(ctx, w.rec.Driver, written, client.WaitConfig{Timeout: w.timeout, By: author(e), Progress: line.show})
	line.clear()
	if err == nil {
		if !quiet {
			fmt.Fprintln(e.Stdout, enforcedOn(state))
		}
		return failed
	}
	late := &lateError{state: state, after: time.Since(began), cause: err}
	if failed != nil {
		return errors.Join(failed, late)
	}
	return &ExitError{Status: lateStatus, Err: late}
}

// enforcedOn is the good news.
func enforcedOn(s client.Enforcement) string {
	if len(s.Hosts) == 0 {
		return "Enforced: there is no host yet"
	}
	return fmt.Sprintf("Enforced on %d of %d hosts", len(s.Hosts)-len(s.Late()), len(s.Hosts))
}

// lateError says which hosts do not enforce what was written.
type lateError struct {
	state client.Enforcement
	after time.Duration
	cause error // client.ErrLate, or why nobody waits any more
}

// mostNamed is how many hosts a message names; JSON has all.
const mostNamed = 20

func (l *lateError) Error() string {
	late := l.state.Late()
	var b strings.Builder
	never := errors.Is(l.cause, client.ErrNever)
	if never {
		fmt.Fprintf(&b, "written, but %d of %d hosts cannot enforce it", len(late), len(l.state.Hosts))
	} else {
		fmt.Fprintf(&b, "written, but not enforced on every host after %s", l.after.Round(100*time.Millisecond))
	}
	if len(l.state.Hosts) > 0 && !never {
		fmt.Fprintf(&b, ": late are %d of %d hosts", len(late), len(l.state.Hosts))
	}
	if !never && !errors.Is(l.cause, context.Canceled) && !plainlyLate(l.cause) {
		fmt.Fprintf(&b, ": %v", l.cause)
	}
	if errors.Is(l.cause, context.Canceled) {
		b.WriteString(" (interrupted)")
	}
	for i, h := range late {
		if i == mostNamed {
			fmt.Fprintf(&b, "\nand %d more", len(late)-i)
			break
		}
		fmt.Fprintf(&b, "\n%s: %s: %s", h.Host, h.Reason, h.Message)
	}
	return b.String()
}

func (l *lateError) Unwrap() error { return l.cause }

// plainlyLate reports whether an error says only that the time is over.
func plainlyLate(err error) bool { return err == client.ErrLate }

// waitLine tells on a terminal how far the hosts are.
type waitLine struct {
	e     *Env
	shown string
}

// fewNamed is how many hosts the line names.
const fewNamed = 3

func (w *waitLine) show(s client.Enforcement) {
	if !w.e.ErrTerminal || w.e.jsonErrors {
		return
	}
	late := s.Late()
	var names []string
	for _, h := range late[:min(len(late), fewNamed)] {
		names = append(names, word(h.Host))
	}
	text := fmt.Sprintf("enforced on %d of %d hosts", len(s.Hosts)-len(late), len(s.Hosts))
	if len(late) > 0 {
		text += "; not yet: " + strings.Join(names, ", ")
	}
	if len(late) > fewNamed {
		text += fmt.Sprintf(" and %d more", len(late)-fewNamed)
	}
	if text != w.shown {
		fmt.Fprint(w.e.Stderr, "\r\x1b[K"+text)
	}
	w.shown = text
}

func (w *waitLine) clear() {
	if w.shown != "" {
		fmt.Fprint(w.e.Stderr, "\r\x1b[K")
	}
}

// author is who runs this command and where, for people: nobody has checked it.
func author(e *Env) string {
	name := e.Getenv("SUDO_USER")
	if name == "" {
		if u, err := user.Current(); err == nil {
			name = u.Username
		}
	}
	host, err := os.Hostname()
	if err != nil {
		host = "unknown"
	}
	return cmp.Or(name, "uid "+strconv.Itoa(os.Getuid())) + "@" + host
}
