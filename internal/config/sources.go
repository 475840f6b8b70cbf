package config

import (
	"crypto/sha256"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"

	v3 "github.com/brindle-net/brindle/api/v3"
	"github.com/brindle-net/brindle/internal/selector"
)

// objects returns those FelixConfigurations that hold for this host, the
// strongest last. Of several that select it by labels the oldest holds.
func (r *resolver) objects(s Sources) []*v3.FelixConfiguration {
	var common, own *v3.FelixConfiguration
	var chosen []*v3.FelixConfiguration
	for _, o := range s.Objects {
		switch {
		case o.Name == "default":
			common = o
		case o.Name == "node."+s.Node:
			own = o
		case !strings.HasPrefix(o.Name, "node.") && r.selects(o, s.Labels):
			chosen = append(chosen, o)
		}
	}
	slices.SortFunc(chosen, older)
	if len(chosen) > 1 {
		r.warn("FelixConfigurations %s and %s both select this host: the older one, %s, holds",
			chosen[0].Name, chosen[1].Name, chosen[0].Name)
		chosen = chosen[:1]
	}
	all := append([]*v3.FelixConfiguration{common}, append(chosen, own)...)
	return slices.DeleteFunc(all, func(o *v3.FelixConfiguration) bool { return o == nil })
}

func (r *resolver) selects(o *v3.FelixConfiguration, labels map[string]string) bool {
	if o.Spec.NodeSelector == "" {
		r.warn("FelixConfiguration %s: nodeSelector: is empty: the object holds for no host", o.Name)
		return false
	}
	sel, err := selector.Parse(o.Spec.NodeSelector)
	if err == nil {
		return sel.Matches(selector.Map(labels))
	}
	source, holds := ofObject+o.Name, "the object holds for no host"
	did := slices.ContainsFunc(r.running, func(v Value) bool { return objectOf(v.Source) == source })
	if did {
		holds = "it goes on to hold for this host, which it selected"
	}
	r.refuse(source, fmt.Sprintf("%s: nodeSelector: %v; %s", source, err, holds))
	return did
}

// ofObject is what sources begin with that are objects.
const ofObject = "FelixConfiguration "

func fromObject(source string) bool { return strings.HasPrefix(source, ofObject) }

// objectOf is the object that a source is, or is a part of.
func objectOf(source string) string {
	object, _, _ := strings.Cut(source, ",")
	return object
}

// recall has objects that are not among these say what the host runs with of
// them. What an object that is there says yields only to a stronger one. Where
// it is known which objects are broken no others are recalled: they were deleted.
func (r *resolver) recall(there []*v3.FelixConfiguration, broken []string) {
	for _, v := range r.running {
		name, ok := strings.CutPrefix(objectOf(v.Source), ofObject)
		if !ok || slices.ContainsFunc(there, func(o *v3.FelixConfiguration) bool { return o.Name == name }) {
			continue
		}
		if len(broken) > 0 && !slices.Contains(broken, name) {
			continue
		}
		said := r.said[v.Name]
		at := slices.IndexFunc(said, func(s Value) bool {
			return rank(strings.TrimPrefix(objectOf(s.Source), ofObject)) > rank(name)
		})
		if at < 0 {
			at = len(said)
		}
		r.said[v.Name] = slices.Insert(said, at, v)
	}
}

// older orders objects by age; those of one second, or without one, by name.
func older(a, b *v3.FelixConfiguration) int {
	var ta, tb int64
	if a.CreationTimestamp != nil {
		ta = a.CreationTimestamp.Unix()
	}
	if b.CreationTimestamp != nil {
		tb = b.CreationTimestamp.Unix()
	}
	if ta != tb {
		return int(min(max(ta-tb, -1), 1))
	}
	return strings.Compare(a.Name, b.Name)
}

// ParseFile reads a configuration file in the form of Calico's felix.cfg:
// "Name = value" lines below a [global] heading, comments after # or ;.
func ParseFile(data []byte) (map[string]string, error) {
	out := map[string]string{}
	section := "global"
	number := 0
	for line := range strings.SplitSeq(string(data), "\n") {
		number++
		line = strings.TrimSpace(line)
		switch {
		case line == "" || line[0] == '#' || line[0] == ';':
		case line[0] == '[' && line[len(line)-1] == ']':
			section = strings.ToLower(strings.TrimSpace(line[1 : len(line)-1]))
		case section != "global":
		default:
			name, value, ok := strings.Cut(line, "=")
			name, value = strings.TrimSpace(name), strings.TrimSpace(value)
			if !ok || name == "" {
				return nil, fmt.Errorf("line %d: %q: must be Name = value", number, line)
			}
			out[name] = value
		}
	}
	return out, nil
}

func (r *resolver) file(values map[string]string) {
	for _, name := range slices.Sorted(maps.Keys(values)) {
		r.foreign(name, values[name], "configuration file, "+name, true)
	}
}

// env notes what the environment says. Of several names of one parameter our
// own prefix is the strongest, then Calico's, then names without a prefix.
func (r *resolver) env(environ []string) {
	var plain, felix, ours [][2]string
	for _, e := range slices.Sorted(slices.Values(environ)) {
		name, value, _ := strings.Cut(e, "=")
		upper := strings.ToUpper(name)
		switch {
		case r.byEnv(name) != nil:
			plain = append(plain, [2]string{name, value})
		case strings.HasPrefix(upper, "FELIX_"):
			felix = append(felix, [2]string{name, value})
		case strings.HasPrefix(upper, "BRINDLE_"):
			ours = append(ours, [2]string{name, value})
		}
	}
	for _, e := range plain {
		r.say(r.byEnv(e[0]).Name, e[1], "environment, "+e[0], true)
	}
	for _, e := range felix {
		r.foreign(e[0][len("FELIX_"):], e[1], "environment, "+e[0], true)
	}
	for _, e := range ours { // others of this prefix are for other programs
		r.say(e[0][len("BRINDLE_"):], e[1], "environment, "+e[0], true)
	}
}

func (r *resolver) byEnv(name string) *Param {
	for i := range r.params {
		if slices.Contains(r.params[i].Env, name) {
			return &r.params[i]
		}
	}
	return nil
}

// Router returns the BGP router id that was asked for, invalid if the node's
// address is to be used. With "hash" it is the first four bytes of the
// SHA-256 of the node's name, below the multicast range (documented Calico
// behaviour).
func (s Startup) Router(node string) netip.Addr {
	if !s.RouterIDHash {
		return s.RouterID
	}
	sum := sha256.Sum256([]byte(node))
	if sum[0] > 223 {
		sum[0] -= 32
	}
	return netip.AddrFrom4([4]byte(sum[:4]))
}
