package cli

import (
	"cmp"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"golang.org/x/sys/unix"

	"github.com/brindle-net/brindle/internal/lab"
)

// How a lab is drawn.
const (
	usualWidth   = 100 // columns, where the terminal does not say
	leastWidth   = 40
	drawnPerHost = 4  // workloads in a host's box
	namesWidth   = 28 // columns of a list of peers
)

// widthOf is how many columns there are to draw in: those of the terminal, or
// what COLUMNS says.
func widthOf(e *Env) int {
	if n, err := strconv.Atoi(e.Getenv("COLUMNS")); err == nil && n >= leastWidth {
		return n
	}
	if f, ok := e.Stdout.(*os.File); ok {
		if size, err := unix.IoctlGetWinsize(int(f.Fd()), unix.TIOCGWINSZ); err == nil && size.Col >= leastWidth {
			return int(size.Col)
		}
	}
	return usualWidth
}

// drawLab draws a lab: each segment as a bar from which the boxes of its hosts
// and routers hang, cables between routers, and how packets travel if that was
// asked for.
func drawLab(w io.Writer, st lab.State, width int) {
	store := "running"
	if !st.Datastore.Running {
		store = "STOPPED: `brindle lab datastore start` starts it again"
	}
	fmt.Fprintf(w, "lab %s · %s · %s · datastore %s\n", st.Name, st.Preset, st.Family, store)
	hosts := map[string]lab.Host{}
	for _, h := range st.Hosts {
		hosts[h.Name] = h
	}
	var cables []lab.LaidOut
	for _, seg := range st.Segments {
		if seg.Cable {
			cables = append(cables, seg)
			continue
		}
		var boxes []box
		for _, p := range seg.Routers {
			boxes = append(boxes, boxOfRouter(st, p))
		}
		for _, name := range seg.Hosts {
			boxes = append(boxes, boxOfHost(st, hosts[name]))
		}
		fmt.Fprintf(w, "\n%s  %s\n", seg.Name, strings.Join(seg.Subnets, "  "))
		for _, row := range rowsOf(boxes, width) {
			drawRow(w, row)
		}
	}
	drawCables(w, cables)
	for _, h := range st.Hosts {
		if !h.Ready {
			fmt.Fprintf(w, "\n%s is not ready: %s\n", h.Name, word(strings.TrimSuffix(strings.TrimSpace(h.NotReady), ";")))
		}
	}
	printPaths(w, st.Paths)
}

// drawCables draws the cables between routers, one a line.
func drawCables(w io.Writer, cables []lab.LaidOut) {
	if len(cables) == 0 {
		return
	}
	fmt.Fprintln(w)
	ends, near, name := make([][2]string, len(cables)), 0, 0
	for i, c := range cables {
		for k, p := range c.Routers {
			ends[i][k] = strings.Join(append([]string{p.Router, p.Interface}, p.Addresses...), " ")
		}
		near, name = max(near, utf8.RuneCountInString(ends[i][0])), max(name, len(c.Name))
	}
	for i, c := range cables {
		fmt.Fprintf(w, "%-*s  %-*s ━━━━ %s\n", name, c.Name, near, ends[i][0], ends[i][1])
	}
}

// box is a member of a lab as it is drawn.
type box struct {
	title string
	lines []string
}

// inner is how wide the lines are.
func (b box) inner() int {
	n := utf8.RuneCountInString(b.title) + 3 // and its border
	for _, l := range b.lines {
		n = max(n, utf8.RuneCountInString(l))
	}
	return n
}

// outer is how wide the box is.
func (b box) outer() int { return b.inner() + 4 }

// boxOfRouter shows a router where it is connected to a segment.
func boxOfRouter(st lab.State, p lab.Port) box {
	b := box{title: p.Router, lines: append([]string{p.Interface}, p.Addresses...)}
	for _, r := range st.Routers {
		if r.Name == p.Router && r.ASNumber != 0 {
			b.lines = append(b.lines, fmt.Sprintf("AS %d, no BGP", r.ASNumber))
		}
	}
	return b
}

