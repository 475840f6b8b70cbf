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
}

func (t *table) add(cells ...string) { t.rows = append(t.rows, cells) }

// print writes the table: columns three spaces apart, nothing behind the last
// one, control characters as escapes.
func (t *table) print(w io.Writer) {
	widths := make([]int, len(t.header))
	lines := append([][]string{t.header}, t.rows...)
	for _, row := range lines {
		for i, cell := range row {
			row[i] = strings.ReplaceAll(strings.ReplaceAll(clean(cell), "\n", " "), "\t", " ")
			if i < len(widths) {
				widths[i] = max(widths[i], utf8.RuneCountInString(row[i]))
			}
		}
	}
	var b strings.Builder
	for _, row := range lines {
		var line strings.Builder
		for i, cell := range row {
			line.WriteString(cell)
			if i < len(row)-1 && i < len(widths) {
				line.WriteString(strings.Repeat(" ", widths[i]-utf8.RuneCountInString(cell)+3))
			}
		}
		b.WriteString(strings.TrimRight(line.String(), " "))
		b.WriteByte('\n')
	}
	_, _ = io.WriteString(w, b.String()) // the reader has gone
}
