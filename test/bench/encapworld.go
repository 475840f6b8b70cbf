package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/brindle-net/brindle/internal/netns"
)

// encapWorld is four labs of two hosts with a workload each: with VXLAN of
// both families, with IP in IP, and two without a tunnel of the agents': what
// is set up twice differs more than what is measured twice.
type encapWorld struct {
	bin                      string
	vxlan, ipip, hand, again *encapLab
}

// encapLab is a lab as it is seen from outside.
type encapLab struct {
	name        string
	hosts, pods []*encapBox
}

// encapBox is a host or a workload of a lab.
type encapBox struct {
	ns    *netns.NS
	addrs []netip.Addr
}

// Of the tunnels by hand.
const (
	handVXLAN4 = "hand4"
	handVXLAN6 = "hand6"
	handIPIP   = "handipip"
)

// newEncapWorld starts the labs. What it returns is to be closed, also with an
// error.
func newEncapWorld(ctx context.Context, o options) (*encapWorld, error) {
	w := &encapWorld{bin: filepath.Join(o.bin, "brindle")}
	up := func(name string, flags ...string) (*encapLab, error) {
		return w.up(ctx, fmt.Sprintf("bench%d%s", os.Getpid(), name), flags...)
	}
	for _, l := range []struct {
		to    **encapLab
		name  string
		flags []string
	}{
		{&w.vxlan, "v", []string{"--vxlan", "Always"}},
		{&w.ipip, "i", []string{"--family", "v4", "--ipip", "Always"}},
		{&w.hand, "h", []string{"--vxlan", "Never"}},
		{&w.again, "g", []string{"--vxlan", "Never"}},
	} {
		made, err := up(l.name, l.flags...)
		if *l.to = made; err != nil {
			return w, err
		}
	}
	return w, errors.Join(w.hand.build(), w.again.build())
}

// close takes the labs down.
func (w *encapWorld) close() error {
	var failed error
	for _, l := range []*encapLab{w.vxlan, w.ipip, w.hand, w.again} {
		if l == nil {
			continue
		}
		for _, b := range append(l.hosts, l.pods...) {
			failed = errors.Join(failed, b.ns.Close())
		}
		if out, err := exec.Command(w.bin, "lab", "down", "--name", l.name).CombinedOutput(); err != nil {
			failed = errors.Join(failed, fmt.Errorf("take lab %s down: %w: %s", l.name, err, out))
		}
	}
	return failed
}

// up starts a lab.
func (w *encapWorld) up(ctx context.Context, name string, flags ...string) (*encapLab, error) {
	args := append([]string{"lab", "up", "flat", "--name", name, "--hosts", "2", "--workloads", "1"}, flags...)
	if out, err := exec.CommandContext(ctx, w.bin, args...).CombinedOutput(); err != nil {
		_ = exec.Command(w.bin, "lab", "down", "--name", name).Run() // what there is of it
		return nil, fmt.Errorf("start a lab: %w: %s", err, out)
	}
	l := &encapLab{name: name}
	out, err := exec.CommandContext(ctx, w.bin, "lab", "status", "--name", name, "-o", "json").Output()
	if err != nil {
		return l, fmt.Errorf("status of a lab: %w", err)
	}
	type box struct {
		Netns     string   `json:"netns"`
		Addresses []string `json:"addresses"`
	}
	var status struct{ Hosts, Workloads []box }
	if err := json.Unmarshal(out, &status); err != nil {
		return l, fmt.Errorf("status of a lab: %w", err)
	}
	for i, b := range append(status.Hosts, status.Workloads...) {
		ns, err := netns.Open(b.Netns)
		if err != nil {
			return l, err
		}
		made := &encapBox{ns: ns}
		for _, text := range b.Addresses {
			text, _, _ = strings.Cut(text, "/")
			a, err := netip.ParseAddr(text)
			if err != nil {
				return l, errors.Join(fmt.Errorf("status of a lab: %w", err), ns.Close())
			}
			made.addrs = append(made.addrs, a)
		}
		if i < len(status.Hosts) {
			l.hosts = append(l.hosts, made)
		} else {
			l.pods = append(l.pods, made)
		}
	}
	return l, nil
}

