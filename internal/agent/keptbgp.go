package agent

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"reflect"
	"slices"
	"strings"

	"github.com/brindle-net/brindle/internal/files"
	"github.com/brindle-net/brindle/internal/model"
)

// bgpFile is where a host keeps the BGPConfigurations that it has read: should
// one not be readable when the agent starts, what was read of it holds.
const bgpFile = "/bgp.json"

// recallBGP reads them. What is missing was never written.
func recallBGP(dir string) (map[model.ID]model.Value, error) {
	out := map[model.ID]model.Value{}
	data, err := os.ReadFile(dir + bgpFile)
	if errors.Is(err, os.ErrNotExist) {
		return out, nil
	}
	var list []*model.BGPConfig
	if err == nil {
		err = json.Unmarshal(data, &list)
	}
	if err != nil {
		return out, fmt.Errorf("recall the BGPConfigurations of the last start: %w", err)
	}
	for _, c := range list {
		if c != nil {
			out[model.ID{Kind: model.KindBGPConfig, Name: c.Name}] = c
		}
	}
	return out, nil
}

// keepBGP notes what has come of them. What cannot be read changes nothing.
func keepBGP(dir string, events []model.Event) error {
	var is map[model.ID]model.Value
	changed := false
	for _, e := range events {
		if e.ID.Kind != model.KindBGPConfig {
			continue
		}
		if is == nil {
			var err error
			if is, err = recallBGP(dir); err != nil {
				is, changed = map[model.ID]model.Value{}, true // broken: written anew
			}
		}
		c, read := e.Value.(*model.BGPConfig)
		switch {
		case e.Value == nil:
			changed = changed || is[e.ID] != nil
			delete(is, e.ID)
		case read && c.Broken == "" && !reflect.DeepEqual(is[e.ID], e.Value):
			changed, is[e.ID] = true, c
		}
	}
	if !changed {
		return nil
	}
	list := []*model.BGPConfig{}
	for _, v := range is {
		if c, ok := v.(*model.BGPConfig); ok {
			list = append(list, c)
		}
	}
	slices.SortFunc(list, func(a, b *model.BGPConfig) int { return strings.Compare(a.Name, b.Name) })
	data, err := json.Marshal(list)
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
