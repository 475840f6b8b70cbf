package config

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strconv"
	"strings"

	v3 "github.com/brindle-net/brindle/api/v3"
)

// Sources is everything that may say something about the settings of a host.
// Of two that name the same parameter the later field here wins; of the
// objects, "default" gives way to one that selects the host by its labels,
// and that one to "node.NAME" (documented Calico precedence).
type Sources struct {
	Node    string            // name of this host's Node
	Labels  map[string]string // of this host's Node
	Objects []*v3.FelixConfiguration
	File    map[string]string // see ParseFile
	Env     []string          // "NAME=value", as os.Environ gives it
	Flags   map[string]string // by parameter name
	// Running is what the host runs with, or ran with last: it holds where an
	// object says what is not allowed.
	Running []Value
	// Unread says that not all objects are known: those that are missing say
	// what Running has of them.
	Unread bool
	// Broken are the names of the only objects that are not known, if that much
	// is known: others that are missing are not there.
	Broken []string
}

// Value is what one parameter came to, and who said so.
type Value struct {
	Name, Value, Source string
}

// Result is the outcome of Resolve.
type Result struct {
	Agent    Agent
	Values   []Value   // every parameter, in the order of Params
	Said     []Value   // all that sources say of parameters, in the order of Params, of each the strongest last
	Ignored  []Value   // what sources say that is known of Calico and not honoured here
	Warnings []string  // for people: unknown names, values that gave way to others
	Refused  []Refusal // of the values that gave way; Warnings has them too
}

// Refusal is something that an object says and that is not allowed.
type Refusal struct {
	Object string // "FelixConfiguration NAME"; "" where it is no object that said it
	Text   string // names the object, the field, the value, the rule, and what holds
}

// Resolve works out the settings. A value that breaks its parameter's rule
// gives way, with a warning: one of an object to what the host runs with, if
// that is known, others to the default. It is part of the error where going on
// with the default would do harm; the Result is as complete as it can be even
// then.
func Resolve(s Sources) (Result, error) {
	r := newResolver()
	r.running = s.Running
	for _, o := range r.objects(s) {
		r.object(o)
	}
	if s.Unread {
		r.recall(s.Objects, s.Broken)
	}
	r.file(s.File)
	r.env(s.Env)
	var errs []error
	for _, name := range slices.Sorted(maps.Keys(s.Flags)) {
		if !r.say(name, s.Flags[name], "flag --"+name, true) {
			errs = append(errs, fmt.Errorf("flag --%s: is no parameter", name))
		}
	}
	errs = append(errs, r.settle()...)
	return r.out, errors.Join(errs...)
}

// resolver is one run of Resolve.
type resolver struct {
	params  []Param
	said    map[string][]Value // by parameter name, the strongest last
	running []Value
	out     Result
}

func newResolver() *resolver { return &resolver{params: Params(), said: map[string][]Value{}} }

func (r *resolver) warn(format string, args ...any) {
	r.out.Warnings = append(r.out.Warnings, fmt.Sprintf(format, args...))
}

// param finds a parameter by any of its spellings. Calico's older names of
// intervals end in "Secs".
func (r *resolver) param(name string) *Param {
	want := normal(name)
	for i := range r.params {
		if n := normal(r.params[i].Name); want == n || want == n+"secs" {
			return &r.params[i]
		}
	}
	return nil
}

// say notes what a source says of a parameter; false if there is none of the
// name. An empty value says nothing.
func (r *resolver) say(name, value, source string, local bool) bool {
	p := r.param(name)
	switch {
	case p == nil:
		return false
	case p.Local && !local:
		r.warn("%s: %s can only be set on the host itself", source, p.Name)
	case value != "":
		r.said[p.Name] = append(r.said[p.Name], Value{p.Name, value, source})
	}
	return true
}

// settle turns what was said into the settings.
func (r *resolver) settle() []error {
	var errs []error
	for _, p := range r.params {
		v := Value{p.Name, p.Default, "default"}
		if said := r.said[p.Name]; len(said) > 0 {
			v = said[len(said)-1]
			r.out.Said = append(r.out.Said, said...)
		}
		if err := r.set(p, v); err != nil {
			wrong := fmt.Errorf("%s: %s: %q: must be %s", v.Source, p.Name, v.Value, p.Rule)
			if !errors.Is(err, errRule) {
				wrong = fmt.Errorf("%w (%v)", wrong, err)
			}
			if v, err = r.instead(p, v, wrong); err != nil {
				errs = append(errs, err)
			}
		}
		r.out.Values = append(r.out.Values, v)
	}
	return errs
}

