package agent

import (
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"sync"
)

// HeapFloor is the size to which an agent's heap grows before garbage is
// collected, in bytes. Most agents need less than that to live, and collected
// it anew every few workloads.
const HeapFloor = 20 << 20

// KeepHeapFloor makes the collector of this process wait until the heap has the
// given size. A heap that is half as large without garbage, or larger, is
// collected as ever: when it has doubled. It does nothing where GOGC says
// something else than usual. stop puts back what was.
func KeepHeapFloor(floor uint64) (stop func()) {
	const usual = 100
	if gauge("/gc/gogc:percent") != usual {
		return func() {}
	}
	f := &heapFloor{floor: floor, percent: usual}
	f.adjust(0)
	return func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		f.stopped = true
		debug.SetGCPercent(usual)
	}
}

// heapFloor sets the collector's goal anew after each of its rounds.
type heapFloor struct {
	floor uint64

	mu      sync.Mutex // guards everything below
	percent int
	stopped bool
}

// adjust sets the goal, and has itself called after the next round: that is
// when an object that nobody holds goes.
func (f *heapFloor) adjust(int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.stopped {
		return
	}
	// Setting it stops the world for a moment: not for a trifle.
	if p := gcPercent(gauge("/gc/heap/live:bytes"), f.floor); p > f.percent+f.percent/8 || p < f.percent-f.percent/8 {
		debug.SetGCPercent(p)
		f.percent = p
	}
	runtime.AddCleanup(new([64]byte), f.adjust, 0)
}

// gauge reads one of the runtime's own figures that is a whole number.
func gauge(name string) uint64 {
	sample := []metrics.Sample{{Name: name}}
	metrics.Read(sample)
	return sample[0].Value.Uint64()
}

// gcPercent is by how much a heap may grow until it is collected, in percent of
// what lives in it.
func gcPercent(live, floor uint64) int {
	const least, most = 100, 2000
	live = max(live, 1<<20)
	if floor <= live {
		return least
	}
	return int(min(max((floor-live)*100/live, least), most))
}
