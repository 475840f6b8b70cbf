package kernel

import (
	"errors"
	"strings"
	"testing"

	"github.com/brindle-net/brindle/internal/testenv"
)

// TestTxChecksum switches the offload of a tunnel's interface. It has nothing
// to do with a family.
func TestTxChecksum(t *testing.T) {
	testenv.NeedRoot(t)
	ns := testenv.NetNS(t)
	k, err := Open(Config{Netns: ns.Path()})
	if err != nil {
		t.Fatal(err)
	}
	defer k.Close()
	testenv.Run(t, ns, "ip", "link", "add", "vx", "type", "vxlan", "id", "7", "dstport", "4789", "local", "127.0.0.1")
	for _, on := range []bool{true, false, false, true} {
		if err := k.SetTxChecksum("vx", on); err != nil {
			t.Fatal(err)
		}
		if got, err := k.TxChecksum("vx"); err != nil || got != on {
			t.Errorf("got %v (%v), want %v", got, err, on)
		}
	}
	for _, name := range []string{"gone", "", strings.Repeat("x", 16)} {
		if _, err := k.TxChecksum(name); err == nil || errors.Is(err, ErrNoLink) != (name == "gone") {
			t.Errorf("%q: got %v", name, err)
		}
		if err := k.SetTxChecksum(name, true); err == nil || errors.Is(err, ErrNoLink) != (name == "gone") {
			t.Errorf("set %q: got %v", name, err)
		}
	}
}

func TestBrokenBefore(t *testing.T) {
	for release, want := range map[string]bool{
		"4.18.0-553.el8.x86_64": true, "5.4.0-91-generic": true, "5.7.19": true, "5.8.0": false, "5.10.0-30-amd64": false,
		"6.1.0-28-amd64": false, "6.18.44": false, "": false, "next": false,
	} {
		if got := brokenBefore(release); got != want {
			t.Errorf("%q: got %v, want %v", release, got, want)
		}
	}
}
