package kernel

import (
	"encoding/binary"
	"errors"
	"fmt"
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/brindle-net/brindle/internal/kernel/rtnl"
)

// A delay is how long the answer waits that the host gives for another
// (net/FAMILY/neigh/LINK/proxy_delay), in hundredths of a second, begun ones
// counted. The file counts whole ones: it says 0 of a delay that is not.
type delay struct {
	told       bool
	hundredths int64
}

// differs reports whether both are known and not the same.
func (d delay) differs(o delay) bool { return d.told && o.told && d != o }

// text returns the delay as it is written to the file; false if it is unknown.
func (d delay) text() (string, bool) {
	if !d.told {
		return "", false
	}
	return strconv.FormatInt(d.hundredths, 10), true
}

// delays are those of a link.
type delays struct{ v4, v6 delay }

// The parameters of a link's neighbour table (linux/neighbour.h).
const (
	ndtmsgLen       = 4 // struct ndtmsg: family and padding
	ndtaParms       = 6
	ndtpaIfindex    = 1
	ndtpaProxyDelay = 13 // milliseconds, 64 bits
)

// readDelays reads the delays of all links, by their number.
func readDelays(c *rtnl.Conn) (map[int]delays, error) {
	var b rtnl.Batch
	b.Start(unix.RTM_GETNEIGHTBL, unix.NLM_F_DUMP, make([]byte, ndtmsgLen))
	found := map[int]delays{}
	err := c.Get(&b, func() { clear(found) }, func(m rtnl.Message) error {
		if len(m.Body) < ndtmsgLen {
			return rtnl.ErrMalformed
		}
		index, d, err := parseDelay(m.Body[ndtmsgLen:])
		all := found[index]
		switch m.Body[0] {
		case unix.AF_INET:
			all.v4 = d
		case unix.AF_INET6:
			all.v6 = d
		}
		found[index] = all
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("read neighbour tables: %w", err)
	}
	return found, nil
}

// parseDelay reads the attributes of an RTM_NEWNEIGHTBL. The number 0 is that
// of the default, which is no link's.
func parseDelay(attrs []byte) (index int, d delay, err error) {
	var inner error
	err = rtnl.Attrs(attrs, func(kind uint16, v []byte) {
		if kind != ndtaParms {
			return
		}
		inner = rtnl.Attrs(v, func(kind uint16, v []byte) {
			switch {
			case kind == ndtpaIfindex:
				index = int(rtnl.Uint32(v))
			case kind == ndtpaProxyDelay && len(v) == 8:
				d = delay{true, int64((binary.NativeEndian.Uint64(v) + 9) / 10)}
			}
		})
	})
	return index, d, errors.Join(err, inner)
}
