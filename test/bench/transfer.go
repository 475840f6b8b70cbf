package main

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/brindle-net/brindle/internal/netns"
)

// transferred is what bytes on their way cost.
type transferred struct {
	wall time.Duration
	cpu  time.Duration // of both ends, with all that the kernel does for them there and on the way
}

// transfer sends bytes over one connection. Pinned, all happens on one
// processor, in the two threads that send and receive: what the kernel does
// with packets on the way is done in the thread that caused it, or in a thread
// of that processor's, which is counted as well.
func (p *tunnelPath) transfer(bytes int, pin bool) (transferred, error) {
	run := netns.Do
	if pin {
		run = pinned
	}
	var listener, port int
	err := netns.Do(p.to, func() (err error) {
		listener, port, err = p.listen()
		return err
	})
	if err != nil {
		return transferred{}, fmt.Errorf("listen: %w", err)
	}
	defer unix.Close(listener)
	thread := softirqs()
	began, before := time.Now(), cpuOf(thread)
	type end struct {
		cpu time.Duration
		err error
	}
	ends := make(chan end, 2)
	do := func(ns *netns.NS, f func() error) {
		var e end
		e.err = run(ns, func() error {
			begin := threadCPU()
			err := f()
			e.cpu = threadCPU() - begin
			return err
		})
		ends <- e
	}
	go do(p.to, func() error { return receive(listener, bytes) })
	go do(p.from, func() error { return p.send(port, bytes) })
	a, b := <-ends, <-ends
	t := transferred{wall: time.Since(began), cpu: a.cpu + b.cpu + cpuOf(thread) - before}
	if err := errors.Join(a.err, b.err); err != nil {
		return t, fmt.Errorf("transfer: %w", err)
	}
	return t, nil
}

// listen opens a port for one connection. What waits for it gives up in time.
func (p *tunnelPath) listen() (fd, port int, err error) {
	if fd, err = unix.Socket(familyOf(p.addr), unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0); err != nil {
		return 0, 0, err
	}
	err = errors.Join(
		unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Sec: 10}),
		unix.Bind(fd, socketAddr(p.addr, 0)), unix.Listen(fd, 1))
	if err != nil {
		return 0, 0, errors.Join(err, unix.Close(fd))
	}
	at, err := unix.Getsockname(fd)
	if err != nil {
		return 0, 0, errors.Join(err, unix.Close(fd))
	}
	switch at := at.(type) {
	case *unix.SockaddrInet4:
		port = at.Port
	case *unix.SockaddrInet6:
		port = at.Port
	}
	return fd, port, nil
}

// chunk is how much is written and read at once.
const chunk = 256 << 10

func receive(listener, bytes int) error {
	var fd int
	err := again(func() (err error) {
		fd, _, err = unix.Accept4(listener, unix.SOCK_CLOEXEC)
		return err
	})
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Sec: 10}); err != nil {
		return err
	}
	buf := make([]byte, chunk)
	for bytes > 0 {
		n := 0
		err := again(func() (err error) {
			n, err = unix.Read(fd, buf)
			return err
		})
		if err != nil || n == 0 {
			return errors.Join(fmt.Errorf("%d bytes were still to come", bytes), err)
		}
		bytes -= n
	}
	return nil
}

func (p *tunnelPath) send(port, bytes int) error {
	fd, err := unix.Socket(familyOf(p.addr), unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	err = errors.Join(unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_SNDTIMEO, &unix.Timeval{Sec: 10}),
		unix.Connect(fd, socketAddr(p.addr, port)))
	buf := make([]byte, chunk)
	for err == nil && bytes > 0 {
		err = again(func() error {
			n, err := unix.Write(fd, buf[:min(bytes, chunk)])
			bytes -= max(n, 0)
			return err
		})
	}
	return err
}

// again makes a call until it is not interrupted: the run time sends signals.
func again(call func() error) error {
	for {
		if err := call(); !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}

// threadCPU is the CPU time of the calling thread, with interrupts that it was
// borrowed for.
func threadCPU() time.Duration {
	var t unix.Timespec
	_ = unix.ClockGettime(unix.CLOCK_THREAD_CPUTIME_ID, &t) // cannot fail
	return time.Duration(t.Nano())
}

// cpuOf is the CPU time of a thread of the kernel's, by its file.
func cpuOf(schedstat string) time.Duration {
	text, err := os.ReadFile(schedstat)
	if err != nil {
		return 0
	}
	first, _, _ := strings.Cut(string(text), " ")
	n, err := strconv.ParseInt(first, 10, 64)
	if err != nil {
		return 0
	}
	return time.Duration(n)
}
