package config

import (
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	v3 "github.com/brindle-net/brindle/api/v3"
	"github.com/brindle-net/brindle/internal/selector"
)

// The constructors below make the set function of a Param: each reads one
// type and writes it through a pointer into the Agent. The empty text is the
// zero value.

func text(to func(*Agent) *string, check func(string) error) func(*Agent, string) error {
	return func(a *Agent, s string) error {
		if check != nil && s != "" {
			if err := check(s); err != nil {
				return err
			}
		}
		*to(a) = s
		return nil
	}
}

// errRule says that a value breaks the rule of its parameter, which whoever
// reports it quotes.
var errRule = errors.New("not allowed")

func boolean(to func(*Agent) *bool) func(*Agent, string) error {
	return func(a *Agent, s string) error {
		switch strings.ToLower(s) {
		case "true", "1", "yes", "y", "t":
			*to(a) = true
		case "false", "0", "no", "n", "f", "":
			*to(a) = false
		default:
			return errRule
		}
		return nil
	}
}

func switched(to func(*Agent) *bool) func(*Agent, string) error {
	return func(a *Agent, s string) error {
		switch {
		case strings.EqualFold(s, "Enabled"):
			*to(a) = true
		case strings.EqualFold(s, "Disabled"), s == "":
			*to(a) = false
		default:
			return errRule
		}
		return nil
	}
}

func integer(to func(*Agent) *int, low, high int) func(*Agent, string) error {
	return func(a *Agent, s string) error {
		if s == "" {
			*to(a) = 0
			return nil
		}
		n, err := strconv.Atoi(s)
		if err != nil || n < low || n > high {
			return errRule
		}
		*to(a) = n
		return nil
	}
}

// duration reads "90s" and, as Calico's agent does, a bare number of seconds.
func duration(to func(*Agent) *time.Duration) func(*Agent, string) error {
	return func(a *Agent, s string) error {
		if s == "" {
			s = "0"
		}
		if n, err := strconv.ParseFloat(s, 64); err == nil && n >= 0 && n < 1e9 {
			*to(a) = time.Duration(n * float64(time.Second))
			return nil
		}
		d, err := v3.ParseDuration(s)
		if err != nil {
			return errRule
		}
		*to(a) = d.Duration
		return nil
	}
}

// Severities beyond those of slog.
const (
	LevelTrace = slog.LevelDebug - 4
	LevelFatal = slog.LevelError + 4
)

func level(to func(*Agent) *slog.Level) func(*Agent, string) error {
	return func(a *Agent, s string) error {
		levels := map[string]slog.Level{
			"trace": LevelTrace, "debug": slog.LevelDebug, "info": slog.LevelInfo, "": slog.LevelInfo,
			"warning": slog.LevelWarn, "warn": slog.LevelWarn, "error": slog.LevelError, "fatal": LevelFatal,
		}
		l, ok := levels[strings.ToLower(s)]
		if !ok {
			return errRule
		}
		*to(a) = l
		return nil
	}
}

func pattern(to func(*Agent) **regexp.Regexp) func(*Agent, string) error {
	return func(a *Agent, s string) error {
		re, err := regexp.Compile(s)
		if err != nil {
			return err
		}
		*to(a) = re
		return nil
	}
}

// prefixes reads the names that workload interfaces begin with. Eleven
// characters of an interface's fifteen are left for a prefix at most: four
// are the least that tells workloads apart.
func prefixes(to func(*Agent) *[]string) func(*Agent, string) error {
	return func(a *Agent, s string) error {
		var out []string
		for p := range strings.SplitSeq(s, ",") {
			p = strings.TrimSpace(p)
			if !interfacePrefix.MatchString(p) {
				return errRule
			}
			out = append(out, p)
		}
		*to(a) = out
		return nil
	}
}

var (
	interfacePrefix = regexp.MustCompile(`^[a-zA-Z0-9_-][a-zA-Z0-9_.-]{0,10}$`)
	interfaceNames  = regexp.MustCompile(`^[a-zA-Z0-9_.-]{1,15}$`)
	nodeNames       = regexp.MustCompile(`^[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?$`)
)

func asNumber(to func(*Agent) *uint32) func(*Agent, string) error {
	return func(a *Agent, s string) error {
		if s == "" {
			*to(a) = 0
			return nil
		}
		n, err := v3.ParseASNumber(s)
		if err != nil {
			return err
		}
		*to(a) = uint32(n)
		return nil
	}
}

func routerID(a *Agent, s string) error {
	a.Startup.RouterID, a.Startup.RouterIDHash = netip.Addr{}, s == "hash"
	if s == "" || s == "hash" {
		return nil
	}
	id, err := netip.ParseAddr(s)
	if err != nil || !id.Is4() {
		return errRule
	}
	a.Startup.RouterID = id
	return nil
}

func encapMode(to func(*Agent) *string) func(*Agent, string) error {
	return func(a *Agent, s string) error {
		for _, mode := range []string{"Never", "Always", "CrossSubnet"} {
			if strings.EqualFold(s, mode) || strings.EqualFold(s, "off") && mode == "Never" || s == "" {
				*to(a) = mode
				return nil
			}
		}
		return errRule
	}
}

func nodeName(s string) error {
	if !nodeNames.MatchString(s) {
		return errRule
	}
	return nil
}

func absolute(s string) error {
	if !path.IsAbs(s) || path.Clean(s) != s {
		return errRule
	}
	return nil
}

func network(s string) error {
	if s == "none" {
		return nil
	}
	if p, err := netip.ParsePrefix(s); err != nil || p != p.Masked() {
		return errRule
	}
	return nil
}

func isSelector(s string) error {
	_, err := selector.Parse(s)
	return err
}

// hostAddress checks what may stand for the address of a host in a family.
func hostAddress(family int) func(string) error {
	return func(s string) error {
		if s == "autodetect" || s == "none" {
			return nil
		}
		addr, _, _ := strings.Cut(s, "/")
		a, err := netip.ParseAddr(addr)
		if err == nil && strings.Contains(s, "/") {
			_, err = netip.ParsePrefix(s)
		}
		if err != nil || a.Is4() != (family == 4) || a.Zone() != "" {
			return errRule
		}
		return nil
	}
}

// detection checks the name of a method and, of those with expressions, that
// they are some.
func detection(s string) error {
	method, list, hasList := strings.Cut(s, "=")
	switch method {
	case "first-found", "kubernetes-internal-ip":
		if hasList {
			return errRule
		}
		return nil
	case "can-reach", "interface", "skip-interface", "cidr":
		if list == "" {
			return errRule
		}
	default:
		return errRule
	}
	for item := range strings.SplitSeq(list, ",") {
		var err error
		switch method {
		case "interface", "skip-interface":
			_, err = regexp.Compile(item)
		case "cidr":
			_, err = netip.ParsePrefix(item)
		}
		if err != nil {
			return fmt.Errorf("%q: %w", item, err)
		}
	}
	return nil
}

// normal is a parameter's name as names are compared: letter case and
// underscores do not count.
func normal(name string) string {
	return strings.ToLower(strings.ReplaceAll(name, "_", ""))
}

// canBeNone are parameters whose value "none" is one of their own.
func canBeNone(name string) bool {
	return slices.Contains([]string{"ip", "ip6", "ipv4PoolCidr", "ipv6PoolCidr", "bgp"}, name)
}
