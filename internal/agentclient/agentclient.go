// Package agentclient talks to a running agent over its unix socket, for
// programs that can afford net/http. The CNI plugin cannot: see package cni.
package agentclient

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"syscall"

	"github.com/brindle-net/brindle/internal/agentapi"
)

// ErrNoAgent says that nobody listens on the socket.
var ErrNoAgent = errors.New("no agent is running")

// Client speaks to one agent.
type Client struct {
	socket string
	http   *http.Client
}

// New returns a client of the agent behind a socket.
func New(socket string) *Client {
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "unix", socket)
	}
	return &Client{socket: socket, http: &http.Client{Transport: &http.Transport{
		DialContext: dial, DisableKeepAlives: true,
	}}}
}

// Status asks the agent how it is.
func (c *Client) Status(ctx context.Context) (agentapi.Status, error) {
	var s agentapi.Status
	return s, c.call(ctx, http.MethodGet, agentapi.PathStatus, nil, &s)
}

// Add sets up a workload interface and waits until it is programmed.
func (c *Client) Add(ctx context.Context, req agentapi.AddRequest) (agentapi.Workload, error) {
	var w agentapi.Workload
	return w, c.call(ctx, http.MethodPost, agentapi.PathAdd, req, &w)
}

// Check compares a workload interface with what it should be.
func (c *Client) Check(ctx context.Context, ref agentapi.WorkloadRef) (agentapi.Workload, error) {
	var w agentapi.Workload
	return w, c.call(ctx, http.MethodPost, agentapi.PathCheck, ref, &w)
}

// Remove takes a workload interface away; one that is not there is no error.
func (c *Client) Remove(ctx context.Context, ref agentapi.WorkloadRef) error {
	return c.call(ctx, http.MethodPost, agentapi.PathRemove, ref, &struct{}{})
}

// Routes asks for the routes that the agent's BGP speaker knows.
func (c *Client) Routes(ctx context.Context) (agentapi.Routes, error) {
	var r agentapi.Routes
	return r, c.call(ctx, http.MethodGet, agentapi.PathRoutes, nil, &r)
}

// PolicyStats asks how often each policy rule of the host was hit.
func (c *Client) PolicyStats(ctx context.Context) (agentapi.PolicyStats, error) {
	var s agentapi.PolicyStats
	return s, c.call(ctx, http.MethodGet, agentapi.PathPolicyStats, nil, &s)
}

// PolicyRules asks for the kernel's rules for a workload, named by its
// interface on the host side.
func (c *Client) PolicyRules(ctx context.Context, iface string) (agentapi.PolicyRules, error) {
	var r agentapi.PolicyRules
	return r, c.call(ctx, http.MethodGet, agentapi.PathPolicyRules+"?interface="+url.QueryEscape(iface), nil, &r)
}

func (c *Client) call(ctx context.Context, method, path string, in, out any) error {
	var body io.Reader
	if in != nil {
		b, err := json.Marshal(in)
		if err != nil {
			return fmt.Errorf("encode the request: %w", err)
		}
		body = bytes.NewReader(b)
	}
	req, err := http.NewRequestWithContext(ctx, method, "http://agent"+path, body)
	if err != nil {
		return err
	}
	resp, err := c.http.Do(req)
	if errors.Is(err, os.ErrNotExist) || errors.Is(err, syscall.ECONNREFUSED) {
		return fmt.Errorf("%w: nobody listens on %s", ErrNoAgent, c.socket)
	}
	if err != nil {
		return fmt.Errorf("ask the agent: %w", err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		var e agentapi.Error
		if err := json.NewDecoder(io.LimitReader(resp.Body, 1<<20)).Decode(&e); err != nil || e.Message == "" {
			return fmt.Errorf("the agent answered %s", resp.Status)
		}
		return fmt.Errorf("the agent refused (%s): %s", e.Code, e.Message)
	}
	if err := json.NewDecoder(resp.Body).Decode(out); err != nil {
		return fmt.Errorf("read the agent's answer: %w", err)
	}
	return nil
}

// Paths asks what was measured of the ways to other hosts, after measuring all
// of them anew if now is set.
func (c *Client) Paths(ctx context.Context, now bool) (agentapi.Paths, error) {
	path := agentapi.PathPaths
	if now {
		path += "?now=1"
	}
	var p agentapi.Paths
	return p, c.call(ctx, http.MethodGet, path, nil, &p)
}

// Settings asks which settings the agent runs with, and where each comes from.
func (c *Client) Settings(ctx context.Context) (agentapi.Settings, error) {
	var s agentapi.Settings
	return s, c.call(ctx, http.MethodGet, agentapi.PathSettings, nil, &s)
}
