package client

import (
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"

	v3 "github.com/brindle-net/brindle/api/v3"
	"github.com/brindle-net/brindle/internal/store"
)

// Kinds that are not stored as plain resources.
const (
	kindIPAMConfiguration = "IPAMConfiguration"
	kindNetworkPolicy     = "NetworkPolicy"
	kindProfile           = "Profile"
	kindTier              = "Tier"
	kindIPPool            = "IPPool"
)

// ident names one object.
type ident struct {
	kind      v3.KindInfo
	namespace string
	name      string
}

// identOf returns the name of an object.
func identOf(o v3.Object) (ident, error) {
	kind, ok := v3.LookupKind(o.Type().Kind)
	if !ok || kind.Kind != o.Type().Kind {
		return ident{}, fmt.Errorf("kind %s: %w", strconv.Quote(o.Type().Kind), v3.ErrUnknownKind)
	}
	return ident{kind, o.Meta().Namespace, o.Meta().Name}, nil
}

// String names the object as users do, safe to print: IPPool "a".
func (id ident) String() string {
	switch {
	case id.name == "" && id.namespace == "":
		return id.kind.Kind
	case id.namespace == "":
		return id.kind.Kind + " " + strconv.Quote(id.name)
	}
	return id.kind.Kind + " " + strconv.Quote(id.namespace+"/"+id.name)
}

// checkKind refuses kinds that have a form of their own in etcd.
func (id ident) checkKind() error {
	switch id.kind.Kind {
	case "BlockAffinity", "IPAMBlock", "IPAMHandle":
		return fmt.Errorf("%w: see the ipam commands", ErrReadOnly)
	}
	return nil
}

// check says whether the name can be one of this kind.
func (id ident) check() error {
	if err := id.checkKind(); err != nil {
		return err
	}
	var wrong v3.FieldErrors
	if id.name == "" {
		wrong = append(wrong, v3.FieldError{Path: "metadata.name", Rule: "must be given"})
	}
	if id.kind.Namespaced && id.namespace == "" {
		wrong = append(wrong, v3.FieldError{Path: "metadata.namespace", Rule: "must be given for this kind"})
	}
	if !id.kind.Namespaced && id.namespace != "" {
		wrong = append(wrong, v3.FieldError{Path: "metadata.namespace", Value: id.namespace, Rule: "must be empty: this kind has no namespaces"})
	}
	if id.kind.Kind == kindIPAMConfiguration && id.name != "" && id.name != v3.DefaultName {
		wrong = append(wrong, v3.FieldError{Path: "metadata.name", Value: id.name, Rule: "must be default: there is only one"})
	}
	return wrong.Err()
}

// key returns where the object is stored.
func (id ident) key() string {
	if id.kind.Kind == kindIPAMConfiguration {
		return store.IPAMConfigKey
	}
	return store.ResourceID{Plural: id.kind.Plural, Namespace: id.namespace, Name: id.name}.Key()
}

// prefix returns what all objects of the kind and namespace have in common.
func (id ident) prefix() string {
	if id.kind.Kind == kindIPAMConfiguration {
		return store.IPAMConfigKey
	}
	return store.ResourcePrefix(id.kind.Plural, id.namespace)
}

// parse returns which object of the kind a key holds; false if none.
func (id ident) parse(key string) (ident, bool) {
	if id.kind.Kind == kindIPAMConfiguration {
		return ident{kind: id.kind, name: v3.DefaultName}, key == store.IPAMConfigKey
	}
	r, ok := store.ParseResourceKey(key)
	if !ok || r.Plural != id.kind.Plural || (r.Namespace != "") != id.kind.Namespaced {
		return ident{}, false
	}
	return ident{id.kind, r.Namespace, r.Name}, true
}

// legacy returns the name under which older Calico releases stored a policy of
// the default tier.
func (id ident) legacy() (ident, bool) {
	const prefix = v3.TierDefault + "."
	switch id.kind.Kind {
	case kindNetworkPolicy, "GlobalNetworkPolicy", "StagedNetworkPolicy", "StagedGlobalNetworkPolicy":
		old := id
		old.name = prefix + id.name
		return old, !strings.HasPrefix(id.name, prefix)
	}
	return ident{}, false
}

