package agent

import (
	"context"
	"time"
)

// mtuPeriod is how often the host's interfaces are looked at (documented
// Calico behaviour).
const mtuPeriod = 30 * time.Second

// measureMTU finds the MTU of the host, that of the smallest interface that
// counts, and with it that of workloads' interfaces.
func (a *agent) measureMTU() {
	a.measuring.Lock()
	defer a.measuring.Unlock()
	mtu, err := a.kernel.HostMTU(a.cfg.inForce().Interfaces.MTUPattern)
	if err != nil {
		a.log.Warn("mtu not measured", "err", err)
		return
	}
	a.overlay.setMTU(mtu)
	a.setWorkloadMTU()
}

// setWorkloadMTU works out the MTU of new workloads' interfaces.
func (a *agent) setWorkloadMTU() {
	mtu := int64(a.overlay.workloadMTU())
	if old := a.mtu.Swap(mtu); old != mtu {
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
