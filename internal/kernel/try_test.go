package kernel

import (
	"errors"
	"slices"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/brindle-net/brindle/internal/netns"
	"github.com/brindle-net/brindle/internal/testenv"
)

func TestTry(t *testing.T) {
	ns := testenv.NetNS(t)
	if err := TryLink(ns, "veth"); err != nil {
		t.Error(err)
	}
	if err := TryLink(ns, "vxlan"); err != nil {
		t.Error(err)
	}
	if err := TryLink(ns, "nosuchkind"); !errors.Is(err, unix.EOPNOTSUPP) {
		t.Errorf("a kind that no kernel has: %v", err)
	}
	// Where there is one of the kernel's own already, it is enough.
	if err := TryLink(ns, "ipip"); err != nil && !errors.Is(err, unix.EEXIST) && !errors.Is(err, unix.EOPNOTSUPP) {
		t.Error(err)
	}
	for _, family := range []int{4, 6} {
		if err := TryRule(ns, family); err != nil {
			t.Error(err)
		}
		if err := TryAddress(ns, family); err != nil {
			t.Error(err)
		}
	}
	k, err := Open(Config{Netns: ns.Path()})
	if err != nil {
		t.Fatal(err)
	}
	defer k.Close()
	links, err := k.Interfaces()
	if err != nil || slices.ContainsFunc(links, func(l Interface) bool { return l.Name == "try" || l.Name == "peer" }) {
		t.Errorf("%v: left behind: %+v", err, links)
	}
	home, err := netns.Current()
	if err != nil {
		t.Fatal(err)
	}
	defer home.Close()
	for _, err := range []error{TryLink(home, "dummy"), TryRule(home, 4), TryAddress(nil, 4)} {
		if err == nil {
			t.Error("it tried in a namespace that it was not made for")
		}
	}
}
