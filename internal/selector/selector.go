// Package selector is the language in which policies, pools and peers say
// which labelled things they are about: `role == "db" && env in {"prod"}`.
// It parses, evaluates, prints and composes selectors. It follows the
// documented selector language of the projectcalico.org/v3 API.
package selector

import (
	"crypto/sha256"
	"encoding/base64"
	"strings"
)

// Limits on a selector, so that a hostile one can exhaust neither stack nor
// memory. Every selector of at most 1,024 bytes, which is what the API
// accepts, is within them.
const (
	// MaxLength is the most bytes that a selector, as given and in canonical
	// form, may have.
	MaxLength = 1 << 16
	// MaxDepth is how deep parentheses, as given and in canonical form, may
	// nest.
	MaxDepth = 1000
	// MaxKey is the most bytes that a label key may have.
	MaxKey = 512
)

// Selector is a parsed selector. The zero Selector matches everything, as the
// empty text does. A Selector never changes; it may be shared freely.
// Compare with Equal.
type Selector struct {
	root node   // nil: matches everything
	text string // canonical; "" when root is nil
}

// Parse reads a selector. The empty or blank text gives the zero Selector.
// The error is a *SyntaxError that says where, what was found, what is
// allowed there and, where it can be guessed, the fix.
func Parse(text string) (Selector, error) {
	n, err := parse(text)
	if err != nil {
		return Selector{}, err
	}
	s := build(n)
	if err := s.checkSize(text); err != nil {
		return Selector{}, err
	}
	return s, nil
}

// build wraps a tree and fixes its canonical form.
func build(n node) Selector {
	if n == nil || n == (all{}) {
		return Selector{}
	}
	var b strings.Builder
	b.Grow(n.size())
	write(&b, n)
	return Selector{root: n, text: b.String()}
}

// checkSize holds the canonical form to the limits that Parse has for its
// input, so that what String prints can always be parsed.
func (s Selector) checkSize(input string) error {
	if len(s.text) > MaxLength {
		return tooLong(input, len(s.text))
	}
	if s.root != nil && s.root.depth() > MaxDepth {
		return tooDeep(input, 1)
	}
	return nil
}

// Matches reports whether a thing with these labels is selected. nil labels
// are no labels.
func (s Selector) Matches(labels Labels) bool {
	if s.root == nil {
		return true
	}
	if labels == nil {
		labels = Map(nil)
	}
	return s.root.matches(labels)
}

// MatchesAll reports whether s is the selector that matches everything by its
// form: empty or all(). Other selectors may happen to match everything too.
func (s Selector) MatchesAll() bool { return s.root == nil }

// String returns the canonical form: one text for all spellings of the same
// selector. Parsing it gives an equal Selector.
func (s Selector) String() string {
	if s.root == nil {
		return "all()"
	}
	return s.text
}

// MarshalText is String, for those who keep selectors.
func (s Selector) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// UnmarshalText is Parse.
func (s *Selector) UnmarshalText(text []byte) error {
	parsed, err := Parse(string(text))
	*s = parsed
	return err
}

// ID names the selector by its content: "s:" and the unpadded base64url form
// of SHA-224 over "s:" and the canonical form (documented Calico behaviour).
// Equal selectors have equal IDs.
func (s Selector) ID() string {
	sum := sha256.Sum224([]byte("s:" + s.String()))
	var space [64]byte
	return string(base64.RawURLEncoding.AppendEncode(append(space[:0], "s:"...), sum[:]))
}

// Equal reports whether two selectors have the same canonical form.
func (s Selector) Equal(t Selector) bool { return s.text == t.text }

// IsGlobal reports whether s is global() and nothing else.
func (s Selector) IsGlobal() bool { return s.root == (global{}) }

// HasGlobal reports whether global() stands anywhere in s.
func (s Selector) HasGlobal() bool {
	found := false
	walk(s.root, func(n node) { found = found || n == (global{}) })
	return found
}

// Keys returns the label keys that s looks at, sorted, each once.
func (s Selector) Keys() []string {
	var keys []string
	walk(s.root, func(n node) {
		switch n := n.(type) {
		case has:
			keys = append(keys, string(n))
		case *compare:
			keys = append(keys, n.key)
		case member:
			keys = append(keys, n.key)
		}
	})
	return sortedSet(keys)
}
