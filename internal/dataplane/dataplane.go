// Package dataplane is the seam between what policy this host should enforce
// and what enforces it.
package dataplane

import (
	"context"

	"github.com/brindle-net/brindle/internal/desired"
)

// Driver is one way of enforcing policy. It is used by one goroutine.
type Driver interface {
	// Sync makes the kernel enforce want, whole and in one step: on an error
	// what was enforced before still is. changed is what want differs in from
	// the last call that succeeded; nil says that nobody knows, and that the
	// driver must read back what is in the kernel, compare everything and
	// mend it. Neither is changed, kept or used after the call.
	Sync(ctx context.Context, want *desired.Policy, changed *desired.PolicyPatch) error
	// Close lets go of what the driver holds. What is enforced stays.
	Close() error
}
