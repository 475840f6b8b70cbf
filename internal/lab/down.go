package lab

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/brindle-net/brindle/internal/netns"
)

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
		return nil, fmt.Errorf("list labs: %w", asRoot(err))
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
	was, err := os.Lstat(dir(lab))
	if errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("%w: %s", ErrNoLab, lab)
	}
	if err != nil {
		return fmt.Errorf("look for lab %s: %w", lab, asRoot(err))
	}
	return remove(ctx, lab, was)
}

// remove is Down for the lab with this folder, and not for another that was
// brought up under its name meanwhile.
func remove(ctx context.Context, lab string, was os.FileInfo) error {
	for _, step := range []func(context.Context, string) error{endSupervisor, sweep} {
		is, err := os.Lstat(dir(lab))
		if errors.Is(err, os.ErrNotExist) || err == nil && !os.SameFile(was, is) {
			return nil
		}
		if err := errors.Join(err, step(ctx, lab)); err != nil {
			return err
		}
	}
	return nil
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
	f, err := os.OpenFile(mark, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil { // of two that claim one name the first has it, and its mark
		return nil, fmt.Errorf("mark namespace of %s: %w", member, err)
	}
	if err := f.Close(); err != nil {
		return nil, errors.Join(err, os.Remove(mark))
	}
	ns, err := netns.Create(netnsName(lab, member))
	if err != nil { // nothing was made, or it is somebody else's: never ours to remove
		err = errors.Join(err, os.Remove(mark))
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
