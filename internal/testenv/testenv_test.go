package testenv

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/brindle-net/brindle/internal/netns"
)

func TestGuardRefusesWhatItDidNotMake(t *testing.T) {
	ns := NetNS(t)
	again, err := netns.OpenPath(ns.Path())
	if err != nil {
		t.Fatal(err)
	}
	defer again.Close()
	here, err := netns.Current()
	if err != nil {
		t.Fatal(err)
	}
	defer here.Close()
	cases := []struct {
		name string
		in   *netns.NS
		want string // "" means allowed
	}{
		{"made here", ns, ""},
		{"none", nil, "no namespace"},
		{"the process's own", here, "did not make"},
		{"made here but opened by path", again, "did not make"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			err := Guard(c.in)
			if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
				t.Errorf("Guard = %v, want %q", err, c.want)
			}
		})
	}
}

func TestNamedNSGoesAway(t *testing.T) {
	var name string
	t.Run("inside", func(t *testing.T) {
		var ns *netns.NS
		ns, name = NamedNS(t, "brindle-env")
		if out := Run(t, ns, "ip", "netns", "list"); !strings.Contains(out, name) {
			t.Errorf("ip netns list says %q, want %s in it", out, name)
		}
	})
	if _, err := netns.Open(name); err == nil {
		t.Errorf("%s is still there", name)
	}
}

// fake records how a helper ended its test.
type fake struct {
	testing.TB
	skipped, failed bool
}

func (f *fake) Helper()               {}
func (f *fake) Skip(...any)           { f.skipped = true }
func (f *fake) Fatalf(string, ...any) { f.failed = true }

func TestMissingThingsFailInCI(t *testing.T) {
	for _, c := range []struct {
		name, env string
		want      fake
	}{
		{"on a desk", "", fake{skipped: true}},
		{"in CI", "1", fake{failed: true}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Setenv("BRINDLE_CI", c.env)
			var f fake
			NeedProgram(&f, "no-such-program-anywhere")
			if f != c.want {
				t.Errorf("got %+v, want %+v", f, c.want)
			}
		})
	}
}

func TestUntilWaits(t *testing.T) {
	n := 0
	Until(t, time.Minute, func() error {
		if n++; n < 3 {
			return errors.New("not yet")
		}
		return nil
	})
	if n != 3 {
		t.Errorf("called %d times", n)
	}
}

func TestFamilies(t *testing.T) {
	var got []string
	EachFamily(t, func(t *testing.T, f Family) {
		s := f.String()
		if f.HasV4() {
			s += "+4"
		}
		if f.HasV6() {
			s += "+6"
		}
		got = append(got, s)
	})
	if s := strings.Join(got, " "); s != "v4+4 v6+6 dual+4+6" {
		t.Errorf("got %s", s)
	}
}
