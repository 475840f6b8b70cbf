package conntrack

import (
	"errors"
	"fmt"
	"runtime"

	"golang.org/x/sys/unix"
)

// ErrNoBarrier says that nobody knows when the kernel is done with packets.
var ErrNoBarrier = errors.New("no barrier")

// Barrier waits until the kernel is done with every packet that it was at when
// Barrier was called, some tens of milliseconds without any work. It takes a
// packet from its arrival through all chains into the table of connections
// within one read-side section of RCU, so what rules that are no longer there
// let pass is in the table then, unless somebody holds it back in between: a
// program behind NFQUEUE, IPsec that has no key yet. The error wraps
// ErrNoBarrier where the kernel has none for us (membarrier(2),
// MEMBARRIER_CMD_GLOBAL, is a grace period of RCU since kernel 4.3; not with
// nohz_full, and with one processor it is none).
func Barrier() error {
	if runtime.NumCPU() < 2 {
		return fmt.Errorf("%w: one processor", ErrNoBarrier)
	}
	const global = 1 // MEMBARRIER_CMD_GLOBAL, linux/membarrier.h
	if _, _, errno := unix.Syscall(unix.SYS_MEMBARRIER, global, 0, 0); errno != 0 {
		return fmt.Errorf("%w: membarrier: %w", ErrNoBarrier, errno)
	}
	return nil
}
