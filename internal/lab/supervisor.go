package lab

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"sync"
	"syscall"
	"time"

	"github.com/brindle-net/brindle/internal/agentclient"
	"github.com/brindle-net/brindle/internal/desired"
	"github.com/brindle-net/brindle/internal/kernel"
	"github.com/brindle-net/brindle/internal/store/embedded"
)

// How long the supervisor waits for things to happen.
const (
	readyTimeout = 60 * time.Second // for every agent to be ready
	stopGrace    = 5 * time.Second  // for an agent to stop when asked
)

// Supervisor runs one lab: its datastore, the agent of each host, and what
// answers in its workloads. One process, one lab.
type Supervisor struct {
	topo     Topology
	log      *slog.Logger
	progress func(string)

	mu         sync.Mutex // guards everything below
	store      *embedded.Server
	audit      func() // stops the audit log; nil if store is
	hosts      map[string]*host
	workloads  map[string]*workload
	namespaces map[string]bool     // whose profile is in the datastore
	abandoned  map[string]Workload // by name: what failed adds may have left on their hosts
}

// host is one host of the lab.
type host struct {
	name  string
	index int
	gate  *gate
	agent *process
}

// NewSupervisor returns a supervisor that reports its steps to progress.
func NewSupervisor(t Topology, log *slog.Logger, progress func(string)) *Supervisor {
	return &Supervisor{topo: t, log: log, progress: progress, hosts: map[string]*host{}, workloads: map[string]*workload{}, namespaces: map[string]bool{}, abandoned: map[string]Workload{}}
}

// Run builds the lab, calls ready, keeps it until ctx ends and takes it down
// again. Whatever happens, nothing of the lab is left when Run returns.
func (s *Supervisor) Run(ctx context.Context, ready func()) (err error) {
	lock, err := inheritLock(lockFD, s.topo.Name)
	if err != nil {
		return err
	}
	defer lock.Close()
	defer func() { err = errors.Join(err, s.takeDown()) }()
	if err := s.build(ctx); err != nil {
		return err
	}
	ctl, err := serveControl(s)
	if err != nil {
		return err
	}
	defer ctl.Close()
	ready()
	<-ctx.Done()
	return nil
}

// build brings everything up.
func (s *Supervisor) build(ctx context.Context) error {
	s.progress(fmt.Sprintf("laying the cables of %d hosts", s.topo.Hosts))
	if err := buildUnderlay(s.topo); err != nil {
		return err
	}
	s.progress("starting the datastore")
	if err := s.startStore(ctx); err != nil {
		return err
	}
	if err := seed(ctx, s.topo); err != nil {
		return err
	}
	s.progress("starting the agents")
	for i := 1; i <= s.topo.Hosts; i++ {
		if err := s.addHost(i); err != nil {
			return err
		}
	}
	ctx, cancel := context.WithTimeout(ctx, readyTimeout)
	defer cancel()
	for _, h := range s.sortedHosts() {
		if err := s.waitServing(ctx, h); err != nil {
			return err
		}
	}
	s.progress(fmt.Sprintf("adding %d workloads to each host", s.topo.Workloads))
	if err := s.dealWorkloads(ctx); err != nil {
		return err
	}
	s.progress("waiting for every agent to be ready")
	for _, h := range s.sortedHosts() {
		if err := s.waitReady(ctx, h); err != nil {
			return err
		}
	}
	return s.waitRouted(ctx)
}

// waitRouted waits until every host has a route to every workload: what was
// announced last may still be on its way when all agents are ready.
func (s *Supervisor) waitRouted(ctx context.Context) error {
	for _, h := range s.sortedHosts() {
		k, err := openKernel(netnsName(s.topo.Name, h.name))
		if err != nil {
			return fmt.Errorf("host %s: %w", h.name, err)
		}
		for _, w := range s.workloadStates() {
			if err == nil {
				err = s.waitRoute(ctx, k, h, w)
			}
		}
		if err = errors.Join(err, k.Close()); err != nil {
			return err
		}
	}
	return nil
}

