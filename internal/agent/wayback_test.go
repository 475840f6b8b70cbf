package agent

import (
	"log/slog"
	"maps"
	"net/netip"
	"slices"
	"testing"

	"github.com/brindle-net/brindle/internal/desired"
	"github.com/brindle-net/brindle/internal/kernel"
	"github.com/brindle-net/brindle/internal/model"
)

// streets are ways without a kernel.
type streets struct {
	strict []string
	ways   map[netip.Addr][]string // interfaces of the next hops
}

func (s *streets) Interfaces() ([]kernel.Interface, error) {
	both := []netip.Prefix{netip.MustParsePrefix("192.0.2.1/24"), netip.MustParsePrefix("2001:db8::1/64")}
	return []kernel.Interface{
		{Name: "lo", Loopback: true, Addresses: both}, {Name: "eth0", Addresses: both}, {Name: "eth1", Addresses: both},
		{Name: "eth2", Addresses: both[:1]}, {Name: "eth3", Addresses: both[1:]}, {Name: "port0"}, {Name: "cali1", Addresses: both},
		{Name: desired.DeviceVXLAN4, Addresses: both[:1]},
	}, nil
}

func (s *streets) StrictPaths(names []string) ([]string, error) {
	return slices.DeleteFunc(slices.Clone(s.strict), func(name string) bool { return !slices.Contains(names, name) }), nil
}

func (s *streets) Way(to netip.Addr) (kernel.Way, error) {
	names, ok := s.ways[to]
	if !ok {
		return kernel.Way{}, kernel.ErrNoRoute
	}
	var w kernel.Way
	for _, name := range names {
		w.Hops = append(w.Hops, kernel.Hop{Interface: name})
	}
	return w, nil
}

func TestWaysBack(t *testing.T) {
	one, two := netip.MustParseAddr("2001:db8:1::1"), netip.MustParseAddr("2001:db8:2::1")
	everything := []string{"lo", "eth0", "eth1", "eth2", "eth3", "port0", "cali1", desired.DeviceVXLAN4}
	four := func(names ...string) (out []desired.LinkFamily) {
		for _, name := range names {
			out = append(out, desired.LinkFamily{Interface: name, Family: 4})
		}
		return out
	}
	six := func(names ...string) (out []desired.LinkFamily) {
		for _, name := range names {
			out = append(out, desired.LinkFamily{Interface: name, Family: 6})
		}
		return out
	}
	for _, c := range []struct {
		name   string
		strict []string
		ways   map[netip.Addr][]string
		want   []desired.LinkFamily
	}{
		{"loose", nil, nil, nil},
		{"one", []string{"eth0"}, nil, slices.Concat(four("eth0"), six("eth0"))},
		{"each by its families, and the host's own alone", everything, nil, slices.Concat(four("eth0", "eth1", "eth2"), six("eth0", "eth1", "eth3"))},
		{"two next hops of one interface", []string{"eth0"}, map[netip.Addr][]string{one: {"eth0", "eth0"}}, slices.Concat(four("eth0"), six("eth0"))},
		{"two next hops", []string{"eth0", "eth1", "eth3"}, map[netip.Addr][]string{one: {"eth3"}, two: {"eth0", "eth1"}}, slices.Concat(four("eth0", "eth1"), six("eth3"))},
	} {
		w := newWaysBack(&streets{c.strict, c.ways}, model.Settings{}, slog.New(slog.DiscardHandler))
		w.note(desired.PolicyPatch{Hosts: desired.Patch[netip.Prefix, desired.Forms]{Set: map[netip.Prefix]desired.Forms{
			netip.PrefixFrom(one, 128): desired.FormsOf(desired.VXLAN), netip.PrefixFrom(two, 128): desired.FormsOf(desired.VXLAN),
		}}})
		select {
		case <-w.wake:
		default:
			t.Error("new hosts wake nobody")
		}
		got, err := w.strict()
		want := map[desired.LinkFamily]struct{}{}
		for _, l := range c.want {
			want[l] = struct{}{}
		}
		if err != nil || !maps.Equal(got, want) {
			t.Errorf("%s: got %v, %v; want %v", c.name, got, err, want)
		}
	}
}
