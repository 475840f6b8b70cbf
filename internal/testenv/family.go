package testenv

import "testing"

// Family says which address families a test uses.
type Family int

// The three ways in which every networked test runs.
const (
	V4 Family = iota
	V6
	Dual
)

// Families returns all of them.
func Families() []Family { return []Family{V4, V6, Dual} }

// String returns "v4", "v6" or "dual".
func (f Family) String() string { return [...]string{"v4", "v6", "dual"}[f] }

// HasV4 reports whether IPv4 is in use.
func (f Family) HasV4() bool { return f != V6 }

// HasV6 reports whether IPv6 is in use.
func (f Family) HasV6() bool { return f != V4 }

// EachFamily runs f as a subtest for IPv4, IPv6 and both.
func EachFamily(t *testing.T, f func(t *testing.T, family Family)) {
	t.Helper()
	for _, family := range Families() {
		t.Run(family.String(), func(t *testing.T) { f(t, family) })
	}
}
