package lab

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
)

// Client gives orders to the supervisor of one lab.
type Client struct{ lab string }

// Open returns a client of a lab that is up. A lab that is not there, or
// whose supervisor was killed, is an error that says what to do.
func Open(lab string) (*Client, error) {
	if err := CheckName(lab); err != nil {
		return nil, err
	}
	if _, err := os.Stat(dir(lab)); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("look for lab %s: %w", lab, asRoot(err))
	} else if err != nil {
		return nil, fmt.Errorf("%w: %s: start it with `brindle lab up --name %s`", ErrNoLab, lab, lab)
	}
	pid, err := supervisorOf(lab)
	if err != nil {
		return nil, err
	}
	if pid == 0 {
		return nil, fmt.Errorf("the supervisor of lab %s was killed: remove what is left with `brindle lab down --name %s`", lab, lab)
	}
	return &Client{lab}, nil
}

// Status returns the lab as it is.
func (c *Client) Status(ctx context.Context) (State, error) {
	a, err := c.give(ctx, order{Verb: "status"})
	if err != nil {
		return State{}, err
	}
	return *a.State, nil
}

// AddWorkload adds one workload.
func (c *Client) AddWorkload(ctx context.Context, n NewWorkload) (Workload, error) {
	a, err := c.give(ctx, order{Verb: "workload-add", Workload: n})
	if err != nil {
		return Workload{}, err
	}
	return *a.Workload, nil
}

// RemoveWorkload removes one workload.
func (c *Client) RemoveWorkload(ctx context.Context, name string) error {
	_, err := c.give(ctx, order{Verb: "workload-rm", Name: name})
	return err
}

// Host stops, starts or kills the agent of a host.
func (c *Client) Host(ctx context.Context, verb, name string) error {
	switch verb {
	case "stop", "start", "kill":
		_, err := c.give(ctx, order{Verb: "host-" + verb, Name: name})
		return err
	}
	return fmt.Errorf("host %s: must be stop, start or kill", verb)
}

// Datastore stops or starts the datastore; with a host, only that host's way
// to it.
func (c *Client) Datastore(ctx context.Context, verb, host string) error {
	switch verb {
	case "stop", "start":
		_, err := c.give(ctx, order{Verb: "datastore-" + verb, Name: host})
		return err
	}
	return fmt.Errorf("datastore %s: must be stop or start", verb)
}

// give sends one order and waits for the answer.
func (c *Client) give(ctx context.Context, o order) (answer, error) {
	body, err := json.Marshal(o)
	if err != nil {
		return answer{}, err
	}
	hc := http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "unix", controlSocket(c.lab))
	}}}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://lab/", bytes.NewReader(body))
	if err != nil {
		return answer{}, err
	}
	resp, err := hc.Do(req)
	if err != nil {
		return answer{}, fmt.Errorf("ask the supervisor of lab %s: %w", c.lab, err)
	}
	defer resp.Body.Close()
	var a answer
	if err := json.NewDecoder(resp.Body).Decode(&a); err != nil {
		return answer{}, fmt.Errorf("read the supervisor's answer: %w", err)
	}
	if a.Error != "" {
		return a, errors.New(a.Error)
	}
	return a, nil
}
