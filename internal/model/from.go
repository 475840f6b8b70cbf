package model

import (
	"fmt"

	v3 "github.com/brindle-net/brindle/api/v3"
)

// ResourceID names the input that an API object is, false for a kind that no
// host needs.
func ResourceID(apiKind, namespace, name string) (ID, bool) {
	kind, ok := Kind(0), true
	switch apiKind {
	case "Node":
		kind = KindNode
	case "WorkloadEndpoint":
		kind = KindWorkload
	case "HostEndpoint":
		kind = KindHostEndpoint
	case "IPPool":
		kind = KindPool
	case "Profile":
		kind = KindProfile
	case "BGPConfiguration":
		kind = KindBGPConfig
	case "BGPPeer":
		kind = KindBGPPeer
	case "BGPFilter":
		kind = KindBGPFilter
	case "FelixConfiguration":
		kind = KindConfig
	case "ClusterInformation":
		kind = KindClusterInfo
	case "Tier":
		kind = KindTier
	case "NetworkSet", "GlobalNetworkSet":
		kind = KindNetworkSet
	case "NetworkPolicy", "GlobalNetworkPolicy",
		"StagedNetworkPolicy", "StagedGlobalNetworkPolicy", "StagedKubernetesNetworkPolicy":
		return PolicyID(apiKind, namespace, name), true
	default:
		ok = false
	}
	return ID{Kind: kind, Namespace: namespace, Name: name}, ok
}

// FromObject turns an API object into the event that it exists. An object
// that breaks a rule gives an event with an Invalid value and the reason as
// an error, which names the object, the field, the value and the rule. Of a
// policy, profile, tier or network set what can be read is kept, and its Broken
// says what cannot; that is no error. false: no host needs objects of this kind.
func FromObject(o v3.Object) (Event, bool, error) {
	m := o.Meta()
	id, ok := ResourceID(o.Type().Kind, m.Namespace, m.Name)
	if !ok {
		return Event{}, false, nil
	}
	v, err := fromObject(id, o, nil)
	if err != nil {
		return Invalidate(id, err), true, fmt.Errorf("%s: %w", id, err)
	}
	return Event{ID: id, Value: v}, true, nil
}

// FromPart is FromObject for an object of which only a part could be decoded:
// unread names the fields that could not. A policy, profile, tier or network
// set is kept as one that breaks the rules, anything else is invalid.
func FromPart(o v3.Object, unread v3.FieldErrors) (Event, bool, error) {
	m := o.Meta()
	id, ok := ResourceID(o.Type().Kind, m.Namespace, m.Name)
	switch {
	case !ok || len(unread) == 0:
		return FromObject(o)
	case id.Kind != KindPolicy && id.Kind != KindProfile && id.Kind != KindTier && id.Kind != KindNetworkSet:
		return Invalidate(id, unread), true, fmt.Errorf("%s: %w", id, unread)
	}
	v, err := fromObject(id, o, unread)
	if err != nil {
		return Invalidate(id, err), true, fmt.Errorf("%s: %w", id, err)
	}
	return Event{ID: id, Value: v}, true, nil
}

// Invalidate is the event that an object is stored but cannot be used. Of a
// tier its name is left, and so it is one that is lost; of a filter of BGP too,
// and nothing goes past it.
func Invalidate(id ID, err error) Event {
	switch id.Kind {
	case KindTier:
		return Event{ID: id, Value: lostTier(id.Name, err.Error())}
	case KindBGPFilter:
		return Event{ID: id, Value: &BGPFilter{Name: id.Name, Broken: err.Error() + ": sessions with it are not made; apply it anew"}}
	}
	return Event{ID: id, Value: &Invalid{Message: err.Error(), Staged: staged(id)}}
}

func fromObject(id ID, o v3.Object, unread v3.FieldErrors) (Value, error) {
	switch o := o.(type) {
	case *v3.Node:
		return fromNode(o)
	case *v3.WorkloadEndpoint:
		return fromWorkload(id, o)
	case *v3.HostEndpoint:
		return fromHostEndpoint(id, o)
	case *v3.IPPool:
		return fromPool(o)
	case *v3.Profile:
		return fromProfile(o, unread), nil
	case *v3.Tier:
		return fromTier(o, unread), nil
	case *v3.NetworkSet:
		return fromNetworkSet(id, o, o.Spec.Nets, unread), nil
	case *v3.GlobalNetworkSet:
		return fromNetworkSet(id, o, o.Spec.Nets, unread), nil
	case *v3.BGPConfiguration:
		return fromBGPConfig(o)
	case *v3.BGPPeer:
		return fromBGPPeer(o)
	case *v3.BGPFilter:
		return &BGPFilter{Name: o.Name}, nil
	case *v3.FelixConfiguration:
		return &Config{Object: o}, nil
	case *v3.ClusterInformation:
		ready := o.Spec.DatastoreReady
		return &ClusterInfo{GUID: o.Spec.ClusterGUID, Ready: ready == nil || *ready}, nil
	}
	return fromPolicy(id, o, unread)
}

// wrong is the error for one field.
func wrong(path, value, rule string) error {
	return v3.FieldErrors{{Path: path, Value: value, Rule: rule}}
}

// at says in which field a parser found fault.
func at(path, value string, err error) error {
	if err == nil {
		return nil
	}
	return wrong(path, value, err.Error())
}
