// Package testenv gives tests that need a real kernel a network of their own
// and refuses to let them near any other. What a test needs and the machine
// lacks skips the test, and fails it where BRINDLE_CI=1 says that it must run.
package testenv

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/brindle-net/brindle/internal/netns"
)

// NeedRoot skips the test without root; under BRINDLE_CI=1 it fails instead.
func NeedRoot(t testing.TB) {
	t.Helper()
	if os.Geteuid() != 0 {
		unavailable(t, "needs root for network namespaces")
	}
}

// NeedProgram returns the path of a program that the test runs. Administrators'
// folders are searched too. In the virtual machines of `make vm-test`, which
// hold no programs, the test is skipped: it runs outside.
func NeedProgram(t testing.TB, name string) string {
	t.Helper()
	if path, err := exec.LookPath(name); err == nil {
		return path
	}
	for _, dir := range []string{"/usr/local/sbin", "/usr/sbin", "/sbin", "/usr/lib/frr", "/usr/lib/cni"} {
		if path := filepath.Join(dir, name); unix.Access(path, unix.X_OK) == nil {
			return path
		}
	}
	if os.Getenv("BRINDLE_VM") != "" {
		t.Skip("needs the program " + name + ", which no virtual machine has")
	}
	unavailable(t, "needs the program "+name)
	return name // not reached: the test has ended
}

// unavailable ends a test that cannot run here.
func unavailable(t testing.TB, why string) {
	t.Helper()
	if os.Getenv("BRINDLE_CI") == "1" {
		t.Fatalf("%s (BRINDLE_CI=1: this test must run)", why)
	} else {
		t.Skip(why)
	}
}

// NetNS returns a fresh nameless namespace with lo up. It goes away at the end
// of the test, or with the process.
func NetNS(t testing.TB) *netns.NS {
	t.Helper()
	NeedRoot(t)
	ns, err := netns.New()
	return adopt(t, ns, err, nil)
}

// NamedNS is NetNS with a name, for programs that want one. The name is
// prefix and a number that no other namespace has.
func NamedNS(t testing.TB, prefix string) (*netns.NS, string) {
	t.Helper()
	NeedRoot(t)
	for i := 0; ; i++ {
		name := fmt.Sprintf("%s-%d-%d", prefix, os.Getpid(), i)
		ns, err := netns.Create(name)
		if errors.Is(err, os.ErrExist) {
			continue
		}
		return adopt(t, ns, err, func() error { return netns.Delete(name) }), name
	}
}

func adopt(t testing.TB, ns *netns.NS, err error, remove func() error) *netns.NS {
	t.Helper()
	if errors.Is(err, unix.EPERM) {
		unavailable(t, err.Error())
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if remove != nil {
			if err := remove(); err != nil {
				t.Error(err)
			}
		}
		if err := ns.Close(); err != nil {
			t.Error(err)
		}
	})
	Do(t, ns, loopbackUp)
	return ns
}

// aloneInMachine reports whether this is a machine of `make vm-test`: its first
// process started this one, and what it was told to run lies at the root.
func aloneInMachine() bool {
	_, err := os.Stat("/job.json")
	return err == nil && os.Getenv("BRINDLE_VM") != "" && os.Getppid() == 1
}

// Guard returns an error unless ns is provably a namespace that this process
// made itself, by two signs: the handle is the one that the maker returned,
// and the namespace is not the one that the caller is in. Whatever is
// about to change a network in a test asks it first. In a virtual machine that
// runs nothing but the test, its own namespaces are as good.
func Guard(ns *netns.NS) error {
	switch {
	case ns == nil:
		return errors.New("refused: no namespace given")
	case aloneInMachine():
		return nil
	case !ns.Made():
		return errors.New("refused: this process did not make the namespace")
	}
	home, err := netns.Current()
	if err != nil {
		return fmt.Errorf("refused: cannot tell the namespace from our own: %w", err)
	}
	defer home.Close()
	if home.ID() == ns.ID() {
		return errors.New("refused: the namespace is our own")
	}
	return nil
}

// Do calls f in ns, which must pass Guard, and ends the test if f fails. f
// itself must not call t.Fatal.
func Do(t testing.TB, ns *netns.NS, f func() error) {
	t.Helper()
	if err := Guard(ns); err != nil {
		t.Fatal(err)
	}
	if err := netns.Do(ns, f); err != nil {
		t.Fatal(err)
	}
}

// Run runs a program in ns and returns what it printed. The test ends if the
// program fails.
func Run(t testing.TB, ns *netns.NS, cmd ...string) string {
	t.Helper()
	out, err := TryRun(t, ns, cmd...)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// TryRun is Run for a program that may fail: the error holds its output.
func TryRun(t testing.TB, ns *netns.NS, cmd ...string) (string, error) {
	t.Helper()
	if err := Guard(ns); err != nil {
		t.Fatal(err)
	}
	path := NeedProgram(t, cmd[0])
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	var out strings.Builder
	c := exec.CommandContext(ctx, path, cmd[1:]...)
	c.Stdout, c.Stderr = &out, &out
	if err := netns.Do(ns, c.Start); err != nil {
		return "", fmt.Errorf("start %s: %w", strings.Join(cmd, " "), err)
	}
	if err := c.Wait(); err != nil {
		return out.String(), fmt.Errorf("%s: %w\n%s", strings.Join(cmd, " "), err, out.String())
	}
	return out.String(), nil
}

// Until calls f until it returns nil, at most for limit, and ends the test
// with f's last error otherwise. It is for worlds that have no fake clock: a
// kernel, another process.
func Until(t testing.TB, limit time.Duration, f func() error) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	deadline := time.After(limit)
	for {
		err := f()
		if err == nil {
			return
		}
		select {
		case <-deadline:
			t.Fatalf("not within %v: %v", limit, err)
		case <-tick.C:
		}
	}
}

// loopbackUp brings up lo in the calling thread's namespace.
func loopbackUp() error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("bring up lo: %w", err)
	}
	defer unix.Close(fd)
	ifr, err := unix.NewIfreq("lo")
	if err != nil {
		return fmt.Errorf("bring up lo: %w", err)
	}
	ifr.SetUint16(unix.IFF_UP)
	if err := unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, ifr); err != nil {
		return fmt.Errorf("bring up lo: %w", err)
	}
	return nil
}