// waitRoute waits until a host has a route to a workload that an agent made,
// by a tunnel where the lab's pools say so. BGP may be faster than the word
// that the other end of a tunnel is there.
func (s *Supervisor) waitRoute(ctx context.Context, k *kernel.Kernel, h *host, w Workload) error {
	far, err := s.findHost(w.Host)
	if err != nil {
		return err
	}
	for _, a := range addrs(w.Addresses) {
		for {
			way, err := k.Way(a)
			if err != nil && !errors.Is(err, kernel.ErrNoRoute) {
				return fmt.Errorf("host %s: %w", h.name, err)
			}
			bare := err != nil || len(way.Hops) == 0 || formOf(way) == desired.Direct.String()
			if err == nil && way.Ours() && !(bare && s.topo.wraps(a.Is4(), h.index, far.index)) {
				break
			}
			select {
			case <-ctx.Done():
				return fmt.Errorf("host %s has no route to workload %s (%s) in time", h.name, w.Name, a)
			case <-time.After(5 * time.Millisecond):
			}
		}
	}
	return nil
}

// startStore runs the lab's etcd.
func (s *Supervisor) startStore(ctx context.Context) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.store != nil {
		return nil
	}
	srv, err := embedded.Start(ctx, embedded.Config{
		Dir: dir(s.topo.Name) + "/etcd", Socket: etcdSocket(s.topo.Name), UnsafeNoFsync: !s.topo.Fsync, Log: s.log,
	})
	if err != nil {
		return fmt.Errorf("start the datastore: %w", err)
	}
	if s.audit, err = startAudit(ctx, s.topo.Name, s.log); err != nil {
		return errors.Join(err, srv.Close())
	}
	s.store = srv
	return nil
}

// stopStore stops the lab's etcd; its data stay.
func (s *Supervisor) stopStore() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.store == nil {
		return nil
	}
	s.audit()
	err := s.store.Close()
	s.store, s.audit = nil, nil
	return err
}

// addHost makes the files of the i-th host and starts its agent.
func (s *Supervisor) addHost(i int) error {
	h := &host{name: fmt.Sprintf("h%d", i), index: i}
	for _, sub := range []string{"", "/state"} {
		if err := os.MkdirAll(hostDir(s.topo.Name, h.name)+sub, 0o700); err != nil {
			return fmt.Errorf("host %s: %w", h.name, err)
		}
	}
	h.gate = &gate{path: hostEtcdSocket(s.topo.Name, h.name), to: etcdSocket(s.topo.Name)}
	if err := h.gate.open(); err != nil {
		return fmt.Errorf("host %s: %w", h.name, err)
	}
	s.mu.Lock()
	s.hosts[h.name] = h
	s.mu.Unlock()
	return s.startAgent(h)
}

// startAgent starts the agent of a host; running already is no error.
func (s *Supervisor) startAgent(h *host) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if h.agent != nil && h.agent.alive() {
		return nil
	}
	p, err := start(s.agentArgs(h), hostDir(s.topo.Name, h.name)+"/agent.log")
	if err != nil {
		return fmt.Errorf("host %s: %w", h.name, err)
	}
	h.agent = p
	return nil
}

// agentArgs is how a lab host runs the real agent.
func (s *Supervisor) agentArgs(h *host) []string {
	d := hostDir(s.topo.Name, h.name)
	args := []string{
		s.topo.Binary, "lab", "enter", "--netns", netnsName(s.topo.Name, h.name), "--",
		s.topo.Binary, "agent", "--node", h.name, "--datastore-type", "etcdv3",
		"--etcd-endpoints", "unix://" + hostEtcdSocket(s.topo.Name, h.name),
		"--socket", agentSocket(s.topo.Name, h.name), "--state-dir", d + "/state", "--no-default-pools",
		"--bgp-hold-time", s.topo.HoldTime.String(),
	}
	for flag, has := range map[string]bool{"--ip": s.topo.has4(), "--ip6": s.topo.has6()} {
		want := "none"
		if has {
			want = "autodetect"
		}
		args = append(args, flag, want, flag+"-autodetection-method", "interface=eth0")
	}
	return append(args, s.topo.AgentArgs...)
}

