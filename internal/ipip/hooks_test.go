package ipip

import (
	"errors"
	"testing"

	"github.com/cilium/ebpf"
)

// hooksOf says whether the kernel has hooks for programs on interfaces.
func hooksOf(t *testing.T, h *host) bool {
	t.Helper()
	err := h.carrier.hooks().within(func() error {
		_, err := hooked(place{index: 1})
		return err
	})
	if err != nil && !errors.Is(err, ebpf.ErrNotSupported) {
		t.Fatal(err)
	}
	return err == nil
}

// TestBareTrafficGoesOn takes the programs away and puts them back under a
// stream of packets that no tunnel carries. None may be lost. IPv4 only: the
// interface below sends both families alike.
func TestBareTrafficGoesOn(t *testing.T) {
	w := newWorld(t, carried, carried)
	if !hooksOf(t, w.a) {
		t.Log("not tried: before Linux 6.6, interfaces drop packets while programs are attached for the first time")
		return
	}
	echo(t, w.b.ns, 7)
	if err := ask(t, w.a.ns, w.b.node, 7, 100); err != nil {
		t.Fatal(err)
	}
	stop := stream(t, w.a.ns, w.b.node)
	for range amount(8) {
		for _, h := range []*host{w.a, w.b} {
			if err := h.carrier.Remove(); err != nil {
				t.Fatal(err)
			}
			h.reopen(t)
		}
		w.a.sync(t, w.b.node)
		w.b.sync(t, w.a.node)
	}
	if err := stop(); err != nil {
		t.Error(err)
	}
}

// TestFiltersAreTakenOver finds programs attached as filters of traffic
// control, as kernels before 6.6 have them and an older agent left them, and
// goes on with those. Everything of theirs goes in the end.
func TestFiltersAreTakenOver(t *testing.T) {
	w := newWorld(t, carried, carried)
	echo(t, w.b.pod, 7)
	for _, h := range []*host{w.a, w.b} {
		eth0, err := readLink(h.carrier.conn, "eth0")
		if err != nil {
			t.Fatal(err)
		}
		for p, program := range map[place]*ebpf.Program{
			{index: eth0.index}: h.carrier.programs.DecapsulateEthernet, {index: h.carrier.settings.index, egress: true}: h.carrier.programs.Encapsulate,
		} {
			if err := errors.Join(h.carrier.hooks().detach(p), attachFilter(h.carrier.conn, p, program)); err != nil {
				t.Fatal(err)
			}
		}
		h.reopen(t)
	}
	w.a.sync(t, w.b.node)
	w.b.sync(t, w.a.node)
	for _, size := range []int{100, 5000} {
		if err := ask(t, w.a.pod, w.b.workload, 7, size); err != nil {
			t.Error(err)
		}
	}
	for _, h := range []*host{w.a, w.b} {
		filters, err := findFilters(h.carrier.conn)
		if err != nil || len(filters) != 2 {
			t.Errorf("filters at %v, %v; want those there were", filters, err)
		}
		if err := h.carrier.Remove(); err != nil {
			t.Error(err)
		}
		if places, err := h.carrier.hooks().places(); err != nil || len(places) > 0 {
			t.Errorf("left behind: %v, %v", places, err)
		}
	}
}
