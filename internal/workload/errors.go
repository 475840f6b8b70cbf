package workload

import (
	"context"
	"errors"

	v3 "github.com/brindle-net/brindle/api/v3"
	"github.com/brindle-net/brindle/internal/ipam"
)

// Error is a failure with the code that the socket's protocol and the CNI
// answer give it.
type Error struct {
	Code string // invalid, notReady, unavailable, conflict, timeout, unknown, internal, version
	Err  error
}

func (e *Error) Error() string { return e.Err.Error() }

func (e *Error) Unwrap() error { return e.Err }

// codeOf returns the code of an error; internal when nothing says better. An
// error that is several has the code of the first that has one.
func codeOf(err error) string {
	var e *Error
	var fields v3.FieldErrors
	switch {
	case err == nil:
		return ""
	case errors.As(err, &e):
		return e.Code
	case errors.As(err, &fields), errors.Is(err, ipam.ErrInvalid), errors.Is(err, ipam.ErrNoPool):
		return "invalid"
	case errors.Is(err, ipam.ErrAssigned), errors.Is(err, ipam.ErrStrictAffinity), errors.Is(err, ipam.ErrExhausted),
		errors.Is(err, ipam.ErrBlockLimit):
		return "conflict"
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, context.Canceled):
		return "timeout"
	}
	return "internal"
}