// boxOfHost shows a host with its sessions and workloads.
func boxOfHost(st lab.State, h lab.Host) box {
	b := box{title: h.Name + " " + yesNo(h.Ready, "✓ ready", "✗ NOT READY"), lines: slices.Clone(h.Addresses)}
	if h.PID == 0 {
		b.lines = append(b.lines, "the agent is not running")
	} else {
		b.lines = append(b.lines, fmt.Sprintf("AS %d%s", h.ASNumber, yesNo(h.Reflector, ", route reflector", "")))
		b.lines = append(b.lines, sessionLines(h)...)
	}
	shown, n := 0, 0
	for _, w := range st.Workloads {
		if w.Host != h.Name {
			continue
		}
		if n++; n > drawnPerHost {
			continue
		}
		if shown++; shown == 1 {
			b.lines = append(b.lines, "")
		}
		for i, a := range w.Addresses {
			name := w.Name
			if i > 0 {
				name = strings.Repeat(" ", utf8.RuneCountInString(w.Name))
			}
			b.lines = append(b.lines, name+" "+a)
		}
	}
	if n > shown {
		b.lines = append(b.lines, fmt.Sprintf("… and %d more", n-shown))
	}
	return b
}

// sessionLines tell which BGP sessions of a host are up, and which are not.
func sessionLines(h lab.Host) []string {
	if h.MaxSession == 0 {
		return []string{"no BGP sessions"}
	}
	var order []string
	down := map[string]bool{}
	var lines []string
	for _, p := range h.Peers {
		name := cmp.Or(p.Name, word(p.Address))
		if !slices.Contains(order, name) {
			order = append(order, name)
		}
		if !p.Up {
			down[name] = true
			lines = append(lines, fmt.Sprintf("✗ %s %s %s", name, word(p.Address), word(p.State)))
		}
	}
	slices.SortFunc(order, lab.CompareNames)
	up := slices.DeleteFunc(order, func(name string) bool { return down[name] })
	out := []string{fmt.Sprintf("BGP %d of %d up", h.Sessions, h.MaxSession)}
	line := ""
	for _, name := range up {
		if line != "" && utf8.RuneCountInString(line+" "+name) > namesWidth {
			out, line = append(out, line), " "
		}
		if line == "" {
			line = "✓"
		}
		line += " " + name
	}
	if line != "" {
		out = append(out, line)
	}
	return append(out, lines...)
}

// rowsOf parts boxes into rows that are no wider than there is room, one box a
// row where even that is too wide.
func rowsOf(boxes []box, width int) [][]box {
	var out [][]box
	used := 0
	for _, b := range boxes {
		if used == 0 || used+1+b.outer() > width {
			out, used = append(out, nil), -1
		}
		out[len(out)-1] = append(out[len(out)-1], b)
		used += 1 + b.outer()
	}
	return out
}

// drawRow draws a bar and the boxes that hang from it.
func drawRow(w io.Writer, row []box) {
	tall := 0
	for _, b := range row {
		tall = max(tall, len(b.lines))
	}
	lines := make([]strings.Builder, tall+3) // bar, top, lines, bottom
	for i, b := range row {
		gap, bar := "", ""
		if i > 0 {
			gap, bar = " ", "━"
		}
		n := b.inner()
		lines[0].WriteString(bar + "━━┯" + strings.Repeat("━", n+1))
		lines[1].WriteString(gap + "┌─┴ " + b.title + " " + strings.Repeat("─", n-utf8.RuneCountInString(b.title)-2) + "┐")
		for k := range tall {
			line := ""
			if k < len(b.lines) {
				line = b.lines[k]
			}
			lines[2+k].WriteString(gap + "│ " + line + strings.Repeat(" ", n-utf8.RuneCountInString(line)) + " │")
		}
		lines[tall+2].WriteString(gap + "└" + strings.Repeat("─", n+2) + "┘")
	}
	for i := range lines {
		fmt.Fprintln(w, lines[i].String())
	}
}
