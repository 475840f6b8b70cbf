package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	v3 "github.com/brindle-net/brindle/api/v3"
	"github.com/brindle-net/brindle/internal/agentclient"
	"github.com/brindle-net/brindle/internal/client"
)

// measureReady measures how much later an agent is ready because it measures
// the paths to other hosts: it starts on a host with VXLAN to others, with that
// on, off, and off again, in turns.
func measureReady(ctx context.Context, o options) ([]row, error) {
	w, err := newWorld(ctx, o)
	if err != nil {
		return nil, err
	}
	defer w.close()
	_, err = client.Modify(ctx, client.New(w.store, client.Config{}), "", "bench", func(p *v3.IPPool) error {
		p.Spec.VXLANMode = v3.EncapAlways
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("change the pool to VXLAN: %w", err)
	}
	others := o.pick(4, 1)
	for range others + 1 {
		if _, err := w.addHost(ctx); err != nil {
			return nil, err
		}
	}
	h := w.hosts[0]
	var on, off, again sample
	for range o.pick(9, 1) {
		turns := []struct {
			port string
			at   *sample
		}{{"4797", &on}, {"0", &off}, {"0", &again}}
		for _, i := range rand.Perm(len(turns)) {
			h.agent.stop()
			h.env = []string{"FELIX_PATHPROBEPORT=" + turns[i].port}
			begin := time.Now()
			if err := w.startAgent(ctx, h); err != nil {
				return nil, err
			}
			*turns[i].at = append(*turns[i].at, time.Since(begin))
			if err := h.measures(ctx, turns[i].port != "0", others); err != nil {
				return nil, err
			}
		}
	}
	without := (off.p50() + again.p50()) / 2
	return []row{
		{what: fmt.Sprintf("agent's start, VXLAN to %d hosts, paths measured: to ready, beyond the same without", others), value: on.p50() - without, unit: "ms", aim: 100,
			spread: apart(off.p50(), again.p50())},
		{what: "– with", value: on.p50(), unit: "ms", spread: on.apart()},
		{what: "– without", value: without, unit: "ms", spread: apart(off.p50(), again.p50())},
	}, nil
}

// measures waits until an agent has measured its paths to so many hosts, or
// reports that it measures none.
func (h *host) measures(ctx context.Context, on bool, others int) error {
	return h.agent.waitUntil(ctx, time.Minute, func() error {
		got, err := agentclient.New(h.socket()).Paths(ctx, false)
		switch {
		case err != nil:
			return err
		case !on && !got.Off:
			return errors.New("paths are measured that should not be")
		case !on:
			return nil
		case len(got.Paths) < others:
			return fmt.Errorf("%d paths of %d", len(got.Paths), others)
		}
		for _, p := range got.Paths {
			if p.Outcome != "fine" {
				return fmt.Errorf("path to %s: %s %s", p.Peer, p.Outcome, p.Message)
			}
		}
		return nil
	})
}
