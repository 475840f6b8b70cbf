package etcd

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/brindle-net/brindle/internal/store"
)

// format renders the revision of a key, as Calico's programs show it.
func format(rev int64) store.Revision { return store.Revision(strconv.FormatInt(rev, 10)) }

// mark renders a moment from which a watch may start. It names the cluster
// too: another cluster's history has the same numbers with other contents.
func mark(rev int64, cluster uint64) store.Revision {
	return store.Revision(strconv.FormatInt(rev, 10) + "@" + strconv.FormatUint(cluster, 16))
}

// parse reads a revision in either form; cluster is 0 if it does not say. One
// that etcd cannot have handed out conflicts with whatever is there.
func parse(rev store.Revision) (n int64, cluster uint64, err error) {
	number, id, marked := strings.Cut(string(rev), "@")
	n, err = strconv.ParseInt(number, 10, 64)
	if err == nil && marked {
		cluster, err = strconv.ParseUint(id, 16, 64)
	}
	if err != nil || n <= 0 {
		return 0, 0, fmt.Errorf("revision %q is not one of this datastore: %w", rev, store.ErrConflict)
	}
	return n, cluster, nil
}

// Reached implements store.Orderer: revisions of one etcd are numbers that only
// grow, and a restored one begins far above what it was.
func (d *Driver) Reached(at, rev store.Revision) (bool, error) {
	is, _, err := parse(at)
	if err != nil {
		return false, err
	}
	want, _, err := parse(rev)
	return err == nil && is >= want, err
}
