package cli

import (
	"bytes"
	"cmp"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"net/netip"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"

	"github.com/brindle-net/brindle/internal/config"
)

// redacted stands where a secret was.
const redacted = "(redacted)"

// secretName is how things are called whose value nobody else may see. Of keys
// only those are meant that open something.
var secretName = regexp.MustCompile(`(?i)passw|secret|token|credential|private|api_?key|access_?key|auth_?key|key_?data|psk`)

// secretShapes are secrets that are known by how they look, wherever they
// stand; the last by the word before, in text that others wrote. The first
// group stays.
var secretShapes = []*regexp.Regexp{
	regexp.MustCompile(`()-----BEGIN [A-Z ]*PRIVATE KEY-----[\s\S]*?(?:-----END [A-Z ]*PRIVATE KEY-----|\z)`),
	regexp.MustCompile(`([a-zA-Z][a-zA-Z0-9+.-]*://)[^/\s:@"']*:[^/\s@"']+@`),
	regexp.MustCompile(`(?i)(bearer +)[a-z0-9._~+/=-]+`),
	regexp.MustCompile(`(?i)([a-z0-9_-]*(?:passw|secret|token)[a-z0-9_-]*["']?\s*[=:]\s*)(?:"[^"]*"|'[^']*'|[^\s,;}"']+)`),
}

// redactor takes secrets out of what leaves the host.
type redactor struct{ known [][]byte } // the longest first

// newRedactor knows some secrets, in every form in which text is usually
// written, and of one with many lines, such as a key, each line. Those that are
// too short to be told from other text are left to their shape.
func newRedactor(secrets []string) *redactor {
	r := &redactor{}
	for _, s := range slices.Concat(secrets, linesOf(secrets)) {
		s = strings.TrimSpace(s)
		if len(s) < 4 {
			continue
		}
		quoted, err := json.Marshal(s)
		if err == nil {
			r.known = append(r.known, bytes.Trim(quoted, `"`))
		}
		raw := []byte(s)
		r.known = append(r.known, raw, []byte(url.QueryEscape(s)), []byte(hex.EncodeToString(raw)))
		for _, e := range []*base64.Encoding{base64.StdEncoding, base64.RawStdEncoding, base64.URLEncoding, base64.RawURLEncoding} {
			r.known = append(r.known, []byte(e.EncodeToString(raw)))
		}
	}
	slices.SortFunc(r.known, func(a, b []byte) int { return cmp.Or(len(b)-len(a), bytes.Compare(a, b)) })
	r.known = slices.CompactFunc(r.known, bytes.Equal)
	return r
}

// linesOf are the lines of secrets that have several, but for headings and such
// as are too short.
func linesOf(secrets []string) []string {
	var out []string
	for _, s := range secrets {
		if !strings.Contains(s, "\n") {
			continue
		}
		for line := range strings.Lines(s) {
			if line = strings.TrimSpace(line); len(line) >= 8 && !strings.HasPrefix(line, "-----") {
				out = append(out, line)
			}
		}
	}
	return out
}

// data takes known secrets out of what we wrote, and what looks like one.
func (r *redactor) data(data []byte) []byte { return r.clean(data, secretShapes[:len(secretShapes)-1]) }

// text does the same to text of others.
func (r *redactor) text(data []byte) []byte { return r.clean(data, secretShapes) }

func (r *redactor) clean(data []byte, shapes []*regexp.Regexp) []byte {
	for _, s := range r.known {
		data = bytes.ReplaceAll(data, s, []byte(redacted))
	}
	for _, shape := range shapes {
		data = shape.ReplaceAll(data, []byte("${1}"+redacted))
	}
	return data
}

// tree takes secrets out of a value read from JSON: what stands under a name
// of a secret, references to secrets included, and annotations of others,
// which may repeat a whole object.
func tree(v any) any {
	switch v := v.(type) {
	case map[string]any:
		out := make(map[string]any, len(v))
		for name, inner := range v {
			switch {
			case secretName.MatchString(name):
				out[name] = redacted
			case name == "annotations":
				out[name] = annotations(inner)
			default:
				out[name] = tree(inner)
			}
		}
		return out
	case []any:
		out := make([]any, 0, len(v))
		for _, inner := range v {
			out = append(out, tree(inner))
		}
		return out
	}
	return v
}

func annotations(v any) any {
	all, ok := v.(map[string]any)
	if !ok {
		return redacted
	}
	out := make(map[string]any, len(all))
	for name, value := range all {
		domain, _, _ := strings.Cut(name, "/")
		ours := strings.HasSuffix(domain, "projectcalico.org") || strings.HasSuffix(domain, "brindle.net")
		if out[name] = redacted; ours && !strings.HasPrefix(name, "config.projectcalico.org/") && !secretName.MatchString(name) {
			out[name] = value
		}
	}
	return out
}

// tellable reports whether a value that a host's environment, file or flags
// say of a setting can be shown: it is made of numbers, addresses and words
// that the setting's own rule has. Any other might be something else that
// was put there by mistake.
func tellable(name, value string) bool {
	words := map[string]bool{"": true, "true": true, "false": true, "none": true, "yes": true, "no": true, "cali": true, "localhost": true}
	separates := func(r rune) bool { return unicode.IsSpace(r) || strings.ContainsRune(",;=", r) }
	for _, p := range config.Params() {
		if p.Name == name {
			for w := range strings.FieldsFuncSeq(p.Rule+" "+p.Default, separates) {
				words[strings.ToLower(strings.Trim(w, "."))] = true
			}
		}
	}
	for part := range strings.FieldsFuncSeq(value, separates) {
		if words[strings.ToLower(part)] {
			continue
		}
		_, number := strconv.ParseUint(part, 0, 64)
		_, addr := netip.ParseAddr(part)
		_, prefix := netip.ParsePrefix(part)
		_, duration := time.ParseDuration(part)
		if (number != nil || len(part) > 10) && addr != nil && prefix != nil && duration != nil {
			return false
		}
	}
	return true
}
