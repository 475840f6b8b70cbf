package lab

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/brindle-net/brindle/internal/netns"
)

// Enter replaces this process by a command inside a namespace, in a mount
// namespace of its own whose /sys shows that network and whose /sys/fs/bpf is
// private. It returns only if it fails.
func Enter(nsName string, argv []string, env []string) error {
	ns, err := netns.Open(nsName)
	if err != nil {
		return err
	}
	path, err := exec.LookPath(argv[0])
	if err != nil {
		return fmt.Errorf("run %s: %w", argv[0], err)
	}
	return netns.Do(ns, func() error {
		if err := privateMounts(); err != nil {
			return err
		}
		return fmt.Errorf("run %s: %w", path, syscall.Exec(path, argv, env))
	})
}

// privateMounts gives the calling thread a mount namespace with its own sysfs
// and bpffs. Mounts of the machine go on to arrive; ours never leave.
func privateMounts() error {
	if err := unix.Unshare(unix.CLONE_NEWNS); err != nil {
		return fmt.Errorf("make a mount namespace: %w", err)
	}
	if err := unix.Mount("", "/", "", unix.MS_SLAVE|unix.MS_REC, ""); err != nil {
		return fmt.Errorf("keep mounts private: %w", err)
	}
	if err := unix.Mount("sysfs", "/sys", "sysfs", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, ""); err != nil {
		return fmt.Errorf("mount sysfs: %w", err)
	}
	// A kernel without bpffs can still route.
	if err := unix.Mount("bpf", "/sys/fs/bpf", "bpf", 0, "mode=0700"); err != nil && !errors.Is(err, unix.ENOENT) && !errors.Is(err, unix.ENODEV) {
		return fmt.Errorf("mount bpffs: %w", err)
	}
	return nil
}

// process is one child of the supervisor.
type process struct {
	cmd  *exec.Cmd
	done chan struct{} // closed when the child has been reaped
}

// start runs a command with its output in a log file.
func start(argv []string, logPath string) (*process, error) {
	log, err := os.OpenFile(logPath, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open log: %w", err)
	}
	defer log.Close()
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", argv[0], err)
	}
	p := &process{cmd: cmd, done: make(chan struct{})}
	go func() {
		defer close(p.done)
		_ = cmd.Wait() // how it ended stands in its log
	}()
	return p, nil
}

func (p *process) pid() int { return p.cmd.Process.Pid }

// alive reports whether the child still runs.
func (p *process) alive() bool {
	select {
	case <-p.done:
		return false
	default:
		return true
	}
}

// stop signals the child and waits; after the grace time it is killed.
func (p *process) stop(sig syscall.Signal, grace time.Duration) {
	if !p.alive() {
		return
	}
	_ = p.cmd.Process.Signal(sig) // it may end by itself just now
	select {
	case <-p.done:
		return
	case <-time.After(grace):
	}
	_ = p.cmd.Process.Kill()
	<-p.done
}

// killInside ends every process that lives in one of the named network
// namespaces, and waits until they are gone. A namespace holds only what the
// lab or `lab exec` started in it.
func killInside(ctx context.Context, names []string) error {
	ids := map[netns.ID]bool{}
	for _, name := range names {
		ns, err := netns.Open(name)
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, netns.ErrNotNamespace) {
			continue
		}
		if err != nil {
			return err
		}
		ids[ns.ID()] = true
		ns.Close()
	}
	for {
		pids, err := processesIn(ids)
		if err != nil || len(pids) == 0 {
			return err
		}
		for _, pid := range pids {
			_ = unix.Kill(pid, unix.SIGKILL) // gone already is as good
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("processes %v do not end: %w", pids, ctx.Err())
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// processesIn lists the processes whose network namespace is one of ids, but
// for this one.
func processesIn(ids map[netns.ID]bool) ([]int, error) {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil, fmt.Errorf("list processes: %w", err)
	}
	var pids []int
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil || pid == os.Getpid() || pid == 1 {
			continue
		}
		var st unix.Stat_t
		if unix.Stat(filepath.Join("/proc", e.Name(), "ns/net"), &st) != nil {
			continue // it has just ended, or is a kernel thread
		}
		if ids[netns.ID{Dev: st.Dev, Inode: st.Ino}] && !zombie(e.Name()) {
			pids = append(pids, pid)
		}
	}
	return pids, nil
}

// zombie reports whether a process has ended and only waits to be reaped.
func zombie(pid string) bool {
	data, err := os.ReadFile(filepath.Join("/proc", pid, "stat"))
	if err != nil {
		return true
	}
	_, rest, ok := strings.Cut(string(data), ") ")
	return ok && strings.HasPrefix(rest, "Z")
}
