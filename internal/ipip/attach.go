package ipip

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"github.com/brindle-net/brindle/internal/kernel/rtnl"
)

// Traffic control, from linux/rtnetlink.h, linux/pkt_sched.h and
// linux/pkt_cls.h. Every kernel that we run on has it.
const (
	clsact        = 0xfffffff1 // TC_H_CLSACT
	clsactHandle  = 0xffff0000
	parentIngress = 0xfffffff2
	parentEgress  = 0xfffffff3
	tcaBPFFD      = 6
	tcaBPFName    = 7
	tcaBPFFlags   = 8
	tcaBPFID      = 11
	actDirect     = 1 // TCA_BPF_FLAG_ACT_DIRECT

	// A filter is ours by name, at this place among the others'.
	priority   = 0x4970
	handle     = 1
	filterName = "brindle:ipip"
)

// device is what we need to know of an interface.
type device struct {
	index    uint32
	ethernet bool
	mac      [6]byte
}

func readLink(c *rtnl.Conn, name string) (device, error) {
	var b rtnl.Batch
	var out device
	b.Start(unix.RTM_GETLINK, 0, rtnl.IfInfo(unix.AF_UNSPEC, 0, 0, 0))
	b.String(unix.IFLA_IFNAME, name)
	err := c.Get(&b, func() {}, func(m rtnl.Message) error {
		if m.Kind != unix.RTM_NEWLINK || len(m.Body) < unix.SizeofIfInfomsg {
			return rtnl.ErrMalformed
		}
		kind := rtnl.Uint16(m.Body[2:4])
		out.ethernet = kind == unix.ARPHRD_ETHER || kind == unix.ARPHRD_LOOPBACK
		out.index = rtnl.Uint32(m.Body[4:8])
		return rtnl.Attrs(m.Body[unix.SizeofIfInfomsg:], func(kind uint16, value []byte) {
			if kind == unix.IFLA_ADDRESS {
				copy(out.mac[:], value)
			}
		})
	})
	if errors.Is(err, unix.ENODEV) {
		err = ErrNoDevice
	}
	if err != nil {
		return device{}, fmt.Errorf("interface %s: %w", name, err)
	}
	return out, nil
}

// tcMessage is the fixed header of requests about queues and filters (struct
// tcmsg).
func tcMessage(index, handle, parent, info uint32) []byte {
	h := make([]byte, 4, 20)
	for _, v := range []uint32{index, handle, parent, info} {
		h = binary.NativeEndian.AppendUint32(h, v)
	}
	return h
}

// filterInfo is priority and protocol of our filters: IPv4, in network order.
func filterInfo() uint32 {
	var order [2]byte
	binary.BigEndian.PutUint16(order[:], unix.ETH_P_IP)
	return priority<<16 | uint32(binary.NativeEndian.Uint16(order[:]))
}

// attachFilter makes a program the filter at a place, in one step where another
// of ours is.
func attachFilter(c *rtnl.Conn, p place, program *ebpf.Program) error {
	var b rtnl.Batch
	b.Start(unix.RTM_NEWQDISC, unix.NLM_F_CREATE|unix.NLM_F_EXCL, tcMessage(p.index, clsactHandle, clsact, 0))
	b.String(unix.TCA_KIND, "clsact")
	b.Start(unix.RTM_NEWTFILTER, unix.NLM_F_CREATE, tcMessage(p.index, handle, p.parent(), filterInfo()))
	b.String(unix.TCA_KIND, "bpf")
	b.Nest(unix.TCA_OPTIONS|unix.NLA_F_NESTED, func() {
		b.Uint32(tcaBPFFD, uint32(program.FD()))
		b.String(tcaBPFName, filterName)
		b.Uint32(tcaBPFFlags, actDirect)
	})
	failed := c.Send(&b)
	if err := failed[0]; err != nil && !errors.Is(err, unix.EEXIST) {
		return fmt.Errorf("make %v a place for programs: %w", p, err)
	}
	if err := failed[1]; err != nil {
		return fmt.Errorf("attach a program to %v: %w", p, err)
	}
	return nil
}

