package workload

import "errors"

// Error is a failure with the code that the socket's protocol and the CNI
// answer give it.
type Error struct {
	Code string // invalid, notReady, conflict, timeout, internal, version
	Err  error
}

func (e *Error) Error() string { return e.Err.Error() }

func (e *Error) Unwrap() error { return e.Err }

// codeOf returns the code of an error; internal when nobody gave it one.
func codeOf(err error) string {
	var e *Error
	if errors.As(err, &e) {
		return e.Code
	}
	return "internal"
}
