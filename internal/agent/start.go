package agent

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	v3 "github.com/brindle-net/brindle/api/v3"
	"github.com/brindle-net/brindle/internal/client"
	"github.com/brindle-net/brindle/internal/config"
	"github.com/brindle-net/brindle/internal/store"
)

// Options is what the command line knows.
type Options struct {
	Driver   store.Driver
	Flags    map[string]string // by parameter name
	Env      []string
	File     string // configuration file; "" or missing: none
	Build    string
	LogTo    io.Writer
	HoldTime time.Duration // of BGP sessions; 0: the default
}

// ErrReconfigured says that the settings have changed in the datastore, and
// that the program shall replace itself by a new one.
var ErrReconfigured = errors.New("settings changed")

// firstRead bounds how long the start waits for the datastore's settings. A
// host whose datastore is out of reach starts with what it knows itself.
const firstRead = 5 * time.Second

// Start runs the agent until ctx ends, whose end is no error, or until its
// settings change, which is ErrReconfigured. Only the end of the process ends
// all of an agent: a speaker that peers hear others' routes from goes silent
// with it and not before, for anything else would make them forget those.
func Start(ctx context.Context, o Options) error {
	handed := Handed(o.Env)
	if err := KeepHanded(handed, false); err != nil {
		return err
	}
	src, err := o.sources()
	if err != nil {
		return err
	}
	local, err := config.Resolve(src)
	if err != nil {
		return fmt.Errorf("configuration: %w", err)
	}
	var kerr error
	src.Running, kerr = recallSettings(local.Agent.Paths.StateDir)
	readCtx, cancel := context.WithTimeout(ctx, firstRead)
	rerr := readSettings(readCtx, client.New(o.Driver, client.Config{}), &src)
	cancel()
	src.Unread = rerr != nil
	res, err := config.Resolve(src)
	if err != nil {
		return fmt.Errorf("configuration: %w", err)
	}
	kerr = errors.Join(kerr, keepSettings(res.Agent.Paths.StateDir, res.Values))
	now := &live{}
	now.level.Set(res.Agent.LogLevel)
	log := slog.New(slog.NewTextHandler(o.LogTo, &slog.HandlerOptions{Level: &now.level}))
	for _, w := range res.Warnings {
		log.WarnContext(ctx, "configuration", "problem", w)
	}
	if rerr != nil {
		log.WarnContext(ctx, "settings of the datastore not read, or not all", "err", rerr)
	}
	if kerr != nil {
		log.WarnContext(ctx, "settings of the last start not known, or these not kept", "err", kerr)
	}
	src.Running = res.Values
	run := Config{Node: src.Node, Build: o.Build, Driver: o.Driver, Settings: res.Agent, Outcome: res, HoldTime: o.HoldTime, Log: log, Handed: handed, refused: &refusals{}, live: now}
	run.refused.set(res, onlyUnreadable(rerr))
	run.Changed = func(ctx context.Context) error { return watchSettings(ctx, run, src) }
	run.Fresh = func(ctx context.Context) error { return freshSettings(ctx, run, src) }
	err = Run(ctx, run)
	if errors.Is(err, ErrReconfigured) && ctx.Err() != nil {
		return nil // told to stop at the same moment: stop
	}
	if errors.Is(err, ErrReconfigured) {
		log.InfoContext(ctx, "settings changed; starting anew")
	}
	return err
}

// sources gathers what this host says of itself, and finds its name.
func (o Options) sources() (config.Sources, error) {
	src := config.Sources{Env: o.Env, Flags: o.Flags}
	if o.File != "" {
		data, err := os.ReadFile(o.File)
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return src, fmt.Errorf("configuration file: %w", err)
		}
		if src.File, err = config.ParseFile(data); err != nil {
			return src, fmt.Errorf("configuration file %s: %w", o.File, err)
		}
	}
	res, err := config.Resolve(src)
	if err != nil {
		return src, fmt.Errorf("configuration: %w", err)
	}
	src.Node = res.Agent.Node
	if src.Node == "" {
		name, err := os.Hostname()
		if err != nil {
			return src, fmt.Errorf("find the name of this host: %w; give it with --node", err)
		}
		src.Node = strings.ToLower(name)
	}
	return src, nil
}

