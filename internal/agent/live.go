package agent

import (
	"cmp"
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
	"github.com/brindle-net/brindle/internal/store"
)

// live is the settings in force, and what others are made of that take their
// place. Those that the datastore says come with what else it says, in its order:
// policy and settings that were written one after the other are never in force
// the other way round.
type live struct {
	level slog.LevelVar
	renew chan struct{} // closed when the agent has to start anew for others

	// What follows is heed's alone, once the run has begun.
	src     config.Sources
	objects map[string]*v3.FelixConfiguration
	broken  map[string]string // why, of those that cannot be read
	nodeBad string            // why the labels of the host's Node are not known; "": they are
	cluster string            // GUID of that whose settings are in force; "": not known

	mu  sync.Mutex     // guards now
	now *config.Result // nil: as it started
}

// newLive begins with what the host itself says.
func newLive(src config.Sources) *live {
	return &live{renew: make(chan struct{}), src: src, objects: map[string]*v3.FelixConfiguration{}, broken: map[string]string{}}
}

// read notes what the datastore says before there is a feed, as that will say it.
func (l *live) read(ctx context.Context, d store.Driver) error {
	var all []model.Event
	for _, prefix := range []string{
		store.ResourcePrefix("felixconfigurations", ""), store.ResourcePrefix("clusterinformations", ""),
		store.ResourceID{Plural: "nodes", Name: l.src.Node}.Key(), // and of hosts whose names begin with ours
	} {
		some, err := feed.ReadBelow(ctx, d, prefix)
		if err != nil {
			return err
		}
		all = append(all, some...)
	}
	l.note(feed.Batch{Events: all})
	return nil
}

// recall takes the settings of the last start for those that run, unless they are
// of another cluster.
func (l *live) recall(dir string) error {
	was, err := settingKeeper().read(dir)
	if sameCluster(was.Cluster, l.cluster) {
		l.src.Running, l.cluster = was.Is, cmp.Or(l.cluster, was.Cluster)
	}
	return err
}

// begin begins with the settings of a start, and keeps them for the next.
func (l *live) begin(res config.Result) error {
	l.src.Running = res.Values
	l.level.Set(res.Agent.LogLevel)
	return keepSettings(res.Agent.Paths.StateDir, l.cluster, res.Values)
}

// sources is what is known. Where the host's labels are not, nobody knows which of
// the objects hold that choose by them.
func (l *live) sources() config.Sources {
	src := l.src
	src.Objects, src.Broken = nil, slices.Sorted(maps.Keys(l.broken))
	for _, name := range slices.Sorted(maps.Keys(l.objects)) {
		if name != v3.DefaultName && !strings.HasPrefix(name, "node.") && l.nodeBad != "" {
			src.Broken = append(src.Broken, name)
			continue
		}
		src.Objects = append(src.Objects, l.objects[name])
	}
	src.Unread = len(src.Broken) > 0
	return src
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
	concerned, there := b.InSync, false
	if b.InSync { // all that there is: what was read at the start and is gone counts no more
		clear(l.objects)
		clear(l.broken)
	}
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
			concerned, there = l.noteNode(e.Value) || concerned, true
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
	if b.InSync && !there {
		l.noteNode(nil)
	}
	return concerned
}

// noteNode takes what the host's Node is, and reports whether that changes what is
// known of its labels. One that cannot be read keeps those that it had.
func (l *live) noteNode(v model.Value) bool {
	labels, known, bad := l.src.Labels, l.src.Labels != nil, ""
	switch v := v.(type) {
	case *model.Node:
		labels = v.Labels
	case *model.Invalid:
		if !known {
			bad = v.Message
		}
	default:
		labels = nil
	}
	changed := bad != l.nodeBad || !maps.Equal(labels, l.src.Labels)
	l.src.Labels, l.nodeBad = labels, bad
	return changed
}

// unreadable says which objects cannot be read, and why; nil: all can.
func (l *live) unreadable() error {
	var all []string
	for _, name := range slices.Sorted(maps.Keys(l.broken)) {
		all = append(all, fmt.Sprintf("FelixConfiguration %s: %s", name, l.broken[name]))
	}
	if l.nodeBad != "" {
		all = append(all, fmt.Sprintf("Node %s: %s", l.src.Node, l.nodeBad))
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
	unread := l.unreadable()
	res, err := config.Resolve(l.sources())
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
		c.keep(ctx, res) // should the next start not get to read them
		close(l.renew)
		return before, false
	}
	l.src.Running = res.Values
	l.level.Set(res.Agent.LogLevel)
	l.mu.Lock()
	l.now = &res
	l.mu.Unlock()
	c.keep(ctx, res)
	if slices.Equal(was, res.Values) {
		return before, false
	}
	c.Log.InfoContext(ctx, "settings changed")
	return before, true
}

// keep keeps settings for the next start.
func (c Config) keep(ctx context.Context, res config.Result) {
	if err := keepSettings(res.Agent.Paths.StateDir, c.live.cluster, res.Values); err != nil {
		c.Log.WarnContext(ctx, "settings not kept for the next start", "err", err)
	}
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
