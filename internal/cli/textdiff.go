package cli

import (
	"fmt"
	"strings"
)

// diffContext is how many equal lines stand around each difference.
const diffContext = 3

// maxEdits is how many lines may differ for the shortest difference to be
// looked for; beyond, what lies between the first and the last is replaced.
const maxEdits = 2000

// edit is one line of a difference: ' ' in both, '-' in the first only, '+' in
// the second only.
type edit struct {
	op   byte
	line string
}

// unifiedDiff returns how two texts differ in the unified format of diff(1),
// without its heading; "" if they do not.
func unifiedDiff(a, b string) string {
	edits := diffLines(splitLines(a), splitLines(b))
	var out strings.Builder
	for from := 0; from < len(edits); {
		first := from
		for first < len(edits) && edits[first].op == ' ' {
			first++
		}
		if first == len(edits) {
			break
		}
		last := first // of this hunk's differing lines
		for i := first; i < len(edits) && i-last <= 2*diffContext; i++ {
			if edits[i].op != ' ' {
				last = i
			}
		}
		start, end := max(first-diffContext, from), min(last+1+diffContext, len(edits))
		writeHunk(&out, edits, start, end)
		from = end
	}
	return out.String()
}

// writeHunk writes the edits from start to end under a line that says where
// they are.
func writeHunk(out *strings.Builder, edits []edit, start, end int) {
	lineA, lineB := 1, 1
	for _, e := range edits[:start] {
		if e.op != '+' {
			lineA++
		}
		if e.op != '-' {
			lineB++
		}
	}
	var body strings.Builder
	inA, inB := 0, 0
	for _, e := range edits[start:end] {
		if e.op != '+' {
			inA++
		}
		if e.op != '-' {
			inB++
		}
		body.WriteByte(e.op)
		body.WriteString(e.line)
		body.WriteByte('\n')
	}
	fmt.Fprintf(out, "@@ -%s +%s @@\n%s", hunkRange(lineA, inA), hunkRange(lineB, inB), &body)
}

// hunkRange is a place in one of the texts; of nothing, it is the line before.
func hunkRange(line, n int) string {
	if n == 0 {
		line--
	}
	return fmt.Sprintf("%d,%d", line, n)
}

func splitLines(s string) []string {
	if s == "" {
		return nil
	}
	return strings.Split(strings.TrimSuffix(s, "\n"), "\n")
}

// diffLines returns the edits that turn a into b: as few as there can be (Myers,
// "An O(ND) difference algorithm and its variations", 1986), unless there are
// more than maxEdits.
func diffLines(a, b []string) []edit {
	var head, tail []edit
	for len(a) > 0 && len(b) > 0 && a[0] == b[0] {
		head = append(head, edit{' ', a[0]})
		a, b = a[1:], b[1:]
	}
	same := 0
	for same < len(a) && same < len(b) && a[len(a)-1-same] == b[len(b)-1-same] {
		same++
	}
	for _, l := range a[len(a)-same:] {
		tail = append(tail, edit{' ', l})
	}
	return append(append(head, middle(a[:len(a)-same], b[:len(b)-same])...), tail...)
}

func middle(a, b []string) []edit {
	reached, ok := shortest(a, b)
	if !ok {
		var out []edit
		for _, l := range a {
			out = append(out, edit{'-', l})
		}
		for _, l := range b {
			out = append(out, edit{'+', l})
		}
		return out
	}
	// Back from the end, one edit at a time.
	var back []edit
	x, y := len(a), len(b)
	for d := len(reached) - 1; d >= 0; d-- {
		k := x - y
		prevK := k - 1
		if d == 0 {
			prevK = k
		} else if k == -d || k != d && reached[d-1].at(k-1) < reached[d-1].at(k+1) {
			prevK = k + 1
		}
		prevX := 0
		if d > 0 {
			prevX = reached[d-1].at(prevK)
		}
		prevY := prevX - prevK
		for x > prevX && y > prevY && x > 0 && y > 0 {
			back = append(back, edit{' ', a[x-1]})
			x, y = x-1, y-1
		}
		switch {
		case d == 0:
		case x == prevX:
			y--
			back = append(back, edit{'+', b[y]})
		default:
			x--
			back = append(back, edit{'-', a[x]})
		}
	}
	for i, j := 0, len(back)-1; i < j; i, j = i+1, j-1 {
		back[i], back[j] = back[j], back[i]
	}
	return back
}

// front is how far each diagonal from -d to d is reached with d edits.
type front []int

func (f front) at(k int) int { return f[k+len(f)/2] }

// shortest finds how far each number of edits reaches, up to that which
// reaches the end; false if that is more than maxEdits.
func shortest(a, b []string) ([]front, bool) {
	var all []front
	for d := 0; d <= min(len(a)+len(b), maxEdits); d++ {
		now := make(front, 2*d+1)
		for k := -d; k <= d; k += 2 {
			x := 0
			switch {
			case d == 0:
			case k == -d || k != d && all[d-1].at(k-1) < all[d-1].at(k+1):
				x = all[d-1].at(k + 1)
			default:
				x = all[d-1].at(k-1) + 1
			}
			for x < len(a) && x-k < len(b) && x-k >= 0 && a[x] == b[x-k] {
				x++
			}
			now[k+d] = x
			if x >= len(a) && x-k >= len(b) {
				return append(all, now), true
			}
		}
		all = append(all, now)
	}
	return nil, false
}
