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
	return d.builder.Program().Trace(p)
}
