package cli

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"unicode"
	"unicode/utf8"
)

// clean makes a text that came from the datastore or a peer safe for a
// terminal: control characters, characters that reorder or hide text, and what
// is no UTF-8 are shown as escapes. Newlines and tabs stay: it is for texts
// that may have many lines.
func clean(s string) string { return escape(s, func(r rune) bool { return r == '\n' || r == '\t' }) }

// word is clean for what must stay on its line, such as a name: a stored
// newline cannot pretend to begin a new message.
func word(s string) string { return escape(s, func(rune) bool { return false }) }

func escape(s string, keep func(rune) bool) string {
	if utf8.ValidString(s) && !strings.ContainsFunc(s, func(r rune) bool { return unsafeRune(r) && !keep(r) }) {
		return s
	}
	var b strings.Builder
	for i, r := range s {
		_, size := utf8.DecodeRuneInString(s[i:])
		switch {
		case r == utf8.RuneError && size == 1: // a byte that is part of no character
			fmt.Fprintf(&b, `\x%02x`, s[i])
		case keep(r) || !unsafeRune(r):
			b.WriteRune(r)
		case r < 0x100:
			fmt.Fprintf(&b, `\x%02x`, r)
		case r < 0x10000:
			fmt.Fprintf(&b, `\u%04x`, r)
		default:
			fmt.Fprintf(&b, `\U%08x`, r)
		}
	}
	return b.String()
}

// unsafeRune reports whether a terminal would obey the rune instead of showing
// it: controls (C0, C1), formats such as changes of writing direction (Unicode
// UAX #9), and separators of lines and paragraphs.
func unsafeRune(r rune) bool {
	return unicode.In(r, unicode.Cc, unicode.Cf, unicode.Zl, unicode.Zp)
}

// writeJSON prints a value as indented JSON in which nothing steers a terminal.
func writeJSON(w io.Writer, v any) error {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	if err := enc.Encode(v); err != nil {
		return err
	}
	_, err := w.Write(escapeJSON(b.Bytes()))
	return err
}

// escapeJSON writes what a terminal would obey inside JSON strings as JSON's
// own escapes, so that it reads back the same. Newlines are between values
// only: the encoder has escaped those in strings.
func escapeJSON(b []byte) []byte {
	unsafe := func(r rune) bool { return r != '\n' && unsafeRune(r) }
	if !bytes.ContainsFunc(b, unsafe) {
		return b
	}
	var out bytes.Buffer
	for _, r := range string(b) {
		switch {
		case !unsafe(r):
			out.WriteRune(r)
		case r < 0x10000:
			fmt.Fprintf(&out, `\u%04x`, r)
		default: // a pair of surrogates (RFC 8259, section 7)
			r -= 0x10000
			fmt.Fprintf(&out, `\u%04x\u%04x`, 0xd800+r>>10, 0xdc00+r&0x3ff)
		}
	}
	return out.Bytes()
}
