package agent

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/brindle-net/brindle/internal/client"
	"github.com/brindle-net/brindle/internal/store"
	"github.com/brindle-net/brindle/internal/store/mem"
)

// tallied is a datastore that counts writes, and refuses them if it is to.
type tallied struct {
	*mem.Store
	mu     sync.Mutex // fake time orders events but not memory
	writes int
	refuse error
}

// count returns how many writes there were.
func (c *tallied) count() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.writes
}

// set changes something that others look at.
func (c *tallied) set(change func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	change()
}

func (c *tallied) Update(ctx context.Context, kv store.KV) (store.Revision, error) {
	c.mu.Lock()
	c.writes++
	refuse := c.refuse
	c.mu.Unlock()
	if refuse != nil {
		return "", refuse
	}
	return c.Store.Update(ctx, kv)
}

// waitedHost is a barrier with steps of a test.
type waitedHost struct {
	*tallied
	come   store.Revision // what has come to it
	wrong  error          // why the kernel is not in step
	can    client.Answer
	closed chan error
	stop   context.CancelFunc
}

func startHost(t *testing.T, d *tallied) *waitedHost {
	t.Helper()
	ctx, stop := context.WithCancel(t.Context())
	h := &waitedHost{tallied: d, can: client.Answer{Enforced: true}, closed: make(chan error, 1), stop: stop}
	b := newBarrier(d, "h1", slog.New(slog.DiscardHandler), steps{
		arrived: func(a client.Ask) (bool, error) {
			d.mu.Lock()
			defer d.mu.Unlock()
			return store.Reached(d.Store, h.come, a.Resources)
		},
		inStep: func(context.Context) error {
			d.mu.Lock()
			defer d.mu.Unlock()
			return h.wrong
		},
		honoured: func(client.Ask) client.Answer {
			d.mu.Lock()
			defer d.mu.Unlock()
			return h.can
		},
	})
	go func() { h.closed <- b.run(ctx) }()
	t.Cleanup(func() { stop(); <-h.closed })
	synctest.Wait()
	return h
}

func (h *waitedHost) ask(t *testing.T, id string, rev store.Revision, seconds int) {
	t.Helper()
	value, err := json.Marshal(client.Ask{Resources: rev, Seconds: seconds})
	if err == nil {
		_, err = h.Create(t.Context(), store.AskRoot+id, value)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// said is what the host has answered, "" for nothing.
func (h *waitedHost) said(t *testing.T, id string) string {
	t.Helper()
	synctest.Wait()
	kv, err := h.Get(t.Context(), store.AnswerKey("h1"))
	if errors.Is(err, store.ErrNotFound) {
		return ""
	}
	var all client.Answers
	if err == nil {
		err = json.Unmarshal(kv.Value, &all)
	}
	if err != nil {
		t.Fatal(err)
	}
	a, ok := all.Answers[id]
	if !ok {
		return ""
	}
	return fmt.Sprint(a.Enforced, " ", a.Reason, " ", a.Message)
}

const inStep = "true  "

// TestBarrierAnswers: nothing is said before the change has come and the kernel
// is in step, and nothing at all while nobody asks.
func TestBarrierAnswers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := startHost(t, &tallied{Store: mem.New()})
		time.Sleep(time.Hour)
		if h.count() != 0 {
			t.Errorf("%d writes while nobody asked", h.count())
		}
		h.set(func() { h.come = "5" })
		h.ask(t, "a", "7", 60)
		h.ask(t, "b", "5", 60)
		time.Sleep(100 * time.Millisecond)
		if a, b := h.said(t, "a"), h.said(t, "b"); a != "" && a == inStep || b != inStep {
			t.Errorf("a: %q, b: %q", a, b)
		}
		time.Sleep(10 * time.Second)
		if a := h.said(t, "a"); a != "false DatastoreBehind the change has not come from the datastore yet" {
			t.Errorf("a: %q", a)
		}
		h.set(func() {
			h.come, h.wrong = "7", &lateness{client.ReasonFailing, errors.New("table routes:\n no such device")}
		})
		time.Sleep(10 * time.Second)
		if a := h.said(t, "a"); a != "false Failing table routes: no such device" {
			t.Errorf("a: %q", a)
		}
		before := h.count()
		time.Sleep(30 * time.Second) // the same is not said again
		if h.count() != before {
			t.Errorf("%d writes for nothing", h.count()-before)
		}
		h.set(func() { h.wrong = nil })
		time.Sleep(nextAttempt)
		if a := h.said(t, "a"); a != inStep {
			t.Errorf("a: %q", a)
		}
		before = h.count()
		time.Sleep(time.Hour)
		if h.count() != before {
			t.Errorf("%d writes after the answer", h.count()-before)
		}
	})
}

