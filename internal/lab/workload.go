package lab

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"

	"github.com/brindle-net/brindle/internal/agentapi"
	"github.com/brindle-net/brindle/internal/agentclient"
	"github.com/brindle-net/brindle/internal/netns"
)

// network is the name of the network that lab workloads belong to.
const network = "lab"

// workload is one workload of the lab.
type workload struct {
	state     Workload
	responder *responder // nil: a virtual machine answers
	guest     *guest     // nil: it is wired as a container
}

// stop ends what answers for the workload.
func (w *workload) stop() {
	w.responder.stop()
	w.guest.stop()
}

// NewWorkload says what workload to add.
type NewWorkload struct {
	Name      string            `json:"name"`
	Host      string            `json:"host"`
	Namespace string            `json:"namespace"`
	Labels    map[string]string `json:"labels"`
	Addresses []string          `json:"addresses"`
	Tap       bool              `json:"tap"` // a virtual machine behind a tap device
}

// dealWorkloads gives each host its first workloads, all hosts at once.
func (s *Supervisor) dealWorkloads(ctx context.Context) error {
	hosts := s.sortedHosts()
	errs := make([]error, len(hosts))
	var wg sync.WaitGroup
	for i, h := range hosts {
		wg.Add(1)
		go func() {
			defer wg.Done()
			for k := range s.topo.Workloads {
				n := i*s.topo.Workloads + k + 1
				_, errs[i] = s.addWorkload(ctx, NewWorkload{Name: fmt.Sprintf("w%d", n), Host: h.name})
				if errs[i] != nil {
					return
				}
			}
		}()
	}
	wg.Wait()
	return errors.Join(errs...)
}

// addWorkload makes a namespace, has the agent wire it as CNI would, and
// starts what answers inside.
func (s *Supervisor) addWorkload(ctx context.Context, n NewWorkload) (Workload, error) {
	if err := s.checkNew(&n); err != nil {
		return Workload{}, err
	}
	if err := s.ensureNamespace(ctx, n.Namespace); err != nil {
		return Workload{}, err
	}
	site, err := newSite(s.topo.Name, n.Name)
	if err != nil {
		return Workload{}, fmt.Errorf("workload %s: %w", n.Name, err)
	}
	site.Close()
	ns, err := netns.Open(netnsName(s.topo.Name, n.Name))
	if err != nil {
		return Workload{}, errors.Join(fmt.Errorf("workload %s: %w", n.Name, err), disown(s.topo.Name, n.Name))
	}
	defer ns.Close()
	w := Workload{Name: n.Name, Namespace: n.Namespace, Host: n.Host, Netns: netnsName(s.topo.Name, n.Name), Labels: n.Labels, Tap: n.Tap}
	s.resume(n.Name)
	wired, err := agentclient.New(agentSocket(s.topo.Name, n.Host)).Add(ctx, s.addRequest(n))
	if err != nil {
		s.abandon(ctx, w)
		return Workload{}, errors.Join(fmt.Errorf("workload %s on %s: %w", n.Name, n.Host, err), disown(s.topo.Name, n.Name))
	}
	w.Interface, w.HostInterface = wired.Interface, wired.HostInterface
	for _, a := range wired.Addresses {
		w.Addresses = append(w.Addresses, strings.TrimSuffix(strings.TrimSuffix(a, "/32"), "/128"))
	}
	runs := &workload{state: w}
	if err := s.boot(runs, wired, ns); err != nil {
		return Workload{}, errors.Join(err, s.unwire(ctx, w))
	}
	s.mu.Lock()
	s.workloads[n.Name] = runs
	s.mu.Unlock()
	return w, nil
}

