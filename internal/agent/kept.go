package agent

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"reflect"
	"slices"

	v3 "github.com/brindle-net/brindle/api/v3"
	"github.com/brindle-net/brindle/internal/client"
	"github.com/brindle-net/brindle/internal/files"
	"github.com/brindle-net/brindle/internal/model"
)

// objectsFile is where a host keeps the pools, BGPConfigurations and BGPPeers that
// it has read: should one not be readable when the agent starts, what was read of
// it holds.
const objectsFile = "/objects.json"

// keptObjects is what the file says.
type keptObjects struct {
	Cluster string // GUID of the cluster that they are of; "": it has none
	Configs []*model.BGPConfig
	Peers   []*model.BGPPeer
	Pools   []*model.Pool
}

func readKept(dir string) (keptObjects, error) {
	var kept keptObjects
	data, err := os.ReadFile(dir + objectsFile)
	if errors.Is(err, os.ErrNotExist) {
		return kept, nil
	}
	if err == nil {
		err = json.Unmarshal(data, &kept)
	}
	if err != nil {
		return keptObjects{}, fmt.Errorf("recall the objects of the last start: %w", err)
	}
	return kept, nil
}

// any reports whether there are any.
func (k keptObjects) any() bool { return len(k.Configs)+len(k.Peers)+len(k.Pools) > 0 }

// by lists them by what they are called.
func (k keptObjects) by() map[model.ID]model.Value {
	out := map[model.ID]model.Value{}
	for _, c := range k.Configs {
		if c != nil {
			out[model.ID{Kind: model.KindBGPConfig, Name: c.Name}] = c
		}
	}
	for _, p := range k.Peers {
		if p != nil {
			out[model.ID{Kind: model.KindBGPPeer, Name: p.Name}] = p
		}
	}
	for _, p := range k.Pools {
		if p != nil {
			out[model.ID{Kind: model.KindPool, Name: p.Name}] = p
		}
	}
	return out
}

// keeps reports whether objects of a kind are kept. Of a filter the name is
// enough, which is in its key.
func keeps(k model.Kind) bool { return k.Configures() && k != model.KindBGPFilter }

// recallObjects reads them. What is missing was never written. Those of another
// cluster than the one with a GUID are none of ours: the host has moved. With ""
// nobody knows which one it is.
func recallObjects(dir, cluster string) (map[model.ID]model.Value, error) {
	kept, err := readKept(dir)
	if kept.Cluster != "" && cluster != "" && kept.Cluster != cluster {
		kept = keptObjects{}
	}
	return kept.by(), err
}

// lastRead is what this host knew last of this cluster's objects.
func (a *agent) lastRead(ctx context.Context) (map[model.ID]model.Value, error) {
	dir := a.cfg.Settings.Paths.StateDir
	if kept, err := readKept(dir); err != nil || !kept.any() {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, firstRead)
	defer cancel()
	guid := ""
	if info, err := client.Get[v3.ClusterInformation](ctx, a.client, "", v3.DefaultName); err == nil {
		guid = info.Spec.ClusterGUID
	}
	return recallObjects(dir, guid)
}

// keepObjects notes what has come of them. What cannot be read changes nothing.
// The first events are all that there is: what is not among them was deleted.
func keepObjects(dir string, events []model.Event, first bool) error {
	concerns := func(e model.Event) bool { return keeps(e.ID.Kind) || e.ID.Kind == model.KindClusterInfo }
	if !first && !slices.ContainsFunc(events, concerns) {
		return nil
	}
	was, err := readKept(dir)
	changed := err != nil // broken: written anew
	is, there, cluster := was.by(), map[model.ID]bool{}, was.Cluster
	for _, e := range events {
		if info, ok := e.Value.(*model.ClusterInfo); ok && info.GUID != "" && info.GUID != cluster {
			if cluster != "" {
				clear(is)
			}
			cluster, changed = info.GUID, changed || was.any()
		}
	}
	for _, e := range events {
		if !keeps(e.ID.Kind) {
			continue
		}
		there[e.ID] = e.Value != nil
		if e.Value != nil && model.Unusable(e.ID, e.Value) == "" && !reflect.DeepEqual(is[e.ID], e.Value) {
			changed, is[e.ID] = true, e.Value
		}
	}
	for id := range is {
		if exists, said := there[id]; said && !exists || first && !said {
			changed = true
			delete(is, id)
		}
	}
	if !changed {
		return nil
	}
	return writeKept(dir, cluster, is)
}

func writeKept(dir, cluster string, is map[model.ID]model.Value) error {
	kept := keptObjects{Cluster: cluster}
	for _, id := range slices.SortedFunc(maps.Keys(is), model.ID.Compare) {
		switch v := is[id].(type) {
		case *model.BGPConfig:
			kept.Configs = append(kept.Configs, v)
		case *model.BGPPeer:
			kept.Peers = append(kept.Peers, v)
		case *model.Pool:
			kept.Pools = append(kept.Pools, v)
		}
	}
	data, err := json.Marshal(kept)
	if err == nil {
		err = os.MkdirAll(dir, 0o700)
	}
	if err == nil {
		err = files.Write(dir+objectsFile, data, 0o600)
	}
	if err != nil {
		return fmt.Errorf("keep the objects for the next start: %w", err)
	}
	return nil
}
