package kernel

import (
	"errors"
	"fmt"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/brindle-net/brindle/internal/kernel/rtnl"
)

// maxLeaving bounds how many deletions of links the kernel may still be
// acknowledging: each holds a thread and a socket.
const maxLeaving = 16

// How often a link that is being deleted is looked for.
const (
	firstLook = 100 * time.Microsecond
	lastLook  = 2 * time.Millisecond
)

// leaving are the deletions whose acknowledgement nobody waits for.
type leaving struct {
	wg    sync.WaitGroup
	slots chan struct{}
}

// deleteLink deletes a link by number; one that has gone is no error. It
// returns when the link is gone with all that it carried. The kernel
// acknowledges only when every processor has let go of the link's memory
// (rcu_barrier), tens of milliseconds later: that is not waited for.
func (k *Kernel) deleteLink(index int) error {
	k.leaving.slots <- struct{}{}
	done := make(chan error, 1)
	k.leaving.wg.Go(func() {
		defer func() { <-k.leaving.slots }()
		var b rtnl.Batch
		b.Start(unix.RTM_DELLINK, 0, rtnl.IfInfo(unix.AF_UNSPEC, index, 0, 0))
		done <- k.do(&b)
	})
	for pause := firstLook; ; pause = min(2*pause, lastLook) {
		look := time.NewTimer(pause)
		select {
		case err := <-done:
			look.Stop()
			if err != nil && !errors.Is(err, unix.ENODEV) {
				return fmt.Errorf("delete link %d: %w", index, err)
			}
			return nil
		case <-look.C:
		}
		if _, err := nameOf(k.ioctl, index); errors.Is(err, ErrNoLink) {
			return k.afterChanges(index)
		}
	}
}

// afterChanges waits until changes of links under way have ended: one is off
// the list a moment before its addresses, routes and settings are.
func (k *Kernel) afterChanges(index int) error {
	return k.with(func(c *rtnl.Conn) error { return takeTurn(c, index) })
}

// takeTurn waits until changes that were announced have been made. The kernel
// says that a link went down, or that an address was removed, before it drops
// the routes that go with it, and from Linux 6.9 on tables are read without
// waiting for that. A question about one link, which need not exist, takes its
// turn behind it.
func takeTurn(c *rtnl.Conn, index int) error {
	var b rtnl.Batch
	b.Start(unix.RTM_GETLINK, 0, rtnl.IfInfo(unix.AF_UNSPEC, index, 0, 0))
	err := c.Get(&b, func() {}, func(rtnl.Message) error { return nil })
	if err != nil && !errors.Is(err, unix.ENODEV) {
		return fmt.Errorf("look for link %d: %w", index, err)
	}
	return nil
}

// loopback is the number of lo, in every namespace.
const loopback = 1
