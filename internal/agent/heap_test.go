package agent

import (
	"runtime"
	"runtime/debug"
	"testing"
	"time"
)

func TestGCPercent(t *testing.T) {
	for _, tc := range []struct {
		name        string
		live, floor uint64
		want        int
	}{
		{"nothing is known yet", 0, 20 << 20, 1900},
		{"a fifth of the floor", 4 << 20, 20 << 20, 400},
		{"half the floor", 10 << 20, 20 << 20, 100},
		{"more than half", 15 << 20, 20 << 20, 100},
		{"more than the floor", 200 << 20, 20 << 20, 100},
		{"no floor", 4 << 20, 0, 100},
		{"a floor without measure", 1 << 20, 1 << 40, 2000},
	} {
		if got := gcPercent(tc.live, tc.floor); got != tc.want {
			t.Errorf("%s: %d, want %d", tc.name, got, tc.want)
		}
	}
}

// The goal follows what lives: it falls after a round that found more.
func TestKeepHeapFloor(t *testing.T) {
	percent := func() uint64 { return gauge("/gc/gogc:percent") }
	until := func(what string, ok func(p uint64) bool) {
		t.Helper()
		deadline := time.Now().Add(10 * time.Second) // against hanging, not a measure
		for !ok(percent()) {
			if time.Now().After(deadline) {
				t.Fatalf("%s: the goal is at %d %%", what, percent())
			}
			runtime.GC()
		}
	}
	stop := KeepHeapFloor(64 << 20)
	until("little lives", func(p uint64) bool { return p > 200 })
	much := make([]byte, 64<<20)
	until("much lives", func(p uint64) bool { return p == 100 })
	runtime.KeepAlive(much)
	until("little lives again", func(p uint64) bool { return p > 200 })
	stop()
	runtime.GC()
	if p := percent(); p != 100 {
		t.Errorf("%d %% after the end", p)
	}
	debug.SetGCPercent(300)
	defer debug.SetGCPercent(100)
	KeepHeapFloor(64 << 20)()
	if p := percent(); p != 300 {
		t.Errorf("a setting of the user's became %d %%", p)
	}
}
