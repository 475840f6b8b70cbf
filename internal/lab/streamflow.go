package lab

import (
	"maps"
	"slices"
	"time"
)

// receive takes in a segment of a connection that stands and returns what is
// sent. false: the connection is over. The greeting is what follows our SYN.
func (t *stream) receive(g segment, greeting string, now time.Time) ([]segment, bool) {
	if g.bits&bitRST != 0 && g.seq == t.want {
		return nil, false
	}
	t.heard = now
	switch {
	case g.bits&bitRST != 0:
		return []segment{t.note()}, true // a guess ends nothing (RFC 5961)
	case g.bits&bitSYN != 0 && !t.opened && g.seq+1 == t.want:
		return []segment{t.greeting()}, true // ours was lost
	case g.bits&bitSYN != 0:
		return []segment{t.note()}, true // whoever means it says that the old one is over
	case g.bits&bitACK == 0:
		return nil, true
	case !t.opened && g.ack != t.first+1:
		return []segment{{seq: g.ack, bits: bitRST}}, true
	case before(t.top, g.ack), before(t.want+mostQueued, g.seq):
		return []segment{t.note()}, true
	}
	due, over := t.acknowledged(g, greeting)
	if over {
		return nil, false
	}
	due = t.take(g) || due
	out := t.flush(mostFlying, now)
	if due && len(out) == 0 {
		out = append(out, t.note())
	}
	return out, true
}

// fin is the sequence number of our FIN.
func (t *stream) fin() uint32 { return t.first + uint32(len(t.queue)) }

// note is a segment that says nothing but how far we are.
func (t *stream) note() segment { return segment{seq: t.top} }

// acknowledged takes in what a segment says of ours. It reports whether the
// peer has to be told that there is room again, and whether our FIN, the last of
// all, has arrived.
func (t *stream) acknowledged(g segment, greeting string) (due, over bool) {
	if before(g.ack, t.first) {
		return false, false // an old one
	}
	n := g.ack - t.first
	if n == 0 && g.length() == 0 && int(g.window) == t.window && t.top != t.first {
		if t.same++; t.same == 3 {
			t.next = t.first // what follows has come, this has not (RFC 5681)
		}
	}
	if t.window = int(g.window); t.window == 0 {
		t.resends = 0 // it is there, and has no room
	}
	if n == 0 {
		return false, false
	}
	if !t.opened {
		t.opened = true
		t.first++
		n--
		t.queue = append(t.queue, greeting+"\n"...)
	}
	if int(n) > len(t.queue) {
		return false, true // only our FIN is behind what is queued
	}
	t.queue = t.queue[n:]
	if t.first += n; before(t.next, t.first) {
		t.next = t.first
	}
	t.same, t.resends, t.resendAt = 0, 0, time.Time{}
	return t.told < t.mss && t.room() >= t.mss, false
}

// take queues what comes next of the peer's bytes, to send them back. It
// reports whether the segment has to be acknowledged.
func (t *stream) take(g segment) bool {
	if g.length() == 0 {
		return before(g.seq, t.want) // asks whether we are still there
	}
	data, fin := g.data, g.bits&bitFIN != 0
	switch {
	case t.ended, before(t.want, g.seq):
		return true // of old, or ahead of what has not come
	case before(g.seq, t.want):
		skip := t.want - g.seq
		if skip > uint32(len(data)) {
			return true
		}
		data = data[skip:]
	}
	if room := t.room(); len(data) > room {
		data, fin = data[:room], false
	}
	t.queue = append(t.queue, data...)
	t.want += uint32(len(data))
	if fin {
		t.want++
		t.ended = true
	}
	return true
}

// flush sends what may be sent: no more than the peer has room for, and no more
// than some full segments that are not acknowledged.
func (t *stream) flush(flying int, now time.Time) []segment {
	if !t.opened {
		return nil
	}
	var out []segment
	limit := min(t.window, flying*t.mss)
	for {
		sent := int(t.next - t.first)
		n := min(t.mss, len(t.queue)-sent, limit-sent)
		if n <= 0 {
			break
		}
		out = append(out, segment{seq: t.next, bits: bitPSH, data: t.queue[sent : sent+n]})
		t.next += uint32(n)
	}
	if t.ended && t.next == t.fin() {
		out = append(out, segment{seq: t.next, bits: bitFIN})
		t.next++
	}
	if before(t.top, t.next) {
		t.top = t.next
	}
	if t.resendAt.IsZero() && (len(t.queue) > 0 || t.ended) {
		t.resendAt = now.Add(firstResend)
	}
	return out
}

// again sends the first thing anew that the peer has not acknowledged; a single
// byte where it has had no room. false: it has been tried often enough.
func (t *stream) again(now time.Time) ([]segment, bool) {
	if t.resends++; t.resends > mostResends {
		return []segment{{seq: t.next, bits: bitRST}}, false
	}
	t.resendAt = now.Add(min(firstResend<<t.resends, lastResend))
	if !t.opened {
		return []segment{t.greeting()}, true
	}
	t.next, t.window = t.first, max(t.window, 1)
	return t.flush(1, now), true
}

// due is when tick has something to do; zero: never.
func (s *stack) due() time.Time {
	var first time.Time
	for _, t := range s.streams {
		for _, at := range []time.Time{t.resendAt, t.heard.Add(idleTimeout)} {
			if !at.IsZero() && (first.IsZero() || at.Before(first)) {
				first = at
			}
		}
	}
	return first
}

// tick returns what is sent because time has passed.
func (s *stack) tick(now time.Time) [][]byte {
	var out [][]byte
	flows := slices.SortedFunc(maps.Keys(s.streams), func(a, b flow) int {
		if n := a.there.Compare(b.there); n != 0 {
			return n
		}
		return a.here.Compare(b.here)
	})
	for _, f := range flows {
		t := s.streams[f]
		var list []segment
		stays := now.Before(t.heard.Add(idleTimeout))
		if stays && !t.resendAt.IsZero() && !now.Before(t.resendAt) {
			list, stays = t.again(now)
		}
		out = append(out, s.write(f, t.peer, list)...)
		if !stays {
			delete(s.streams, f)
		}
	}
	return out
}
