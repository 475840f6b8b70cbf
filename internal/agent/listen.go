package agent

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/brindle-net/brindle/internal/config"
)

// listeners serve health and metrics on TCP addresses, which may change. One that
// is not wanted any more goes when all that are wanted are there: whoever asks
// finds one. Those that cannot be opened are tried again and again.
type listeners struct {
	handler http.Handler
	log     *slog.Logger
	wake    chan struct{} // capacity 1: wanted has changed

	mu     sync.Mutex // guards what follows
	wanted []string
	asked  uint64 // how often others were wanted
	done   uint64 // asked, when the last attempt ended
	failed []string
}

// listenRetry is the pause after an attempt that failed.
const listenRetry = 10 * time.Second

func newListeners(h http.Handler, log *slog.Logger) *listeners {
	return &listeners{handler: h, log: log, wake: make(chan struct{}, 1)}
}

// want says which addresses there shall be from now on.
func (l *listeners) want(addrs []string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.asked > 0 && slices.Equal(l.wanted, addrs) {
		return
	}
	l.wanted, l.asked = addrs, l.asked+1
	poke(l.wake)
}

// trouble says which addresses cannot be had and why, and whether what was wanted
// last has been tried.
func (l *listeners) trouble() (failed []string, tried bool) {
	if l == nil {
		return nil, true
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.failed, l.done == l.asked
}

// serving is one that is open.
type serving struct {
	cancel context.CancelFunc
	ended  chan struct{} // closed when it is no more
}

func (s serving) close() {
	s.cancel()
	<-s.ended
}

// run serves until ctx ends.
func (l *listeners) run(ctx context.Context) error {
	open := map[string]serving{}
	defer func() {
		for _, s := range open {
			s.close()
		}
	}()
	for {
		var retry <-chan time.Time // nil: nothing failed
		if !l.look(ctx, open) {
			retry = time.After(listenRetry)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-l.wake:
		case <-retry:
		}
	}
}

// look makes what is open what is wanted, and reports whether it is.
func (l *listeners) look(ctx context.Context, open map[string]serving) bool {
	l.mu.Lock()
	wanted, asked := l.wanted, l.asked
	l.mu.Unlock()
	var failed []string
	for _, addr := range wanted {
		if _, there := open[addr]; there {
			continue
		}
		s, err := l.open(ctx, addr)
		if errors.Is(err, unix.EADDRINUSE) && closePort(open, addr, wanted) {
			s, err = l.open(ctx, addr)
		}
		if err != nil {
			failed = append(failed, fmt.Sprintf("health and metrics cannot be served on %s: %v; tried every %v", addr, err, listenRetry))
			continue
		}
		open[addr] = s
	}
	for addr, s := range open {
		if failed == nil && !slices.Contains(wanted, addr) {
			s.close()
			delete(open, addr)
		}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if failed != nil && !slices.Equal(failed, l.failed) {
		l.log.WarnContext(ctx, "listener not opened", "retry_in", listenRetry, "err", strings.Join(failed, "; "))
	}
	l.failed, l.done = failed, asked
	return failed == nil
}

// closePort closes those with the port of an address that are not wanted: all
// addresses of a host include each of them. It reports whether there was one.
func closePort(open map[string]serving, addr string, wanted []string) bool {
	_, port, _ := net.SplitHostPort(addr)
	any := false
	for old, s := range open {
		if _, p, _ := net.SplitHostPort(old); p == port && !slices.Contains(wanted, old) {
			s.close()
			delete(open, old)
			any = true
		}
	}
	return any
}

// open begins to serve on one address.
func (l *listeners) open(ctx context.Context, addr string) (serving, error) {
	var lc net.ListenConfig
	at, err := lc.Listen(ctx, "tcp", addr)
	if err != nil {
		return serving{}, err
	}
	ctx, cancel := context.WithCancel(ctx)
	s := serving{cancel, make(chan struct{})}
	go func() {
		defer close(s.ended)
		if err := serveHTTP(ctx, at, l.handler); err != nil && ctx.Err() == nil {
			l.log.ErrorContext(ctx, "listener ended", "address", addr, "err", err)
		}
	}()
	return s, nil
}

// listenOn lists the addresses of health and metrics: one listener serves both
// where they are the same.
func listenOn(s config.Agent) []string {
	var out []string
	for _, l := range []config.Listener{s.Health, s.Metrics.Listener} {
		addr := net.JoinHostPort(l.Host, strconv.Itoa(l.Port))
		if l.Enabled && !slices.Contains(out, addr) {
			out = append(out, addr)
		}
	}
	return out
}
