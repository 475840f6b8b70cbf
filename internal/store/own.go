package store

import (
	"errors"
	"fmt"
	"strings"
)

// Roots of what is Brindle's own in the datastore, each ending in a slash.
// Calico's programs read and write nothing there.
const (
	// AskRoot holds the questions of those who wait until a change is enforced:
	// one key for each of them, gone when they have stopped.
	AskRoot = "/brindle/v1/barrier/asks/"
	// AnswerRoot holds the hosts' answers, one key for each host.
	AnswerRoot = "/brindle/v1/barrier/hosts/"
	// WriterRoot holds who writes. A key of it is written in the same moment as
	// the resource, so that both have one revision: whoever watches sees by whom
	// each change was made. There are few of them, used again and again.
	WriterRoot = "/brindle/v1/audit/writers/"
)

// AnswerKey returns the key of a host's answers.
func AnswerKey(host string) string { return AnswerRoot + escape(host) }

// ParseAnswerKey is the inverse of AnswerKey; false if key holds no answers.
func ParseAnswerKey(key string) (string, bool) {
	rest, ok := strings.CutPrefix(key, AnswerRoot)
	if !ok || rest == "" || strings.Contains(rest, "/") {
		return "", false
	}
	return unescape(rest)
}

// Orderer is a Driver that can say how far a reader has come. Only the driver
// can: above it revisions are opaque.
type Orderer interface {
	// Reached reports whether a reader to whom everything up to at was handed
	// over has seen the change at rev. Both are revisions of this datastore.
	Reached(at, rev Revision) (bool, error)
}

// ErrUnordered says that a datastore cannot say how far a reader has come.
var ErrUnordered = errors.New("this datastore cannot say how far a reader has come")

// Reached asks a driver as Orderer does; ErrUnordered if it is none. Nobody
// has reached anything before the first revision, and every change of no
// revision is reached.
func Reached(d Driver, at, rev Revision) (bool, error) {
	o, ok := d.(Orderer)
	switch {
	case rev == "":
		return true, nil
	case !ok:
		return false, ErrUnordered
	case at == "":
		return false, nil
	}
	reached, err := o.Reached(at, rev)
	if err != nil {
		return false, fmt.Errorf("compare revision %s with %s: %w", at, rev, err)
	}
	return reached, nil
}
