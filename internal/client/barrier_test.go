package client

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	v3 "github.com/brindle-net/brindle/api/v3"
	"github.com/brindle-net/brindle/internal/store"
	"github.com/brindle-net/brindle/internal/store/mem"
)

// node stores a host's Node; ours says that an agent of Brindle runs there.
func node(t *testing.T, d store.Driver, name string, ours bool) {
	t.Helper()
	n := &v3.Node{}
	n.Name = name
	if ours {
		n.Annotations = map[string]string{annotationAccepts: "direct"}
	}
	if _, err := Create(t.Context(), New(d, Config{}), n); err != nil {
		t.Fatal(err)
	}
}

// answerer is a host that answers every question in the same way.
func answerer(t *testing.T, d store.Driver, host string, a Answer) {
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	said := Answers{Answers: map[string]Answer{}}
	go func() {
		defer close(done)
		_ = store.Follow(ctx, d, store.AskRoot, func(u store.Update) {
			for _, e := range u.Events {
				id, _, err := ParseAsk(e.Key, e.Value)
				if err != nil || e.Value == nil {
					continue
				}
				said.Answers[id] = a
				value, _ := json.Marshal(said)
				if _, err := d.Update(ctx, store.KV{Key: store.AnswerKey(host), Value: value}); err != nil {
					_, _ = d.Create(ctx, store.AnswerKey(host), value)
				}
			}
		}, store.FollowConfig{})
	}()
	t.Cleanup(func() { cancel(); <-done })
}

func ownKeys(t *testing.T, d store.Driver) []string {
	t.Helper()
	list, err := d.List(context.Background(), "/brindle/")
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, kv := range list.KVs {
		out = append(out, kv.Key)
	}
	return out
}

func TestWaitEnforced(t *testing.T) {
	good := Answer{Enforced: true}
	never := Answer{Reason: ReasonNotHonoured, Message: "GlobalNetworkPolicy a is not enforced", Final: true}
	failing := Answer{Reason: ReasonFailing, Message: "table routes: 1 changes left; first x: no such device"}
	for _, tt := range []struct {
		name    string
		ours    []string // hosts of Brindle
		foreign []string // hosts of another program
		says    map[string]Answer
		want    []string // late hosts with their reasons
	}{
		{"no host at all", nil, nil, nil, nil},
		{"all in step", []string{"h1", "h2"}, nil, map[string]Answer{"h1": good, "h2": good}, nil},
		{"an agent is down", []string{"h1", "h2"}, nil, map[string]Answer{"h1": good}, []string{"h2 NoAnswer its agent does not run, does not reach the datastore, or is older than --wait"}},
		{"another program's host", []string{"h1"}, []string{"c1"}, map[string]Answer{"h1": good}, []string{"c1 NoAnswer nothing says that an agent of Brindle runs there"}},
		{"a kernel refuses", []string{"h1"}, nil, map[string]Answer{"h1": failing}, []string{"h1 Failing " + failing.Message}},
		{"a host cannot", []string{"h1", "h2"}, nil, map[string]Answer{"h1": never, "h2": good}, []string{"h1 NotHonoured " + never.Message}},
		{"a host cannot, and another is late", []string{"h1", "h2"}, nil, map[string]Answer{"h1": never, "h2": failing}, []string{"h1 NotHonoured " + never.Message, "h2 Failing " + failing.Message}},
		{"an answer of a host that is gone", []string{"h1"}, nil, map[string]Answer{"h1": good, "gone": failing}, nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				d := mem.New()
				for _, h := range tt.ours {
					node(t, d, h, true)
				}
				for _, h := range tt.foreign {
					node(t, d, h, false)
				}
				for h, a := range tt.says {
					answerer(t, d, h, a)
				}
				synctest.Wait()
				began := time.Now()
				state, err := WaitEnforced(t.Context(), d, Written{Resources: "1"}, WaitConfig{Timeout: 10 * time.Second})
				if waits := time.Since(began) >= 10*time.Second; waits != errors.Is(err, ErrLate) || errors.Is(err, ErrNever) != (tt.name == "a host cannot") {
					t.Errorf("%v after %v", err, time.Since(began))
				}
				var late []string
				for _, h := range state.Late() {
					late = append(late, fmt.Sprintf("%s %s %s", h.Host, h.Reason, h.Message))
				}
				if !slices.Equal(late, tt.want) || (err == nil) != (len(tt.want) == 0) || err != nil && !errors.Is(err, ErrLate) && !errors.Is(err, ErrNever) {
					t.Errorf("late %q, %v", late, err)
				}
				if len(state.Hosts) != len(tt.ours)+len(tt.foreign) {
					t.Errorf("hosts %+v", state.Hosts)
				}
				for _, key := range ownKeys(t, d) {
					if strings.HasPrefix(key, store.AskRoot) || key == store.AnswerKey("gone") {
						t.Errorf("%s is left behind", key)
					}
				}
			})
		})
	}
}

