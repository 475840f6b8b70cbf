package lab

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"sync"
	"time"

	"github.com/brindle-net/brindle/internal/agentapi"
	"github.com/brindle-net/brindle/internal/kernel"
	"github.com/brindle-net/brindle/internal/netns"
)

// guest stands for a virtual machine: it has the tap device of a workload open,
// as a hypervisor has. A network of its own, in user space, says where it is and
// answers. What that has no answer for goes to the workload's namespace, which
// has the machine's addresses too and where people run programs.
type guest struct {
	ends  [2]*os.File // on the host, in the namespace
	stack *stack
	wg    sync.WaitGroup
}

// startGuest starts a machine behind the tap device that an agent has made.
func startGuest(host, inside *netns.NS, w agentapi.Workload, name string) (*guest, error) {
	spec := kernel.WireSpec{IfName: w.Interface, MTU: w.MTU}
	var err error
	if spec.MAC, err = net.ParseMAC(w.MAC); err == nil && len(spec.MAC) != len(hardware{}) {
		err = fmt.Errorf("hardware address %s: must have 6 bytes", w.MAC)
	}
	if err != nil {
		return nil, fmt.Errorf("guest %s: %w", w.Name, err)
	}
	for _, s := range w.Addresses {
		p, err := netip.ParsePrefix(s)
		if err != nil {
			return nil, fmt.Errorf("guest %s: %w", w.Name, err)
		}
		spec.Addresses = append(spec.Addresses, p.Addr())
	}
	g := &guest{stack: newStack(name, hardware(spec.MAC), spec.Addresses, spec.MTU, rand.Uint32)}
	for i, at := range []struct {
		ns   *netns.NS
		name string
	}{{host, w.HostInterface}, {inside, w.Interface}} {
		if g.ends[i], err = kernel.OpenTap(at.ns, at.name); err != nil {
			return nil, errors.Join(fmt.Errorf("guest %s: %w", w.Name, err), g.close())
		}
	}
	if err := kernel.FillGuest(inside, spec); err != nil {
		return nil, errors.Join(fmt.Errorf("guest %s: %w", w.Name, err), g.close())
	}
	g.wg.Go(g.serve)
	g.wg.Go(g.pass)
	return g, nil
}

// frameSize is more than any frame has.
const frameSize = 1 << 16

// serve takes in what the host sends until one of the ends is closed, or the
// device gone. A frame that an end does not take is lost, as on any wire.
func (g *guest) serve() {
	buf := make([]byte, frameSize)
	for {
		if g.ends[0].SetReadDeadline(g.stack.due()) != nil {
			return
		}
		n, err := g.ends[0].Read(buf)
		var answers [][]byte
		taken := true
		switch {
		case errors.Is(err, os.ErrDeadlineExceeded):
			answers = g.stack.tick(time.Now())
		case err != nil:
			return
		default:
			answers, taken = g.stack.receive(buf[:n], time.Now())
		}
		if !taken {
			_, err = g.ends[1].Write(buf[:n])
		}
		for _, f := range answers {
			_, err = g.ends[0].Write(f)
		}
		if errors.Is(err, os.ErrClosed) {
			return
		}
	}
}

// pass passes on what programs in the namespace send, until one of the ends is
// closed, or its device gone.
func (g *guest) pass() {
	buf := make([]byte, frameSize)
	for {
		n, err := g.ends[1].Read(buf)
		if err != nil {
			return
		}
		if _, err := g.ends[0].Write(buf[:n]); errors.Is(err, os.ErrClosed) {
			return
		}
	}
}

func (g *guest) close() error {
	var err error
	for _, f := range g.ends {
		if f != nil {
			err = errors.Join(err, f.Close())
		}
	}
	return err
}

// stop ends the machine. No guest is none to end.
func (g *guest) stop() {
	if g == nil {
		return
	}
	_ = g.close() // closing twice is all that can fail
	g.wg.Wait()
}
