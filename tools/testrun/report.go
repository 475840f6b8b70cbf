package main

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"path"
	"slices"
	"strings"
	"time"
)

// allowance lets one test, or several by a pattern, be skipped in CI.
type allowance struct {
	layer, pkg, test string // patterns as of path.Match, on each element
	why              string
}

// readAllowed reads the list of skips that are fine: on each line the layer,
// the package, the test, and the reason.
func readAllowed(file string) ([]allowance, error) {
	ls, err := lines(file)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	} else if err != nil {
		return nil, err
	}
	var all []allowance
	for _, l := range ls {
		f := strings.Fields(l)
		if len(f) < 4 {
			return nil, fmt.Errorf("%s: %q: want layer, package, test and a reason", file, l)
		}
		all = append(all, allowance{f[0], f[1], f[2], strings.Join(f[3:], " ")})
	}
	return all, nil
}

// covers reports whether the allowance is for the skipped test.
func (a allowance) covers(s skip) bool {
	for _, p := range [][2]string{{a.layer, s.layer}, {a.pkg, s.pkg}, {a.test, s.test}} {
		if ok, err := path.Match(p[0], p[1]); err != nil || !ok {
			return false
		}
	}
	return true
}

// report prints how the steps went, and returns an error unless all is well.
func (r *runner) report(allowed []allowance) error {
	var passed, failed, skipped int
	var bad []string
	fmt.Fprintf(r.out, "\n=== summary\n")
	for _, s := range r.steps {
		verdict := "ok"
		if !s.ok {
			verdict = "FAILED"
			bad = append(bad, s.name)
		}
		line := fmt.Sprintf("%-16s %-6s %8s", s.name, verdict, s.took.Round(100*time.Millisecond))
		if s.tests != nil {
			passed, failed, skipped = passed+s.tests.passed, failed+s.tests.failed, skipped+len(s.tests.skips)
			line += fmt.Sprintf("   %5d passed %3d failed %3d skipped", s.tests.passed, s.tests.failed, len(s.tests.skips))
		}
		if s.reason != "" {
			line += "   " + s.reason
			if s.tests != nil || !s.ok {
				failed++
			}
		}
		fmt.Fprintln(r.out, line)
	}
	unexpected := r.listSkips(allowed)
	r.listFailures()
	fmt.Fprintf(r.out, "took %s\n", time.Since(r.start).Round(time.Second))
	if r.opts.ci {
		failed += unexpected
	}
	fmt.Fprintf(r.out, "%d passed, %d failed, %d skipped\n", passed, failed, skipped)
	switch {
	case len(bad) > 0:
		return fmt.Errorf("failed: %s", strings.Join(bad, ", "))
	case r.opts.ci && unexpected > 0:
		return fmt.Errorf("%d tests were skipped without a reason in tools/testrun/skips.txt", unexpected)
	case len(r.steps) == 0:
		return errors.New("nothing was run")
	}
	return nil
}

// listSkips prints the skipped tests, those that are allowed by package and
// after them one by one those that are not, of which it returns the number.
func (r *runner) listSkips(allowed []allowance) int {
	fine, rest := map[string]int{}, []string(nil)
	for _, s := range r.steps {
		if s.tests == nil {
			continue
		}
		for _, k := range s.tests.skips {
			i := slices.IndexFunc(allowed, func(a allowance) bool { return a.covers(k) })
			if i >= 0 {
				fine[fmt.Sprintf("allowed to be skipped (%s) in %s: %s", k.layer, k.pkg, allowed[i].why)]++
				continue
			}
			rest = append(rest, fmt.Sprintf("skipped (%s) %s %s: %s", k.layer, k.pkg, k.test, k.why))
		}
	}
	for _, what := range slices.Sorted(maps.Keys(fine)) {
		fmt.Fprintf(r.out, "%4d %s\n", fine[what], what)
	}
	for _, line := range rest {
		if r.opts.ci {
			line = "NOT ALLOWED: " + line
		}
		fmt.Fprintln(r.out, line)
	}
	return len(rest)
}

func (r *runner) listFailures() {
	for _, s := range r.steps {
		if s.tests == nil {
			continue
		}
		for _, f := range s.tests.failures {
			fmt.Fprintf(r.out, "failed (%s) %s\n", s.name, f)
		}
	}
}
