package lab

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/brindle-net/brindle/internal/agentclient"
)

// order is one thing that a command asks of the supervisor.
type order struct {
	Verb     string      `json:"verb"` // status, workload-add, workload-rm, host-stop, host-start, host-kill, datastore-stop, datastore-start
	Name     string      `json:"name,omitempty"`
	Workload NewWorkload `json:"workload,omitzero"`
}

// answer is the supervisor's: Error is empty when it went well.
type answer struct {
	Error    string    `json:"error,omitempty"`
	State    *State    `json:"state,omitempty"`
	Workload *Workload `json:"workload,omitempty"`
}

// control takes orders until it is closed.
type control struct {
	srv    *http.Server
	cancel context.CancelFunc // of the orders under way
}

// Close ends the orders under way and waits for their ends: what one of them
// made after everything was removed would be left for ever.
func (c *control) Close() error {
	c.cancel()
	ctx, cancel := context.WithTimeout(context.Background(), 2*undoTimeout)
	defer cancel()
	if err := c.srv.Shutdown(ctx); err != nil {
		return errors.Join(fmt.Errorf("end the orders under way: %w", err), c.srv.Close())
	}
	return nil
}

// serveControl listens for orders on the lab's control socket.
func serveControl(s *Supervisor) (*control, error) {
	path := controlSocket(s.topo.Name)
	l, err := net.Listen("unix", path)
	if err != nil {
		return nil, fmt.Errorf("listen for orders: %w", err)
	}
	if err := os.Chmod(path, 0o600); err != nil {
		return nil, errors.Join(err, l.Close())
	}
	ctx, cancel := context.WithCancel(context.Background())
	srv := &http.Server{ReadHeaderTimeout: 10 * time.Second, BaseContext: func(net.Listener) context.Context { return ctx }}
	srv.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var o order
		var a answer
		if err := json.NewDecoder(r.Body).Decode(&o); err != nil {
			a.Error = err.Error()
		} else if a, err = s.obey(r.Context(), o); err != nil {
			a.Error = err.Error()
		}
		_ = json.NewEncoder(w).Encode(a) // the asker has gone
	})
	go func() { _ = srv.Serve(l) }() // ends when the supervisor closes it
	return &control{srv, cancel}, nil
}

// obey carries out one order.
func (s *Supervisor) obey(ctx context.Context, o order) (answer, error) {
	switch o.Verb {
	case "status":
		st := s.state(ctx)
		return answer{State: &st}, nil
	case "workload-add":
		w, err := s.addWorkload(ctx, o.Workload)
		return answer{Workload: &w}, err
	case "workload-rm":
		return answer{}, s.removeWorkload(ctx, o.Name)
	case "datastore-stop":
		if o.Name == "" {
			return answer{}, s.stopStore()
		}
	case "datastore-start":
		if o.Name == "" {
			if err := s.startStore(context.Background()); err != nil {
				return answer{}, err
			}
			err := s.waitConnected(ctx, s.sortedHosts()...)
			s.reclaim(ctx, "")
			return answer{}, err
		}
	}
	h, err := s.findHost(o.Name)
	if err != nil {
		return answer{}, err
	}
	switch o.Verb {
	case "host-stop":
		s.stopAgent(h, false)
	case "host-kill":
		s.stopAgent(h, true)
	case "host-start":
		if err := s.startAgent(h); err != nil {
			return answer{}, err
		}
		ctx, cancel := context.WithTimeout(ctx, readyTimeout)
		defer cancel()
		if err := s.waitServing(ctx, h); err != nil {
			return answer{}, err
		}
		s.reclaim(ctx, h.name)
		return answer{}, nil
	case "datastore-stop":
		h.gate.shut()
	case "datastore-start":
		if err := h.gate.open(); err != nil {
			return answer{}, err
		}
		err := s.waitConnected(ctx, h)
		s.reclaim(ctx, h.name)
		return answer{}, err
	default:
		return answer{}, fmt.Errorf("unknown order %q", o.Verb)
	}
	return answer{}, nil
}

// state asks every agent how it is, all at once.
func (s *Supervisor) state(ctx context.Context) State {
	st := State{
		Name: s.topo.Name, Preset: s.topo.Preset, Family: s.topo.Family, Hosts: []Host{}, Routers: s.topo.routers(),
		Datastore: Datastore{Type: "etcdv3", Endpoints: Endpoints(s.topo.Name)}, Workloads: s.workloadStates(), Segments: s.topo.laidOut(),
	}
	s.mu.Lock()
	st.Datastore.Running = s.store != nil
	s.mu.Unlock()
	hosts := s.sortedHosts()
	st.Hosts = make([]Host, len(hosts))
	var wg sync.WaitGroup
	for i, h := range hosts {
		wg.Add(1)
		go func() {
			defer wg.Done()
			st.Hosts[i] = s.hostState(ctx, h)
		}()
	}
	wg.Wait()
	return st
}

// hostState asks one agent how it is.
func (s *Supervisor) hostState(ctx context.Context, h *host) Host {
	out := Host{
		Name: h.name, Netns: netnsName(s.topo.Name, h.name), Addresses: []string{},
		Socket: agentSocket(s.topo.Name, h.name), NotReady: "the agent is not running", Peers: []Peer{},
		Reflector: slices.Contains(s.topo.shape().Reflectors, h.name),
	}
	for _, p := range s.topo.hostAddresses(h.index) {
		out.Addresses = append(out.Addresses, p.Addr().String())
	}
	s.mu.Lock()
	if h.agent != nil && h.agent.alive() {
		out.PID = h.agent.pid()
	}
	s.mu.Unlock()
	ctx, cancel := context.WithTimeout(ctx, 3*time.Second)
	defer cancel()
	st, err := agentclient.New(out.Socket).Status(ctx)
	if err != nil {
		if out.PID != 0 {
			out.NotReady = err.Error()
		}
		return out
	}
	out.ASNumber, out.Ready, out.NotReady, out.MaxSession = st.ASNumber, st.Ready, "", len(st.Sessions)
	for _, c := range st.Conditions {
		if !c.Status {
			out.NotReady += fmt.Sprintf("%s: %s: %s; ", c.Type, c.Reason, c.Message)
		}
	}
	for _, sess := range st.Sessions {
		up := sess.State == "Established"
		if up {
			out.Sessions++
		}
		out.Peers = append(out.Peers, Peer{s.topo.memberAt(sess.Peer), sess.Peer, sess.State, up})
	}
	return out
}
