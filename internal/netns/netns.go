// Package netns makes, finds and enters Linux network namespaces. Named ones
// are kept where ip-netns(8) keeps them, so that `ip netns` and this package
// see the same namespaces; nameless ones live as long as somebody holds them.
package netns

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// Dir is where named namespaces are, one bind mount each (ip-netns(8)).
const Dir = "/run/netns"

// threadPath names the network namespace of the calling thread.
const threadPath = "/proc/thread-self/ns/net"

// ErrNotNamespace says that a path exists and is no network namespace.
var ErrNotNamespace = errors.New("not a network namespace")

// An ID tells network namespaces apart: two handles are of one namespace when
// their IDs are equal (namespaces(7)). It may be reused after the namespace
// has gone.
type ID struct {
	Dev, Inode uint64
}

// NS is an open network namespace. It keeps the namespace alive until Close.
type NS struct {
	file *os.File
	id   ID
	made bool
}

// OpenPath opens the namespace at path: a bind mount or an entry of
// /proc/PID/ns or /proc/PID/fd. The error wraps ErrNotNamespace when path is
// something else.
func OpenPath(path string) (*NS, error) {
	file, err := os.OpenFile(path, os.O_RDONLY|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("open network namespace: %w", err)
	}
	ns, err := fromFile(file)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open network namespace %s: %w", path, err), file.Close())
	}
	return ns, nil
}

// Open opens a namespace by the name that `ip netns` shows.
func Open(name string) (*NS, error) {
	if err := CheckName(name); err != nil {
		return nil, err
	}
	return OpenPath(Path(name))
}

// Current opens the namespace of the calling thread.
func Current() (*NS, error) { return OpenPath(threadPath) }

// fromFile checks that file is a network namespace: the kernel alone makes
// files of that filesystem and answers NS_GET_NSTYPE (ioctl_nsfs(2)).
func fromFile(file *os.File) (*NS, error) {
	kind, err := unix.IoctlRetInt(int(file.Fd()), unix.NS_GET_NSTYPE)
	if err != nil || kind != unix.CLONE_NEWNET {
		return nil, ErrNotNamespace
	}
	var st unix.Stat_t
	if err := unix.Fstat(int(file.Fd()), &st); err != nil {
		return nil, fmt.Errorf("stat: %w", err)
	}
	return &NS{file: file, id: ID{Dev: st.Dev, Inode: st.Ino}}, nil
}

// FD returns the file descriptor, valid until Close.
func (ns *NS) FD() int { return int(ns.file.Fd()) }

// ID returns the identity of the namespace.
func (ns *NS) ID() ID { return ns.id }

// Made reports whether this handle came from New or Create, that is, whether
// this process made the namespace itself.
func (ns *NS) Made() bool { return ns.made }

// Path returns a path by which any process of this machine's PID namespace
// can open the namespace while ns is open.
func (ns *NS) Path() string { return fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), ns.FD()) }

// Close lets go of the namespace. The kernel destroys it with the last handle,
// mount and process.
func (ns *NS) Close() error { return ns.file.Close() }

// New makes a namespace without a name, for as long as it is open. Nothing of
// it outlives this process.
func New() (*NS, error) {
	var made *NS
	err := fresh(func() (err error) {
		made, err = Current()
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("make a network namespace: %w", err)
	}
	made.made = true
	return made, nil
}

// Do calls f on a thread that is in ns. f must not start goroutines that need
// the namespace, and must not call runtime.Goexit (so not t.Fatal); a process
// that it starts is born in ns. Do returns f's error, or why ns could not be
// entered.
func Do(ns *NS, f func() error) error {
	return onThread(func() error {
		if err := unix.Setns(ns.FD(), unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("enter network namespace: %w", err)
		}
		return f()
	})
}

// fresh calls f on a thread that is in a new namespace.
func fresh(f func() error) error {
	return onThread(func() error {
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("unshare: %w", err)
		}
		return f()
	})
}

// onThread calls f on a thread of its own and puts the thread's namespace back
// afterwards. A thread that cannot be put back dies with its goroutine, so
// that no other goroutine ever runs in the wrong namespace. The process's
// first thread never leaves: /proc/PID/ns/net, by which others find this
// process's namespace, shows that thread's.
func onThread(f func() error) error {
	done := make(chan error, 1)
	go func() {
		err := errors.New("the function ended its goroutine")
		defer func() { done <- err }()
		runtime.LockOSThread()
		if unix.Gettid() == unix.Getpid() {
			err = onThread(f) // on another, because this one is held meanwhile
			runtime.UnlockOSThread()
			return
		}
		home, openErr := os.Open(threadPath)
		if openErr != nil {
			runtime.UnlockOSThread()
			err = fmt.Errorf("note the current network namespace: %w", openErr)
			return
		}
		defer home.Close()
		defer func() {
			if unix.Setns(int(home.Fd()), unix.CLONE_NEWNET) == nil {
				runtime.UnlockOSThread()
			}
		}()
		err = f()
	}()
	return <-done
}

// Path returns where the namespace of that name is, or would be.
func Path(name string) string { return filepath.Join(Dir, name) }

// CheckName says whether a name can be that of a namespace: one path element.
func CheckName(name string) error {
	if name == "" || name == "." || name == ".." || len(name) > unix.NAME_MAX || strings.ContainsAny(name, "/\x00") {
		return fmt.Errorf("network namespace name %q: must be one path element of 1 to %d bytes", name, unix.NAME_MAX)
	}
	return nil
}

// List returns the names of all named namespaces, sorted.
func List() ([]string, error) {
	entries, err := os.ReadDir(Dir)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list network namespaces: %w", err)
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	slices.Sort(names)
	return names, nil
}
