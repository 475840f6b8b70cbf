package ipip

import (
	"testing"

	"github.com/brindle-net/brindle/internal/kernel/rtnl"
	"github.com/brindle-net/brindle/internal/netns"
	"github.com/brindle-net/brindle/internal/testenv"
)

func TestTry(t *testing.T) {
	ns := testenv.NetNS(t)
	if _, err := Try(ns); err != nil {
		t.Fatal(err)
	}
	conn, err := rtnl.Dial(ns)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if left, err := (hooks{conn, ns}).places(); err != nil || len(left) > 0 {
		t.Errorf("%v: left behind: %v", err, left)
	}
	home, err := netns.Current()
	if err != nil {
		t.Fatal(err)
	}
	defer home.Close()
	if _, err := Try(home); err == nil {
		t.Error("it tried in a namespace that it was not made for")
	}
}
