package agent

import (
	"context"
	"time"
)

// mtuPeriod is how often the host's interfaces are looked at (documented
// Calico behaviour).
const mtuPeriod = 30 * time.Second

// measureMTU finds the MTU of workload interfaces: that of the smallest
// interface that counts.
func (a *agent) measureMTU() {
	mtu, err := a.kernel.HostMTU(a.cfg.Settings.Interfaces.MTUPattern)
	if err != nil {
		a.log.Warn("mtu not measured", "err", err)
		return
	}
	if old := a.mtu.Swap(int64(mtu)); old != int64(mtu) {
		a.log.Info("mtu of new workload interfaces", "mtu", mtu, "was", old)
	}
}

// watchMTU measures again and again: workloads that exist keep theirs.
func (a *agent) watchMTU(ctx context.Context) error {
	t := time.NewTicker(mtuPeriod)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-t.C:
			a.measureMTU()
		}
	}
}
