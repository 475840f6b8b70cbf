package cli

import (
	"fmt"
	"strings"

	"github.com/brindle-net/brindle/internal/oracle"
)

// print writes what would change for people.
func (d networkDelta) print(e *Env) {
	for _, h := range d.hosts {
		fmt.Fprintln(e.Stdout, heading(e, word(h.Host)))
		for _, t := range h.Tunnels {
			printDelta(e, t, "tunnel ", ": ")
		}
		for _, r := range h.Routes {
			printDelta(e, r, "route ", " ")
		}
		fmt.Fprintln(e.Stdout)
	}
	if len(d.ways) > 0 {
		fmt.Fprintln(e.Stdout, heading(e, "how packets travel"))
		for _, l := range wayLines(d.ways) {
			fmt.Fprintln(e.Stdout, "  "+word(l))
		}
		fmt.Fprintln(e.Stdout)
	}
	fmt.Fprintln(e.Stdout, word(d.sum().text()))
}

// printDelta writes one line: what appears with a plus, what vanishes with a
// minus, what changes with a tilde.
func printDelta[V view](e *Env, d delta[V], what, sep string) {
	sign, text := "~", ""
	switch {
	case d.Before == nil:
		sign, text = "+", (*d.After).text()
	case d.After == nil:
		sign, text = "-", (*d.Before).text()
	default:
		text = (*d.Before).text() + " → " + (*d.After).text()
	}
	fmt.Fprintf(e.Stdout, "  %s %s\n", sign, word(what+d.Name+sep+text))
}

// text says what changes: the form, or who makes the routes.
func (w wayDelta) text() string {
	form := func(v *wayView) string {
		if v == nil {
			return string(oracle.ByNone)
		}
		return formWord(v.Form)
	}
	was, is := form(w.Before), form(w.After)
	switch {
	case w.Before == nil || w.After == nil:
		return was + " → " + is
	case was != is && w.After.By == oracle.ByBGP && w.Before.By != oracle.ByBGP:
		return was + " → " + is + ", routes by BGP"
	case was != is:
		return was + " → " + is
	}
	return fmt.Sprintf("%s, routes by %s → by %s", is, w.Before.By, w.After.By)
}

// wayLines writes a line for each two hosts and change, with the pools that it
// holds for.
func wayLines(ways []wayDelta) []string {
	var lines []string
	pools := map[string][]string{}
	for _, w := range ways {
		l := fmt.Sprintf("%s → %s: %s", w.From, w.To, w.text())
		if len(pools[l]) == 0 {
			lines = append(lines, l)
		}
		pools[l] = append(pools[l], w.Pool)
	}
	for i, l := range lines {
		lines[i] = fmt.Sprintf("%s (%s)", l, strings.Join(pools[l], ", "))
	}
	return lines
}

// counts is how many of something appear, change and vanish.
type counts struct {
	Appear int `json:"appear"`
	Change int `json:"change"`
	Vanish int `json:"vanish"`
}

func (c *counts) add(change string) {
	switch change {
	case "appears":
		c.Appear++
	case "changes":
		c.Change++
	case "vanishes":
		c.Vanish++
	}
}

func (c counts) text() string {
	return fmt.Sprintf("%d appear, %d change, %d vanish", c.Appear, c.Change, c.Vanish)
}

// summary counts what would change.
type summary struct {
	Hosts   int    `json:"hosts"`   // that are told of
	Changed int    `json:"changed"` // of them
	Tunnels counts `json:"tunnels"`
	Routes  counts `json:"routes"`
	Pairs   int    `json:"pairs"` // ordered pairs of hosts with another way for some pool
}

func (d networkDelta) sum() summary {
	s := summary{Hosts: len(d.seen), Changed: len(d.hosts)}
	for _, h := range d.hosts {
		for _, t := range h.Tunnels {
			s.Tunnels.add(t.Change)
		}
		for _, r := range h.Routes {
			s.Routes.add(r.Change)
		}
	}
	pairs := map[[2]string]bool{}
	for _, w := range d.ways {
		pairs[[2]string{w.From, w.To}] = true
	}
	s.Pairs = len(pairs)
	return s
}

func (s summary) text() string {
	if s.Changed == 0 && s.Pairs == 0 {
		return fmt.Sprintf("Nothing changes on %s.", hosts(s.Hosts))
	}
	return fmt.Sprintf("%d of %s. Tunnels: %s. Routes: %s. Pairs of hosts between which packets travel otherwise: %d.",
		s.Changed, hosts(s.Hosts)+yesNo(s.Changed == 1, " changes", " change"), s.Tunnels.text(), s.Routes.text(), s.Pairs)
}

func hosts(n int) string { return fmt.Sprintf("%d %s", n, yesNo(n == 1, "host", "hosts")) }

// json is what would change for programs.
func (d networkDelta) json() any {
	return struct {
		Hosts   []hostDelta `json:"hosts"`
		Ways    []wayDelta  `json:"ways"`
		Summary summary     `json:"summary"`
	}{append([]hostDelta{}, d.hosts...), append([]wayDelta{}, d.ways...), d.sum()}
}
