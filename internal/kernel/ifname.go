package kernel

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// nameSocket opens the socket by which the names of interfaces are asked for,
// in the calling thread's namespace.
func nameSocket() (int, error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, fmt.Errorf("open a socket for interface names: %w", err)
	}
	return fd, nil
}

// indexOf returns the number of an interface. The error wraps ErrNoLink when
// there is none of that name.
func indexOf(fd int, name string) (int, error) {
	ifr, err := unix.NewIfreq(name)
	if err != nil || name == "" {
		return 0, fmt.Errorf("interface name %q: must have 1 to %d bytes", name, unix.IFNAMSIZ-1)
	}
	err = unix.IoctlIfreq(fd, unix.SIOCGIFINDEX, ifr)
	if errors.Is(err, unix.ENODEV) {
		return 0, fmt.Errorf("%s: %w", name, ErrNoLink)
	}
	if err != nil {
		return 0, fmt.Errorf("number of interface %s: %w", name, err)
	}
	return int(ifr.Uint32()), nil
}

// nameOf returns the name of an interface by its number.
func nameOf(fd, index int) (string, error) {
	ifr, err := unix.NewIfreq("")
	if err != nil {
		return "", fmt.Errorf("name of interface %d: %w", index, err)
	}
	ifr.SetUint32(uint32(index))
	err = unix.IoctlIfreq(fd, unix.SIOCGIFNAME, ifr)
	if errors.Is(err, unix.ENODEV) {
		return "", fmt.Errorf("interface %d: %w", index, ErrNoLink)
	}
	if err != nil {
		return "", fmt.Errorf("name of interface %d: %w", index, err)
	}
	return ifr.Name(), nil
}

// names turns interface names into numbers and back for the length of one
// batch or one reading: each is asked for once.
type names struct {
	fd     int
	index  map[string]int
	byName map[int]string
}

func (k *Kernel) names() *names {
	return &names{fd: k.ioctl}
}

func (n *names) indexOf(name string) (int, error) {
	if i, ok := n.index[name]; ok {
		return i, nil
	}
	i, err := indexOf(n.fd, name)
	if err == nil {
		n.index = put(n.index, name, i)
	}
	return i, err
}

// nameOf returns "" for an interface that has gone meanwhile.
func (n *names) nameOf(index int) (string, error) {
	if s, ok := n.byName[index]; ok {
		return s, nil
	}
	s, err := nameOf(n.fd, index)
	if errors.Is(err, ErrNoLink) {
		err = nil
	}
	if err == nil {
		n.byName = put(n.byName, index, s)
	}
	return s, err
}

// put puts an entry into a map, which it makes if need be.
func put[K comparable, V any](m map[K]V, k K, v V) map[K]V {
	if m == nil {
		m = map[K]V{}
	}
	m[k] = v
	return m
}
