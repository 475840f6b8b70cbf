package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/brindle-net/brindle/internal/netns"
)

// process is a running program that dies with us.
type process struct {
	cmd  *exec.Cmd
	log  string
	done chan struct{} // closed when it has been reaped
}

// start runs a program in a namespace, or in ours when ns is nil, with its
// output in a file.
func start(ns *netns.NS, log string, argv ...string) (*process, error) {
	out, err := os.Create(log)
	if err != nil {
		return nil, err
	}
	defer out.Close()
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.Stdout, cmd.Stderr = out, out
	cmd.Env = []string{"PATH=" + os.Getenv("PATH")} // no settings of the user's
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Pdeathsig: syscall.SIGKILL}
	begin := cmd.Start
	if ns != nil {
		begin = func() error { return netns.Do(ns, cmd.Start) }
	}
	if err := begin(); err != nil {
		return nil, fmt.Errorf("start %s: %w", argv[0], err)
	}
	p := &process{cmd: cmd, log: log, done: make(chan struct{})}
	go func() {
		defer close(p.done)
		_ = cmd.Wait() // its log tells how it ended
	}()
	return p, nil
}

func (p *process) pid() int { return p.cmd.Process.Pid }

// stop asks the program to end, and makes it.
func (p *process) stop() {
	_ = p.cmd.Process.Signal(syscall.SIGTERM) // it may have ended by itself
	select {
	case <-p.done:
		return
	case <-time.After(5 * time.Second):
	}
	_ = p.cmd.Process.Kill()
	<-p.done
}

// waitUntil calls f until it returns nil, and gives up when the program ends
// or the time is over.
func (p *process) waitUntil(ctx context.Context, limit time.Duration, f func() error) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	for {
		err := f()
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%w (log: %s)", errors.Join(ctx.Err(), err), p.tail())
		case <-p.done:
			return fmt.Errorf("%s has ended: %s", p.cmd.Path, p.tail())
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// tail is the end of the program's log.
func (p *process) tail() string {
	data, err := os.ReadFile(p.log)
	if err != nil {
		return err.Error()
	}
	return string(data[max(0, len(data)-2000):])
}

// cpu is the CPU time that a program has used, user and system, all threads,
// to the nanosecond (clock_getcpuclockid(3)).
func (p *process) cpu() (time.Duration, error) { return clock(int32(^p.pid()<<3 | 2)) }

// clock reads a CPU-time clock.
func clock(id int32) (time.Duration, error) {
	var ts unix.Timespec
	if err := unix.ClockGettime(id, &ts); err != nil {
		return 0, fmt.Errorf("read the CPU time of a process: %w", err)
	}
	return time.Duration(ts.Nano()), nil
}

// ownCPU is the CPU time that this process has used.
func ownCPU() time.Duration {
	d, err := clock(unix.CLOCK_PROCESS_CPUTIME_ID)
	if err != nil {
		return 0 // every kernel has this clock
	}
	return d
}

// anonymous is how much memory of a program is its own, in MiB: what is no
// page of a file (proc_pid_status(5), RssAnon).
func (p *process) anonymous() (float64, error) {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.pid()))
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(data)) {
		if rest, ok := strings.CutPrefix(line, "RssAnon:"); ok {
			kib, err := strconv.Atoi(strings.TrimSuffix(strings.TrimSpace(rest), " kB"))
			return float64(kib) / 1024, err
		}
	}
	return 0, errors.New("the kernel does not tell RssAnon")
}
