package client

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	v3 "github.com/brindle-net/brindle/api/v3"
	"github.com/brindle-net/brindle/internal/store"
)

// Ask is the question of somebody who waits: is the change enforced here? It
// is stored as JSON below store.AskRoot, under a name that is used once.
type Ask struct {
	Resources store.Revision `json:"resources,omitempty"` // as of Written
	Blocks    store.Revision `json:"blocks,omitempty"`
	By        string         `json:"by,omitempty"` // for people
	Asked     time.Time      `json:"asked"`        // by the clock of whoever asks
	Seconds   int            `json:"seconds"`      // for how long the answer is of use
	Objects   []string       `json:"objects"`      // what was written, as Written has it; null: not known
}

// Answer is what a host says to one Ask.
type Answer struct {
	Enforced bool   `json:"enforced"`
	Reason   string `json:"reason,omitempty"`  // why not, one word
	Message  string `json:"message,omitempty"` // for people
	Final    bool   `json:"final,omitempty"`   // waiting does not help: something else has to be written
}

// Answers are all that a host says, by the names of the asks. They are stored
// as JSON under store.AnswerKey.
type Answers struct {
	Answers map[string]Answer `json:"answers"`
}

// Reasons why a host is late. All but ReasonNoAnswer are the host's own.
const (
	ReasonNoAnswer        = "NoAnswer"        // its agent does not run, does not reach the datastore, or is older than --wait
	ReasonDatastoreBehind = "DatastoreBehind" // the change has not come to its agent, or is being computed
	ReasonSettings        = "SettingsChange"  // the agent has to start anew, or cannot use the settings
	ReasonWorking         = "Working"         // the kernel is being programmed
	ReasonFailing         = "Failing"         // the kernel, or the speaker, refuses something
	ReasonNotHonoured     = "NotHonoured"     // something stored cannot be honoured on this host
)

// HostState is how one host stands.
type HostState struct {
	Host   string `json:"host"`
	Answer        // of the host, or what there is to say without one
}

// Enforcement is how all hosts stand, sorted by name.
type Enforcement struct {
	Hosts []HostState
}

// Late lists the hosts that do not enforce the change yet.
func (e Enforcement) Late() []HostState {
	return slices.DeleteFunc(slices.Clone(e.Hosts), func(h HostState) bool { return h.Enforced })
}

// WaitConfig says how to wait.
type WaitConfig struct {
	Timeout  time.Duration     // must be more than nothing
	By       string            // who waits, for people
	Progress func(Enforcement) // called from one goroutine at every change; nil: nobody looks
}

// ErrLate says that not all hosts enforced a change in time.
var ErrLate = errors.New("not enforced on every host in time")

// ErrNever says that the hosts that do not enforce a change are not going to.
var ErrNever = errors.New("a host cannot enforce it")

// orphanAge is how much older than its time an ask must be to be removed by
// somebody else: clocks may differ.
const orphanAge = time.Hour

// farewell bounds how long a waiter that was interrupted takes to clean up.
const farewell = 2 * time.Second

// WaitEnforced waits until every host that has a Node enforces what was
// written. It returns how they stand when it ends; the error is ErrLate when
// the time is over, ErrNever when all that are late say that they cannot, that
// of ctx when ctx ended, or the datastore's.
//
// It writes one key and removes it at the end. Every host writes one key in
// answer, so that nobody writes anything while nobody waits.
func WaitEnforced(ctx context.Context, d store.Driver, w Written, cfg WaitConfig) (Enforcement, error) {
	limited, cancel := context.WithTimeoutCause(ctx, cfg.Timeout, ErrLate)
	defer cancel()
	b := &waiter{id: NewUID(), nodes: map[string]bool{}, answers: map[string]Answer{}, changed: make(chan struct{}, 1)}
	sweepAsks(limited, d)
	ask := Ask{Resources: w.Resources, Blocks: w.Blocks, By: cfg.By, Asked: time.Now().UTC(), Seconds: int(cfg.Timeout/time.Second) + 1, Objects: w.Objects}
	value, err := json.Marshal(ask)
	if err != nil {
		return Enforcement{}, fmt.Errorf("wait until enforced: %w", err)
	}
	if _, err := d.Create(limited, store.AskRoot+b.id, value); err != nil {
		return Enforcement{}, fmt.Errorf("ask every host whether the change is enforced: %w", err)
	}
	defer b.end(ctx, d)
	err = b.wait(limited, d, cfg.Progress)
	if err != nil && ctx.Err() == nil && !errors.Is(err, ErrNever) {
		err = ErrLate
		if why := b.trouble(); why != nil {
			err = fmt.Errorf("%w; the datastore is out of reach: %w", ErrLate, why)
		}
	}
	return b.state(), err
}

// waiter is one who waits.
type waiter struct {
	id       string
	changed  chan struct{}         // capacity 1: there is news
	statuses [2]store.FollowStatus // of nodes, and of answers

	mu      sync.Mutex // guards everything below
	nodes   map[string]bool
	answers map[string]Answer
	said    []string // hosts that have a key
	synced  int      // of the two, which have been read once
}

