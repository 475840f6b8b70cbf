package kernel

import (
	"testing"

	"golang.org/x/sys/unix"

	"github.com/brindle-net/brindle/internal/kernel/rtnl"
)

// Nothing that comes out of a netlink socket may end the process.
func FuzzParse(f *testing.F) {
	f.Add(uint16(unix.RTM_NEWROUTE), make([]byte, 64))
	f.Add(uint16(unix.RTM_NEWLINK), []byte{})
	k := &Kernel{ports: map[uint32]bool{}}
	w := watcher{k: k, seen: map[int]seenLink{}}
	f.Fuzz(func(t *testing.T, kind uint16, body []byte) {
		m := rtnl.Message{Kind: kind, Body: body}
		_, _ = parseLink(m)
		_, _ = parseRoute(m)
		_, _ = parseRule(m, 4)
		_, _ = parseNeigh(m)
		_, _ = parseAddress(m)
		_, _, _ = parseDelay(body)
		_ = parseHops(body)
		_ = w.judge(m)
	})
}
