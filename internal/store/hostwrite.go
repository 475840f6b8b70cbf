package store

// HostWrite is a write of a block or handle of address management that a host
// asks for. Both belong to several hosts, so that who may write what depends on
// what is in them.
type HostWrite struct {
	Host string
	Key  string
	Old  []byte // what is there and is replaced; nil: nothing
	New  []byte // nil: it is deleted
	// List reads what the datastore holds below a prefix, the key that equals
	// it included.
	List func(prefix string) ([]KV, error)
}
