//go:build !race

package oracle_test

// underRace says that the race detector is on.
const underRace = false
