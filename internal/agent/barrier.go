package agent

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"time"

	"github.com/brindle-net/brindle/internal/client"
	"github.com/brindle-net/brindle/internal/reconcile"
	"github.com/brindle-net/brindle/internal/store"
)

// barrier answers those who wait until a change is enforced everywhere (see
// client.WaitEnforced). While nobody asks it writes nothing. It is used by one
// goroutine, but for what is below the lock.
type barrier struct {
	driver store.Driver
	node   string
	log    *slog.Logger
	steps  steps
	said   map[string]client.Answer // as it is stored
	toldAt time.Time                // when this host last said that it is late

	mu   sync.Mutex // guards everything below
	asks map[string]*asked
	wake chan struct{} // capacity 1: asks have changed
}

// asked is a question that somebody still wants answered.
type asked struct {
	client.Ask
	until time.Time // by this host's clock, from when it heard of it
}

// steps are what lies between the datastore and the kernel.
type steps struct {
	// arrived reports whether what a question is about has come here.
	arrived func(client.Ask) (bool, error)
	// inStep waits until the kernel is as all that has come here wants it. Its
	// error is a *lateness.
	inStep func(context.Context) error
	// honoured says whether what a question is about can be done here at all.
	honoured func(client.Ask) client.Answer
}

// lateness is why a host is not in step.
type lateness struct {
	reason string
	err    error
}

func (l *lateness) Error() string { return l.err.Error() }

func (l *lateness) Unwrap() error { return l.err }

// How long an attempt to answer takes, and how often a host that is late says
// why: a thousand of them must not be a load.
const (
	firstAttempt = time.Second
	nextAttempt  = 2 * time.Second
	tellEvery    = 5 * time.Second
	lookEvery    = 20 * time.Millisecond // whether a question's change has come
	writeLimit   = 5 * time.Second
	mostMessage  = 500 // bytes
)

func newBarrier(d store.Driver, node string, log *slog.Logger, s steps) *barrier {
	return &barrier{driver: d, node: node, log: log, steps: s, said: map[string]client.Answer{},
		asks: map[string]*asked{}, wake: make(chan struct{}, 1)}
}

// run answers until ctx ends.
func (b *barrier) run(ctx context.Context) error {
	var follower sync.WaitGroup
	defer follower.Wait()
	follower.Go(func() { _ = store.Follow(ctx, b.driver, store.AskRoot, b.take, store.FollowConfig{}) }) // ends with ctx
	attempt := firstAttempt
	for ctx.Err() == nil {
		open := b.open()
		if len(open) == 0 {
			attempt = firstAttempt
			select {
			case <-b.wake:
			case <-ctx.Done():
			}
			continue
		}
		answers := b.try(ctx, open, attempt)
		attempt = nextAttempt
		if ctx.Err() != nil {
			break
		}
		if err := b.tell(ctx, answers); err != nil && ctx.Err() == nil {
			b.log.WarnContext(ctx, "answer to those who wait not written", "retry_in", nextAttempt, "err", err)
			b.rest(ctx, nextAttempt)
		}
	}
	return ctx.Err()
}

// rest lets a while pass.
func (b *barrier) rest(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}

// take notes which questions there are.
func (b *barrier) take(u store.Update) {
	b.mu.Lock()
	for _, e := range u.Events {
		id, ask, err := client.ParseAsk(e.Key, e.Value)
		switch {
		case err != nil: // nobody can answer it
		case e.Value == nil:
			delete(b.asks, id)
		default:
			b.asks[id] = &asked{Ask: ask, until: time.Now().Add(time.Duration(ask.Seconds) * time.Second)}
		}
	}
	b.mu.Unlock()
	poke(b.wake)
}

// open lists the questions that are to be answered, by name. One that somebody
// left behind is answered for as long as it said that it would wait.
func (b *barrier) open() map[string]client.Ask {
	b.mu.Lock()
	defer b.mu.Unlock()
	out := map[string]client.Ask{}
	for id, a := range b.asks {
		if said := b.said[id]; !said.Enforced && !said.Final && time.Now().Before(a.until) {
			out[id] = a.Ask
		}
	}
	for id := range b.said {
		if b.asks[id] == nil {
			delete(b.said, id)
		}
	}
	return out
}

// try finds out how this host stands, for some questions at once: what lies
// behind the arrival of a change is the same for all.
func (b *barrier) try(ctx context.Context, open map[string]client.Ask, limit time.Duration) map[string]client.Answer {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	out, here := map[string]client.Answer{}, []string{}
	for len(here) == 0 && ctx.Err() == nil {
		for id, ask := range open {
			arrived, err := b.steps.arrived(ask)
			if err == nil && arrived {
				here = append(here, id)
				continue
			}
			if err == nil {
				err = errors.New("the change has not come from the datastore yet")
			}
			out[id] = client.Answer{Reason: client.ReasonDatastoreBehind, Message: brief(err)}
		}
		if len(here) == 0 {
			b.rest(ctx, lookEvery)
		}
	}
	if len(here) == 0 {
		return out
	}
	answer := client.Answer{Enforced: true}
	if err := b.steps.inStep(ctx); err != nil {
		answer = client.Answer{Reason: client.ReasonWorking, Message: brief(err)}
		var late *lateness
		if errors.As(err, &late) {
			answer.Reason = late.reason
		}
	}
	settled := false
	for _, id := range here {
		out[id] = answer
		if answer.Enforced {
			out[id] = b.steps.honoured(open[id])
		}
		settled = settled || out[id].Enforced || out[id].Final
	}
	if !settled {
		b.rest(ctx, limit) // what failed at once is not tried again at once
	}
	return out
}

