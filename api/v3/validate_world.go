package v3

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/brindle-net/brindle/internal/prefix"
)

// World is the objects that an object is checked against.
type World interface {
	// List returns every object of a kind, in any order. Which kinds are asked
	// for: IPPool, IPAMBlock, Tier and the four kinds of tiered policy. A kind
	// that is not known is an empty list.
	List(kind string) []Object
}

// Objects is a World that holds just what is in the slice.
type Objects []Object

// List returns the objects of a kind in their order.
func (w Objects) List(kind string) []Object {
	var found []Object
	for _, o := range w {
		if kindOf(o) == kind {
			found = append(found, o)
		}
	}
	return found
}

// tieredKinds are the kinds of policy that a tier can hold.
var tieredKinds = []string{"NetworkPolicy", "GlobalNetworkPolicy", "StagedNetworkPolicy", "StagedGlobalNetworkPolicy"}

// ValidateCreate says what is wrong with an object that is to be created: what
// Validate says, and what does not go with the objects that exist. The object
// itself may be among them or not.
func ValidateCreate(o Object, world World) FieldErrors {
	if wrong := Validate(o); len(wrong) > 0 {
		return wrong
	}
	return createAmong(o, world)
}

// createAmong says what of a new object does not go with those that exist.
func createAmong(o Object, world World) FieldErrors {
	c := &checker{}
	switch o := o.(type) {
	case *IPPool:
		c.poolAmong(o, world)
	case *BlockAffinity:
		c.must(!o.Spec.Deleted, "spec.deleted", "true", "must not be set: address management sets it")
	case *Profile:
		c.builtInProfile(o.Name)
	default:
		c.tierExists(o, world)
	}
	return c.errs
}

// ValidateUpdate says what is wrong with replacing old by o: what Validate
// says, what must not change, and what does not go with the objects that
// exist, old among them or not.
func ValidateUpdate(old, o Object, world World) FieldErrors {
	if wrong := Validate(o); len(wrong) > 0 {
		return wrong
	}
	if isNothing(old) {
		return createAmong(o, world)
	}
	return updateAmong(old, o, world)
}

// updateAmong says what is wrong with replacing old by a valid object.
func updateAmong(old, o Object, world World) FieldErrors {
	c := &checker{}
	if a, b := idOf(old), idOf(o); a != b {
		c.wrong("metadata.name", b.name, "must be the same object: "+a.String(), "")
		return c.errs
	}
	switch o := o.(type) {
	case *IPPool:
		if old, ok := old.(*IPPool); ok {
			c.poolChange(old, o)
		}
	case *Profile:
		c.builtInProfile(o.Name)
	default:
		if tierName(old) != tierName(o) {
			c.tierExists(o, world)
		}
	}
	return c.errs
}

// ValidateDelete says why an object must not be deleted: it is built in, or
// others need it.
func ValidateDelete(o Object, world World) FieldErrors {
	c := &checker{}
	switch o := o.(type) {
	case *Profile:
		c.builtInProfile(o.Name)
	case *Tier:
		if _, ok := builtInTiers[o.Name]; ok {
			c.wrong("metadata.name", o.Name, "must not be deleted: the tier is built in", "")
			break
		}
		for _, kind := range tieredKinds {
			for _, p := range world.List(kind) {
				if tierName(p) == o.Name {
					c.wrong("metadata.name", o.Name, "must not be deleted while a policy is in the tier: "+kind+" "+nameOf(p.Meta()), "delete the policies of the tier first")
					return c.errs
				}
			}
		}
	}
	return c.errs
}

// ValidateEach is Validate for many objects, on as many processors as there
// are. What is wrong with objects[i] is in the i-th of the lists.
func ValidateEach(objects []Object) []FieldErrors {
	all := make([]FieldErrors, len(objects))
	share(len(objects), func(i int, _ *walker) { all[i] = Validate(objects[i]) })
	return all
}

// ValidateSet checks objects that are to be applied together, as the documents
// of a file are: each against the objects that exist and against the others.
// What exists is held to the rules of an update, the rest to those of a
// creation. What is wrong with objects[i] is in the i-th of the lists; of two
// objects that exclude each other the later is told. A tier may stand after
// the policies that name it: whoever writes the objects writes tiers first.
func ValidateSet(objects []Object, world World) []FieldErrors {
	all := ValidateEach(objects)
	view := newSetView(objects, world)
	for i, o := range objects {
		if len(all[i]) == 0 {
			if old := view.existing(o); old != nil {
				all[i] = updateAmong(old, o, view)
			} else {
				all[i] = createAmong(o, view)
			}
		}
		view.add(o)
	}
	return all
}

// setView is the world as it will be once the objects of a set are written, up
// to one of them. Tiers of the whole set are in it.
type setView struct {
	base  World
	tiers []Object              // of the whole set
	kinds map[string][]Object   // of the set so far, by kind
	set   identified            // the same by name, the last if there are several
	world map[string]identified // of base, of the kinds that were asked for
}

// identified are objects by what tells them apart.
type identified map[objectID]Object

func newSetView(objects []Object, base World) *setView {
	v := &setView{base: base, kinds: map[string][]Object{}, set: identified{}, world: map[string]identified{}}
	for _, o := range objects {
		if !isNothing(o) && kindOf(o) == "Tier" {
			v.tiers = append(v.tiers, o)
		}
	}
	return v
}