// document is a stored object beside what it was read from.
type document struct {
	id     ident
	object v3.Object
	kv     store.KV // Key is empty for what is not stored
}

// decode reads a stored value. Fields that are not known are left out of the
// object; they stay in the value.
func decode(id ident, kv store.KV) (document, error) {
	o := id.kind.New()
	value := kv.Value
	if id.kind.Kind == kindIPAMConfiguration {
		var err error
		if value, err = unflatten(value); err != nil {
			return document{}, errors.Join(ErrUnreadable, err)
		}
	}
	if err := json.Unmarshal(value, o); err != nil {
		return document{}, fmt.Errorf("%w: %w", ErrUnreadable, err)
	}
	if o.Type().Kind != id.kind.Kind && o.Type().Kind != "" {
		return document{}, fmt.Errorf("%w: it says to be of kind %s", ErrUnreadable, strconv.Quote(o.Type().Kind))
	}
	*o.Type() = v3.TypeMeta{Kind: id.kind.Kind, APIVersion: v3.Group}
	// The key decides: it is what everybody finds the object by.
	o.Meta().Namespace, o.Meta().Name = id.namespace, id.name
	o.Meta().ResourceVersion = string(kv.Revision)
	readTier(o)
	return document{id: id, object: o, kv: kv}, nil
}

// encode returns the JSON of an object as it is stored.
func encode(o v3.Object) ([]byte, error) {
	rev := o.Meta().ResourceVersion
	o.Meta().ResourceVersion = ""
	defer func() { o.Meta().ResourceVersion = rev }()
	b, err := v3.Encode(o)
	if err == nil && o.Type().Kind == kindIPAMConfiguration {
		return flatten(b)
	}
	return b, err
}

// copyOf returns a deep copy of an object.
func copyOf(kind v3.KindInfo, o v3.Object) (v3.Object, error) {
	b, err := json.Marshal(o)
	if err != nil {
		return nil, fmt.Errorf("copy %s: %w", kind.Kind, err)
	}
	out := kind.New()
	if err := json.Unmarshal(b, out); err != nil {
		return nil, fmt.Errorf("copy %s: %w", kind.Kind, err)
	}
	*out.Type() = *o.Type()
	return out, nil
}

// ipamFields are the names that fields of the IPAM configuration have under
// its own key, which is a flat record older than the API.
var ipamFields = [][2]string{
	{"strictAffinity", "strict_affinity"},
	{"autoAllocateBlocks", "auto_allocate_blocks"},
	{"maxBlocksPerHost", "maxBlocksPerHost"},
	{"ipCooldownSeconds", "ipCooldownSeconds"},
	{"kubeVirtVMAddressPersistence", "kubeVirtVMAddressPersistence"},
}

// unflatten turns the flat record into an object. In the record, what is
// absent is false.
func unflatten(value []byte) ([]byte, error) {
	var record map[string]json.RawMessage
	if err := json.Unmarshal(value, &record); err != nil {
		return nil, err
	}
	spec := map[string]json.RawMessage{"autoAllocateBlocks": json.RawMessage("false")}
	for _, f := range ipamFields {
		if v, ok := record[f[1]]; ok {
			spec[f[0]] = v
		}
	}
	return json.Marshal(map[string]any{"spec": spec})
}

// flatten is the inverse of unflatten.
func flatten(value []byte) ([]byte, error) {
	var o struct{ Spec map[string]json.RawMessage }
	if err := json.Unmarshal(value, &o); err != nil {
		return nil, err
	}
	record := map[string]json.RawMessage{}
	for _, f := range ipamFields {
		if v, ok := o.Spec[f[0]]; ok && string(v) != "false" {
			record[f[1]] = v
		}
	}
	return json.Marshal(record)
}
