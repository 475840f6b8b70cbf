package netns_test

import (
	"errors"
	"fmt"
	"net"
	"os"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/brindle-net/brindle/internal/netns"
	"github.com/brindle-net/brindle/internal/testenv"
)

func TestNamedLifeCycle(t *testing.T) {
	testenv.NeedRoot(t)
	name := fmt.Sprintf("brindle-test-%d", os.Getpid())
	ns, err := netns.Create(name)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ns.Close() })
	t.Cleanup(func() { netns.Delete(name) }) // when the test ends early
	if _, err := netns.Create(name); !errors.Is(err, os.ErrExist) {
		t.Errorf("second Create: %v, want it to wrap os.ErrExist", err)
	}
	again, err := netns.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { again.Close() })
	if again.ID() != ns.ID() || !ns.Made() || again.Made() {
		t.Errorf("opened %v made=%v, created %v made=%v", again.ID(), again.Made(), ns.ID(), ns.Made())
	}
	if out := testenv.Run(t, ns, "ip", "netns", "list"); !strings.Contains(out, name) {
		t.Errorf("ip netns list shows %q, want %s in it", out, name)
	}
	if out := testenv.Run(t, ns, "ip", "-n", name, "link"); !strings.Contains(out, "lo") {
		t.Errorf("ip -n %s link: %s", name, out)
	}
	if names, err := netns.List(); err != nil || !slices.Contains(names, name) {
		t.Errorf("List: %v, %v", names, err)
	}
	if err := netns.Delete(name); err != nil {
		t.Fatal(err)
	}
	if err := netns.Delete(name); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("second Delete: %v, want it to wrap os.ErrNotExist", err)
	}
	if _, err := netns.Open(name); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("Open after Delete: %v", err)
	}
}

func TestNamespaceOfIPNetns(t *testing.T) {
	host := testenv.NetNS(t)
	name := fmt.Sprintf("brindle-ip-%d", os.Getpid())
	testenv.Run(t, host, "ip", "netns", "add", name)
	ns, err := netns.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	defer ns.Close()
	if err := netns.Delete(name); err != nil {
		t.Fatal(err)
	}
	if out := testenv.Run(t, host, "ip", "netns", "list"); strings.Contains(out, name) {
		t.Errorf("still listed: %s", out)
	}
}

func TestLeftOverFileIsDeleted(t *testing.T) {
	testenv.NeedRoot(t)
	name := fmt.Sprintf("brindle-dead-%d", os.Getpid())
	if err := os.MkdirAll(netns.Dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(netns.Path(name), nil, 0); err != nil {
		t.Fatal(err)
	}
	if _, err := netns.Open(name); !errors.Is(err, netns.ErrNotNamespace) {
		t.Errorf("Open: %v, want ErrNotNamespace", err)
	}
	if err := netns.Delete(name); err != nil {
		t.Fatal(err)
	}
}

func TestNames(t *testing.T) {
	cases := []struct {
		name, in string
		want     bool
	}{
		{"plain", "h1", true},
		{"dots inside", "a.b..c", true},
		{"empty", "", false},
		{"this folder", ".", false},
		{"folder above", "..", false},
		{"separator", "a/b", false},
		{"climbing", "../x", false},
		{"nul", "a\x00b", false},
		{"too long", strings.Repeat("a", 256), false},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			if err := netns.CheckName(c.in); (err == nil) != c.want {
				t.Errorf("CheckName(%q) = %v", c.in, err)
			}
		})
	}
}

func TestOpenPathRefusesOtherThings(t *testing.T) {
	for _, path := range []string{"/proc/self/ns/mnt", "/proc/self/status", "/dev/null", "/"} {
		if _, err := netns.OpenPath(path); !errors.Is(err, netns.ErrNotNamespace) {
			t.Errorf("OpenPath(%s) = %v, want ErrNotNamespace", path, err)
		}
	}
}

func TestDoEntersAndComesBack(t *testing.T) {
	ns := testenv.NetNS(t)
	home, err := netns.Current()
	if err != nil {
		t.Fatal(err)
	}
	defer home.Close()
	var inside netns.ID
	var links []net.Interface
	err = netns.Do(ns, func() (err error) {
		here, err := netns.Current()
		if err != nil {
			return err
		}
		inside = here.ID()
		links, err = net.Interfaces()
		return errors.Join(err, here.Close())
	})
	if err != nil {
		t.Fatal(err)
	}
	if inside != ns.ID() || len(links) != 1 || links[0].Flags&net.FlagUp == 0 {
		t.Errorf("inside %v with %v, want %v with lo up", inside, links, ns.ID())
	}
	byPath, err := netns.OpenPath(ns.Path())
	if err != nil || byPath.ID() != ns.ID() {
		t.Fatalf("OpenPath(%s): %v", ns.Path(), err)
	}
	defer byPath.Close()
}

func TestDoSurvivesGoexitAndErrors(t *testing.T) {
	ns := testenv.NetNS(t)
	if err := netns.Do(ns, func() error { runtime.Goexit(); return nil }); err == nil {
		t.Error("no error from a function that ended its goroutine")
	}
	want := errors.New("no")
	if err := netns.Do(ns, func() error { return want }); !errors.Is(err, want) {
		t.Errorf("got %v", err)
	}
}

// Threads go back to the runtime after Do: whoever runs on them next must
// find itself at home.
func TestNoThreadIsLeftAbroad(t *testing.T) {
	ns := testenv.NetNS(t)
	home, err := netns.Current()
	if err != nil {
		t.Fatal(err)
	}
	defer home.Close()
	var wg sync.WaitGroup
	for range 200 {
		wg.Go(func() {
			err := netns.Do(ns, func() error {
				if unix.Gettid() == os.Getpid() {
					return errors.New("on the process's first thread, by which others find its namespace")
				}
				return nil
			})
			if err != nil {
				t.Error(err)
			}
			here, err := netns.Current()
			if err != nil {
				t.Error(err)
				return
			}
			defer here.Close()
			if here.ID() != home.ID() {
				t.Error("a thread stayed abroad")
			}
		})
	}
	wg.Wait()
}
