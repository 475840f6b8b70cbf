package lab

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// A lab has a lock, which holds the number of the process that has it: first
// of the program that brings the lab up, then of the supervisor, to which the
// locked file is handed down. The kernel lets go of it when the last holder
// dies, however it dies. Whoever only looks takes a shared lock for a moment,
// so that no two lookers mistake each other for a supervisor.

// makeDir makes the folder of a lab, which must not exist: of all who want to
// bring up a lab of one name, one may.
func makeDir(lab string) error {
	var err error
	for range 100 { // the last lab that goes takes Root with it
		if err = os.MkdirAll(Root, 0o700); err != nil {
			break
		}
		if err = os.Mkdir(dir(lab), 0o700); !errors.Is(err, os.ErrNotExist) {
			break
		}
	}
	if errors.Is(err, os.ErrExist) {
		return fmt.Errorf("lab %s: %w: take it down first with `brindle lab down --name %s`, or choose another --name", lab, ErrIsUp, lab)
	}
	if err != nil {
		return fmt.Errorf("make the folder of lab %s: %w", lab, err)
	}
	return nil
}

// lockLab makes and takes the lock of a lab whose folder this process has just
// made.
func lockLab(lab string) (*os.File, error) {
	f, err := os.OpenFile(lockFile(lab), os.O_CREATE|os.O_EXCL|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock lab %s: %w", lab, err)
	}
	if err := sign(f); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	// Waits for those who look, which takes them no time.
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX); err != nil {
		return nil, errors.Join(fmt.Errorf("lock lab %s: %w", lab, err), f.Close())
	}
	return f, nil
}

// inheritLock takes over the lock that launch handed down as this descriptor.
// No child may have it, nor outlive this process with it.
func inheritLock(fd int, lab string) (*os.File, error) {
	unix.CloseOnExec(fd)
	f := os.NewFile(uintptr(fd), lockFile(lab))
	if err := unix.Flock(fd, unix.LOCK_EX|unix.LOCK_NB); err != nil {
		return nil, fmt.Errorf("the supervisor of lab %s was not started by `brindle lab up`: %w", lab, err)
	}
	return f, sign(f)
}

// sign writes the number of this process into a lock, over another in one go.
func sign(f *os.File) error {
	if _, err := f.WriteAt(fmt.Appendf(nil, "%-10d", os.Getpid()), 0); err != nil {
		return fmt.Errorf("sign the lock: %w", err)
	}
	return nil
}

// supervisorOf returns the process that holds a lab's lock, 0 if none does.
func supervisorOf(lab string) (int, error) {
	f, err := os.Open(lockFile(lab))
	if errors.Is(err, os.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, fmt.Errorf("look at the lock of lab %s: %w", lab, err)
	}
	defer f.Close()
	if unix.Flock(int(f.Fd()), unix.LOCK_SH|unix.LOCK_NB) == nil {
		return 0, nil // closing lets go of it
	}
	data, err := io.ReadAll(f) // by descriptor: the file may be removed just now
	if err != nil {
		return 0, fmt.Errorf("look at the lock of lab %s: %w", lab, err)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(data)))
	if err != nil || pid <= 1 {
		return 0, fmt.Errorf("the lock of lab %s names no process: %q", lab, data)
	}
	return pid, nil
}

// endSupervisor asks the supervisor to end and waits until its process is
// gone; one that does not end in time is killed.
func endSupervisor(ctx context.Context, lab string) error {
	pid, err := supervisorOf(lab)
	if err != nil || pid == 0 {
		return err
	}
	fd, err := unix.PidfdOpen(pid, 0)
	if errors.Is(err, unix.ESRCH) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("find the supervisor of lab %s (process %d): %w", lab, pid, err)
	}
	defer unix.Close(fd)
	// Held by the same still, the lock says that fd is no other process that
	// was given the number of one that had ended.
	if again, err := supervisorOf(lab); err != nil || again != pid {
		return err
	}
	sig, polite := unix.SIGTERM, time.Now().Add(20*time.Second)
	for {
		if err := unix.PidfdSendSignal(fd, sig, nil, 0); err != nil && !errors.Is(err, unix.ESRCH) {
			return fmt.Errorf("end the supervisor of lab %s (process %d): %w", lab, pid, err)
		}
		ended, err := ends(fd, 100*time.Millisecond)
		if err != nil || ended {
			return err
		}
		if ctx.Err() != nil {
			return fmt.Errorf("the supervisor of lab %s (process %d) does not end: %w", lab, pid, ctx.Err())
		}
		if time.Now().After(polite) {
			sig = unix.SIGKILL
		}
	}
}

// ends waits a moment for the end of a process.
func ends(pidfd int, wait time.Duration) (bool, error) {
	n, err := unix.Poll([]unix.PollFd{{Fd: int32(pidfd), Events: unix.POLLIN}}, int(wait.Milliseconds()))
	if err != nil && !errors.Is(err, unix.EINTR) {
		return false, fmt.Errorf("wait for a process: %w", err)
	}
	return n > 0, nil
}
