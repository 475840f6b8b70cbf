package paths

import (
	"fmt"
	"net/netip"
	"slices"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// A gate says who may connect by TCP now: ends that have just asked to, for a
// moment. The kernel drops the packets of everybody else before the listening
// socket sees them, so that to others the port does not even exist.
type gate struct {
	index int // of the tunnel's interface, by which packets must come
	open  []admitted
}

// admitted is one end that may connect.
type admitted struct {
	addr  netip.Addr
	nonce uint64
	until time.Time
}

// The gate's bounds: who comes late has to ask again.
const (
	gateSize = 16
	gateTime = 5 * time.Second
)

// admit lets an end in; false: too many are let in already.
func (g *gate) admit(a netip.Addr, nonce uint64, now time.Time) bool {
	g.open = slices.DeleteFunc(g.open, func(x admitted) bool { return x.addr == a || !x.until.After(now) })
	if len(g.open) == gateSize {
		return false
	}
	g.open = append(g.open, admitted{a, nonce, now.Add(gateTime)})
	return true
}

// take ends an admission, and reports whether there was one.
func (g *gate) take(a netip.Addr, nonce uint64, now time.Time) bool {
	i := slices.IndexFunc(g.open, func(x admitted) bool { return x.addr == a && x.nonce == nonce })
	if i < 0 {
		return false
	}
	in := g.open[i].until.After(now)
	g.open = slices.Delete(g.open, i, i+1)
	return in
}

// The instructions of classic BPF (linux/filter.h) that are needed.
const (
	loadWord  = unix.BPF_LD | unix.BPF_W | unix.BPF_ABS
	jumpEqual = unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K
	give      = unix.BPF_RET | unix.BPF_K
	all       = 0xffffffff
)

// Where loads find what is not in the transport's header (linux/filter.h).
const (
	ancillary      = -0x1000   // SKF_AD_OFF: what the kernel knows of a packet
	interfaceIndex = 8         // SKF_AD_IFINDEX
	networkHeader  = -0x100000 // SKF_NET_OFF
)

// fromEnd is an offset in one of these spaces.
func fromEnd(base, offset int) uint32 { return uint32(int32(base + offset)) }

// program is the filter as it is now: by the interface, and from one of the
// addresses.
func (g *gate) program() []unix.SockFilter {
	p := []unix.SockFilter{
		{Code: loadWord, K: fromEnd(ancillary, interfaceIndex)},
		{Code: jumpEqual, Jt: 1, K: uint32(g.index)},
		{Code: give, K: 0},
	}
	for _, x := range g.open {
		b, at := x.addr.AsSlice(), 12
		if x.addr.Is6() {
			at = 8
		}
		for i := 0; i < len(b); i += 4 {
			rest := uint8((len(b)-i)/4-1)*2 + 1 // instructions of this address behind the jump
			p = append(p,
				unix.SockFilter{Code: loadWord, K: fromEnd(networkHeader, at+i)},
				unix.SockFilter{Code: jumpEqual, Jf: rest, K: uint32(b[i])<<24 | uint32(b[i+1])<<16 | uint32(b[i+2])<<8 | uint32(b[i+3])})
		}
		p = append(p, unix.SockFilter{Code: give, K: all})
	}
	return append(p, unix.SockFilter{Code: give, K: 0})
}

// guard makes a socket see what a program lets through.
func guard(c syscall.RawConn, program []unix.SockFilter) error {
	return control(c, func(fd int) error {
		prog := unix.SockFprog{Len: uint16(len(program)), Filter: &program[0]}
		if err := unix.SetsockoptSockFprog(fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, &prog); err != nil {
			return fmt.Errorf("attach a filter to the socket: %w", err)
		}
		return nil
	})
}

// deaf is a filter that nothing passes.
func deaf() []unix.SockFilter { return []unix.SockFilter{{Code: give, K: 0}} }

// control does something to a socket.
func control(c syscall.RawConn, f func(fd int) error) error {
	var failed error
	if err := c.Control(func(fd uintptr) { failed = f(int(fd)) }); err != nil {
		return err
	}
	return failed
}
