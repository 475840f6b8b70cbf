package cli

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	v3 "github.com/brindle-net/brindle/api/v3"
	"github.com/brindle-net/brindle/internal/ipam"
	"github.com/brindle-net/brindle/internal/store"
)

// transfer is a datastore on its way to another, in calicoctl's form: three
// parts with a line of "===" between them. The first has a list for each kind,
// in YAML, the second is ClusterInformation in JSON, the third what IPAM knows.
type transfer struct {
	lists []map[string]any
	info  any
	ipam  ipamTransfer
}

// ipamTransfer is the third part.
type ipamTransfer struct {
	Affinities []ipamRecord `json:"block_affinities,omitempty"`
	Blocks     []ipamRecord `json:"blocks,omitempty"`
	Handles    []ipamRecord `json:"handles,omitempty"`
	Config     *ipamRecord  `json:"config,omitempty"`
}

// ipamRecord is one value of IPAM with the key that it is stored under.
type ipamRecord struct {
	Key   string
	Value json.RawMessage
	TTL   int64 // always 0: nothing of IPAM expires
}

// transferred are the plurals of the kinds that a transfer has, in calicoctl's
// order, and behind them those that it leaves to Kubernetes.
func transferred() (all, ours []string) {
	all = []string{
		"ippools", "bgppeers", "tiers", "globalnetworkpolicies", "stagedglobalnetworkpolicies", "globalnetworksets", "hostendpoints",
		"kubecontrollersconfigurations", "networkpolicies", "stagednetworkpolicies", "stagedkubernetesnetworkpolicies", "networksets", "nodes",
		"bgpconfigurations", "felixconfigurations", "ipreservations", "bgpfilters",
	}
	return all, []string{"profiles", "workloadendpoints", "caliconodestatuses", "livemigrations"}
}

const transferSeparator = "==="

// write writes the parts.
func (t *transfer) write(w io.Writer) error {
	for i, list := range t.lists {
		text, err := v3.EncodeYAML(list)
		if err != nil {
			return err
		}
		if i > 0 {
			text = append([]byte("---\n"), text...)
		}
		if _, err := w.Write(text); err != nil {
			return err
		}
	}
	for _, part := range []any{t.info, t.ipam} {
		if _, err := io.WriteString(w, transferSeparator+"\n"); err != nil {
			return err
		}
		if err := writeJSON(w, part); err != nil {
			return err
		}
	}
	return nil
}

// transferParts cuts a file into its three parts.
func transferParts(name string, data []byte) (parts [3][]byte, err error) {
	lines := bytes.SplitAfter(data, []byte("\n"))
	at := 0
	for _, line := range lines {
		if string(bytes.TrimRight(line, " \t\r\n")) == transferSeparator {
			if at++; at == len(parts) {
				break
			}
			continue
		}
		parts[at] = append(parts[at], line...)
	}
	if at != len(parts)-1 {
		return parts, fmt.Errorf("%s: is no export of a datastore: it has %d lines of %q, and must have %d", name, at, transferSeparator, len(parts)-1)
	}
	return parts, nil
}

// records are all of IPAM's, sorted by key.
func (t *ipamTransfer) records() []ipamRecord {
	all := slices.Concat(t.Affinities, t.Blocks, t.Handles)
	if t.Config != nil {
		all = append(all, *t.Config)
	}
	slices.SortFunc(all, func(a, b ipamRecord) int { return cmp.Compare(a.Key, b.Key) })
	return all
}

// add puts a stored value into its list; the error says why it is none of
// IPAM's.
func (t *ipamTransfer) add(r ipamRecord) error {
	if err := r.check(); err != nil {
		return fmt.Errorf("%s: %w", r.Key, err)
	}
	switch {
	case r.Key == store.IPAMConfigKey:
		t.Config = &r
	case strings.HasPrefix(r.Key, store.BlockRoot):
		t.Blocks = append(t.Blocks, r)
	case strings.HasPrefix(r.Key, store.HandleRoot):
		t.Handles = append(t.Handles, r)
	default:
		t.Affinities = append(t.Affinities, r)
	}
	return nil
}

// check says whether a record is what IPAM would read under its key.
func (r ipamRecord) check() error {
	if r.Key == store.IPAMConfigKey {
		_, err := ipam.DecodeConfiguration(r.Value)
		return err
	}
	if cidr, ok := store.ParseBlockKey(r.Key); ok {
		b, err := ipam.DecodeBlock(r.Value)
		if err == nil && b.CIDR != cidr {
			err = fmt.Errorf("is of block %s", b.CIDR)
		}
		return err
	}
	if _, ok := store.ParseHandleKey(r.Key); ok {
		var h struct{ Block map[string]int }
		return json.Unmarshal(r.Value, &h)
	}
	if _, ok := store.ParseAffinityKey(r.Key); ok {
		var a struct{ State string }
		if err := json.Unmarshal(r.Value, &a); err != nil {
			return err
		}
		return v3.OneOf("state", a.State, "confirmed", "pending", "pendingDeletion").Err()
	}
	return errors.New("is no key of IPAM")
}

// plain is the tree of a stored resource, without what the datastore it is in
// gave it.
func plain(value []byte) (map[string]any, error) {
	d := json.NewDecoder(bytes.NewReader(value))
	d.UseNumber()
	var tree map[string]any
	if err := d.Decode(&tree); err != nil {
		return nil, err
	}
	if m, ok := tree["metadata"].(map[string]any); ok {
		for _, name := range []string{"uid", "resourceVersion", "creationTimestamp", "generation", "managedFields", "selfLink"} {
			delete(m, name)
		}
	}
	return tree, nil
}
