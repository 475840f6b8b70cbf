package ipip

import (
	"errors"
	"fmt"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/rlimit"

	"github.com/brindle-net/brindle/internal/kernel/rtnl"
	"github.com/brindle-net/brindle/internal/netns"
)

// loopback is the number of that interface in every namespace.
const loopback = 1

// Try loads the programs and attaches one to the loopback interface of a
// namespace that this process made for the purpose, and takes all away again.
// It reports whether the kernel has the hooks of their own that Linux has since
// 6.6; else they are filters of traffic control. The error says what the
// kernel lacks for carrying IP in IP by programs.
func Try(ns *netns.NS) (hooked bool, err error) {
	if ns == nil || !ns.Made() {
		return false, errors.New("refused outside a namespace that was made for trials")
	}
	if err := rlimit.RemoveMemlock(); err != nil {
		return false, fmt.Errorf("allow BPF tables to be locked in memory: %w", err)
	}
	spec, err := readObject()
	if err != nil {
		return false, err
	}
	for _, m := range spec.Maps {
		m.Pinning = ebpf.PinNone
	}
	all, err := ebpf.NewCollection(spec)
	if err != nil {
		return false, fmt.Errorf("load the programs for IP in IP: %w", err)
	}
	defer all.Close()
	conn, err := rtnl.Dial(ns)
	if err != nil {
		return false, err
	}
	h := hooks{conn, ns}
	return h.try(all.Programs["decapsulate_ethernet"])
}

// try attaches a program and detaches it.
func (h hooks) try(program *ebpf.Program) (hooked bool, err error) {
	defer func() { err = errors.Join(err, h.conn.Close()) }()
	p := place{index: loopback}
	if _, err := h.attach(p, program); err != nil {
		return false, err
	}
	_, filtered, err := readFilter(h.conn, p)
	return !filtered, errors.Join(err, h.detach(p))
}
