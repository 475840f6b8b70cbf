package lab

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"sync"

	"github.com/brindle-net/brindle/internal/agentapi"
	"github.com/brindle-net/brindle/internal/kernel"
	"github.com/brindle-net/brindle/internal/netns"
)

// guest stands for a virtual machine: it has the tap device of a workload open,
// as a hypervisor has, and passes frames between that and the interface of the
// machine. The machine's own stack is that of the workload's namespace, so that
// all that can be done with a workload can be done with it.
type guest struct {
	ends [2]*os.File // on the host, in the machine
	wg   sync.WaitGroup
}

// startGuest starts a machine behind the tap device that an agent has made.
func startGuest(host, inside *netns.NS, w agentapi.Workload) (*guest, error) {
	spec := kernel.WireSpec{IfName: w.Interface, MTU: w.MTU}
	var err error
	if spec.MAC, err = net.ParseMAC(w.MAC); err != nil {
		return nil, fmt.Errorf("guest %s: %w", w.Name, err)
	}
	for _, s := range w.Addresses {
		p, err := netip.ParsePrefix(s)
		if err != nil {
			return nil, fmt.Errorf("guest %s: %w", w.Name, err)
		}
		spec.Addresses = append(spec.Addresses, p.Addr())
	}
	g := &guest{}
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
	g.wg.Go(func() { pass(g.ends[0], g.ends[1]) })
	g.wg.Go(func() { pass(g.ends[1], g.ends[0]) })
	return g, nil
}

// frameSize is more than any frame has.
const frameSize = 1 << 16

// pass passes frames on until one of the ends is closed, or its device gone. A
// frame that the other end does not take is lost, as on any wire.
func pass(from io.Reader, to io.Writer) {
	buf := make([]byte, frameSize)
	for {
		n, err := from.Read(buf)
		if err != nil {
			return
		}
		if _, err := to.Write(buf[:n]); errors.Is(err, os.ErrClosed) {
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
