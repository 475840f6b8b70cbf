package paths

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"
)

// Offloads reads and sets whether an interface leaves the filling in of
// checksums to what is below it.
type Offloads interface {
	TxChecksum(device string) (on bool, err error)
	SetTxChecksum(device string, on bool) error
}

// A Choice is what was chosen for the checksum offload of a tunnel's device.
type Choice struct {
	Device string
	On     bool   // as it is now
	Why    string // for people; "": left as found
}

// chooser keeps the offload of devices as chosen. What is off at the start
// stays: whoever switched it off, this agent before a restart or a person, had
// a reason.
type chooser struct {
	set    Offloads
	log    *slog.Logger
	forced string // why it is off on all devices of VXLAN; "": it is not

	trial sync.Mutex       // held while one is under way, and guards vain
	vain  map[string]pause // devices whose last trial did not help

	mu   sync.Mutex        // guards everything below
	off  map[string]string // devices whose offload we switched off, and why
	have map[string]bool   // what was read last
}

// pause keeps trials apart that do not help: each costs what the offload saves.
type pause struct {
	length time.Duration
	until  time.Time
}

// How long a device is not tried again.
const (
	firstPause = time.Minute
	mostPause  = time.Hour
)

func newChooser(c Config) *chooser {
	return &chooser{set: c.Offloads, log: c.Log, forced: c.OffloadOff, off: map[string]string{}, have: map[string]bool{}, vain: map[string]pause{}}
}

// keep makes devices have what was chosen, also those that were made anew. It
// returns what could not be done.
func (c *chooser) keep(ends []End) error {
	if c.set == nil || !c.trial.TryLock() {
		return nil // a trial under way: next time
	}
	defer c.trial.Unlock()
	c.mu.Lock()
	defer c.mu.Unlock()
	var failed error
	seen := map[string]bool{}
	for _, e := range ends {
		if seen[e.Device] = true; !e.Offload {
			continue
		}
		on, err := c.set.TxChecksum(e.Device)
		if err != nil {
			failed = err
			continue
		}
		if _, off := c.off[e.Device]; !off && c.forced != "" && e.Form == formVXLAN {
			c.off[e.Device] = c.forced
		}
		if why, off := c.off[e.Device]; off && on {
			if err := c.set.SetTxChecksum(e.Device, false); err != nil {
				failed = err
				continue
			}
			c.log.Info("checksum offload of a tunnel switched off", "device", e.Device, "why", why)
			on = false
		}
		c.have[e.Device] = on
	}
	maps.DeleteFunc(c.have, func(d string, _ bool) bool { return !seen[d] })
	maps.DeleteFunc(c.off, func(d string, _ string) bool { return !seen[d] })
	return failed
}

// try measures again with the offload switched off. If that helps it stays so;
// else it is put back. It returns what to go by from then on.
func (c *chooser) try(ctx context.Context, r Result, again func(context.Context) Result) Result {
	c.trial.Lock()
	defer c.trial.Unlock()
	if ctx.Err() != nil {
		return r
	}
	on, err := c.set.TxChecksum(r.Device)
	switch {
	case err != nil:
		return r
	case !on: // since it was measured, by the trial of another path, or before
		return again(ctx)
	case time.Now().Before(c.vain[r.Device].until):
		return r
	}
	if err := c.set.SetTxChecksum(r.Device, false); err != nil {
		c.log.Warn("checksum offload not switched off", "device", r.Device, "err", err)
		return r
	}
	now := again(ctx)
	if helped(r, now) {
		delete(c.vain, r.Device)
		why := fmt.Sprintf("with it packets to %s were lost (%s), without it they pass", r.Peer, r.Outcome)
		c.mu.Lock()
		c.off[r.Device], c.have[r.Device] = why, false
		c.mu.Unlock()
		c.log.Warn("checksum offload of a tunnel switched off", "device", r.Device, "why", why)
		return now
	}
	if err := c.set.SetTxChecksum(r.Device, true); err != nil {
		c.log.Warn("checksum offload not switched back on", "device", r.Device, "err", err)
	}
	length := min(max(2*c.vain[r.Device].length, firstPause), mostPause)
	c.vain[r.Device] = pause{length, time.Now().Add(length)}
	return r
}

// helped reports whether a path is better without the offload. Checksums are
// proven by themselves: TCP may still fail for those of the other host.
func helped(with, without Result) bool {
	if with.Outcome == Checksum && without.Sum == Passed {
		return true
	}
	return without.Outcome == Fine || without.Outcome == Narrow
}

// choices lists what was chosen, by device.
func (c *chooser) choices() []Choice {
	c.mu.Lock()
	defer c.mu.Unlock()
	var out []Choice
	for _, d := range slices.Sorted(maps.Keys(c.have)) {
		out = append(out, Choice{Device: d, On: c.have[d], Why: c.off[d]})
	}
	return out
}
