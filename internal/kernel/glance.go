package kernel

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/brindle-net/brindle/internal/desired"
	"github.com/brindle-net/brindle/internal/kernel/rtnl"
)

// The kernel announces the change of few sysctls: forwarding, rp_filter,
// proxy_arp, proxy_ndp (RTM_NEWNETCONF). The rest is what a glance is for.

// Glance returns the settings that have another value than was last applied.
func (s *Sysctls) Glance(context.Context) ([]string, error) {
	s.mu.Lock()
	known := maps.Clone(s.known)
	s.mu.Unlock()
	var differ []string
	err := s.k.inside(func() error {
		for name, want := range known {
			have, err := readSysctl(name)
			if err != nil && !errors.Is(err, os.ErrNotExist) {
				return err
			}
			if have != want {
				differ = append(differ, name)
			}
		}
		return nil
	})
	slices.Sort(differ)
	return differ, err
}

// Glance returns the links of which a setting has another value than was last
// applied. All links are read at once, by two requests.
func (l *Links) Glance(context.Context) ([]string, error) {
	l.mu.Lock()
	known := maps.Clone(l.known)
	l.mu.Unlock()
	if len(known) == 0 {
		return nil, nil
	}
	differ := map[string]bool{}
	err := l.k.with(func(c *rtnl.Conn) error {
		found, err := glanceLinks(c, known, differ)
		if err != nil {
			return err
		}
		return glanceDelays(c, found, differ)
	})
	return slices.Sorted(maps.Keys(differ)), err
}

// A look is a number of an array of linkConf that must have a value.
type look struct {
	index int // in the array, from 0
	value int32
}

// looks is what to look at on a link, read from desired.Link.Sysctls.
type looks struct {
	v4, v6 []look
	delays delays
}

// newLooks reads settings. What no reading of a link tells is left out.
func newLooks(lines string) looks {
	var s looks
	for line := range strings.Lines(lines) {
		name, text, _ := strings.Cut(strings.TrimSuffix(line, "\n"), "=")
		parts := strings.Split(name, "/")
		value, err := strconv.ParseInt(text, 10, 32)
		if len(parts) != 3 || err != nil {
			continue
		}
		family, kind := parts[0], parts[1]
		index, told := confIndex(family, parts[2])
		switch {
		case name == "ipv4/neigh/proxy_delay":
			s.delays.v4 = delay{true, value}
		case name == "ipv6/neigh/proxy_delay":
			s.delays.v6 = delay{true, value}
		case kind != "conf" || !told:
		case family == "ipv4":
			s.v4 = append(s.v4, look{index - 1, int32(value)}) // counted from 1
		default:
			s.v6 = append(s.v6, look{index, int32(value)})
		}
	}
	return s
}

// differs reports whether one of the numbers has another value. One that is
// not there tells nothing.
func differs(numbers []byte, all []look) bool {
	return slices.ContainsFunc(all, func(l look) bool {
		at := 4 * l.index
		return len(numbers) >= at+4 && int32(rtnl.Uint32(numbers[at:at+4])) != l.value
	})
}

// A glanced is a link that was looked at.
type glanced struct {
	name   string
	delays delays // wanted
}

// glanceLinks adds the links that differ and returns those it knows, by their
// number.
func glanceLinks(c *rtnl.Conn, known map[string]desired.Link, differ map[string]bool) (map[int]glanced, error) {
	var b rtnl.Batch
	b.Start(unix.RTM_GETLINK, unix.NLM_F_DUMP, rtnl.IfInfo(unix.AF_UNSPEC, 0, 0, 0))
	b.Uint32(unix.IFLA_EXT_MASK, skipStatistics)
	found, read := map[int]glanced{}, map[string]looks{} // the same lines are read once
	err := c.Get(&b, func() { clear(found); clear(differ) }, func(m rtnl.Message) error {
		if len(m.Body) < unix.SizeofIfInfomsg {
			return rtnl.ErrMalformed
		}
		var name string
		var spec []byte
		err := rtnl.Attrs(m.Body[unix.SizeofIfInfomsg:], func(kind uint16, v []byte) {
			switch kind {
			case unix.IFLA_IFNAME:
				name = rtnl.Text(v)
			case unix.IFLA_AF_SPEC:
				spec = v
			}
		})
		want, ok := known[name]
		if !ok || err != nil {
			return err
		}
		s, ok := read[want.Sysctls]
		if !ok {
			s = newLooks(want.Sysctls)
			read[want.Sysctls] = s
		}
		found[int(rtnl.Uint32(m.Body[4:8]))] = glanced{name, s.delays}
		conf, err := parseConf(spec)
		if differs(conf.v4, s.v4) || differs(conf.v6, s.v6) {
			differ[name] = true
		}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("glance at links: %w", err)
	}
	return found, nil
}

// glanceDelays adds the links on which answers wait longer or shorter than
// they should.
func glanceDelays(c *rtnl.Conn, found map[int]glanced, differ map[string]bool) error {
	have, err := readDelays(c)
	for index, g := range found {
		if d := have[index]; d.v4.differs(g.delays.v4) || d.v6.differs(g.delays.v6) {
			differ[g.name] = true
		}
	}
	return err
}
