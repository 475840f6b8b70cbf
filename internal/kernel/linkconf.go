package kernel

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/brindle-net/brindle/internal/desired"
	"github.com/brindle-net/brindle/internal/kernel/rtnl"
)

// linkConf are the settings that come with every reading of a link: arrays of
// 32-bit values in the kernel's own numbering. Asking for them one by one
// below /proc/sys costs a hundred times more.
type linkConf struct {
	v4 []byte // IFLA_INET_CONF: IPV4_DEVCONF_* of linux/ip.h, from 1
	v6 []byte // IFLA_INET6_CONF: DEVCONF_* of linux/ipv6.h, from 0

	delays delays // of the neighbour tables, where they were read too
}

// confIndex says where in the arrays a setting is. Those that are not here
// are read as files.
func confIndex(family, name string) (index int, ok bool) {
	switch family + "/" + name {
	case "ipv4/forwarding":
		index = 1
	case "ipv4/proxy_arp":
		index = 3
	case "ipv4/accept_redirects":
		index = 4
	case "ipv4/send_redirects":
		index = 6
	case "ipv4/rp_filter":
		index = 8
	case "ipv4/route_localnet":
		index = 26
	case "ipv6/forwarding":
		index = 0
	case "ipv6/accept_ra":
		index = 3
	case "ipv6/accept_redirects":
		index = 4
	case "ipv6/proxy_ndp":
		index = 22
	case "ipv6/disable_ipv6":
		index = 26
	case "ipv6/accept_dad":
		index = 27
	default:
		return 0, false
	}
	return index, true
}

// parseConf reads IFLA_AF_SPEC. What it returns lies in value.
func parseConf(value []byte) (c linkConf, err error) {
	var inner error
	err = rtnl.Attrs(value, func(family uint16, v []byte) {
		inner = errors.Join(inner, rtnl.Attrs(v, func(kind uint16, v []byte) {
			switch {
			case family == unix.AF_INET && kind == unix.IFLA_INET_CONF:
				c.v4 = v
			case family == unix.AF_INET6 && kind == unix.IFLA_INET6_CONF:
				c.v6 = v
			}
		}))
	})
	return c, errors.Join(err, inner)
}

// clone returns a copy that outlives what it was read from.
func (c linkConf) clone() linkConf { return linkConf{v4: bytes.Clone(c.v4), v6: bytes.Clone(c.v6)} }

// setting returns the value of a setting by its file ("net/ipv4/conf/LINK/
// proxy_arp") as the file has it; false when only the file tells.
func (c linkConf) setting(file string) (string, bool) {
	parts := strings.Split(file, "/")
	switch {
	case len(parts) != 5:
		return "", false
	case isDelay(parts) && parts[1] == "ipv4":
		return c.delays.v4.text()
	case isDelay(parts):
		return c.delays.v6.text()
	case parts[2] != "conf":
		return "", false
	}
	index, ok := confIndex(parts[1], parts[4])
	values := c.v6
	if parts[1] == "ipv4" {
		values = c.v4
		index--
	}
	if !ok || len(values) < 4*(index+1) {
		return "", false
	}
	return strconv.Itoa(int(int32(rtnl.Uint32(values[4*index : 4*index+4])))), true
}

// settings6 begins the files of settings of IPv6.
const settings6 = "net/ipv6/"

// without6 reports whether the kernel runs no IPv6 on a link: its MTU is below
// 1,280 (RFC 8200, section 5), or it is the device that came with the module
// for IP in IP and was never up.
func (l linkInfo) without6() bool { return len(l.Conf.v6) == 0 }

// isDelay reports whether the parts of a file's name are those of a delay.
func isDelay(parts []string) bool {
	return len(parts) == 5 && parts[2] == "neigh" && parts[4] == "proxy_delay"
}

// differing returns those of the settings of a link that it has not. It runs
// inside the kernel's namespace. A setting that does not exist differs, and so
// does a delay that was not read: its file does not tell. A link on which the
// kernel runs no IPv6 has no settings of it, and none differs.
func (l linkInfo) differing(settings map[string]string) (map[string]string, error) {
	out := map[string]string{}
	for file, want := range settings {
		if l.without6() && strings.HasPrefix(file, settings6) {
			continue
		}
		have, told := l.Conf.setting(file)
		if !told && !isDelay(strings.Split(file, "/")) {
			var err error
			have, err = readSysctl(file)
			if err != nil && !errors.Is(err, os.ErrNotExist) {
				return nil, err
			}
		}
		if have != want {
			out[file] = want
		}
	}
	return out, nil
}

// assertLink writes the settings that a link has not. It reports whether there
// are some that the link can not have before the kernel runs IPv6 on it.
func (k *Kernel) assertLink(name, lines string) (later bool, err error) {
	settings, err := linkSysctls(name, lines)
	if err != nil || len(settings) == 0 {
		return false, err
	}
	var l linkInfo
	err = k.with(func(c *rtnl.Conn) (err error) {
		l, err = readLink(c, name)
		return err
	})
	if err != nil {
		return false, err
	}
	for file := range settings {
		later = later || l.without6() && strings.HasPrefix(file, settings6)
	}
	var b rtnl.Batch
	err = k.inside(func() error {
		settings, err := l.differing(settings)
		if err != nil {
			return err
		}
		setDelays(&b, l.Index, takeDelays(settings))
		return writeAll(settings)
	})
	if err == nil && b.Len() > 0 {
		if err = k.do(&b); err != nil {
			err = fmt.Errorf("set the delay of answers on %s: %w", name, err)
		}
	}
	return later, err
}

// readSettings fills in the sysctls of each link, and forgets what known does
// not mention.
func readSettings(have, known map[string]desired.Link, links map[string]linkInfo) error {
	for name, link := range have {
		want := known[name]
		if want.MTU == 0 {
			link.MTU = 0
		}
		settings, err := linkSysctls(name, want.Sysctls)
		if err != nil {
			return err
		}
		if settings, err = links[name].differing(settings); err != nil {
			return err
		}
		link.Sysctls = want.Sysctls
		if len(settings) > 0 {
			link.Sysctls = "" // something differs: assert all
		}
		have[name] = link
	}
	return nil
}
