package nft

import (
	"errors"

	"github.com/brindle-net/brindle/internal/dataplane/rules"
)

// errUnknown says that nobody knows what is in force.
var errUnknown = errors.New("no policy has been put in force yet, or the last attempt failed")

// Trace sends a packet through the program that is in force.
func (d *Driver) Trace(p rules.Packet) (rules.Trace, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.builder == nil {
		return rules.Trace{}, errUnknown
	}
	if d.tracer == nil {
		d.tracer = rules.NewTracer(d.builder.Program())
	}
	return d.tracer.Trace(p)
}

// Workload returns the part of the program in force that judges packets of a
// workload's interface; false, if there is none.
func (d *Driver) Workload(iface string) (rules.Workload, bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.builder == nil {
		return rules.Workload{}, false
	}
	return d.builder.Program().Workload(iface)
}