// stopAgent ends the agent of a host: asked politely, or killed.
func (s *Supervisor) stopAgent(h *host, kill bool) {
	s.mu.Lock()
	p := h.agent
	s.mu.Unlock()
	if p == nil {
		return
	}
	if kill {
		p.stop(syscall.SIGKILL, stopGrace)
		return
	}
	p.stop(syscall.SIGTERM, stopGrace)
}

// waitServing waits until the agent of a host takes workloads: connected, in
// sync and the kernel programmed. Sessions need every agent, and a policy that
// is not enforced stays so.
func (s *Supervisor) waitServing(ctx context.Context, h *host) error {
	return s.waitAgent(ctx, h, "Datastore", "Kernel")
}

// waitReady waits until every condition of an agent holds.
func (s *Supervisor) waitReady(ctx context.Context, h *host) error { return s.waitAgent(ctx, h) }

// waitAgent waits until the named conditions hold, all when none is named.
func (s *Supervisor) waitAgent(ctx context.Context, h *host, conditions ...string) error {
	client := agentclient.New(agentSocket(s.topo.Name, h.name))
	last := "it does not answer yet"
	for {
		st, err := client.Status(ctx)
		if err == nil {
			last = ""
			for _, c := range st.Conditions {
				if !c.Status && (len(conditions) == 0 && !c.Advisory || slices.Contains(conditions, c.Type)) {
					last += fmt.Sprintf("%s: %s: %s; ", c.Type, c.Reason, c.Message)
				}
			}
			if last == "" && len(st.Conditions) > 0 {
				return nil
			}
		}
		if !s.running(h) {
			return fmt.Errorf("the agent of %s has ended: see %s/agent.log", h.name, hostDir(s.topo.Name, h.name))
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("host %s is not ready in time: %s (log: %s/agent.log)", h.name, last, hostDir(s.topo.Name, h.name))
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// running reports whether the agent of a host runs.
func (s *Supervisor) running(h *host) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return h.agent != nil && h.agent.alive()
}

// waitConnected waits until the agents that run have found the datastore
// again. One whose way to it is shut is not waited for.
func (s *Supervisor) waitConnected(ctx context.Context, hosts ...*host) error {
	ctx, cancel := context.WithTimeout(ctx, readyTimeout)
	defer cancel()
	for _, h := range hosts {
		if !s.running(h) || !h.gate.isOpen() {
			continue
		}
		if err := s.waitAgent(ctx, h, "Datastore"); err != nil {
			return err
		}
	}
	return nil
}

// sortedHosts lists the hosts in their order.
func (s *Supervisor) sortedHosts() []*host {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []*host
	for _, h := range s.hosts {
		out = append(out, h)
	}
	slices.SortFunc(out, func(a, b *host) int { return cmp.Compare(a.index, b.index) })
	return out
}

// findHost looks a host up by name.
func (s *Supervisor) findHost(name string) (*host, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	h, ok := s.hosts[name]
	if !ok {
		return nil, fmt.Errorf("lab %s has no host %q: it has h1 to h%d", s.topo.Name, name, s.topo.Hosts)
	}
	return h, nil
}

// takeDown stops what runs and removes what is left.
func (s *Supervisor) takeDown() error {
	for _, h := range s.sortedHosts() {
		s.stopAgent(h, true)
		h.gate.shut()
	}
	s.mu.Lock()
	workloads := s.workloads
	s.workloads = map[string]*workload{}
	s.mu.Unlock()
	for _, w := range workloads {
		w.stop()
	}
	err := s.stopStore()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	return errors.Join(err, sweep(ctx, s.topo.Name))
}