// add goes on to the next object of the set.
func (v *setView) add(o Object) {
	if !isNothing(o) {
		kind := kindOf(o)
		v.kinds[kind] = append(v.kinds[kind], o)
		v.set[idOf(o)] = o
	}
}

// List returns the objects of a kind: those of the set in place of those that
// exist.
func (v *setView) List(kind string) []Object {
	found := slices.Clone(v.kinds[kind])
	if kind == "Tier" {
		found = slices.Clone(v.tiers)
	}
	replaced := map[objectID]bool{}
	for _, o := range found {
		replaced[idOf(o)] = true
	}
	for _, o := range v.base.List(kind) {
		if !replaced[idOf(o)] {
			found = append(found, o)
		}
	}
	return found
}

// existing returns what o replaces: an earlier object of the set or one of the
// world.
func (v *setView) existing(o Object) Object {
	id := idOf(o)
	if earlier := v.set[id]; earlier != nil {
		return earlier
	}
	stored, known := v.world[id.kind]
	if !known {
		stored = identified{}
		for _, e := range slices.Backward(v.base.List(id.kind)) { // the first of a name counts
			stored[idOf(e)] = e
		}
		v.world[id.kind] = stored
	}
	return stored[id]
}

// objectID tells objects apart.
type objectID struct{ kind, namespace, name string }

func idOf(o Object) objectID { return objectID{kindOf(o), o.Meta().Namespace, o.Meta().Name} }

// String names an object as users know it.
func (id objectID) String() string {
	return id.kind + " " + nameOf(&ObjectMeta{Namespace: id.namespace, Name: id.name})
}

// poolAmong checks a new pool against the pools and blocks that exist.
func (c *checker) poolAmong(o *IPPool, world World) {
	cidr, err := prefix.Parse(o.Spec.CIDR)
	if err != nil {
		return // told by Validate
	}
	for _, other := range sortedByName(world.List("IPPool")) {
		p, ok := other.(*IPPool)
		if !ok || p.Name == o.Name {
			continue
		}
		if q, err := prefix.ParseLoose(p.Spec.CIDR); err == nil && prefix.Overlaps(cidr, q) {
			c.wrong("spec.cidr", o.Spec.CIDR, "must not overlap another pool: "+p.Name+" has "+p.Spec.CIDR, "choose another range, or delete that pool first")
			break
		}
	}
	size := o.Spec.blockSize()
	for _, other := range sortedByName(world.List("IPAMBlock")) {
		b, ok := other.(*IPAMBlock)
		if !ok || b.Spec.Deleted {
			continue
		}
		q, err := prefix.ParseLoose(b.Spec.CIDR)
		if err == nil && prefix.Overlaps(cidr, q) && q.Bits() != size {
			c.wrong("spec.blockSize", strconv.Itoa(size), "must be the size of the blocks that exist in the pool's range: "+b.Spec.CIDR, "set blockSize: "+strconv.Itoa(q.Bits()))
			break
		}
	}
}

// poolChange checks what must not change in a pool.
func (c *checker) poolChange(old, o *IPPool) {
	was, err := prefix.ParseLoose(old.Spec.CIDR)
	is, errNow := prefix.ParseLoose(o.Spec.CIDR)
	if err != nil || errNow != nil || was != is {
		c.wrong("spec.cidr", o.Spec.CIDR, "must not change: it is "+old.Spec.CIDR, "make a second pool, then disable and delete this one")
	}
	if a, b := old.Spec.blockSize(), o.Spec.blockSize(); a != b {
		c.wrong("spec.blockSize", strconv.Itoa(b), fmt.Sprintf("must not change: it is %d", a), "make a second pool, then disable and delete this one")
	}
	if slices.Contains(old.Spec.AllowedUses, UseLoadBalancer) && !slices.Contains(o.Spec.AllowedUses, UseLoadBalancer) {
		c.wrong("spec.allowedUses", usesText(o.Spec.AllowedUses), "must stay LoadBalancer: its addresses are in use by services", "make a second pool")
	}
}

// tierExists wants the tier of a policy to be there.
func (c *checker) tierExists(o Object, world World) {
	name := tierName(o)
	if _, builtIn := builtInTiers[name]; name == "" || builtIn {
		return
	}
	var names []string
	for _, t := range sortedByName(world.List("Tier")) {
		if t.Meta().Name == name {
			return
		}
		names = append(names, t.Meta().Name)
	}
	hint := didYouMean(nearest(name, names))
	if hint == "" {
		hint = "create the tier first"
	}
	c.wrong("spec.tier", name, "must be a tier that exists", hint)
}

// tierName returns the tier that a policy is in, "" for other kinds.
func tierName(o Object) string {
	tier := ""
	switch o := o.(type) {
	case *NetworkPolicy:
		tier = o.Spec.Tier
	case *GlobalNetworkPolicy:
		tier = o.Spec.Tier
	case *StagedNetworkPolicy:
		tier = o.Spec.Tier
	case *StagedGlobalNetworkPolicy:
		tier = o.Spec.Tier
	default:
		return ""
	}
	if tier == "" {
		return TierDefault
	}
	return tier
}

func (c *checker) builtInProfile(name string) {
	c.must(name != ProfileDefaultAllow, "metadata.name", name, "must not be written or deleted: the profile always exists")
}

// sortedByName gives reports the same order whatever the world's.
func sortedByName(objects []Object) []Object {
	return slices.SortedFunc(slices.Values(objects), func(a, b Object) int {
		return strings.Compare(nameOf(a.Meta()), nameOf(b.Meta()))
	})
}
