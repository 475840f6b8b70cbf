package workload

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/brindle-net/brindle/internal/agentapi"
)

// How often the queue is looked into, and how long it is left alone at most
// after a removal that failed.
const (
	queuePoll  = time.Second
	queueRetry = time.Minute
)

// maxQueued bounds the size of a queued removal, in bytes: what the plugin
// itself accepts, with room around it.
const maxQueued = 4 << 20

// Run carries out queued removals until ctx ends, whose error it returns. The
// queue is not only looked into at the start: a plugin that found no agent may
// write to it a moment after there is one.
func (m *Manager) Run(ctx context.Context) error {
	pause := queuePoll
	for {
		if m.cfg.Ready() == nil {
			err := m.DrainQueue(ctx)
			if err != nil && ctx.Err() == nil {
				m.cfg.Log.WarnContext(ctx, "queued removals are not all done", "err", err, "retry_in", pause)
				pause = min(2*pause, queueRetry)
			} else {
				pause = queuePoll
			}
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(pause):
		}
	}
}

// DrainQueue carries out the removals that were queued while no agent ran. A
// file goes when its removal is done. One that nobody will ever understand is
// set aside under another name.
func (m *Manager) DrainQueue(ctx context.Context) error {
	return m.drain(ctx, func(agentapi.CNIRequest) bool { return true })
}

// settle carries out what is queued about one container, before the container
// is set up again: the removal was asked for first.
func (m *Manager) settle(ctx context.Context, container string) error {
	err := m.drain(ctx, func(req agentapi.CNIRequest) bool { return req.Env.ContainerID == container })
	if err != nil {
		return fmt.Errorf("carry out the removal that is queued for container %s: %w", container, err)
	}
	return nil
}

// drain carries out the queued removals that f picks.
func (m *Manager) drain(ctx context.Context, f func(agentapi.CNIRequest) bool) error {
	if m.cfg.Queue == "" {
		return nil
	}
	entries, err := os.ReadDir(m.cfg.Queue)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("read the queue of removals: %w", err)
	}
	var errs []error
	for _, e := range entries {
		if filepath.Ext(e.Name()) != ".json" {
			continue
		}
		if err := m.drainFile(ctx, filepath.Join(m.cfg.Queue, e.Name()), f); err != nil {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// drainFile carries out one queued removal. It holds a lock from reading the
// file to removing it, so that nobody carries out what somebody else has done
// already: the container may live again.
func (m *Manager) drainFile(ctx context.Context, file string, f func(agentapi.CNIRequest) bool) error {
	if req, err := readQueued(file); err == nil && !f(req) {
		return nil // another's, whose removal may take a while
	}
	unlock, err := m.lock(ctx, "queue")
	if err != nil {
		return err
	}
	defer unlock()
	req, err := readQueued(file)
	switch {
	case errors.Is(err, os.ErrNotExist):
		return nil // somebody else was here first
	case err != nil:
		m.cfg.Log.ErrorContext(ctx, "queued removal makes no sense and is set aside", "file", file, "err", err)
		return os.Rename(file, file+".unreadable")
	case !f(req):
		return nil
	}
	_, err = m.call(ctx, req)
	if codeOf(err) == "invalid" {
		m.cfg.Log.ErrorContext(ctx, "queued removal makes no sense and is set aside", "file", file, "err", err)
		return os.Rename(file, file+".unreadable")
	}
	if err != nil {
		return fmt.Errorf("queued removal %s: %w", file, err)
	}
	if err := os.Remove(file); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("queued removal %s is done: %w", file, err)
	}
	return nil
}

// readQueued reads one file of the queue. It opens nothing but plain files: a
// pipe would stop us for ever.
func readQueued(file string) (agentapi.CNIRequest, error) {
	var req agentapi.CNIRequest
	info, err := os.Lstat(file)
	if err != nil {
		return req, err
	}
	if !info.Mode().IsRegular() || info.Size() > maxQueued {
		return req, fmt.Errorf("a file of %d bytes, mode %v: must be a plain file of up to %d", info.Size(), info.Mode(), maxQueued)
	}
	data, err := os.ReadFile(file)
	if err != nil {
		return req, err
	}
	if err := json.Unmarshal(data, &req); err != nil {
		return req, fmt.Errorf("not a removal: %w", err)
	}
	if req.Command != "DEL" {
		return req, fmt.Errorf("command %q: only DEL is queued", req.Command)
	}
	return req, nil
}
