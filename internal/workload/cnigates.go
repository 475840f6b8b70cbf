package workload

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"time"
)

// Documented Calico behaviour: each readiness gate is asked every five
// seconds, for half a minute.
const (
	gatePoll    = 5 * time.Second
	gateTimeout = 30 * time.Second
)

// checkGates refuses what cannot be asked.
func checkGates(gates []string) error {
	for _, g := range gates {
		u, err := url.Parse(g)
		if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
			return invalid("readiness_gates: %q is no URL of http or https", g)
		}
	}
	return nil
}

// passGates waits until every gate of a configuration lets workloads in.
func passGates(ctx context.Context, gates []string, ask func(context.Context, string) error) error {
	ctx, cancel := context.WithTimeout(ctx, gateTimeout)
	defer cancel()
	for _, gate := range gates {
		for {
			err := ask(ctx, gate)
			if err == nil {
				break
			}
			select {
			case <-time.After(gatePoll):
			case <-ctx.Done():
				return &Error{"notReady", fmt.Errorf("readiness gate %s: %w", gate, err)}
			}
		}
	}
	return nil
}

// askGate asks a gate once. It is open when the answer is a success or a
// redirection, which is not followed.
func askGate(ctx context.Context, gate string) error {
	ctx, cancel := context.WithTimeout(ctx, gatePoll)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, gate, http.NoBody)
	if err != nil {
		return err
	}
	client := http.Client{
		Transport:     &http.Transport{DisableKeepAlives: true}, // no proxy: gates are near
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	resp, err := client.Do(req)
	if err != nil {
		var u *url.Error
		if errors.As(err, &u) {
			err = u.Err // the address is said already
		}
		return err
	}
	if err := resp.Body.Close(); err != nil {
		return err
	}
	if resp.StatusCode < 200 || resp.StatusCode > 399 {
		return fmt.Errorf("answers %s", resp.Status)
	}
	return nil
}