// TestBarrierCannot: that a change cannot be enforced is said at once, and once.
func TestBarrierCannot(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := startHost(t, &tallied{Store: mem.New()})
		h.set(func() {
			h.come, h.can = "1", client.Answer{Reason: client.ReasonNotHonoured, Message: "no", Final: true}
		})
		h.ask(t, "a", "1", 60)
		if a := h.said(t, "a"); a != "false NotHonoured no" {
			t.Errorf("a: %q", a)
		}
		before := h.count()
		time.Sleep(time.Hour)
		if h.count() != before {
			t.Errorf("%d writes after the answer", h.count()-before)
		}
	})
}

// TestBarrierStaysQuiet: a host that is late for a thousand reasons says so now
// and then, and not to somebody who has stopped waiting.
func TestBarrierStaysQuiet(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := startHost(t, &tallied{Store: mem.New()})
		h.set(func() { h.come, h.wrong = "9", errors.New("x") })
		h.ask(t, "a", "1", 60)
		for i := range 60 {
			h.set(func() { h.wrong = fmt.Errorf("%d to go", i) })
			time.Sleep(time.Second)
		}
		if h.count() == 0 || h.count() > 13 {
			t.Errorf("%d writes in a minute", h.count())
		}
		before := h.count() // its time is over, although it is still there
		for i := range 60 {
			h.set(func() { h.wrong = fmt.Errorf("still %d to go", i) })
			time.Sleep(time.Second)
		}
		if h.count() > before+1 {
			t.Errorf("%d writes for somebody who is gone", h.count()-before)
		}
	})
}

// TestBarrierMishaps: an agent that starts anew, a datastore that refuses or
// forgets its history, questions that make no sense.
func TestBarrierMishaps(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := &tallied{Store: mem.New()}
		h := startHost(t, d)
		h.set(func() { h.come = "1" })
		h.ask(t, "a", "100", 600)
		if _, err := d.Create(t.Context(), store.AskRoot+"bad", []byte("{")); err != nil {
			t.Fatal(err)
		}
		if _, err := d.Create(t.Context(), store.AskRoot+"bad/er", []byte("{}")); err != nil {
			t.Fatal(err)
		}
		time.Sleep(3 * time.Second)
		h.stop()
		d.Compact()
		again := startHost(t, d)
		again.set(func() { again.come, d.refuse = "100", errors.New("no space") })
		time.Sleep(10 * time.Second)
		if a := again.said(t, "a"); a == inStep {
			t.Errorf("a: %q although nothing could be written", a)
		}
		d.set(func() { d.refuse = nil })
		time.Sleep(2 * nextAttempt)
		if a := again.said(t, "a"); a != inStep {
			t.Errorf("a: %q", a)
		}
		again.ask(t, "b", "nonsense", 600)
		time.Sleep(10 * time.Second)
		if b := again.said(t, "b"); b == "" || b == inStep {
			t.Errorf("b: %q", b)
		}
		if a := again.said(t, "a"); a != inStep {
			t.Errorf("what was said is taken back: %q", a)
		}
		again.ask(t, "c", "2", 600)
		if c := again.said(t, "c"); c != inStep {
			time.Sleep(2 * nextAttempt)
			if c = again.said(t, "c"); c != inStep {
				t.Errorf("a bad question stands in the way of others: %q", c)
			}
		}
	})
}
