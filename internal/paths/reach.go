package paths

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/brindle-net/brindle/internal/netns"
)

// An Ask is a question whether a host is there, outside of any tunnel.
type Ask struct {
	NS     *netns.NS  // nil: the process's own
	From   netip.Addr // of this host
	Device string     // the interface to leave by; "": as routes say
	To     netip.Addr // of the same family
	Port   uint16     // of TCP, where nobody needs to listen
	Wait   time.Duration
}

// reachTries is how often each kind of packet is sent.
const reachTries = 2

// Answered reports whether the host answers an ICMP echo, or a TCP connection
// by taking or refusing it: of the two, firewalls drop only one as a rule.
func (a Ask) Answered(ctx context.Context) bool {
	ctx, cancel := context.WithTimeout(ctx, reachTries*a.Wait)
	defer cancel()
	var both sync.WaitGroup
	var pinged, refused bool
	both.Go(func() {
		if pinged = a.pings(ctx); pinged {
			cancel()
		}
	})
	both.Go(func() {
		if refused = a.connects(ctx); refused {
			cancel()
		}
	})
	both.Wait()
	return pinged || refused
}

// pings sends echoes until one is answered.
func (a Ask) pings(ctx context.Context) bool {
	w := wire{ns: a.NS, path: Path{Device: a.Device, Local: a.From, Remote: a.To}}
	for n := 0; n < reachTries && ctx.Err() == nil; n++ {
		if _, err := w.ping(smallSize, a.Wait); err == nil {
			return true
		}
	}
	return false
}

// connects reports whether a connection is taken or refused.
func (a Ask) connects(ctx context.Context) bool {
	err := within(a.NS, func() error {
		d := net.Dialer{LocalAddr: &net.TCPAddr{IP: a.From.AsSlice()}, Control: func(_, _ string, raw syscall.RawConn) error {
			return control(raw, func(fd int) error { return unix.BindToDevice(fd, a.Device) })
		}}
		d.SetMultipathTCP(false)
		c, err := d.DialContext(ctx, "tcp", netip.AddrPortFrom(a.To, a.Port).String())
		if err == nil {
			_ = c.Close() // it answered
		}
		return err
	})
	return err == nil || errors.Is(err, unix.ECONNREFUSED)
}
