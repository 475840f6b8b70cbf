package cli

import (
	"io"
	"strings"
	"unicode/utf8"
)

// table is rows of text under a header, printed in aligned columns.
type table struct {
	header []string
	rows   [][]string
	widths []int // of the columns at least: those of what was printed before
	bare   bool  // the header was printed before
}

func (t *table) add(cells ...string) { t.rows = append(t.rows, cells) }

// print writes the table: columns three spaces apart, nothing behind the last
// one, every cell on its line.
func (t *table) print(w io.Writer) {
	widths, lines := t.layout()
	if t.bare {
		lines = lines[1:]
	}
	var b strings.Builder
	for _, row := range lines {
		var line strings.Builder
		for i, cell := range row {
			line.WriteString(cell)
			if i < len(row)-1 {
				line.WriteString(strings.Repeat(" ", widths[i]-utf8.RuneCountInString(cell)+3))
			}
		}
		b.WriteString(strings.TrimRight(line.String(), " "))
		b.WriteByte('\n')
	}
	_, _ = io.WriteString(w, b.String()) // the reader has gone
}

// printBoxed writes the table with a frame. Columns from numbers on are
// flush right.
func (t *table) printBoxed(w io.Writer, numbers int) {
	widths, lines := t.layout()
	var b strings.Builder
	rule := func() {
		for _, width := range widths {
			b.WriteString("+" + strings.Repeat("-", width+2))
		}
		b.WriteString("+\n")
	}
	rule()
	for n, row := range lines {
		for i, cell := range row {
			pad := strings.Repeat(" ", widths[i]-utf8.RuneCountInString(cell))
			if n > 0 && i >= numbers {
				b.WriteString("| " + pad + cell + " ")
			} else {
				b.WriteString("| " + cell + pad + " ")
			}
		}
		b.WriteString("|\n")
		if n == 0 {
			rule()
		}
	}
	rule()
	_, _ = io.WriteString(w, b.String()) // the reader has gone
}

// layout returns the width of each column and the header and rows made safe
// for a terminal, each with a cell for every column.
func (t *table) layout() (widths []int, lines [][]string) {
	widths = make([]int, len(t.header))
	copy(widths, t.widths)
	for _, row := range append([][]string{t.header}, t.rows...) {
		line := make([]string, len(t.header))
		for i := range line {
			if i < len(row) {
				line[i] = word(row[i])
			}
			widths[i] = max(widths[i], utf8.RuneCountInString(line[i]))
		}
		lines = append(lines, line)
	}
	return widths, lines
}
