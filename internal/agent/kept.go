package agent

import (
	"context"
	"maps"
	"reflect"
	"slices"

	v3 "github.com/brindle-net/brindle/api/v3"
	"github.com/brindle-net/brindle/internal/client"
	"github.com/brindle-net/brindle/internal/model"
)

// keptObjects are the pools, BGPConfigurations and BGPPeers that a host has read:
// should one not be readable when the agent starts, what was read of it holds.
type keptObjects struct {
	Configs []*model.BGPConfig
	Peers   []*model.BGPPeer
	Pools   []*model.Pool
}

func objectKeeper() keeper[keptObjects] {
	return keeper[keptObjects]{"objects.json", "the objects of the last start"}
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

// lastRead is what this host knew last of this cluster's objects.
func (a *agent) lastRead(ctx context.Context) (map[model.ID]model.Value, error) {
	dir := a.cfg.Settings.Paths.StateDir
	if last, err := objectKeeper().read(dir); err != nil || !last.Is.any() {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, firstRead)
	defer cancel()
	last, err := objectKeeper().recall(dir, clusterGUID(ctx, a.client))
	return last.by(), err
}

// clusterGUID is the GUID of the cluster, "" if it has none or none can be read.
func clusterGUID(ctx context.Context, c *client.Client) string {
	info, err := client.Get[v3.ClusterInformation](ctx, c, "", v3.DefaultName)
	if err != nil {
		return ""
	}
	return info.Spec.ClusterGUID
}

// keepObjects notes what has come of them. What cannot be read changes nothing.
// The first events are all that there is: what is not among them was deleted.
func keepObjects(dir string, events []model.Event, first bool) error {
	concerns := func(e model.Event) bool { return keeps(e.ID.Kind) || e.ID.Kind == model.KindClusterInfo }
	if !first && !slices.ContainsFunc(events, concerns) {
		return nil
	}
	was, err := objectKeeper().read(dir)
	changed := err != nil // broken: written anew
	is, there, cluster := was.Is.by(), map[model.ID]bool{}, was.Cluster
	for _, e := range events {
		if info, ok := e.Value.(*model.ClusterInfo); ok && info.GUID != "" && info.GUID != cluster {
			if cluster != "" {
				clear(is)
			}
			cluster, changed = info.GUID, changed || was.Is.any()
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
	return objectKeeper().keep(dir, kept[keptObjects]{cluster, keptOf(is)})
}

// keptOf is what the file says of objects.
func keptOf(is map[model.ID]model.Value) keptObjects {
	var out keptObjects
	for _, id := range slices.SortedFunc(maps.Keys(is), model.ID.Compare) {
		switch v := is[id].(type) {
		case *model.BGPConfig:
			out.Configs = append(out.Configs, v)
		case *model.BGPPeer:
			out.Peers = append(out.Peers, v)
		case *model.Pool:
			out.Pools = append(out.Pools, v)
		}
	}
	return out
}
