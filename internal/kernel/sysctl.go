package kernel

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/brindle-net/brindle/internal/reconcile"
)

const sysctlRoot = "/proc/sys/"

// Sysctls asserts global network settings. Keys are names with slashes below
// net/, which is what belongs to a network namespace: "net/ipv4/ip_forward".
// Nothing is remembered: a setting that is no longer wanted keeps its value.
type Sysctls struct {
	k *Kernel

	mu    sync.Mutex        // guards everything below
	known map[string]string // what was last asked for
}

// Sysctls returns the table of global settings.
func (k *Kernel) Sysctls() *Sysctls { return &Sysctls{k: k, known: map[string]string{}} }

// List reads the settings that were ever applied; others are not ours.
func (s *Sysctls) List(context.Context) (map[string]string, error) {
	s.mu.Lock()
	known := slices.Sorted(maps.Keys(s.known))
	s.mu.Unlock()
	have := map[string]string{}
	err := s.k.inside(func() error {
		for _, name := range known {
			value, err := readSysctl(name)
			if errors.Is(err, os.ErrNotExist) {
				continue
			}
			if err != nil {
				return err
			}
			have[name] = value
		}
		return nil
	})
	return have, err
}

// Apply writes the settings that differ. Deleting one means no more than to
// stop looking at it.
func (s *Sysctls) Apply(_ context.Context, p reconcile.Plan[string, string]) map[string]error {
	s.mu.Lock()
	for _, e := range p.Set {
		s.known[e.Key] = e.Value
	}
	for _, name := range p.Delete {
		delete(s.known, name)
	}
	s.mu.Unlock()
	failed := map[string]error{}
	err := s.k.inside(func() error {
		for _, e := range p.Set {
			if err := assertSysctl(e.Key, e.Value); err != nil {
				failed[e.Key] = err
			}
		}
		return nil
	})
	if err != nil {
		for _, e := range p.Set {
			failed[e.Key] = err
		}
	}
	return failed
}

// assertSysctl writes a setting of the calling thread's namespace unless it
// has the value already: writing some of them has effects even when nothing
// changes.
func assertSysctl(name, value string) error {
	have, err := readSysctl(name)
	if err != nil || have == value {
		return err
	}
	return writeSysctl(name, value)
}

// writeSysctl writes a setting of the calling thread's namespace.
func writeSysctl(name, value string) error {
	if err := checkSysctl(name); err != nil {
		return err
	}
	if err := writeSmall(sysctlRoot+name, value); err != nil {
		return fmt.Errorf("set sysctl %s to %s: %w", name, value, err)
	}
	return nil
}

// readSysctl reads a setting of the calling thread's namespace.
func readSysctl(name string) (string, error) {
	if err := checkSysctl(name); err != nil {
		return "", err
	}
	value, err := readSmall(sysctlRoot + name)
	if err != nil {
		return "", fmt.Errorf("read sysctl %s: %w", name, err)
	}
	return value, nil
}

// readSmall reads a file of one line. It makes three system calls: the
// settings of some hundred links are thousands of files.
func readSmall(path string) (string, error) {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return "", err
	}
	defer unix.Close(fd)
	var buf [4096]byte // the kernel's own limit for a setting
	n, err := unix.Read(fd, buf[:])
	if err != nil {
		return "", err
	}
	return string(bytes.TrimSpace(buf[:n])), nil
}

// writeSmall writes a file that exists, likewise.
func writeSmall(path, value string) error {
	fd, err := unix.Open(path, unix.O_WRONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	_, err = unix.Write(fd, []byte(value))
	return err
}

// checkSysctl keeps names inside net/: nothing else belongs to a network
// namespace, and a name must never climb out.
func checkSysctl(name string) error {
	if !strings.HasPrefix(name, "net/") || slices.Contains(strings.Split(name, "/"), "..") {
		return fmt.Errorf("sysctl %q: must be below net/", name)
	}
	return nil
}

// linkSysctls returns the files and values for the lines of a link's settings
// (desired.SysctlLines). Settings of IPv6 are left out where the kernel runs
// without it.
func linkSysctls(link, lines string) (map[string]string, error) {
	out := map[string]string{}
	v6 := hasIPv6()
	for line := range strings.Lines(lines) {
		name, value, ok := strings.Cut(strings.TrimSuffix(line, "\n"), "=")
		parts := strings.Split(name, "/")
		if !ok || len(parts) != 3 {
			return nil, fmt.Errorf("sysctl line %q of %s: must be family/kind/name=value", line, link)
		}
		if strings.ContainsRune(link, '/') {
			return nil, fmt.Errorf("interface name %q: must not contain a slash", link)
		}
		if parts[0] == "ipv6" && !v6 {
			continue
		}
		out["net/"+parts[0]+"/"+parts[1]+"/"+link+"/"+parts[2]] = value
	}
	return out, nil
}

// hasIPv6 reports whether the kernel has IPv6 at all. It is asked once: that
// does not change while it runs.
var hasIPv6 = sync.OnceValue(func() bool {
	_, err := os.Stat(sysctlRoot + "net/ipv6")
	return err == nil
})

// assertAll asserts settings in the order of their names. All are tried.
func assertAll(settings map[string]string) error { return eachSetting(settings, assertSysctl) }

// writeAll writes settings that are known to differ.
func writeAll(settings map[string]string) error { return eachSetting(settings, writeSysctl) }

func eachSetting(settings map[string]string, f func(name, value string) error) error {
	var errs []error
	for _, name := range slices.Sorted(maps.Keys(settings)) {
		errs = append(errs, f(name, settings[name]))
	}
	return errors.Join(errs...)
}