// wait waits until every node has answered that it is in step.
func (b *waiter) wait(ctx context.Context, d store.Driver, progress func(Enforcement)) error {
	ctx, cancel := context.WithCancel(ctx)
	var followers sync.WaitGroup
	defer followers.Wait()
	defer cancel()
	for i, f := range []struct {
		prefix string
		take   func(store.Event)
	}{{store.ResourcePrefix("nodes", ""), b.takeNode}, {store.AnswerRoot, b.takeAnswers}} {
		followers.Go(func() {
			_ = store.Follow(ctx, d, f.prefix, func(u store.Update) { b.update(u, f.take) }, store.FollowConfig{Status: &b.statuses[i]}) // ends with ctx
		})
	}
	for {
		b.mu.Lock()
		known := b.synced == len(b.statuses)
		b.mu.Unlock()
		if known {
			now := b.state()
			if progress != nil {
				progress(now)
			}
			late := now.Late()
			if len(late) == 0 {
				return nil
			}
			if !slices.ContainsFunc(late, func(h HostState) bool { return !h.Final }) {
				return ErrNever
			}
		}
		select {
		case <-b.changed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// update takes what a follower hands over.
func (b *waiter) update(u store.Update, take func(store.Event)) {
	b.mu.Lock()
	for _, e := range u.Events {
		take(e)
	}
	if u.InSync {
		b.synced++
	}
	b.mu.Unlock()
	select {
	case b.changed <- struct{}{}:
	default: // a look is due already
	}
}

// takeNode notes which hosts there are. One whose Node cannot be read is one
// nonetheless. b.mu is held.
func (b *waiter) takeNode(e store.Event) {
	id, ok := store.ParseResourceKey(e.Key)
	if !ok || id.Namespace != "" {
		return
	}
	if e.Value == nil {
		delete(b.nodes, id.Name)
		return
	}
	o, err := v3.DecodeStored(e.Value)
	says := false
	if err == nil {
		_, says = o.Meta().Annotations[annotationAccepts]
	}
	b.nodes[id.Name] = says
}

// annotationAccepts is what Brindle's agents write into their Nodes.
const annotationAccepts = "brindle.net/accepts"

// takeAnswers notes what a host says. b.mu is held.
func (b *waiter) takeAnswers(e store.Event) {
	host, ok := store.ParseAnswerKey(e.Key)
	if !ok {
		return
	}
	if b.said = slices.DeleteFunc(b.said, func(h string) bool { return h == host }); e.Value == nil {
		delete(b.answers, host)
		return
	}
	b.said = append(b.said, host)
	var all Answers
	if err := json.Unmarshal(e.Value, &all); err != nil {
		b.answers[host] = Answer{Reason: ReasonNoAnswer, Message: "its answer cannot be read: " + err.Error()}
		return
	}
	if a, answered := all.Answers[b.id]; answered {
		b.answers[host] = a
	} // else it is to somebody else, and does not take back what was said
}

// state is how all hosts stand.
func (b *waiter) state() Enforcement {
	b.mu.Lock()
	defer b.mu.Unlock()
	var out Enforcement
	for _, host := range slices.Sorted(maps.Keys(b.nodes)) {
		a, answered := b.answers[host]
		switch {
		case answered:
		case b.nodes[host]:
			a = Answer{Reason: ReasonNoAnswer, Message: "its agent does not run, does not reach the datastore, or is older than --wait"}
		default:
			a = Answer{Reason: ReasonNoAnswer, Message: "nothing says that an agent of Brindle runs there"}
		}
		out.Hosts = append(out.Hosts, HostState{Host: host, Answer: a})
	}
	return out
}

// trouble is why the datastore is not followed now, if it is not.
func (b *waiter) trouble() error {
	for i := range b.statuses {
		if s := b.statuses[i].State(); !s.Connected && s.LastError != nil {
			return s.LastError
		}
	}
	return nil
}

// end takes the question away, and the answers of hosts that are gone.
func (b *waiter) end(ctx context.Context, d store.Driver) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), farewell)
	defer cancel()
	_ = d.Delete(ctx, store.AskRoot+b.id, "") // else the next who waits does it
	b.mu.Lock()
	gone := slices.DeleteFunc(slices.Clone(b.said), func(h string) bool { _, is := b.nodes[h]; return is })
	if b.synced < len(b.statuses) {
		gone = nil // nobody knows
	}
	b.mu.Unlock()
	for _, host := range gone {
		_ = d.Delete(ctx, store.AnswerKey(host), "") // in nobody's way
	}
}

// sweepAsks removes the questions of those who were killed while they waited.
// Nothing depends on it.
func sweepAsks(ctx context.Context, d store.Driver) {
	list, err := d.List(ctx, store.AskRoot)
	if err != nil {
		return
	}
	for _, kv := range list.KVs {
		var ask Ask
		err := json.Unmarshal(kv.Value, &ask)
		over := ask.Asked.Add(time.Duration(ask.Seconds)*time.Second + orphanAge)
		if err != nil || time.Now().After(over) {
			_ = d.Delete(ctx, kv.Key, kv.Revision)
		}
	}
}

// ParseAsk reads a stored question and its name.
func ParseAsk(key string, value []byte) (id string, ask Ask, err error) {
	id, ok := strings.CutPrefix(key, store.AskRoot)
	if !ok || id == "" || strings.Contains(id, "/") {
		return "", ask, fmt.Errorf("key %q holds no question", key)
	}
	if value == nil {
		return id, ask, nil
	}
	if err := json.Unmarshal(value, &ask); err != nil {
		return id, ask, fmt.Errorf("question %s: %w", id, err)
	}
	return id, ask, nil
}
