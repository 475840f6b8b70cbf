package archtest

import (
	"fmt"
	"path"
	"slices"
	"strings"
)

// table reads the rows of a Markdown table that stands between two marks of
// a name: first cell to the words of the second. Backquotes are dropped.
func table(src, name string) (map[string][]string, error) {
	_, rest, ok := strings.Cut(src, "<!-- archtest:"+name+" -->")
	body, _, ok2 := strings.Cut(rest, "<!-- /archtest:"+name+" -->")
	if !ok || !ok2 {
		return nil, fmt.Errorf("ARCHITECTURE.md has no table between the marks archtest:%s", name)
	}
	rows := map[string][]string{}
	for i, line := range strings.Split(strings.TrimSpace(body), "\n") {
		if i < 2 || strings.TrimSpace(line) == "" {
			continue // the head
		}
		cells := strings.Split(strings.ReplaceAll(line, "`", ""), "|")
		if len(cells) < 4 {
			return nil, fmt.Errorf("ARCHITECTURE.md, table %s: %q is no row of two cells", name, line)
		}
		key := strings.TrimSpace(cells[1])
		if _, twice := rows[key]; twice {
			return nil, fmt.Errorf("ARCHITECTURE.md, table %s: two rows for %s", name, key)
		}
		rows[key] = strings.Fields(cells[2])
	}
	return rows, nil
}

// Exception lets findings of one rule through.
type Exception struct {
	Rule  string
	Where string // pattern as of path.Match
	Why   string
}

// ParseExceptions reads lines of rule, place and reason.
func ParseExceptions(src string) ([]Exception, error) {
	var all []Exception
	for line := range strings.Lines(src) {
		line = strings.TrimSpace(line)
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		f := strings.Fields(line)
		if len(f) < 3 {
			return nil, fmt.Errorf("%q: want rule, place and a reason", line)
		}
		all = append(all, Exception{f[0], f[1], strings.Join(f[2:], " ")})
	}
	return all, nil
}

// Filter drops the findings that an exception is made for, and adds one for
// every exception of the rule that nothing needs any more.
func Filter(rule string, found []Finding, allowed []Exception) []Finding {
	used := map[Exception]bool{}
	kept := slices.DeleteFunc(slices.Clone(found), func(f Finding) bool {
		for _, e := range allowed {
			if ok, err := path.Match(e.Where, f.Where); e.Rule == f.Rule && ok && err == nil {
				used[e] = true
				return true
			}
		}
		return false
	})
	for _, e := range allowed {
		if e.Rule == rule && !used[e] {
			kept = append(kept, Finding{rule, e.Where, "nothing needs this exception any more: take its line out of exceptions.txt"})
		}
	}
	return kept
}
