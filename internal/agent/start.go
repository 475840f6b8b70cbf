package agent

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"strings"
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
	readCtx, cancel := context.WithTimeout(ctx, firstRead)
	c := client.New(o.Driver, client.Config{})
	rerr := readSettings(readCtx, c, &src)
	cluster := clusterGUID(readCtx, c)
	cancel()
	var kerr error
	src.Running, kerr = settingKeeper().recall(local.Agent.Paths.StateDir, cluster)
	src.Unread = rerr != nil
	res, err := config.Resolve(src)
	if err != nil {
		return fmt.Errorf("configuration: %w", err)
	}
	kerr = errors.Join(kerr, keepSettings(res.Agent.Paths.StateDir, cluster, res.Values))
	now := newLive(src, res, cluster)
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
	run := Config{Node: src.Node, Build: o.Build, Driver: o.Driver, Settings: res.Agent, Outcome: res, HoldTime: o.HoldTime, Log: log, Handed: handed, refused: &refusals{}, live: now}
	run.refused.set(res, onlyUnreadable(rerr))
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

// onlyUnreadable is an error that says that something stored cannot be read: that
// the datastore is out of sight is said elsewhere.
func onlyUnreadable(err error) error {
	if errors.Is(err, client.ErrUnreadable) {
		return err
	}
	return nil
}
