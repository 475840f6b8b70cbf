package agent

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"reflect"
	"slices"
	"strings"

	v3 "github.com/brindle-net/brindle/api/v3"
	"github.com/brindle-net/brindle/internal/client"
	"github.com/brindle-net/brindle/internal/files"
	"github.com/brindle-net/brindle/internal/model"
)

// bgpFile is where a host keeps the BGPConfigurations that it has read: should
// one not be readable when the agent starts, what was read of it holds.
const bgpFile = "/bgp.json"

// keptBGP is what the file says.
type keptBGP struct {
	Cluster string // GUID of the cluster that they are of; "": it has none
	Configs []*model.BGPConfig
}

func readKeptBGP(dir string) (keptBGP, error) {
	var kept keptBGP
	data, err := os.ReadFile(dir + bgpFile)
	if errors.Is(err, os.ErrNotExist) {
		return kept, nil
	}
	if err == nil {
		err = json.Unmarshal(data, &kept)
	}
	if err != nil {
		return keptBGP{}, fmt.Errorf("recall the BGPConfigurations of the last start: %w", err)
	}
	return kept, nil
}

// by lists them by what they are called.
func (k keptBGP) by() map[model.ID]model.Value {
	out := map[model.ID]model.Value{}
	for _, c := range k.Configs {
		if c != nil {
			out[model.ID{Kind: model.KindBGPConfig, Name: c.Name}] = c
		}
	}
	return out
}

// recallBGP reads them. What is missing was never written. Those of another
// cluster than the one with a GUID are none of ours: the host has moved. With ""
// nobody knows which one it is.
func recallBGP(dir, cluster string) (map[model.ID]model.Value, error) {
	kept, err := readKeptBGP(dir)
	if kept.Cluster != "" && cluster != "" && kept.Cluster != cluster {
		kept = keptBGP{}
	}
	return kept.by(), err
}

// lastBGP is what this host knew last of this cluster's BGPConfigurations.
func (a *agent) lastBGP(ctx context.Context) (map[model.ID]model.Value, error) {
	dir := a.cfg.Settings.Paths.StateDir
	if kept, err := readKeptBGP(dir); err != nil || len(kept.Configs) == 0 {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, firstRead)
	defer cancel()
	guid := ""
	if info, err := client.Get[v3.ClusterInformation](ctx, a.client, "", v3.DefaultName); err == nil {
		guid = info.Spec.ClusterGUID
	}
	return recallBGP(dir, guid)
}

// keepBGP notes what has come of them. What cannot be read changes nothing. The
// first events are all that there is: what is not among them was deleted.
func keepBGP(dir string, events []model.Event, first bool) error {
	concerns := func(e model.Event) bool {
		return e.ID.Kind == model.KindBGPConfig || e.ID.Kind == model.KindClusterInfo
	}
	if !first && !slices.ContainsFunc(events, concerns) {
		return nil
	}
	was, err := readKeptBGP(dir)
	changed := err != nil // broken: written anew
	is, there, cluster := was.by(), map[model.ID]bool{}, was.Cluster
	for _, e := range events {
		if info, ok := e.Value.(*model.ClusterInfo); ok && info.GUID != "" && info.GUID != cluster {
			if cluster != "" {
				clear(is)
			}
			cluster, changed = info.GUID, changed || len(was.Configs) > 0
		}
	}
	for _, e := range events {
		if e.ID.Kind != model.KindBGPConfig {
			continue
		}
		there[e.ID] = e.Value != nil
		if c, read := e.Value.(*model.BGPConfig); read && c.Broken == "" && !reflect.DeepEqual(is[e.ID], e.Value) {
			changed, is[e.ID] = true, c
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
	return writeKeptBGP(dir, cluster, is)
}

func writeKeptBGP(dir, cluster string, is map[model.ID]model.Value) error {
	kept := keptBGP{Cluster: cluster, Configs: []*model.BGPConfig{}}
	for _, v := range is {
		if c, ok := v.(*model.BGPConfig); ok {
			kept.Configs = append(kept.Configs, c)
		}
	}
	slices.SortFunc(kept.Configs, func(a, b *model.BGPConfig) int { return strings.Compare(a.Name, b.Name) })
	data, err := json.Marshal(kept)
	if err == nil {
		err = os.MkdirAll(dir, 0o700)
	}
	if err == nil {
		err = files.Write(dir+bgpFile, data, 0o600)
	}
	if err != nil {
		return fmt.Errorf("keep the BGPConfigurations for the next start: %w", err)
	}
	return nil
}
