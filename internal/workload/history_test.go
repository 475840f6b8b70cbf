package workload

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"reflect"
	"testing"

	"github.com/brindle-net/brindle/internal/agentapi"
)

var histories = flag.Int("histories", 40, "how many random histories are played")

// history is a random life of one host, beside what must be true of it.
type history struct {
	*world
	rnd   *rand.Rand
	m     *Manager
	f     *faults
	alive map[agentapi.WorkloadRef]agentapi.Workload // what stands for certain
	story []string
}

// pick chooses one of few attachments, so that they get in each other's way:
// names of interfaces that collide, two containers of one pod, two interfaces
// of one container.
func (h *history) pick() agentapi.AddRequest {
	one := func(list ...string) string { return list[h.rnd.IntN(len(list))] }
	req := request(one("cni", "k8s", "lab"), one("container-01", "container-02", "c3"), true, h.rnd.IntN(2) == 0)
	req.IfName = one("eth0", "eth0", "net1")
	if req.Orchestrator == "k8s" {
		req.Pod = one("pod-1", "pod-2")
		req.ContainerID = req.Pod + "-" + one("old", "new") // one pod per container
	}
	req.Netns = "/run/netns/" + req.ContainerID
	return req
}

// forget drops what is no longer certain: another container of the same
// workload may have taken its place.
func (h *history) forget(ref agentapi.WorkloadRef) {
	for other := range h.alive {
		if (record{Ref: other}).sameWorkload(record{Ref: ref}) {
			delete(h.alive, other)
		}
	}
}

// step does one thing.
func (h *history) step() {
	h.f.mu.Lock()
	h.f.steps, h.f.at = 0, 0
	if h.rnd.IntN(3) == 0 {
		h.f.at, h.f.done, h.f.crash = 1+h.rnd.IntN(25), h.rnd.IntN(2) == 0, h.rnd.IntN(2) == 0
	}
	h.f.mu.Unlock()
	req := h.pick()
	ref := refOf(req)
	var err error
	switch op := h.rnd.IntN(10); {
	case op < 6:
		var got agentapi.Workload
		got, err = h.m.Add(h.t.Context(), req)
		h.note("add %s %s %s %s: %v %v", req.Orchestrator, req.Pod, req.ContainerID, req.IfName, got.Addresses, err)
		before, stood := h.alive[ref]
		if err == nil && stood && before.Addresses[0] != got.Addresses[0] {
			h.t.Errorf("it had %v and has %v", before.Addresses, got.Addresses)
		}
		if codeOf(err) != "conflict" { // refused before anything was done
			h.forget(ref)
		}
		if err == nil {
			h.alive[ref] = got
		}
	case op < 9:
		err = h.m.Remove(h.t.Context(), ref)
		h.note("remove %s %s %s %s: %v", req.Orchestrator, req.Pod, req.ContainerID, req.IfName, err)
		delete(h.alive, ref)
	default:
		h.note("restart")
		h.start()
	}
	h.f.mu.Lock()
	crashed := h.f.crash && h.f.at > 0 && h.f.steps >= h.f.at
	h.f.at = 0
	h.f.mu.Unlock()
	if crashed {
		h.note("crash")
		h.start()
	}
}

func (h *history) start() {
	h.f = &faults{}
	h.m = h.world.start(h.f)
}

func (h *history) note(format string, args ...any) {
	h.story = append(h.story, fmt.Sprintf(format, args...))
}

// verify compares the world with what must be true.
func (h *history) verify() {
	owner := map[string]string{}
	for ref, want := range h.alive {
		got, err := h.m.Check(h.t.Context(), ref)
		if err != nil || !reflect.DeepEqual(got, want) {
			h.t.Errorf("%+v is %+v, %v; want %+v", ref, got, err, want)
		}
		for _, a := range want.Addresses {
			if owner[a] != "" {
				h.t.Errorf("%s is both %s's and %s's", a, owner[a], want.Name)
			}
			owner[a] = want.Name
		}
	}
}

// TestRandomHistories: whatever happens in whatever order, what was added
// stands until somebody removes it, and when all is removed nothing is left.
func TestRandomHistories(t *testing.T) {
	for seed := range *histories {
		h := &history{world: newWorld(t), rnd: rand.New(rand.NewPCG(1, uint64(seed))), alive: map[agentapi.WorkloadRef]agentapi.Workload{}}
		h.start()
		seen := map[agentapi.WorkloadRef]bool{}
		for range 40 {
			h.step()
			h.verify()
			for ref := range h.alive {
				seen[ref] = true
			}
			if t.Failed() {
				break
			}
		}
		h.start()
		for _, o := range []string{"cni", "k8s", "lab"} {
			for _, c := range []string{"container-01", "container-02", "c3"} {
				for _, ifName := range []string{"eth0", "net1"} {
					for _, pod := range []string{"pod-1", "pod-2"} {
						for _, age := range []string{"old", "new"} {
							req := request(o, c, true, true)
							req.IfName = ifName
							if o == "k8s" {
								req.Pod, req.ContainerID = pod, pod+"-"+age
							}
							mustRemove(t, h.m, refOf(req))
						}
					}
				}
			}
		}
		h.wantEmpty("after everything was removed")
		if t.Failed() {
			for _, line := range h.story {
				t.Log(line)
			}
			t.Fatalf("history %d", seed)
		}
	}
}
