package ipip

import (
	"errors"
	"fmt"
	"io/fs"
	"strings"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"

	"github.com/brindle-net/brindle/internal/kernel/rtnl"
	"github.com/brindle-net/brindle/internal/netns"
)

// A place is where a program can be attached.
type place struct {
	index  uint32
	egress bool
}

func (p place) parent() uint32 {
	if p.egress {
		return parentEgress
	}
	return parentIngress
}

func (p place) hook() ebpf.AttachType {
	if p.egress {
		return ebpf.AttachTCXEgress
	}
	return ebpf.AttachTCXIngress
}

func (p place) String() string {
	if p.egress {
		return fmt.Sprintf("the way out of interface %d", p.index)
	}
	return fmt.Sprintf("the way into interface %d", p.index)
}

// hooks attaches programs to the interfaces of one namespace. Linux 6.6 and
// later have a hook of its own for each direction of an interface (tcx).
// Before, programs are filters of traffic control, for which an interface must
// get a queue: while it does, it is taken out of use for some milliseconds,
// and drops what it should send.
type hooks struct {
	conn *rtnl.Conn
	ns   *netns.NS // nil: the calling thread's
}

// within calls f on a thread that is in the namespace.
func (h hooks) within(f func() error) error {
	if h.ns == nil {
		return f()
	}
	return netns.Do(h.ns, f)
}

// attach puts a program to a place, in one step where another of ours is.
func (h hooks) attach(p place, program *ebpf.Program) (changed bool, err error) {
	info, err := program.Info()
	if err != nil {
		return false, fmt.Errorf("read about the program for %v: %w", p, err)
	}
	id, _ := info.ID()
	have, filtered, err := readFilter(h.conn, p)
	if err != nil || filtered && have == uint32(id) {
		return false, err
	}
	if !filtered {
		err = h.within(func() error {
			changed, err = attachHook(p, program, id)
			return err
		})
		if !errors.Is(err, ebpf.ErrNotSupported) {
			return changed, err
		}
	}
	return true, attachFilter(h.conn, p, program)
}

// detach takes our programs away from a place. What others attached stays.
func (h hooks) detach(p place) error {
	err := h.within(func() error {
		ours, err := hooked(p)
		for _, program := range ours {
			if err == nil {
				err = link.RawDetachProgram(link.RawDetachProgramOptions{Target: int(p.index), Program: program, Attach: p.hook()})
			}
			program.Close()
		}
		return err
	})
	if err != nil && !gone(err) && !errors.Is(err, ebpf.ErrNotSupported) {
		return fmt.Errorf("detach our program from %v: %w", p, err)
	}
	return detachFilter(h.conn, p)
}

// places looks for programs of ours, also of earlier processes.
func (h hooks) places() (map[place]bool, error) {
	out := map[place]bool{}
	filters, err := findFilters(h.conn)
	if err != nil {
		return nil, err
	}
	for _, p := range filters {
		out[p] = true
	}
	links, err := listLinks(h.conn)
	if err != nil {
		return nil, err
	}
	err = h.within(func() error {
		for _, index := range links {
			for _, p := range []place{{index, false}, {index, true}} {
				ours, err := hooked(p)
				for _, program := range ours {
					out[p] = true
					program.Close()
				}
				if err != nil && !gone(err) {
					return err
				}
			}
		}
		return nil
	})
	if errors.Is(err, ebpf.ErrNotSupported) {
		err = nil
	}
	return out, err
}

// attachHook puts a program on the hook of a place. The calling thread is in
// its namespace.
func attachHook(p place, program *ebpf.Program, id ebpf.ProgramID) (changed bool, err error) {
	ours, err := hooked(p)
	if err != nil {
		return false, err
	}
	defer func() {
		for _, one := range ours {
			one.Close()
		}
	}()
	o := link.RawAttachProgramOptions{Target: int(p.index), Program: program, Attach: p.hook()}
	if len(ours) > 0 {
		info, err := ours[0].Info()
		if err != nil {
			return false, fmt.Errorf("read about the program at %v: %w", p, err)
		}
		if was, ok := info.ID(); ok && was == id {
			return false, nil
		}
		o.Anchor = link.ReplaceProgram(ours[0])
	}
	if err := link.RawAttachProgram(o); err != nil {
		return false, fmt.Errorf("attach a program to %v: %w", p, err)
	}
	return true, nil
}

// hooked opens our programs on the hook of a place; the caller closes them.
// They are known by their names. The error wraps ebpf.ErrNotSupported where the
// kernel has no such hooks. The calling thread is in the place's namespace.
func hooked(p place) ([]*ebpf.Program, error) {
	all, err := link.QueryPrograms(link.QueryOptions{Target: int(p.index), Attach: p.hook()})
	if errors.Is(err, unix.EINVAL) {
		err = ebpf.ErrNotSupported // a hook of which it has never heard
	}
	if err != nil {
		return nil, fmt.Errorf("list the programs at %v: %w", p, err)
	}
	var ours []*ebpf.Program
	for _, one := range all.Programs {
		program, err := ebpf.NewProgramFromID(one.ID)
		if errors.Is(err, fs.ErrNotExist) {
			continue // it has gone meanwhile
		}
		if err != nil {
			return ours, fmt.Errorf("open a program at %v: %w", p, err)
		}
		info, err := program.Info()
		if err != nil || !strings.HasPrefix(info.Name, programPrefix) {
			program.Close()
			continue
		}
		ours = append(ours, program)
	}
	return ours, nil
}

// listLinks lists all interfaces by number.
func listLinks(c *rtnl.Conn) ([]uint32, error) {
	var b rtnl.Batch
	var out []uint32
	b.Start(unix.RTM_GETLINK, unix.NLM_F_DUMP, rtnl.IfInfo(unix.AF_UNSPEC, 0, 0, 0))
	err := c.Get(&b, func() { out = nil }, func(m rtnl.Message) error {
		if m.Kind != unix.RTM_NEWLINK || len(m.Body) < unix.SizeofIfInfomsg {
			return rtnl.ErrMalformed
		}
		out = append(out, rtnl.Uint32(m.Body[4:8]))
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("list the interfaces: %w", err)
	}
	return out, nil
}