// boot starts what answers for a workload: a virtual machine, or sockets in its
// namespace.
func (s *Supervisor) boot(w *workload, wired agentapi.Workload, inside *netns.NS) (err error) {
	if !w.state.Tap {
		w.responder, err = startResponder(context.Background(), w.state.Name, inside)
		return err
	}
	host, err := netns.Open(netnsName(s.topo.Name, w.state.Host))
	if err != nil {
		return err
	}
	defer host.Close()
	w.guest, err = startGuest(host, inside, wired, w.state.Name)
	return err
}

// checkNew fills in what was left out and refuses what cannot be.
func (s *Supervisor) checkNew(n *NewWorkload) error {
	if !memberName.MatchString(n.Name) {
		return fmt.Errorf("workload name %q: lower-case letters, digits, '-' and '.', starting and ending with a letter or digit", n.Name)
	}
	if n.Namespace == "" {
		n.Namespace = "default"
	}
	if !memberName.MatchString(n.Namespace) {
		return fmt.Errorf("namespace %q: lower-case letters, digits and '-', starting and ending with a letter or digit", n.Namespace)
	}
	if n.Labels == nil {
		n.Labels = map[string]string{"name": n.Name}
	}
	if _, err := s.findHost(n.Host); err != nil {
		return err
	}
	if st, err := s.state(context.Background()).Find(n.Name); err == nil {
		return fmt.Errorf("lab %s has a %s named %q already", s.topo.Name, st.Kind, n.Name)
	}
	return nil
}

// addRequest asks as for a pod, so that policies of Kubernetes hold for the
// lab's workloads too.
func (s *Supervisor) addRequest(n NewWorkload) agentapi.AddRequest {
	var special *agentapi.Special
	if n.Tap {
		special = &agentapi.Special{Tap: true}
	}
	return agentapi.AddRequest{
		Version: agentapi.Version, Orchestrator: "k8s", Network: network, ContainerID: n.Name, Pod: n.Name,
		Namespace: n.Namespace, IfName: "eth0", Netns: "/run/netns/" + netnsName(s.topo.Name, n.Name),
		Labels: n.Labels, Profiles: []string{"kns." + n.Namespace},
		AssignIPv4: s.topo.has4(), AssignIPv6: s.topo.has6(), Addresses: n.Addresses, Special: special,
	}
}

// removeWorkload takes a workload away again.
func (s *Supervisor) removeWorkload(ctx context.Context, name string) error {
	s.mu.Lock()
	w, ok := s.workloads[name]
	s.mu.Unlock()
	if !ok {
		return fmt.Errorf("lab %s has no workload %q", s.topo.Name, name)
	}
	if err := s.unwire(ctx, w.state); err != nil {
		return err
	}
	w.stop()
	s.mu.Lock()
	delete(s.workloads, name)
	s.mu.Unlock()
	return nil
}

// unwire has the agent remove a workload and removes its namespace.
func (s *Supervisor) unwire(ctx context.Context, w Workload) error {
	if err := s.remove(ctx, w); err != nil {
		return fmt.Errorf("workload %s: %w", w.Name, err)
	}
	return disown(s.topo.Name, w.Name)
}

// remove has the agent of its host remove a workload.
func (s *Supervisor) remove(ctx context.Context, w Workload) error {
	return agentclient.New(agentSocket(s.topo.Name, w.Host)).Remove(ctx, agentapi.WorkloadRef{
		Version: agentapi.Version, Orchestrator: "k8s", Network: network, ContainerID: w.Name, Pod: w.Name,
		Namespace: w.Namespace, IfName: "eth0", Netns: "/run/netns/" + w.Netns,
	})
}

// workloadStates lists the workloads in the order of their names, numbers by
// value.
func (s *Supervisor) workloadStates() []Workload {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := []Workload{}
	for _, name := range slices.SortedFunc(maps.Keys(s.workloads), CompareNames) {
		out = append(out, s.workloads[name].state)
	}
	return out
}

// CompareNames orders the names of members: w2 before w10.
func CompareNames(a, b string) int {
	if len(a) != len(b) {
		return len(a) - len(b)
	}
	return strings.Compare(a, b)
}
