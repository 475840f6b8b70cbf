//go:build !race

package differential

// underRace says that the race detector is on.
const underRace = false
