package ipam

import "errors"

// Errors that callers decide on. They come wrapped with the pool, limit or
// address that refused, and with what to do about it.
var (
	// ErrInvalid says that the request itself makes no sense.
	ErrInvalid = errors.New("invalid request")
	// ErrNoPool says that no pool qualifies for the request.
	ErrNoPool = errors.New("no pool qualifies")
	// ErrExhausted says that the pools that qualify have no address left.
	ErrExhausted = errors.New("no free address")
	// ErrBlockLimit says that the host may not claim another block.
	ErrBlockLimit = errors.New("block limit reached")
	// ErrAssigned says that the requested address belongs to somebody.
	ErrAssigned = errors.New("address already assigned")
	// ErrNotAssigned says that the address belongs to nobody.
	ErrNotAssigned = errors.New("address not assigned")
	// ErrStrictAffinity says that the address lies in a block that is not the
	// host's, and that hosts may only use their own.
	ErrStrictAffinity = errors.New("block is not this host's")
	// ErrStale says that a release was asked for by somebody who knows an
	// older owner of the address than the present one: nothing was released.
	ErrStale = errors.New("address has a newer owner")
	// ErrCorrupt says that a stored record contradicts itself. It is left as
	// it is.
	ErrCorrupt = errors.New("corrupt record")
	// ErrBusy says that a record changed under every one of many attempts.
	ErrBusy = errors.New("too much contention")
)
