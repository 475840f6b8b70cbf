package feed

import (
	"context"
	"fmt"
	"log/slog"
	"runtime"
	"strings"
	"sync"

	v3 "github.com/brindle-net/brindle/api/v3"
	"github.com/brindle-net/brindle/internal/model"
	"github.com/brindle-net/brindle/internal/store"
)

// parser turns stored keys and values into events of the model.
type parser struct {
	node  string                 // this host
	kinds map[string]v3.KindInfo // by the plural in a key
	known *known                 // nil: nothing is remembered
}

func newParser(node string) parser {
	p := parser{node: node, kinds: map[string]v3.KindInfo{}}
	for _, k := range v3.Kinds() {
		p.kinds[k.Plural] = k
	}
	return p
}

// read is what event returns for one stored key.
type read struct {
	event model.Event
	ok    bool
	err   error
}

// manyEvents is from how many events on all processors read them.
const manyEvents = 256

// readAll reads stored events, each into its place.
func (p parser) readAll(stored []store.Event) []read {
	out := make([]read, len(stored))
	part := func(first, step int) {
		for i := first; i < len(stored); i += step {
			out[i].event, out[i].ok, out[i].err = p.event(stored[i])
		}
	}
	if len(stored) < manyEvents {
		part(0, 1)
		return out
	}
	var wg sync.WaitGroup
	workers := runtime.GOMAXPROCS(0)
	for w := range workers {
		wg.Go(func() { part(w, workers) })
	}
	wg.Wait()
	return out
}

func (p parser) events(ctx context.Context, log *slog.Logger, stored []store.Event) []model.Event {
	out := make([]model.Event, 0, len(stored))
	for i, r := range p.readAll(stored) {
		if p.known != nil && r.ok {
			r.event = p.known.keep(r.event)
		}
		if why := broken(r.event.Value); why != "" {
			log.WarnContext(ctx, "stored object is used in part", "object", r.event.ID.String(), "err", why)
		} else if r.err != nil {
			log.WarnContext(ctx, "stored object is ignored", "key", stored[i].Key, "err", r.err)
		}
		if r.ok {
			out = append(out, r.event)
		}
	}
	return out
}

// event reads one stored key and value. false: no host needs it. The error
// says why the object of the event is invalid. What an object is called is
// decided by its key, which is all that is left of it when it is deleted.
func (p parser) event(s store.Event) (model.Event, bool, error) {
	if cidr, ok := store.ParseBlockKey(s.Key); ok && cidr == cidr.Masked() {
		if s.Value == nil {
			return model.Event{ID: model.BlockID(cidr)}, true, nil
		}
		e, err := model.FromBlock(cidr, s.Value)
		return e, true, err
	}
	if a, ok := store.ParseAffinityKey(s.Key); ok {
		switch {
		case a.Virtual || a.Owner != p.node || a.CIDR != a.CIDR.Masked():
			return model.Event{}, false, nil
		case s.Value == nil:
			return model.Event{ID: model.AffinityID(a.Owner, a.CIDR)}, true, nil
		}
		e, err := model.FromAffinity(a.Owner, a.CIDR, s.Value)
		return e, true, err
	}
	return p.resource(s)
}

func (p parser) resource(s store.Event) (model.Event, bool, error) {
	r, ok := store.ParseResourceKey(s.Key)
	if !ok {
		return model.Event{}, false, nil
	}
	info, ok := p.kinds[strings.ToLower(r.Plural)]
	if !ok || info.Namespaced != (r.Namespace != "") {
		return model.Event{}, false, nil
	}
	kind := info.Kind
	id, ok := model.ResourceID(kind, r.Namespace, r.Name)
	if !ok {
		return model.Event{}, false, nil
	}
	if s.Value == nil {
		return model.Event{ID: id}, true, nil
	}
	o, err := v3.DecodeStored(s.Value)
	var unread v3.FieldErrors
	if err != nil {
		if part, errs, worse := v3.DecodeStoredPart(s.Value); worse == nil && len(errs) > 0 {
			o, unread, err = part, errs, nil
		}
	}
	if err == nil && o.Type().Kind != kind {
		err = fmt.Errorf("kind: %q: must be that of its key, %s", o.Type().Kind, kind)
	}
	if err != nil {
		return model.Invalidate(id, err), true, fmt.Errorf("%s: %w", id, err)
	}
	o.Meta().Name, o.Meta().Namespace = r.Name, r.Namespace
	e, _, err := model.FromPart(o, unread)
	return e, true, err
}

// broken says what of a value could not be read.
func broken(v model.Value) string {
	switch v := v.(type) {
	case *model.Policy:
		return v.Broken
	case *model.Profile:
		return v.Broken
	case *model.NetworkSet:
		return v.Broken
	case *model.BGPConfig:
		return v.Broken
	case *model.BGPPeer:
		return v.Broken
	case *model.BGPFilter:
		return v.Broken
	case *model.Pool:
		return v.Broken
	case *model.Tier:
		return v.Broken
	}
	return ""
}

// known remembers what is said about policy, the pools, and how BGP is set, as it
// was last in force. What cannot be read any more stays as it was: what a tier's
// policies allow would otherwise all be denied at once, what a policy or a profile
// denies, or the members of a set, would be allowed, sessions would end, and with
// a pool its routes and what leaves it as the host.
type known struct {
	mu   sync.Mutex // guards everything below
	last map[model.ID]model.Value
	// unseen are those of last that were known before the start and have not
	// been found again.
	unseen map[model.ID]bool
}

// forget drops what was deleted before the start: all there is has been read.
func (k *known) forget() {
	k.mu.Lock()
	defer k.mu.Unlock()
	for id := range k.unseen {
		delete(k.last, id)
	}
	k.unseen = nil
}

// keep returns the event with what is remembered in place of what cannot be
// read.
func (k *known) keep(e model.Event) model.Event {
	switch e.ID.Kind {
	case model.KindTier, model.KindPolicy, model.KindProfile, model.KindNetworkSet,
		model.KindPool, model.KindBGPConfig, model.KindBGPPeer:
	default:
		return e
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	last := k.last[e.ID]
	delete(k.unseen, e.ID)
	switch v := e.Value.(type) {
	case nil:
		delete(k.last, e.ID)
		return e
	case *model.Tier:
		before, _ := last.(*model.Tier)
		if v = v.Keep(before); v.Lost {
			return model.Event{ID: e.ID, Value: v}
		}
		e.Value = v
	case *model.Invalid:
		before := v.InPlace(last)
		if before == nil {
			return e // nothing was in force that could go on
		}
		return model.Event{ID: e.ID, Value: before}
	}
	k.last[e.ID] = e.Value
	return e
}
