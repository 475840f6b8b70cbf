package lab

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/brindle-net/brindle/internal/netns"
)

// lockLab takes the lab's lock, which its supervisor holds for life. The
// kernel lets go of it when the process dies, however it dies.
func lockLab(lab string) (*os.File, error) {
	if err := os.MkdirAll(dir(lab), 0o700); err != nil {
		return nil, fmt.Errorf("make the folder of lab %s: %w", lab, err)
	}
	f, err := os.OpenFile(lockFile(lab), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock lab %s: %w", lab, err)
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		f.Close()
		return nil, fmt.Errorf("lab %s: %w: take it down first with `brindle lab down --name %s`, or choose another --name", lab, ErrIsUp, lab)
	}
	if err := f.Truncate(0); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	if _, err := f.WriteAt([]byte(strconv.Itoa(os.Getpid())), 0); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// supervisorOf returns the process that holds a lab's lock, 0 if none does.
func supervisorOf(lab string) (int, error) {
	f, err := os.OpenFile(lockFile(lab), os.O_RDWR, 0)
	if errors.Is(err, os.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, fmt.Errorf("look at the lock of lab %s: %w", lab, err)
	}
	defer f.Close()
	if unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB) == nil {
		return 0, nil // closing lets go of it
	}
	data, err := io.ReadAll(f) // by descriptor: the file may be removed just now
	if err != nil {
		return 0, fmt.Errorf("look at the lock of lab %s: %w", lab, err)
	}
	return strconv.Atoi(strings.TrimSpace(string(data)))
}

// Exists reports whether anything of a lab is on this machine.
func Exists(lab string) bool {
	_, err := os.Stat(dir(lab))
	return err == nil
}

// List returns the names of all labs on this machine, also of those whose
// supervisor was killed.
func List() ([]string, error) {
	entries, err := os.ReadDir(Root) // sorted
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("list labs: %w", err)
	}
	var out []string
	for _, e := range entries {
		if CheckName(e.Name()) == nil {
			out = append(out, e.Name())
		}
	}
	return out, nil
}

// Down removes a lab: it asks the supervisor to end, and removes whatever is
// left, also of a lab whose supervisor was killed. A lab that is not there is
// ErrNoLab.
func Down(ctx context.Context, lab string) error {
	if err := CheckName(lab); err != nil {
		return err
	}
	if !Exists(lab) {
		return fmt.Errorf("%w: %s", ErrNoLab, lab)
	}
	if err := endSupervisor(ctx, lab); err != nil {
		return err
	}
	return sweep(ctx, lab)
}

// endSupervisor asks the supervisor to end and waits; one that does not end
// in time is killed.
func endSupervisor(ctx context.Context, lab string) error {
	sig, polite, last := unix.SIGTERM, time.Now().Add(20*time.Second), 0
	for {
		pid, err := supervisorOf(lab)
		if err != nil {
			return err
		}
		if pid == 0 && (last == 0 || zombie(strconv.Itoa(last))) {
			return nil
		}
		if pid == 0 { // it let go of the lock and is about to end
			pid, sig = last, 0
		}
		last = pid
		if time.Now().After(polite) {
			sig = unix.SIGKILL
		}
		if err := unix.Kill(pid, sig); err != nil && !errors.Is(err, unix.ESRCH) {
			return fmt.Errorf("end the supervisor of lab %s (process %d): %w", lab, pid, err)
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("the supervisor of lab %s (process %d) does not end: %w", lab, pid, ctx.Err())
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// sweep removes every process, namespace and file of a lab. Links go with the
// namespaces that hold them.
func sweep(ctx context.Context, lab string) error {
	names, err := members(lab)
	if err != nil {
		return err
	}
	errs := []error{killInside(ctx, names)}
	for _, name := range names {
		if err := netns.Delete(name); err != nil && !errors.Is(err, os.ErrNotExist) {
			errs = append(errs, err)
		}
	}
	if err := os.RemoveAll(dir(lab)); err != nil {
		errs = append(errs, fmt.Errorf("remove the files of lab %s: %w", lab, err))
	}
	_ = os.Remove(Root) // only when it was the last lab
	return errors.Join(errs...)
}

// claim makes the named namespace of a member. A mark in the lab's folder is
// written first, so that whatever was made is found again, and nothing else.
func claim(lab, member string) (*netns.NS, error) {
	mark := filepath.Join(dir(lab), "netns", member)
	if err := os.MkdirAll(filepath.Dir(mark), 0o700); err != nil {
		return nil, fmt.Errorf("mark namespace of %s: %w", member, err)
	}
	if err := os.WriteFile(mark, nil, 0o600); err != nil {
		return nil, fmt.Errorf("mark namespace of %s: %w", member, err)
	}
	ns, err := netns.Create(netnsName(lab, member))
	if errors.Is(err, os.ErrExist) {
		err = errors.Join(err, os.Remove(mark)) // somebody else's: never ours to remove
	}
	return ns, err
}

// disown removes the namespace of a member and its mark.
func disown(lab, member string) error {
	err := netns.Delete(netnsName(lab, member))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return os.Remove(filepath.Join(dir(lab), "netns", member))
}

// members lists the namespaces of a lab.
func members(lab string) ([]string, error) {
	entries, err := os.ReadDir(filepath.Join(dir(lab), "netns"))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("list the namespaces of lab %s: %w", lab, err)
	}
	var out []string
	for _, e := range entries {
		out = append(out, netnsName(lab, e.Name()))
	}
	return out, nil
}

// saveTopology notes what was asked for, for people who look.
func saveTopology(t Topology) error {
	data, err := json.MarshalIndent(t, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir(t.Name), "topology.json"), append(data, '\n'), 0o600)
}
