package main

import (
	"fmt"
	"io"
	"math"
	"os"
	"runtime"
	"slices"
	"strings"
	"text/tabwriter"

	"golang.org/x/sys/unix"
)

// row is one line of the table: a figure with what it should be.
type row struct {
	what   string
	value  float64
	unit   string  // "ms", "/s", "MiB", "×"
	aim    float64 // 0: none, the row explains another
	least  bool    // the aim is a least value
	spread float64 // how far two runs of the same thing lay apart: 0.1 is 10 %; NaN: not a figure that varies so
	calico string  // what Calico's programs needed on a machine of this kind
}

// figure writes a value with its unit.
func figure(v float64, unit string) string {
	format := "%.1f %s"
	switch {
	case unit == "×":
		format = "%.2f %s"
	case math.Abs(v) >= 100:
		format = "%.0f %s"
	case math.Abs(v) < 1:
		format = "%.3f %s"
	}
	return fmt.Sprintf(format, v, unit)
}

// aimed writes the aim of a row.
func (r row) aimed() string {
	switch {
	case r.aim == 0:
		return ""
	case r.least:
		return "≥ " + strings.TrimSpace(fmt.Sprintf("%g %s", r.aim, r.unit))
	}
	return "≤ " + strings.TrimSpace(fmt.Sprintf("%g %s", r.aim, r.unit))
}

// verdict says how a value stands to its aim. Nearer to it than the same thing
// measured twice, it is neither met nor missed.
func (r row) verdict() string {
	if r.aim == 0 {
		return ""
	}
	margin := 0.0
	if !math.IsNaN(r.spread) {
		margin = r.spread * r.aim
	}
	short := r.value - r.aim // by how much it misses
	if r.least {
		short = -short
	}
	switch {
	case short <= 0:
		return "met"
	case short <= margin:
		return "within the spread"
	}
	return "missed"
}

// apart writes the A/A spread.
func (r row) apart() string {
	if math.IsNaN(r.spread) {
		return "–"
	}
	return fmt.Sprintf("%.0f %%", r.spread*100)
}

// cells are a row's texts.
func (r row) cells() []string {
	return []string{r.what, figure(r.value, r.unit), r.aimed(), r.verdict(), r.apart(), r.calico}
}

// header names the columns.
func header() []string { return []string{"What", "Measured", "Aim", "", "A/A", "Calico"} }

// printTable writes the rows for a terminal.
func printTable(out io.Writer, rows []row) {
	w := tabwriter.NewWriter(out, 0, 4, 2, ' ', 0)
	fmt.Fprintln(w, strings.Join(header(), "\t"))
	for _, r := range rows {
		fmt.Fprintln(w, strings.Join(r.cells(), "\t"))
	}
	_ = w.Flush() // the terminal has gone
}

// Marks of the table in a page.
const (
	tableBegins = "<!-- bench:begin -->\n"
	tableEnds   = "<!-- bench:end -->\n"
)

// markdown writes the rows for a page.
func markdown(rows []row) string {
	var b strings.Builder
	line := func(cells []string) { fmt.Fprintf(&b, "| %s |\n", strings.Join(cells, " | ")) }
	fmt.Fprintf(&b, "%s.\n\n", machine())
	line(header())
	b.WriteString("|---|---|---|---|---|---|\n")
	for _, r := range rows {
		cells := r.cells()
		if r.calico != "" {
			cells[5] = "[" + r.calico + "]"
		}
		line(cells)
	}
	return b.String()
}

// replaceTable puts the rows between the marks in a page. Of some measurements
// only, they take the place of those of the same name, with the rows below that
// explain them, and what is new comes last.
func replaceTable(path string, rows []row, some bool) error {
	page, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	before, rest, ok := strings.Cut(string(page), tableBegins)
	old, after, ok2 := strings.Cut(rest, tableEnds)
	if !ok || !ok2 {
		return fmt.Errorf("%s has no lines %q and %q to put the table between", path, strings.TrimSpace(tableBegins), strings.TrimSpace(tableEnds))
	}
	table := markdown(rows)
	if some {
		table = merged(old, table)
	}
	return os.WriteFile(path, []byte(before+tableBegins+table+tableEnds+after), 0o644)
}

// merged puts the groups of rows of a newer table in place of those of an older.
func merged(old, newer string) string {
	head, groups := grouped(old)
	_, fresh := grouped(newer) // the machine is the same, or nothing is comparable
	if len(groups) == 0 {
		return newer
	}
	for _, g := range fresh {
		i := slices.IndexFunc(groups, func(o []string) bool { return name(o[0]) == name(g[0]) })
		if i < 0 {
			groups = append(groups, g)
		} else {
			groups[i] = g
		}
	}
	return head + strings.Join(slices.Concat(groups...), "")
}

// grouped cuts a table into what stands above its rows and groups of rows: one
// with those below that explain it.
func grouped(table string) (head string, groups [][]string) {
	for line := range strings.Lines(table) {
		switch {
		case len(groups) == 0 && (!strings.HasPrefix(line, "| ") || name(line) == header()[0]):
			head += line
		case len(groups) > 0 && strings.HasPrefix(name(line), "–"):
			groups[len(groups)-1] = append(groups[len(groups)-1], line)
		default:
			groups = append(groups, []string{line})
		}
	}
	return head, groups
}

// name is the first cell of a line.
func name(line string) string {
	cells := strings.Split(line, "|")
	if len(cells) < 2 {
		return ""
	}
	return strings.TrimSpace(cells[1])
}

// machine describes where the figures are from.
func machine() string {
	var u unix.Utsname
	kernel := "unknown"
	if unix.Uname(&u) == nil {
		kernel = unix.ByteSliceToString(u.Release[:])
	}
	parts := strings.SplitN(kernel, ".", 3)
	if len(parts) >= 2 {
		kernel = parts[0] + "." + parts[1]
	}
	return fmt.Sprintf("A virtual machine or host with %d cores, Linux %s, %s/%s, %s", runtime.NumCPU(), kernel, runtime.GOOS, runtime.GOARCH, runtime.Version())
}
