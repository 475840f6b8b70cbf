package selector

// Labels answers what value a label has. Implementations must give the same
// answer for as long as a call to Matches lasts.
type Labels interface {
	// Get returns the value of the label key, and whether it is there.
	Get(key string) (value string, ok bool)
}

// Map makes Labels of a map; nil has none.
type Map map[string]string

// Get returns the value of the label key, and whether it is there.
func (m Map) Get(key string) (string, bool) {
	v, ok := m[key]
	return v, ok
}

// Layers makes Labels of several, the first that has a key deciding its
// value: an endpoint's own labels, then those of its profiles in their order.
// Nothing is copied. A nil layer has no labels.
type Layers []Labels

// Get returns the value of the label key in the first layer that has it.
func (l Layers) Get(key string) (string, bool) {
	for _, layer := range l {
		if layer == nil {
			continue
		}
		if v, ok := layer.Get(key); ok {
			return v, true
		}
	}
	return "", false
}