// readSettings reads what the datastore says of a host's settings. Objects
// that cannot be read are an error; the others are there nonetheless.
func readSettings(ctx context.Context, c *client.Client, src *config.Sources) error {
	src.Broken = nil
	objects, unreadable := client.List[v3.FelixConfiguration](ctx, c, "")
	if unreadable != nil && !errors.Is(unreadable, client.ErrUnreadable) {
		return unreadable
	}
	node, err := client.Get[v3.Node](ctx, c, "", src.Node)
	if err != nil && !client.IsNotFound(err) {
		return errors.Join(unreadable, err)
	}
	src.Objects, src.Labels, src.Broken = objects, nil, client.Unreadable(unreadable)
	if err == nil {
		src.Labels = node.Labels
	}
	return unreadable
}

// settingsRetry is the pause after settings that could not be read.
const settingsRetry = 5 * time.Second

// onlyUnreadable is an error that says that something stored cannot be read: that
// the datastore is out of sight is said elsewhere.
func onlyUnreadable(err error) error {
	if errors.Is(err, client.ErrUnreadable) {
		return err
	}
	return nil
}

// watchSettings takes what is live of other settings into use, and returns
// ErrReconfigured when more differs from what the agent runs with. Settings that
// cannot be read or used leave it running as it is.
func watchSettings(ctx context.Context, run Config, src config.Sources) error {
	c := client.New(run.Driver, client.Config{})
	ctx, cancel := context.WithCancel(ctx)
	var followers sync.WaitGroup
	defer followers.Wait()
	defer cancel()
	changed := settingsChanges(ctx, run.Driver, src.Node, &followers)
	var retry <-chan time.Time // nil: none is due
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-changed:
		case <-retry:
		}
		retry = nil
		rerr := readSettings(ctx, c, &src)
		if rerr != nil {
			retry = time.After(settingsRetry)
		}
		if src.Unread = onlyUnreadable(rerr) != nil; rerr != nil && !src.Unread {
			run.Log.WarnContext(ctx, "settings not read; those in force stay", "retry_in", settingsRetry, "err", rerr)
			continue
		}
		res, err := config.Resolve(src)
		changed := run.note(res, rerr, err)
		if changed {
			for _, text := range run.refused.texts() {
				run.Log.WarnContext(ctx, "settings not usable; those in force stay", "err", text)
			}
		}
		switch was := run.outcome().Values; {
		case err != nil || slices.Equal(was, res.Values):
		case config.Renews(was, res.Values):
			return ErrReconfigured
		default:
			run.live.take(res)
			src.Running = res.Values
			run.Log.InfoContext(ctx, "settings changed")
			if err := keepSettings(res.Agent.Paths.StateDir, res.Values); err != nil {
				run.Log.WarnContext(ctx, "settings not kept for the next start", "err", err)
			}
		}
	}
}

// note notes what this host does not do of its settings: unreadable objects, and
// what failed altogether. It reports whether that is news.
func (c Config) note(res config.Result, unreadable, failed error) bool {
	if failed != nil {
		return c.refused.fail(failed)
	}
	return c.refused.set(res, unreadable)
}

// freshSettings fails unless the agent runs with what the datastore says now.
func freshSettings(ctx context.Context, run Config, src config.Sources) error {
	rerr := readSettings(ctx, client.New(run.Driver, client.Config{}), &src)
	src.Running = run.outcome().Values
	if src.Unread = onlyUnreadable(rerr) != nil; rerr != nil && !src.Unread {
		return fmt.Errorf("settings not read, or not all; those in force stay: %w", rerr)
	}
	res, err := config.Resolve(src)
	run.note(res, rerr, err)
	if err != nil {
		return nil // as it runs: honoured says so to whom it concerns
	}
	if !slices.Equal(run.outcome().Values, res.Values) {
		return errors.New("the settings have changed, and are not all in force")
	}
	return nil
}

// settingsChanges tells of every change of what settings depend on: the
// FelixConfigurations, and the labels of the host's Node, which choose among
// them.
func settingsChanges(ctx context.Context, d store.Driver, node string, followers *sync.WaitGroup) <-chan struct{} {
	changed := make(chan struct{}, 1)
	own := store.ResourceID{Plural: "nodes", Name: node}.Key()
	for _, prefix := range []string{store.ResourcePrefix("felixconfigurations", ""), own} {
		handle := func(u store.Update) {
			if prefix == own && !slices.ContainsFunc(u.Events, func(e store.Event) bool { return e.Key == own }) {
				return // a host whose name begins with ours
			}
			poke(changed)
		}
		followers.Go(func() { _ = store.Follow(ctx, d, prefix, handle, store.FollowConfig{}) }) // ends with ctx
	}
	return changed
}
