package paths

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/brindle-net/brindle/internal/desired"
)

// way says how a question travels.
type way uint8

const (
	plain  way = iota // no checksum of UDP, not to be cut into pieces
	summed            // with a checksum, which the device may leave to others
	strict            // as plain, and the kernel goes by what it knows of the path
	pieces            // may be cut
	outer             // as plain, and the packet around it may not be cut either; made here, past the tunnel's device
	echo              // ICMP: any host answers, with or without an agent
)

// What comes of a question that is not answered as it should.
var (
	errSilent  = errors.New("no answer")
	errRefused = errors.New("nobody listens")
	errTooBig  = errors.New("too large")
	errChanged = errors.New("what arrived is not what was sent")
)

// line asks the other end of a path.
type line interface {
	// ask sends a packet of a size in bytes (its IP header included), again
	// where none is answered, and returns how long the answer took. The error is
	// one of those above, or says why this host cannot send.
	ask(ctx context.Context, w way, size int) (time.Duration, error)
	// bulk sends several segments by TCP.
	bulk(ctx context.Context) error
	// alive reports whether the host answers outside of the tunnel.
	alive(ctx context.Context) bool
	// learned is the path's MTU as far as the kernel was told; 0: nothing.
	learned() int
}

// smallSize is that of a small packet, its IP header included: the smallest
// that every path of the family must carry is larger.
const smallSize = 128

// measure finds out what a path is good for.
func measure(ctx context.Context, p Path, l line) Result {
	r := Result{Path: p, Outcome: Fine}
	var err error
	r.RTT, err = l.ask(ctx, plain, smallSize)
	if r.Small = checkOf(err); r.Small != Passed {
		measureMute(ctx, l, &r, err)
		return r
	}
	_, err = l.ask(ctx, summed, smallSize)
	r.Sum = checkOf(err)
	measureSizes(ctx, l, plain, &r)
	if r.Full == Passed && p.Form == desired.VXLAN {
		measureWhole(ctx, l, &r)
	}
	r.Over = over(ctx, l, p.MTU)
	if r.Full == Passed {
		r.TCP = checkOf(l.bulk(ctx))
	}
	conclude(&r)
	return r
}

// measureMute looks at a path on which no question is answered.
func measureMute(ctx context.Context, l line, r *Result, err error) {
	switch r.Small {
	case Changed:
		r.Outcome, r.Message = Corrupt, r.corrupt()
		return
	case Failed:
		r.Outcome, r.Message = NotSent, fmt.Sprintf("%s to %s: this host cannot send: %v", r.Device, r.who(), err)
		return
	}
	rtt, err := l.ask(ctx, echo, smallSize)
	if err == nil {
		r.RTT, r.Small = rtt, Passed
		measureSizes(ctx, l, echo, r)
		conclude(r)
		if r.Outcome == Fine {
			r.Outcome, r.Message = NoAnswer, r.unanswered()
		}
		return
	}
	switch {
	case r.Small == Refused: // by the host itself: packets pass both ways
		r.Small, r.Outcome, r.Message = Passed, NoAnswer, r.unanswered()
	case !r.Speaks && l.alive(ctx): // its rules may well drop what we ask
		r.Outcome, r.Message = NoAnswer, r.unanswered()+"; whether packets pass is not known"
	default:
		r.Outcome, r.Message = Blocked, r.blocked(l.alive(ctx))
	}
}

// measureSizes tries a full-size packet, and what fits if it is lost.
func measureSizes(ctx context.Context, l line, w way, r *Result) {
	_, err := l.ask(ctx, w, r.MTU)
	r.Full = checkOf(err)
	switch r.Full {
	case Passed:
		r.Fits = r.MTU
		if told := l.learned(); told > 0 && told < r.MTU {
			r.Full, r.Fits = Told, told
		}
	case Lost, Told:
		told := l.learned()
		if told <= smallSize || told >= r.MTU {
			r.Fits = fits(ctx, l, w, r.MTU)
			return
		}
		// Whoever goes by what the kernel knows, which the probes do not, is told.
		if r.Full, r.Fits = Told, told; lost(ctx, l, w, told) {
			r.Full, r.Fits = Lost, fits(ctx, l, w, told)
		}
	}
}

// lost reports whether packets of a size do not pass.
func lost(ctx context.Context, l line, w way, size int) bool {
	_, err := l.ask(ctx, w, size)
	return err != nil
}

// measureWhole tries a full-size packet whose outer packet must not be cut.
func measureWhole(ctx context.Context, l line, r *Result) {
	if r.Outer == (Outer{}) || !r.Node.IsValid() {
		return
	}
	if _, err := l.ask(ctx, outer, smallSize); err != nil {
		return // it cannot be told this way
	}
	_, err := l.ask(ctx, outer, r.MTU)
	if r.Whole = checkOf(err); r.Whole == Lost || r.Whole == Told {
		r.Fits = fits(ctx, l, outer, r.MTU)
	}
}

// fits finds the largest size that passes, below one that does not.
func fits(ctx context.Context, l line, w way, high int) int {
	low := smallSize
	for high-low > 1 && ctx.Err() == nil {
		mid := (low + high) / 2
		if lost(ctx, l, w, mid) {
			high = mid
		} else {
			low = mid
		}
	}
	return low
}

// over tries what is larger than the path: refused where it starts, or passed
// in pieces, but not lost.
func over(ctx context.Context, l line, mtu int) Check {
	_, err := l.ask(ctx, strict, mtu+1)
	if c := checkOf(err); c != Told && c != Passed {
		return c
	}
	if _, err := l.ask(ctx, pieces, mtu+1); err != nil {
		return checkOf(err)
	}
	return Passed
}

// checkOf is what an error says of a packet.
func checkOf(err error) Check {
	switch {
	case err == nil:
		return Passed
	case errors.Is(err, errSilent):
		return Lost
	case errors.Is(err, errTooBig):
		return Told
	case errors.Is(err, errRefused):
		return Refused
	case errors.Is(err, errChanged):
		return Changed
	}
	return Failed
}

// conclude says what the checks of a path that answers come to. What explains
// more comes first.
func conclude(r *Result) {
	size := func(c Check) bool { return c == Lost || c == Told }
	switch {
	case r.Sum == Changed || r.Full == Changed || r.TCP == Changed || r.Over == Changed:
		r.Outcome, r.Message = Corrupt, r.corrupt()
	case size(r.Full) || size(r.Whole):
		r.Outcome, r.Message = Narrow, r.narrow()
	case r.Sum == Lost:
		r.Outcome, r.Message = Checksum, r.checksum()
	case r.TCP != Passed && r.TCP != Skipped:
		r.Outcome, r.Message = NoTCP, r.noTCP()
	case r.Over == Lost:
		r.Outcome, r.Message = Narrow, r.uncut()
	}
}
