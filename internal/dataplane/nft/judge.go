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
	return d.inForce().Trace(p)
}

// Accepts reports whether the program that is in force accepts a packet: see
// rules.Tracer.
func (d *Driver) Accepts(p rules.Packet) (bool, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.builder == nil {
		return false, errUnknown
	}
	return d.inForce().Accepts(p)
}

// inForce traces through the program that is in force. d.mu is held.
func (d *Driver) inForce() *rules.Tracer {
	if d.tracer == nil {
		d.tracer = rules.NewTracer(d.builder.Program())
	}
	return d.tracer
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