// command runs a program of iproute2 in a box: words of a line.
func (b *encapBox) command(format string, args ...any) error {
	words := strings.Fields(fmt.Sprintf(format, args...))
	return netns.Do(b.ns, func() error {
		if out, err := exec.Command(words[0], words[1:]...).CombinedOutput(); err != nil {
			return fmt.Errorf("%s: %w: %s", strings.Join(words, " "), err, out)
		}
		return nil
	})
}

// each calls f for each host with the other one and the other one's workload.
func (l *encapLab) each(f func(i int, host, other, pod *encapBox) error) error {
	return errors.Join(f(0, l.hosts[0], l.hosts[1], l.pods[1]), f(1, l.hosts[1], l.hosts[0], l.pods[0]))
}

// build makes VXLAN tunnels as an administrator does, with the numbers that
// agents use. Workloads get the MTU that they have in the other lab.
func (l *encapLab) build() error {
	return l.each(func(i int, host, other, pod *encapBox) error {
		var errs []error
		do := func(format string, args ...any) { errs = append(errs, host.command(format, args...)) }
		for _, t := range []struct {
			name         string
			family, mtu  int
			own, far, at string
		}{
			{handVXLAN4, 4, 1450, fmt.Sprintf("10.99.0.%d/32", 1+i), fmt.Sprintf("10.99.0.%d", 2-i), "ip -4"},
			{handVXLAN6, 6, 1430, fmt.Sprintf("fd99::%d/128", 1+i), fmt.Sprintf("fd99::%d", 2-i), "ip -6"},
		} {
			mac := func(i int) string { return fmt.Sprintf("66:00:00:00:%02x:%02x", t.family, i) }
			do("ip link add %s address %s mtu %d type vxlan id 4096 dstport 4789 local %v dev eth0 nolearning", t.name, mac(i), t.mtu, host.addr(t.family))
			do("ip link set %s up", t.name)
			do("%s addr add %s dev %s", t.at, t.own, t.name)
			do("%s neigh add %s lladdr %s dev %s nud permanent", t.at, t.far, mac(1-i), t.name)
			do("bridge fdb append %s dev %s dst %v", mac(1-i), t.name, other.addr(t.family))
			do("%s route add %v via %s dev %s onlink mtu %d", t.at, pod.addr(t.family), t.far, t.name, t.mtu)
		}
		errs = append(errs, pod.command("ip link set eth0 mtu 1430"))
		return errors.Join(errs...)
	})
}

// addIPIP makes IP in IP, false if the kernel has no device for it.
func (l *encapLab) addIPIP() (bool, error) {
	err := l.each(func(_ int, host, other, _ *encapBox) error {
		return host.command("ip link add %s type ipip local %v remote %v", handIPIP, host.addr(4), other.addr(4))
	})
	if err != nil { // the kernel has none
		return false, nil
	}
	return true, l.each(func(_ int, host, _, _ *encapBox) error { return host.command("ip link set %s mtu 1480 up", handIPIP) })
}

// useVXLAN4 makes IPv4 packets take VXLAN.
func (l *encapLab) useVXLAN4() error {
	return l.each(func(i int, host, _, pod *encapBox) error {
		return host.command("ip route replace %v via 10.99.0.%d dev %s onlink mtu 1450", pod.addr(4), 2-i, handVXLAN4)
	})
}

// useIPIP makes them take IP in IP.
func (l *encapLab) useIPIP() error {
	return l.each(func(_ int, host, _, pod *encapBox) error {
		return host.command("ip route replace %v dev %s mtu 1480", pod.addr(4), handIPIP)
	})
}
