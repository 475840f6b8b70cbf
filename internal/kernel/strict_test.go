package kernel

import (
	"slices"
	"testing"

	"github.com/brindle-net/brindle/internal/testenv"
)

// TestStrictPaths reads what the kernel makes of the two settings. IPv6 has
// none.
func TestStrictPaths(t *testing.T) {
	testenv.NeedRoot(t)
	ns := testenv.NetNS(t)
	k, err := Open(Config{Netns: ns.Path()})
	if err != nil {
		t.Fatal(err)
	}
	defer k.Close()
	for _, c := range []struct {
		all, own string
		strict   bool
	}{{"0", "0", false}, {"0", "1", true}, {"1", "0", true}, {"1", "1", true}, {"2", "1", false}, {"1", "2", false}, {"2", "0", false}} {
		testenv.Do(t, ns, func() error {
			if err := writeSysctl("net/ipv4/conf/all/rp_filter", c.all); err != nil {
				return err
			}
			return writeSysctl("net/ipv4/conf/lo/rp_filter", c.own)
		})
		got, err := k.StrictPaths([]string{"gone", "lo"})
		if want := c.strict; err != nil || slices.Contains(got, "lo") != want || slices.Contains(got, "gone") {
			t.Errorf("all %s, its own %s: got %v, %v; want %v", c.all, c.own, got, err, want)
		}
	}
}
