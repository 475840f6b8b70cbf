package kernel

import (
	"maps"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/brindle-net/brindle/internal/kernel/rtnl"
)

// ndtaName is NDTA_NAME of linux/neighbour.h.
const ndtaName = 1

// message4 are the IPv4 settings that a message to a new link may set, for they
// are looked at when a packet comes and have no other effect. (Forwarding and
// route_localnet have: they are left to their files.)
func message4(name string) bool {
	switch name {
	case "proxy_arp", "accept_redirects", "send_redirects", "rp_filter":
		return true
	}
	return false
}

// takeConf4 takes from settings that are to be written to a link those that
// setConf4 writes, by their numbers. Writing a file costs some ten times more:
// its name is looked up among those of all links of all namespaces.
func takeConf4(settings map[string]string) map[int]uint32 {
	taken := map[int]uint32{}
	for file, value := range settings {
		parts := strings.Split(file, "/")
		if len(parts) != 5 || parts[1] != "ipv4" || parts[2] != "conf" || !message4(parts[4]) {
			continue
		}
		index, ok := confIndex("ipv4", parts[4])
		if n, err := strconv.ParseUint(value, 10, 32); err == nil && ok {
			taken[index] = uint32(n)
			delete(settings, file)
		}
	}
	return taken
}

// takeDelays takes from settings that are to be written to a link the delays,
// in milliseconds by family: setDelays writes them.
func takeDelays(settings map[string]string) map[uint8]uint64 {
	taken := map[uint8]uint64{}
	for file, value := range settings {
		parts := strings.Split(file, "/")
		hundredths, err := strconv.ParseUint(value, 10, 32)
		if err != nil || !isDelay(parts) {
			continue
		}
		family := uint8(unix.AF_INET)
		if parts[1] == "ipv6" {
			family = unix.AF_INET6
		}
		taken[family] = hundredths * 10
		delete(settings, file)
	}
	return taken
}

// setConf4 adds the IPv4 settings of a link, by their numbers, to a request
// inside IFLA_AF_SPEC.
func setConf4(b *rtnl.Batch, conf map[int]uint32) {
	if len(conf) == 0 {
		return
	}
	b.Nest(unix.AF_INET, func() {
		b.Nest(unix.IFLA_INET_CONF, func() {
			for _, index := range slices.Sorted(maps.Keys(conf)) {
				b.Uint32(uint16(index), conf[index])
			}
		})
	})
}

// setDelays adds requests for the proxy delays of a link in milliseconds, by
// family.
func setDelays(b *rtnl.Batch, index int, delays map[uint8]uint64) {
	for _, family := range slices.Sorted(maps.Keys(delays)) {
		name := "arp_cache"
		if family == unix.AF_INET6 {
			name = "ndisc_cache"
		}
		header := make([]byte, ndtmsgLen)
		header[0] = family
		b.Start(unix.RTM_SETNEIGHTBL, 0, header)
		b.String(ndtaName, name)
		b.Nest(ndtaParms, func() {
			b.Uint32(ndtpaIfindex, uint32(index))
			b.Uint64(ndtpaProxyDelay, delays[family])
		})
	}
}

// prepareLink returns what a link lacks of settings that are given as lines,
// after it has written those that only files take.
func (k *Kernel) prepareLink(name, lines string) (conf4 map[int]uint32, delays map[uint8]uint64, err error) {
	settings, err := linkSysctls(name, lines)
	if err != nil {
		return nil, nil, err
	}
	var l linkInfo
	err = k.with(func(c *rtnl.Conn) (err error) {
		l, err = readLink(c, name)
		return err
	})
	if err != nil {
		return nil, nil, err
	}
	err = k.inside(func() error {
		if settings, err = l.differing(settings); err != nil {
			return err
		}
		conf4, delays = takeConf4(settings), takeDelays(settings)
		return writeAll(settings)
	})
	return conf4, delays, err
}
