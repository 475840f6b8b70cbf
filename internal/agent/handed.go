package agent

import (
	"fmt"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Handed are the descriptors of sockets that were opened for this process by
// who started it, as systemd's socket units do: sd_listen_fds(3). They are
// numbers from 3 on, and stay open as long as the process.
func Handed(environ []string) []int {
	value := func(name string) int {
		i := slices.IndexFunc(environ, func(e string) bool { return strings.HasPrefix(e, name+"=") })
		if i < 0 {
			return 0
		}
		n, err := strconv.Atoi(environ[i][len(name)+1:])
		if err != nil || n < 0 {
			return 0
		}
		return n
	}
	if value("LISTEN_PID") != os.Getpid() {
		return nil // they are another's
	}
	var fds []int
	for i := range min(value("LISTEN_FDS"), 64) {
		fds = append(fds, 3+i)
	}
	return fds
}

// KeepHanded says whether the program that replaces this one gets the
// descriptors, too. Programs that are started beside it never need them.
func KeepHanded(fds []int, keep bool) error {
	flag := unix.FD_CLOEXEC
	if keep {
		flag = 0
	}
	for _, fd := range fds {
		if _, err := unix.FcntlInt(uintptr(fd), unix.F_SETFD, flag); err != nil {
			return fmt.Errorf("descriptor %d, which LISTEN_FDS names: %w", fd, err)
		}
	}
	return nil
}

// handedListener finds among sockets that of a path; nil: it is not there. The
// socket goes on listening when the listener is closed: who calls then waits for
// the next agent.
func handedListener(fds []int, path string) (*net.UnixListener, error) {
	for _, fd := range fds {
		at, err := unix.Getsockname(fd)
		if err != nil {
			return nil, fmt.Errorf("descriptor %d, which LISTEN_FDS names: %w", fd, err)
		}
		if at, ok := at.(*unix.SockaddrUnix); !ok || at.Name != path {
			continue
		}
		dup, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
		if err != nil {
			return nil, fmt.Errorf("take the socket %s: %w", path, err)
		}
		f := os.NewFile(uintptr(dup), path)
		defer f.Close()
		l, err := net.FileListener(f)
		if err != nil {
			return nil, fmt.Errorf("take the socket %s: %w", path, err)
		}
		unixListener, ok := l.(*net.UnixListener)
		if !ok {
			return nil, fmt.Errorf("take the socket %s: it is a %T", path, l)
		}
		return unixListener, nil
	}
	return nil, nil
}
