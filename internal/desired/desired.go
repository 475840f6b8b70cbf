// Package desired is the vocabulary between the calculation core and the
// appliers: plain comparable values that say what this host should look like.
// It has no behaviour beyond comparing and merging, and imports nothing but
// the standard library.
package desired

// Patch changes one table: Set creates or replaces, Delete removes. A key is
// never in both.
type Patch[K comparable, V any] struct {
	Set    map[K]V
	Delete []K
}

// Empty reports whether the patch changes nothing.
func (p Patch[K, V]) Empty() bool { return len(p.Set) == 0 && len(p.Delete) == 0 }

// Play applies the patch to a table in memory, as an applier would to the
// world.
func (p Patch[K, V]) Play(table map[K]V) {
	for k, v := range p.Set {
		table[k] = v
	}
	for _, k := range p.Delete {
		delete(table, k)
	}
}
