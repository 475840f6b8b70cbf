//go:build race

package ipam

// underRace says that the race detector is on.
const underRace = true
