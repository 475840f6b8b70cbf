package model

import (
	"fmt"
	"math"
	"slices"
	"strconv"

	v3 "github.com/brindle-net/brindle/api/v3"
)

// Tier is a group of policies. A policy may name a tier that does not exist.
type Tier struct {
	Name        string
	Order       float64 // +Inf if the object has none, -Inf if Lost
	DefaultPass bool    // what ends the tier: false denies
	// Lost says that nobody knows where the tier comes. It is before all
	// others then, and denies everything to the endpoints that its policies
	// are for: what it would allow another tier may deny, and the other way
	// round.
	Lost bool
	// Broken says what of the stored object breaks the rules, what holds in
	// its place, and what to do. "" if it is sound.
	Broken string
	why    string // the first part of Broken
	guess  guess
}

// guess says what of a tier could not be read, and of one that is lost what
// could.
type guess struct {
	order, action bool
	pass          bool
}

// fromTier reads a tier. What cannot be read of one that always exists is what
// is documented of it; else its end denies, and without an order it is lost.
func fromTier(o *v3.Tier, unread v3.FieldErrors) *Tier {
	lost := func(field string) bool {
		return slices.ContainsFunc(unread, func(e v3.FieldError) bool { return e.Path == "spec" || within(e.Path, field) })
	}
	t := &Tier{Name: o.Name, Order: math.Inf(1), guess: guess{order: lost("spec.order"), action: lost("spec.defaultAction")}}
	if o.Spec.Order != nil {
		t.Order = *o.Spec.Order
	}
	errs := slices.Clone(unread)
	if a := o.Spec.DefaultAction; a != nil && !t.guess.action {
		t.DefaultPass = *a == v3.ActionPass
		if !t.DefaultPass && *a != v3.ActionDeny {
			t.guess.action = true
			errs = append(errs, v3.FieldError{Path: "spec.defaultAction", Value: string(*a), Rule: "must be one of Deny, Pass"})
		}
	}
	t.why = broken(errs)
	t.assume()
	return t
}

// lostTier stands for a tier of which nothing can be read.
func lostTier(name, why string) *Tier {
	t := &Tier{Name: name, guess: guess{order: true, action: true}, why: why}
	t.assume()
	return t
}

// assume settles what could not be read.
func (t *Tier) assume() {
	if t.why == "" {
		return
	}
	what := "nothing of what it says about policies is lost"
	builtIn := slices.IndexFunc(v3.BuiltInTiers(), func(b *v3.Tier) bool { return b.Name == t.Name })
	switch {
	case !t.guess.order && !t.guess.action:
	case builtIn >= 0:
		spec := v3.BuiltInTiers()[builtIn].Spec
		if t.guess.order {
			t.Order = *spec.Order
		}
		if t.guess.action {
			t.DefaultPass = *spec.DefaultAction == v3.ActionPass
		}
		what = "the tier always exists, and what is documented of it holds"
	case t.guess.order:
		t.guess.pass = t.DefaultPass
		t.Order, t.DefaultPass, t.Lost = math.Inf(-1), false, true
		what = "nobody knows where it comes, so it denies everything to the endpoints that its policies are for"
	default:
		t.DefaultPass, what = false, "its end denies"
	}
	t.say(what)
}

func (t *Tier) say(what string) {
	t.Broken = t.why + ": " + what + "; apply the tier anew"
}

// Keep returns the tier with what was last in force, nil if nothing was, in
// place of what cannot be read of it: its policies stay where they are until
// somebody mends it.
func (t *Tier) Keep(last *Tier) *Tier {
	if last == nil || last.Lost || !t.guess.order && !t.guess.action {
		return t
	}
	kept := *t
	if kept.guess.order {
		kept.Order, kept.Lost, kept.DefaultPass = last.Order, false, t.DefaultPass || t.guess.pass
	}
	if kept.guess.action {
		kept.DefaultPass = last.DefaultPass
	}
	end, order := "Deny", "no order"
	if kept.DefaultPass {
		end = "Pass"
	}
	if !math.IsInf(kept.Order, 1) {
		order = "order " + strconv.FormatFloat(kept.Order, 'g', -1, 64)
	}
	kept.say(fmt.Sprintf("what was last read of it holds until this host's agent starts again (%s, defaultAction %s)", order, end))
	return &kept
}

func (*Tier) isModel() {}
