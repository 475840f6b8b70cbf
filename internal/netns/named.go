package netns

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// Create makes a namespace with a name, as `ip netns add` does. The error
// wraps os.ErrExist when the name is taken. The namespace stays until Delete,
// also when this process dies.
func Create(name string) (*NS, error) {
	if err := CheckName(name); err != nil {
		return nil, err
	}
	if err := shareDir(); err != nil {
		return nil, fmt.Errorf("create network namespace %s: %w", name, err)
	}
	// The empty file reserves the name and is what the mount goes onto.
	spot, err := os.OpenFile(Path(name), os.O_RDONLY|os.O_CREATE|os.O_EXCL, 0)
	if err != nil {
		return nil, fmt.Errorf("create network namespace: %w", err)
	}
	if err := spot.Close(); err != nil {
		return nil, errors.Join(fmt.Errorf("create network namespace %s: %w", name, err), os.Remove(Path(name)))
	}
	var made *NS
	err = fresh(func() (err error) {
		if err := unix.Mount(threadPath, Path(name), "none", unix.MS_BIND, ""); err != nil {
			return fmt.Errorf("mount: %w", err)
		}
		made, err = Current()
		return err
	})
	if err != nil {
		return nil, errors.Join(fmt.Errorf("create network namespace %s: %w", name, err), Delete(name))
	}
	made.made = true
	return made, nil
}

// Delete removes a name, as `ip netns delete` does; the namespace itself goes
// with its last user. The error wraps os.ErrNotExist when there is no such
// name.
func Delete(name string) error {
	if err := CheckName(name); err != nil {
		return err
	}
	// EINVAL: a file without a mount, left by somebody who died in Create.
	err := unix.Unmount(Path(name), unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW)
	if err != nil && !errors.Is(err, unix.EINVAL) {
		return fmt.Errorf("delete network namespace %s: unmount: %w", name, err)
	}
	if err := os.Remove(Path(name)); err != nil {
		return fmt.Errorf("delete network namespace: %w", err)
	}
	return nil
}

// shareDir makes Dir a mount that is shared between mount namespaces, so that
// a namespace deleted in one of them goes from all. Creators on this machine
// take turns by a lock on the folder, as `ip netns` does.
func shareDir() error {
	if err := os.MkdirAll(Dir, 0o755); err != nil {
		return err
	}
	dir, err := os.Open(Dir)
	if err != nil {
		return err
	}
	defer dir.Close() // releases the lock
	if err := unix.Flock(int(dir.Fd()), unix.LOCK_EX); err != nil {
		return fmt.Errorf("lock %s: %w", Dir, err)
	}
	err = unix.Mount("", Dir, "none", unix.MS_SHARED|unix.MS_REC, "")
	if errors.Is(err, unix.EINVAL) { // not a mount yet: make it one
		if err := unix.Mount(Dir, Dir, "none", unix.MS_BIND|unix.MS_REC, ""); err != nil {
			return fmt.Errorf("mount %s on itself: %w", Dir, err)
		}
		err = unix.Mount("", Dir, "none", unix.MS_SHARED|unix.MS_REC, "")
	}
	if err != nil {
		return fmt.Errorf("share %s: %w", Dir, err)
	}
	return nil
}