// TestWaitFollowsHosts: a host whose Node goes is waited for no longer.
func TestWaitFollowsHosts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := mem.New()
		node(t, d, "h1", true)
		node(t, d, "h2", true)
		answerer(t, d, "h1", Answer{Enforced: true})
		done := make(chan error)
		var seen []int
		go func() {
			_, err := WaitEnforced(t.Context(), d, Written{Resources: "1"}, WaitConfig{Timeout: time.Minute,
				Progress: func(e Enforcement) { seen = append(seen, len(e.Late())) }})
			done <- err
		}()
		synctest.Wait()
		if err := d.Delete(t.Context(), store.ResourceID{Plural: "nodes", Name: "h2"}.Key(), ""); err != nil {
			t.Fatal(err)
		}
		if err := <-done; err != nil || seen[len(seen)-1] != 0 || !slices.Contains(seen, 1) {
			t.Errorf("%v after %v", err, seen)
		}
	})
}

// TestWaitInterrupted: whoever is interrupted leaves no question behind, and
// takes away those of waiters that were killed long ago.
func TestWaitInterrupted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := mem.New()
		node(t, d, "h1", true)
		for id, age := range map[string]time.Duration{"young": time.Minute, "old": 2 * time.Hour} {
			value, _ := json.Marshal(Ask{Asked: time.Now().Add(-age), Seconds: 60})
			if _, err := d.Create(t.Context(), store.AskRoot+id, value); err != nil {
				t.Fatal(err)
			}
		}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() {
			state, err := WaitEnforced(ctx, d, Written{Resources: "1"}, WaitConfig{Timeout: time.Minute})
			if len(state.Late()) != 1 {
				t.Errorf("state %+v", state)
			}
			done <- err
		}()
		synctest.Wait()
		if keys := ownKeys(t, d); len(keys) != 2 {
			t.Errorf("while waiting: %q", keys)
		}
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) || errors.Is(err, ErrLate) {
			t.Errorf("interrupted: %v", err)
		}
		if keys := ownKeys(t, d); !slices.Equal(keys, []string{store.AskRoot + "young"}) {
			t.Errorf("left: %q", keys)
		}
	})
}

// TestRecorder knows the revision of whatever was written last, deletions
// included.
func TestRecorder(t *testing.T) {
	d := mem.New()
	r := Record(d)
	if w, err := r.Written(); err != nil || !w.Nothing() || w.Objects == nil || len(w.Objects) != 0 {
		t.Fatalf("nothing written: %+v, %v", w, err)
	}
	c, ctx := New(r, Config{}), t.Context()
	set := &v3.GlobalNetworkSet{Spec: v3.NetworkSetSpec{Nets: []string{"192.0.2.0/24"}}}
	set.Name = "s"
	is, err := Create(ctx, c, set)
	if err != nil {
		t.Fatal(err)
	}
	created, _ := r.Written()
	if string(created.Resources) != is.ResourceVersion {
		t.Errorf("created at %q, recorded %+v", is.ResourceVersion, created)
	}
	older := &v3.NetworkPolicy{TypeMeta: v3.TypeMeta{Kind: "NetworkPolicy"}}
	older.Namespace, older.Name, older.ResourceVersion = "ns", "p", "1"
	r.Saw(older)
	w, _ := r.Written()
	if w.Resources != created.Resources {
		t.Errorf("an older one counts: %+v", w)
	}
	if want := []string{"GlobalNetworkSet s", "NetworkPolicy ns/p"}; !slices.Equal(w.Objects, want) {
		t.Errorf("named %q, want %q", w.Objects, want)
	}
	if err := Delete[v3.GlobalNetworkSet](ctx, c, "", "s", Preconditions{}); err != nil {
		t.Fatal(err)
	}
	list, err := d.List(ctx, "/")
	if err != nil {
		t.Fatal(err)
	}
	if w, err := r.Written(); err != nil || w.Resources != list.Revision {
		t.Errorf("deleted at %q, recorded %+v, %v", list.Revision, w, err)
	}
	if err := r.Delete(ctx, "/nothing", ""); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("nothing deleted: %v", err)
	}
	if _, err := r.Create(ctx, store.BlockRoot+"x", nil); err != nil {
		t.Fatal(err)
	}
	if err := r.Delete(ctx, store.BlockRoot+"x", "1"); !errors.Is(err, store.ErrConflict) {
		t.Errorf("deleted in another state: %v", err)
	}
	if w, _ := r.Written(); w.Blocks == "" || w.Blocks == w.Resources {
		t.Errorf("blocks: %+v", w)
	}
	plain := Record(struct{ store.Driver }{d})
	if _, err := plain.Create(ctx, store.ResourceRoot+"x", nil); err != nil {
		t.Fatal(err)
	}
	plain.Saw(older)
	if _, err := plain.Written(); !errors.Is(err, store.ErrUnordered) {
		t.Errorf("a datastore without an order: %v", err)
	}
	for i := range mostObjects + 1 {
		older.Name = fmt.Sprintf("p%d", i)
		r.Saw(older)
	}
	if w, _ := r.Written(); w.Objects != nil {
		t.Errorf("%d objects are named", len(w.Objects))
	}
}