// detachFilter takes our filter away from a place, and the place when nothing else
// is attached there. What others attached stays.
func detachFilter(c *rtnl.Conn, p place) error {
	_, ours, err := readFilter(c, p)
	if err != nil || !ours {
		return err
	}
	var b rtnl.Batch
	b.Start(unix.RTM_DELTFILTER, 0, tcMessage(p.index, handle, p.parent(), filterInfo()))
	b.String(unix.TCA_KIND, "bpf")
	if err := c.Do(&b); err != nil && !gone(err) {
		return fmt.Errorf("detach our program from %v: %w", p, err)
	}
	for _, side := range []place{{p.index, false}, {p.index, true}} {
		others := 0
		if err := eachFilter(c, side, func() { others = 0 }, func([]byte) { others++ }); err != nil || others > 0 {
			return err
		}
	}
	b.Reset()
	b.Start(unix.RTM_DELQDISC, 0, tcMessage(p.index, clsactHandle, clsact, 0))
	if err := c.Do(&b); err != nil && !gone(err) {
		return fmt.Errorf("remove the place for programs at %v: %w", p, err)
	}
	return nil
}

// gone says that there is no such interface, queue or filter.
func gone(err error) bool {
	return errors.Is(err, unix.ENODEV) || errors.Is(err, unix.ENOENT) || errors.Is(err, unix.EINVAL)
}

// readFilter returns the number of the program that our filter at a place has,
// and whether there is such a filter.
func readFilter(c *rtnl.Conn, p place) (program uint32, ours bool, err error) {
	err = eachFilter(c, p, func() { program, ours = 0, false }, func(body []byte) {
		id, name := filterOf(body)
		if name == filterName && rtnl.Uint32(body[8:12]) == handle {
			program, ours = id, true
		}
	})
	return program, ours, err
}

// eachFilter lists the filters at a place.
func eachFilter(c *rtnl.Conn, p place, reset func(), each func(body []byte)) error {
	var b rtnl.Batch
	b.Start(unix.RTM_GETTFILTER, unix.NLM_F_DUMP, tcMessage(p.index, 0, p.parent(), 0))
	err := c.Get(&b, reset, func(m rtnl.Message) error {
		if m.Kind != unix.RTM_NEWTFILTER || len(m.Body) < 20 {
			return rtnl.ErrMalformed
		}
		each(m.Body)
		return nil
	})
	if err != nil && !gone(err) {
		return fmt.Errorf("list the programs at %v: %w", p, err)
	}
	return nil
}

// filterOf reads the program's number and the name of a filter. Filters of
// other kinds have none.
func filterOf(body []byte) (id uint32, name string) {
	var kind string
	var options []byte
	_ = rtnl.Attrs(body[20:], func(k uint16, value []byte) { // what does not parse is not ours
		switch k {
		case unix.TCA_KIND:
			kind = rtnl.Text(value)
		case unix.TCA_OPTIONS:
			options = value
		}
	})
	if kind != "bpf" {
		return 0, ""
	}
	_ = rtnl.Attrs(options, func(k uint16, value []byte) {
		switch k {
		case tcaBPFID:
			id = rtnl.Uint32(value)
		case tcaBPFName:
			name = rtnl.Text(value)
		}
	})
	return id, name
}

// findFilters looks for filters of ours, also of earlier processes.
func findFilters(c *rtnl.Conn) ([]place, error) {
	var b rtnl.Batch
	var queues []uint32
	b.Start(unix.RTM_GETQDISC, unix.NLM_F_DUMP, tcMessage(0, 0, 0, 0))
	err := c.Get(&b, func() { queues = nil }, func(m rtnl.Message) error {
		if m.Kind != unix.RTM_NEWQDISC || len(m.Body) < 20 {
			return rtnl.ErrMalformed
		}
		if rtnl.Uint32(m.Body[12:16]) == clsact {
			queues = append(queues, rtnl.Uint32(m.Body[4:8]))
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("list where programs can be attached: %w", err)
	}
	var out []place
	for _, index := range queues {
		for _, p := range []place{{index, false}, {index, true}} {
			_, ours, err := readFilter(c, p)
			if err != nil {
				return nil, err
			}
			if ours {
				out = append(out, p)
			}
		}
	}
	return out, nil
}
