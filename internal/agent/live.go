package agent

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	v3 "github.com/brindle-net/brindle/api/v3"
	"github.com/brindle-net/brindle/internal/config"
	"github.com/brindle-net/brindle/internal/feed"
	"github.com/brindle-net/brindle/internal/model"
)

// live is the settings in force, and what others are made of that take their
// place. Those that the datastore says come with what else it says, in its order:
// policy and settings that were written one after the other are never in force
// the other way round.
type live struct {
	level slog.LevelVar
	renew chan struct{} // closed when the agent has to start anew for others

	// What follows is heed's alone.
	src     config.Sources
	objects map[string]*v3.FelixConfiguration
	broken  map[string]string // why, of those that cannot be read
	cluster string            // GUID of that whose settings are in force; "": not known

	mu  sync.Mutex     // guards now
	now *config.Result // nil: as it started
}

// newLive begins with the settings of a start.
func newLive(src config.Sources, res config.Result, cluster string) *live {
	l := &live{renew: make(chan struct{}), src: src, cluster: cluster, objects: map[string]*v3.FelixConfiguration{}, broken: map[string]string{}}
	l.src.Running = res.Values
	l.level.Set(res.Agent.LogLevel)
	return l
}

// changed waits until the agent has to start anew, which is ErrReconfigured.
func (l *live) changed(ctx context.Context) error {
	if l == nil {
		<-ctx.Done()
		return ctx.Err()
	}
	select {
	case <-l.renew:
		return ErrReconfigured
	case <-ctx.Done():
		return ctx.Err()
	}
}

// renewing fails when the agent is about to start anew.
func (l *live) renewing() error {
	if l == nil {
		return nil
	}
	select {
	case <-l.renew:
		return errors.New("the settings have changed, and the agent starts anew for them")
	default:
		return nil
	}
}

// outcome is where the settings in force come from, for whoever asks.
func (c Config) outcome() config.Result {
	if c.live != nil {
		c.live.mu.Lock()
		defer c.live.mu.Unlock()
		if c.live.now != nil {
			return *c.live.now
		}
	}
	return c.Outcome
}

// inForce is the settings in force.
func (c Config) inForce() config.Agent {
	if c.live != nil {
		c.live.mu.Lock()
		defer c.live.mu.Unlock()
		if c.live.now != nil {
			return c.live.now.Agent
		}
	}
	return c.Settings
}

// note takes what a batch says that settings depend on: the FelixConfigurations,
// the labels of the host's Node, which choose among them, and which cluster it is.
// It reports whether there is any.
func (l *live) note(b feed.Batch) bool {
	concerned := b.InSync
	for _, e := range b.Events {
		switch {
		case e.ID.Kind == model.KindConfig:
			concerned = true
			delete(l.objects, e.ID.Name)
			delete(l.broken, e.ID.Name)
			switch v := e.Value.(type) {
			case *model.Config:
				l.objects[e.ID.Name] = v.Object
			case *model.Invalid:
				l.broken[e.ID.Name] = v.Message
			}
		case e.ID.Kind == model.KindNode && e.ID.Name == l.src.Node:
			switch v := e.Value.(type) {
			case nil:
				concerned, l.src.Labels = concerned || len(l.src.Labels) > 0, nil
			case *model.Node:
				concerned = concerned || !maps.Equal(l.src.Labels, v.Labels)
				l.src.Labels = v.Labels
			}
		case e.ID.Kind == model.KindClusterInfo:
			info, ok := e.Value.(*model.ClusterInfo)
			if !ok || info.GUID == "" || info.GUID == l.cluster {
				continue
			}
			if concerned = true; !sameCluster(info.GUID, l.cluster) {
				l.src.Running = nil // of another, that this host knew before
			}
			l.cluster = info.GUID
		}
	}
	return concerned
}

// unreadable says which objects cannot be read, and why; nil: all can.
func (l *live) unreadable() error {
	var all []string
	for _, name := range slices.Sorted(maps.Keys(l.broken)) {
		all = append(all, fmt.Sprintf("FelixConfiguration %s: %s", name, l.broken[name]))
	}
	if all == nil {
		return nil
	}
	return errors.New(strings.Join(all, "; "))
}

// heed takes what a batch says of settings into use: of others that take effect
// while the agent runs it returns those before, and they are in force from the
// batch on. If any does not, all wait for the agent to start anew. Settings that
// cannot be read or used leave it running as it is. It is for one goroutine.
func (c Config) heed(ctx context.Context, b feed.Batch) (before config.Agent, others bool) {
	l := c.live
	if l == nil || !l.note(b) {
		return config.Agent{}, false
	}
	src, unread := l.src, l.unreadable()
	src.Objects = slices.SortedFunc(maps.Values(l.objects), func(a, b *v3.FelixConfiguration) int { return strings.Compare(a.Name, b.Name) })
	src.Broken, src.Unread = slices.Sorted(maps.Keys(l.broken)), unread != nil
	res, err := config.Resolve(src)
	if c.noteRefused(res, unread, err) {
		for _, text := range c.refused.texts() {
			c.Log.WarnContext(ctx, "settings not usable; those in force stay", "err", text)
		}
	}
	was := c.outcome().Values
	switch before = c.inForce(); {
	case err != nil || l.renewing() != nil:
		return before, false
	case config.Renews(was, res.Values):
		close(l.renew)
		return before, false
	}
	l.src.Running = res.Values
	l.level.Set(res.Agent.LogLevel)
	l.mu.Lock()
	l.now = &res
	l.mu.Unlock()
	if err := keepSettings(res.Agent.Paths.StateDir, l.cluster, res.Values); err != nil {
		c.Log.WarnContext(ctx, "settings not kept for the next start", "err", err)
	}
	if slices.Equal(was, res.Values) {
		return before, false
	}
	c.Log.InfoContext(ctx, "settings changed")
	return before, true
}

// noteRefused notes what this host does not do of its settings: unreadable objects,
// and what failed altogether. It reports whether that is news.
func (c Config) noteRefused(res config.Result, unreadable, failed error) bool {
	if failed != nil {
		return c.refused.fail(failed)
	}
	return c.refused.set(res, unreadable)
}

// adopt brings the parts of the agent in line with settings that are in force now
// and were others before. It returns the event that does so with the core and with
// policy.
func (a *agent) adopt(before config.Agent) model.Event {
	s := a.cfg.inForce()
	a.overlay.configure(s.Overlay, time.Now())
	if s.Interfaces.MTUPattern.String() != before.Interfaces.MTUPattern.String() {
		a.measureMTU()
	}
	a.tables.changePace(paceOf(before), paceOf(s))
	if refresh := refreshOf(s); refresh != refreshOf(before) {
		a.policy.loop.Resync(refresh)
	}
	a.listeners.want(listenOn(s))
	c := a.cfg
	c.Settings = s
	return model.Event{ID: model.SettingsID(), Value: new(coreSettings(c))}
}
