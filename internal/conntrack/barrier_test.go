package conntrack

import (
	"errors"
	"testing"
	"time"
)

// TestBarrier: there is one on the machines that tests run on, unless it says
// why not, and it is no longer than a look may wait.
func TestBarrier(t *testing.T) {
	begin := time.Now()
	if err := Barrier(); err != nil && !errors.Is(err, ErrNoBarrier) {
		t.Error(err)
	}
	t.Logf("took %v", time.Since(begin))
}
