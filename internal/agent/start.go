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
	now := newLive(src)
	readCtx, cancel := context.WithTimeout(ctx, firstRead)
	rerr := now.read(readCtx, o.Driver)
	cancel()
	kerr := now.recall(local.Agent.Paths.StateDir)
	src = now.sources()
	src.Unread = src.Unread || rerr != nil
	res, err := config.Resolve(src)
	if err != nil {
		return fmt.Errorf("configuration: %w", err)
	}
	kerr = errors.Join(kerr, now.begin(res))
	log := slog.New(slog.NewTextHandler(o.LogTo, &slog.HandlerOptions{Level: &now.level}))
	for _, w := range res.Warnings {
		log.WarnContext(ctx, "configuration", "problem", w)
	}
	if rerr = errors.Join(rerr, now.unreadable()); rerr != nil {
		log.WarnContext(ctx, "settings of the datastore not read, or not all", "err", rerr)
	}
	if kerr != nil {
		log.WarnContext(ctx, "settings of the last start not known, or these not kept", "err", kerr)
	}
	run := Config{Node: src.Node, Build: o.Build, Driver: o.Driver, Settings: res.Agent, Outcome: res, HoldTime: o.HoldTime, Log: log, Handed: handed, refused: &refusals{}, live: now}
	run.refused.set(res, now.unreadable())
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
