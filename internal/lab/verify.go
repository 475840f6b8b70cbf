package lab

import (
	"context"
	"fmt"
	"net/netip"
	"path/filepath"
	"strings"
	"sync"
	"time"
)

// Flow is one connection that Survey tries: the first packet of it.
type Flow struct {
	From, To     Member
	Source, Dest netip.Addr
	Protocol     string // icmp, tcp or udp
	Port         uint16 // of tcp and udp
}

// String writes the flow for people: "w1 → w3 (10.48.0.9) 80/tcp".
func (f Flow) String() string {
	return fmt.Sprintf("%s → %s (%s) %s", f.From.Name, f.To.Name, f.Dest, f.Target())
}

// Target is what ParseTarget reads: "80/tcp", "icmp".
func (f Flow) Target() string {
	if f.Protocol == "icmp" {
		return f.Protocol
	}
	return fmt.Sprintf("%d/%s", f.Port, f.Protocol)
}

// Flows lists every ordered pair of members, in each family that both have an
// address of, with every port that workloads answer on by TCP and UDP, and
// with an ICMP echo.
func Flows(members []Member) []Flow {
	var out []Flow
	for _, from := range members {
		for _, to := range members {
			for _, four := range []bool{true, false} {
				src, dst := from.address(four), to.address(four)
				if from.Name == to.Name || !src.IsValid() || !dst.IsValid() {
					continue
				}
				f := Flow{From: from, To: to, Source: src, Dest: dst, Protocol: "icmp"}
				out = append(out, f)
				for _, f.Protocol = range []string{"tcp", "udp"} {
					for _, port := range Ports {
						f.Port = uint16(port)
						out = append(out, f)
					}
				}
			}
		}
	}
	return out
}

// address is the member's first address of a family, invalid if it has none.
func (m Member) address(four bool) netip.Addr {
	for _, a := range m.Addresses {
		if a.Is4() == four {
			return a
		}
	}
	return netip.Addr{}
}

// How long Survey waits for an answer: briefly at first, and with patience
// where one should have come.
const (
	briefly   = 300 * time.Millisecond
	patiently = 2 * time.Second
	patience  = 3 // patient probes before silence is believed
)

// surveyors bounds how many probes of a survey are under way at once. Most of
// them only wait.
const surveyors = 96

// Survey tries every flow with real packets and says of each what it found.
// expected says which should be answered: those get several chances. Silence
// is believed only where a control probe passed, from the host of either end to that
// end: a flow whose control fails is Unmeasured.
func Survey(ctx context.Context, st State, flows []Flow, expected []bool) ([]Cell, error) {
	out := make([]Cell, len(flows))
	all := make([]int, len(flows))
	for i := range flows {
		all[i] = i
	}
	atOnce(all, func(i int) { out[i] = found(flows[i].probe(1, briefly).Send(ctx)) })
	var missed []int
	for i, c := range out {
		if c == Silent && expected[i] {
			missed = append(missed, i)
		}
	}
	atOnce(missed, func(i int) {
		for n := 0; n < patience && out[i] == Silent; n++ {
			out[i] = found(flows[i].probe(1, patiently).Send(ctx))
		}
	})
	c := proofs{st: st, passed: map[proof]bool{}}
	if err := c.run(ctx, flows, out); err != nil {
		return nil, err
	}
	for i, f := range flows {
		out[i] = c.believe(f, out[i])
	}
	return out, ctx.Err()
}

// atOnce does something for many numbers, a bounded number of them at a time.
func atOnce(numbers []int, do func(int)) {
	var wg sync.WaitGroup
	slots := make(chan struct{}, surveyors)
	for _, i := range numbers {
		slots <- struct{}{}
		wg.Go(func() {
			defer func() { <-slots }()
			do(i)
		})
	}
	wg.Wait()
}

func (f Flow) probe(count int, timeout time.Duration) Probe {
	return Probe{From: f.From, To: f.Dest, Protocol: f.Protocol, Port: f.Port, Count: count, Timeout: timeout}
}

// proof is a probe that must pass for silence to mean anything: a host may
// always talk to its own workloads.
type proof struct {
	member   string
	to       netip.Addr
	protocol string
	port     uint16
}

func (f Flow) atSource() proof { return proof{f.From.Name, f.Source, "icmp", 0} }
func (f Flow) atDest() proof   { return proof{f.To.Name, f.Dest, f.Protocol, f.Port} }

// proofs is the outcome of all of them.
type proofs struct {
	st     State
	passed map[proof]bool
}

// believe turns silence without proof into what it is.
func (c *proofs) believe(f Flow, found Cell) Cell {
	if found == Silent && !(c.passed[f.atSource()] && c.passed[f.atDest()]) {
		return Unmeasured
	}
	return found
}

// run sends the control probes of all flows that were silent, each once.
func (c *proofs) run(ctx context.Context, flows []Flow, found []Cell) error {
	var list []proof
	var from []Member
	for i, f := range flows {
		if found[i] != Silent {
			continue
		}
		for _, one := range []proof{f.atSource(), f.atDest()} {
			if _, known := c.passed[one]; known {
				continue
			}
			host, err := c.hostOf(one.member)
			if err != nil {
				return err
			}
			c.passed[one] = false
			list, from = append(list, one), append(from, host)
		}
	}
	numbers, passed := make([]int, len(list)), make([]bool, len(list))
	for i := range list {
		numbers[i] = i
	}
	atOnce(numbers, func(i int) {
		p := Probe{From: from[i], To: list[i].to, Protocol: list[i].protocol, Port: list[i].port, Count: 1, Timeout: patiently}
		for n := 0; n < patience && !passed[i]; n++ {
			out, err := p.Send(ctx)
			passed[i] = err == nil && out.Answered > 0
		}
	})
	for i, one := range list {
		c.passed[one] = passed[i]
	}
	return nil
}

func (c *proofs) hostOf(workload string) (Member, error) {
	for _, w := range c.st.Workloads {
		if w.Name == workload {
			return c.st.Find(w.Host)
		}
	}
	return Member{}, fmt.Errorf("lab %s has no workload %s any more", c.st.Name, workload)
}

// WorkloadMembers lists the workloads of a lab, as members.
func (s State) WorkloadMembers() []Member {
	var out []Member
	for _, w := range s.Workloads {
		out = append(out, Member{w.Name, "workload", w.Netns, addrs(w.Addresses)})
	}
	return out
}

// At returns the name of the lab whose datastore is at these endpoints, as
// `lab env` prints them. false: it is no lab's.
func At(endpoints string) (lab string, ok bool) {
	path, ok := strings.CutPrefix(endpoints, "unix://")
	if !ok {
		return "", false
	}
	lab = filepath.Base(filepath.Dir(path))
	return lab, CheckName(lab) == nil && endpoints == Endpoints(lab)
}
