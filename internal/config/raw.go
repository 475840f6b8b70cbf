package config

import (
	"encoding/json"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strconv"
	"strings"

	v3 "github.com/brindle-net/brindle/api/v3"
)

// Raw lists what every source says, whether or not it holds for the host, the
// weakest source first. Names that nobody knows are left out, and so is how to
// reach the datastore, which may have a password in it.
func Raw(s Sources) []Value {
	objects := slices.Clone(s.Objects)
	slices.SortFunc(objects, func(a, b *v3.FelixConfiguration) int {
		if d := rank(a.Name) - rank(b.Name); d != 0 {
			return d
		}
		return strings.Compare(a.Name, b.Name)
	})
	var out []Value
	add := func(tell func(*resolver)) {
		r := newResolver()
		tell(r)
		for _, p := range r.params {
			out = append(out, r.said[p.Name]...)
		}
		out = append(out, r.out.Ignored...)
	}
	for _, o := range objects {
		add(func(r *resolver) {
			if o.Spec.NodeSelector != "" {
				r.out.Ignored = append(r.out.Ignored, Value{"nodeSelector", o.Spec.NodeSelector, "FelixConfiguration " + o.Name})
			}
			r.object(o)
		})
	}
	add(func(r *resolver) { r.file(s.File) })
	add(func(r *resolver) { r.env(s.Env) })
	add(func(r *resolver) {
		for _, name := range slices.Sorted(maps.Keys(s.Flags)) {
			r.say(name, s.Flags[name], "flag --"+name, true)
		}
	})
	return out
}

// rank orders names of FelixConfigurations by strength.
func rank(name string) int {
	switch {
	case name == "default":
		return 0
	case strings.HasPrefix(name, "node."):
		return 2
	}
	return 1
}

// BGPSources is everything that says how BGP is spoken on a host, beside
// peers: the BGPConfigurations, of which "default" gives way to "node.NAME" in
// those fields that may stand there, and the host's Node.
type BGPSources struct {
	Node    string
	AS      *v3.ASNumber // of the Node itself; nil: none
	Objects []*v3.BGPConfiguration
}

// ownBGP are the fields that BGPConfiguration node.NAME has a say in.
func ownBGP() []string {
	return []string{"bindMode", "communities", "listenPort", "prefixAdvertisements"}
}

// ResolveBGP works out the fields of BGPConfiguration that hold for a host,
// sorted by name. Passwords are told by where they are kept.
func ResolveBGP(s BGPSources) Result {
	said := map[string][]Value{}
	var out Result
	for _, name := range []string{"default", "node." + s.Node} {
		i := slices.IndexFunc(s.Objects, func(o *v3.BGPConfiguration) bool { return o.Name == name })
		if i < 0 {
			continue
		}
		for _, v := range bgpFields(s.Objects[i], &out) {
			common := name == "default"
			switch {
			case !common && v.Name == "bindMode" && v.Value != "NodeIP": // one that asks for it is enough
				out.Ignored = append(out.Ignored, v)
			case common || slices.Contains(ownBGP(), v.Name):
				said[v.Name] = append(said[v.Name], v)
			default:
				out.Ignored = append(out.Ignored, v)
			}
		}
	}
	if s.AS != nil {
		said["asNumber"] = append(said["asNumber"], Value{"asNumber", strconv.FormatUint(uint64(*s.AS), 10), "Node " + s.Node})
	}
	defaults := bgpDefaults()
	for _, name := range slices.Sorted(maps.Keys(defaults)) {
		v := Value{name, defaults[name], "default"}
		if all := said[name]; len(all) > 0 {
			v = all[len(all)-1]
			out.Said = append(out.Said, all...)
		}
		out.Values = append(out.Values, v)
	}
	return out
}

// RawBGP lists what every BGPConfiguration says, by name.
func RawBGP(objects []*v3.BGPConfiguration) []Value {
	var out []Value
	var unread Result
	sorted := slices.Clone(objects)
	slices.SortFunc(sorted, func(a, b *v3.BGPConfiguration) int { return strings.Compare(a.Name, b.Name) })
	for _, o := range sorted {
		out = append(out, bgpFields(o, &unread)...)
	}
	return out
}

func bgpFields(o *v3.BGPConfiguration, out *Result) []Value {
	source := "BGPConfiguration " + o.Name
	fields := map[string]any{}
	data, err := json.Marshal(o.Spec)
	if err == nil {
		err = json.Unmarshal(data, &fields)
	}
	if err != nil {
		out.Warnings = append(out.Warnings, fmt.Sprintf("%s: cannot be read: %v", source, err))
	}
	var values []Value
	for _, name := range slices.Sorted(maps.Keys(fields)) {
		if value := plain(fields[name]); value != "" {
			values = append(values, Value{name, value, source})
		}
	}
	return values
}

// bgpDefaults are the fields of BGPConfiguration with the documented defaults.
func bgpDefaults() map[string]string {
	out := map[string]string{}
	t := reflect.TypeFor[v3.BGPConfigurationSpec]()
	for i := range t.NumField() {
		name, _, _ := strings.Cut(t.Field(i).Tag.Get("json"), ",")
		out[name] = t.Field(i).Tag.Get("default")
	}
	return out
}
