package cli

import (
	"strings"
	"unicode"
)

// clean makes a string that came from the datastore or a peer safe for a
// terminal: control characters, and characters that reorder text, are shown
// as escapes. Newlines and tabs stay only where many lines are meant.
func clean(s string) string {
	if !strings.ContainsFunc(s, unsafeRune) {
		return s
	}
	var b strings.Builder
	for _, r := range s {
		switch {
		case !unsafeRune(r):
			b.WriteRune(r)
		case r < 0x100:
			b.WriteString(`\x`)
			b.WriteByte("0123456789abcdef"[r>>4])
			b.WriteByte("0123456789abcdef"[r&15])
		default:
			b.WriteString(`\u`)
			for shift := 12; shift >= 0; shift -= 4 {
				b.WriteByte("0123456789abcdef"[r>>shift&15])
			}
		}
	}
	return b.String()
}

// unsafeRune reports whether a terminal would obey the rune instead of
// showing it: C0 and C1 controls but newline and tab, and the bidirectional
// controls (Unicode UAX #9).
func unsafeRune(r rune) bool {
	switch {
	case r == '\n' || r == '\t':
		return false
	case unicode.IsControl(r):
		return true
	case r >= 0x202a && r <= 0x202e || r >= 0x2066 && r <= 0x2069 || r == 0x200e || r == 0x200f || r == 0x061c:
		return true
	}
	return false
}
