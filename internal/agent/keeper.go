package agent

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/brindle-net/brindle/internal/files"
)

// keeper keeps something of a cluster for the next start, in a file of the state
// folder: should the datastore not say it then, or nothing that can be used, what
// was in force holds.
type keeper[T any] struct {
	file string
	what string // for people
}

// kept is what such a file says.
type kept[T any] struct {
	Cluster string // GUID of the cluster that it is of; "": it had none, or nobody knew it
	Is      T
}

// read reads it. What is missing was never written.
func (k keeper[T]) read(dir string) (kept[T], error) {
	var out kept[T]
	data, err := os.ReadFile(filepath.Join(dir, k.file))
	if errors.Is(err, os.ErrNotExist) {
		return out, nil
	}
	if err == nil && json.Unmarshal(data, &out) != nil {
		out = kept[T]{}
		err = json.Unmarshal(data, &out.Is) // as it was written before it named a cluster
	}
	if err != nil {
		return kept[T]{}, fmt.Errorf("recall %s: %w", k.what, err)
	}
	return out, nil
}

// recall is read for the cluster with a GUID. What another left behind is none of
// ours: the host has moved. With "" nobody knows which one it is.
func (k keeper[T]) recall(dir, cluster string) (T, error) {
	out, err := k.read(dir)
	if !sameCluster(out.Cluster, cluster) {
		return kept[T]{}.Is, err
	}
	return out.Is, err
}

// sameCluster reports whether two GUIDs may be of one cluster.
func sameCluster(a, b string) bool { return a == "" || b == "" || a == b }

// keep writes it, unless the file says the same already.
func (k keeper[T]) keep(dir string, is kept[T]) error {
	path := filepath.Join(dir, k.file)
	data, err := json.Marshal(is)
	if err == nil {
		if was, rerr := os.ReadFile(path); rerr == nil && bytes.Equal(was, data) {
			return nil
		}
		err = os.MkdirAll(dir, 0o700)
	}
	if err == nil {
		err = files.Write(path, data, 0o600)
	}
	if err != nil {
		return fmt.Errorf("keep %s for the next start: %w", k.what, err)
	}
	return nil
}