// set sets one parameter.
func (r *resolver) set(p Param, v Value) error {
	raw := v.Value
	if strings.EqualFold(raw, "none") && !canBeNone(p.Name) {
		raw = "" // documented: the zero value
	}
	return p.set(&r.out.Agent, raw)
}

// instead finds what holds in place of a value that is not allowed.
func (r *resolver) instead(p Param, bad Value, wrong error) (Value, error) {
	i := slices.IndexFunc(r.running, func(v Value) bool { return v.Name == p.Name })
	if fromObject(bad.Source) && i >= 0 && r.set(p, r.running[i]) == nil {
		r.refuse(bad.Source, fmt.Sprintf("%v; %q, which was in force, stays", wrong, r.running[i].Value))
		return r.running[i], nil
	}
	v := Value{p.Name, p.Default, "default"}
	if err := r.set(p, v); err != nil {
		return v, fmt.Errorf("default of %s: %w", p.Name, err)
	}
	if p.Fatal {
		return v, wrong
	}
	r.refuse(bad.Source, fmt.Sprintf("%v; the default %q is used", wrong, p.Default))
	return v, nil
}

// refuse notes that something gave way.
func (r *resolver) refuse(source, text string) {
	object := ""
	if fromObject(source) {
		object = objectOf(source)
	}
	r.out.Refused = append(r.out.Refused, Refusal{object, text})
	r.warn("%s", text)
}

// object notes what a FelixConfiguration says: its fields, then the
// annotations that carry raw parameters.
func (r *resolver) object(o *v3.FelixConfiguration) {
	source := ofObject + o.Name
	data, err := json.Marshal(o.Spec)
	fields := map[string]any{}
	if err == nil {
		err = json.Unmarshal(data, &fields)
	}
	if err != nil {
		r.warn("%s: cannot be read: %v", source, err)
	}
	for _, name := range slices.Sorted(maps.Keys(fields)) {
		value := plain(fields[name])
		if name != "nodeSelector" && value != "" && !r.say(name, value, source, false) {
			r.out.Ignored = append(r.out.Ignored, Value{name, value, source})
		}
	}
	for _, key := range slices.Sorted(maps.Keys(o.Annotations)) {
		if name, ok := strings.CutPrefix(key, "config.projectcalico.org/"); ok {
			r.foreign(name, o.Annotations[key], source+", annotation "+key, false)
		}
	}
}

// plain writes a value of a field as a source in text would.
func plain(v any) string {
	switch v := v.(type) {
	case nil:
		return ""
	case string:
		return v
	case bool:
		return strconv.FormatBool(v)
	case float64:
		return strconv.FormatFloat(v, 'f', -1, 64)
	}
	data, err := json.Marshal(v)
	if err != nil {
		return ""
	}
	return string(data)
}

// foreign notes what a source in text says, where names may be any of
// Calico's and mistyped.
func (r *resolver) foreign(name, value, source string, local bool) {
	switch {
	case r.say(name, value, source, local) || value == "" || datastoreParam(name):
	case calicoParam(name):
		r.out.Ignored = append(r.out.Ignored, Value{name, value, source})
		r.warn("%s: is known and not honoured", source)
	default:
		r.warn("%s: is not known", source)
	}
}

// calicoParam reports whether a name is a parameter of Calico's agent.
func calicoParam(name string) bool {
	want := strings.TrimSuffix(normal(name), "secs")
	if strings.HasPrefix(want, "typha") || strings.HasPrefix(want, "ipinip") {
		return true
	}
	t := reflect.TypeFor[v3.FelixConfigurationSpec]()
	for i := range t.NumField() {
		field, _, _ := strings.Cut(t.Field(i).Tag.Get("json"), ",")
		if n := normal(field); n == want || n == normal(name) {
			return true
		}
	}
	return false
}

// datastoreParam reports whether a name says how to reach the datastore,
// which is read before there is a configuration.
func datastoreParam(name string) bool {
	return normal(name) == "datastoretype" || strings.HasPrefix(normal(name), "etcd")
}

// Renews reports whether an agent that runs with some values has to start anew
// for others: one differs that does not take effect by itself. Who said a value
// is none of its business.
func Renews(running, now []Value) bool {
	live := map[string]bool{}
	for _, p := range Params() {
		live[p.Name] = p.Live
	}
	return !slices.EqualFunc(running, now, func(a, b Value) bool { return a.Name == b.Name && (a.Value == b.Value || live[a.Name]) })
}