// brief is an error on one line that is not long.
func brief(err error) string {
	s := strings.Join(strings.Fields(err.Error()), " ")
	if len(s) > mostMessage {
		s = strings.ToValidUTF8(s[:mostMessage], "") + "…"
	}
	return s
}

// tell writes the answers if they say something new: at once that the change is
// enforced, or cannot be, and now and then why it is not yet.
func (b *barrier) tell(ctx context.Context, answers map[string]client.Answer) error {
	good, news := false, false
	for id, a := range answers {
		good = good || a.Enforced || a.Final
		news = news || b.said[id] != a
	}
	if !good && (!news || time.Since(b.toldAt) < tellEvery) {
		return nil
	}
	next := client.Answers{Answers: map[string]client.Answer{}}
	for id, a := range b.said {
		next.Answers[id] = a
	}
	for id, a := range answers {
		next.Answers[id] = a
	}
	value, err := json.Marshal(next)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, writeLimit)
	defer cancel()
	key := store.AnswerKey(b.node)
	if _, err = b.driver.Update(ctx, store.KV{Key: key, Value: value}); errors.Is(err, store.ErrNotFound) {
		_, err = b.driver.Create(ctx, key, value)
	}
	if err != nil {
		return err
	}
	if b.said = next.Answers; !good {
		b.toldAt = time.Now()
	}
	return nil
}

// answerWaiters answers those who wait until a change is enforced.
func (a *agent) answerWaiters(ctx context.Context) error {
	return newBarrier(a.cfg.Driver, a.cfg.Node, a.log, steps{a.arrived, a.inStep, a.honoured}).run(ctx)
}

// arrived reports whether what was written has come here.
func (a *agent) arrived(ask client.Ask) (bool, error) {
	for _, part := range []struct {
		root string
		rev  store.Revision
	}{{store.ResourceRoot, ask.Resources}, {store.BlockRoot, ask.Blocks}} {
		_, there, err := a.feed.Arrived(a.cfg.Driver, part.root, part.rev)
		if err != nil {
			return false, err
		}
		if s := a.feed.State(); !there && !s.Connected && s.LastError != nil {
			return false, fmt.Errorf("the datastore is out of sight for %s: %w", s.Age(time.Now()).Round(time.Second), s.LastError)
		}
		if !there {
			return false, nil
		}
	}
	return true, nil
}

// inStep waits until the kernel, and the speaker, are as all that has come from
// the datastore wants them.
func (a *agent) inStep(ctx context.Context) error {
	select {
	case <-a.synced:
	case <-ctx.Done():
		return &lateness{client.ReasonDatastoreBehind, errors.New("the agent is not in sync with the datastore yet")}
	}
	at, _, _ := a.feed.Arrived(a.cfg.Driver, "", "")
	if err := a.feed.HandedOver(ctx, at); err != nil {
		return &lateness{client.ReasonDatastoreBehind, errors.New("what came from the datastore is still being computed")}
	}
	if err := a.cfg.live.renewing(); err != nil {
		return &lateness{client.ReasonSettings, err}
	}
	if err := a.policySettled(ctx); err != nil {
		return err
	}
	for _, t := range a.settlers() {
		if err := t.loop.Settled(ctx, t.excuse); err != nil {
			reason := client.ReasonFailing
			if errors.Is(err, reconcile.ErrNotApplied) {
				reason = client.ReasonWorking
			}
			return &lateness{reason, err}
		}
	}
	return nil
}

// policySettled waits until policy is in force, for connections that are under
// way too, and what waits for it has been handed on.
func (a *agent) policySettled(ctx context.Context) error {
	taken := uint64(a.policy.loop.Stats().Wanted)
	if err := a.policy.loop.Wait(ctx, taken); err != nil {
		if err := a.policy.loop.Err(); err != nil {
			return &lateness{client.ReasonFailing, fmt.Errorf("policy: %w", err)}
		}
		return &lateness{client.ReasonWorking, errors.New("policy is being put in force")}
	}
	for {
		what, err := a.unfinished()
		if what == "" {
			return nil
		}
		select {
		case <-time.After(lookEvery):
		case <-ctx.Done():
			if err != nil {
				return &lateness{client.ReasonFailing, err}
			}
			return &lateness{client.ReasonWorking, errors.New(what)}
		}
	}
}

// unfinished says what follows policy and is not done, "" if all is.
func (a *agent) unfinished() (string, error) {
	if done, err := a.policy.doc.judged(); !done {
		return "connections that are under way are being judged", err
	}
	if devices, _, leaving, _ := a.gate.due(); len(devices)+len(leaving) > 0 {
		return "tunnels are being set up", nil
	}
	if done, err := a.carrier.settled(); !done || err != nil {
		return "IP in IP is being set up", err
	}
	if _, tried := a.listeners.trouble(); !tried {
		return "listeners of health and metrics are being opened", nil
	}
	return "", nil
}
