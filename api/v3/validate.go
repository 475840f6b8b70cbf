package v3

import (
	"reflect"
	"strconv"
	"strings"
	"unicode"
)

// Validate says what is wrong with one object by itself, in the order of its
// fields; nothing when it is valid. It holds before and after Default, but
// names a mistake best in what the user wrote: validate first. Fields with
// their zero value count as not set. What depends on other objects is for
// ValidateCreate, ValidateUpdate and ValidateSet.
//
// The rules are those documented for Calico's API: an object that is refused
// here would be treated as absent by Calico's programs, too.
func Validate(o Object) FieldErrors {
	c := &checker{}
	if isNothing(o) {
		c.wrong("", "", "must be an object", "")
		return c.errs
	}
	k, ok := kindNamed(kindOf(o))
	if !ok {
		c.wrong("kind", o.Type().Kind, "must be a kind of "+Group, didYouMean(SuggestKind(o.Type().Kind)))
		return c.errs
	}
	if t := o.Type(); t.Kind != "" && t.Kind != k.Kind {
		c.wrong("kind", t.Kind, "must be "+k.Kind+", the kind of the object", "")
	}
	if t := o.Type(); t.APIVersion != "" && t.APIVersion != Group {
		c.wrong("apiVersion", t.APIVersion, "must be "+Group, "")
	}
	c.metadata(o, k)
	c.spec(o)
	return c.errs
}

func isNothing(o Object) bool { return o == nil || reflect.ValueOf(o).IsNil() }

// kindOf names the kind by the Go type, which cannot be wrong.
func kindOf(o Object) string { return reflect.TypeOf(o).Elem().Name() }

// spec checks everything below metadata.
func (c *checker) spec(o Object) {
	switch o := o.(type) {
	case *IPPool:
		c.pool(&o.Spec)
	case *IPReservation:
		c.networks("spec.reservedCIDRs", o.Spec.ReservedCIDRs)
	case *BlockAffinity:
		c.affinity(&o.Spec)
	case *IPAMBlock:
		c.block(&o.Spec)
	case *IPAMHandle:
		c.handle(&o.Spec)
	case *IPAMConfiguration:
		c.ipamConfig(&o.Spec)
	case *BGPConfiguration:
		c.bgpConfig(o.Name, &o.Spec)
	case *BGPPeer:
		c.bgpPeer(&o.Spec)
	case *BGPFilter:
		c.bgpFilter(&o.Spec)
	case *FelixConfiguration:
		c.felix(o.Name, &o.Spec)
	case *KubeControllersConfiguration:
		c.controllers(&o.Spec)
	case *ClusterInformation:
		if o.Spec.ClusterGUID != "" {
			c.match("spec.clusterGUID", o.Spec.ClusterGUID, guidRegexp, "must be 32 hexadecimal digits")
		}
	case *CalicoNodeStatus:
		c.nodeStatus(&o.Spec)
	case *Node:
		c.node(o)
	case *WorkloadEndpoint:
		c.workload(o)
	case *HostEndpoint:
		c.hostEndpoint(&o.Spec)
	default:
		c.policySpec(o)
	}
}

func (c *checker) policySpec(o Object) {
	switch o := o.(type) {
	case *NetworkPolicy:
		c.networkPolicy(&o.Spec)
	case *GlobalNetworkPolicy:
		c.globalPolicy(&o.Spec)
	case *StagedNetworkPolicy:
		c.stagedPolicy(&o.Spec)
	case *StagedGlobalNetworkPolicy:
		c.stagedGlobalPolicy(&o.Spec)
	case *StagedKubernetesNetworkPolicy:
		c.stagedKubernetesPolicy(&o.Spec)
	case *Tier:
		c.tier(o.Name, &o.Spec)
	case *NetworkSet:
		c.networks("spec.nets", o.Spec.Nets)
	case *GlobalNetworkSet:
		c.networks("spec.nets", o.Spec.Nets)
	case *Profile:
		c.profile(&o.Spec)
	}
}

// checker gathers what is wrong with one object.
type checker struct{ errs FieldErrors }

func (c *checker) wrong(path, value, rule, hint string) {
	c.errs = append(c.errs, FieldError{Path: path, Value: value, Rule: escaped(rule), Hint: escaped(hint)})
}

// escaped makes a text that may hold names from elsewhere safe to print.
func escaped(s string) string {
	if strings.IndexFunc(s, func(r rune) bool { return !unicode.IsPrint(r) }) < 0 {
		return s
	}
	var b strings.Builder
	for _, r := range s {
		if unicode.IsPrint(r) {
			b.WriteRune(r)
		} else {
			b.WriteString(strings.Trim(strconv.QuoteRune(r), "'"))
		}
	}
	return b.String()
}

// must notes that a field breaks rule, unless holds.
func (c *checker) must(holds bool, path, value, rule string) {
	if !holds {
		c.wrong(path, value, rule, "")
	}
}

// required notes that a text is not set, and reports whether it is.
func (c *checker) required(path, value string) bool {
	c.must(value != "", path, "", "must be set")
	return value != ""
}

// atMost limits the length of a list.
func (c *checker) atMost(path string, have, most int) {
	if have > most {
		c.wrong(path, strconv.Itoa(have)+" entries", "must have at most "+strconv.Itoa(most)+" entries", "")
	}
}

// between limits a number.
func (c *checker) between(path string, n, low, high int64) {
	if n < low || n > high {
		c.wrong(path, strconv.FormatInt(n, 10), "must be from "+strconv.FormatInt(low, 10)+" to "+strconv.FormatInt(high, 10), "")
	}
}

// unique wants no entry of a list twice.
func unique[T ~string](c *checker, path string, list []T) {
	if len(list) < 2 {
		return
	}
	seen := map[T]bool{}
	for i, v := range list {
		c.must(!seen[v], indexed(path, i), string(v), "must not be in the list twice")
		seen[v] = true
	}
}
