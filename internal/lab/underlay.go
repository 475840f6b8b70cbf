package lab

import (
	"fmt"

	"github.com/brindle-net/brindle/internal/kernel"
)

// buildFlat lays one layer-2 segment: a switch of its own namespace, and a
// cable from it to eth0 of every host.
func buildFlat(t Topology) error {
	sw, err := newSite(t.Name, "s1")
	if err != nil {
		return err
	}
	defer sw.Close()
	if err := sw.AddBridge("br0"); err != nil {
		return fmt.Errorf("switch s1: %w", err)
	}
	for i := 1; i <= t.Hosts; i++ {
		if err := addHost(t, i, sw); err != nil {
			return fmt.Errorf("host h%d: %w", i, err)
		}
	}
	return nil
}

// addHost makes the i-th host and connects it to the switch.
func addHost(t Topology, i int, sw *kernel.Site) error {
	name := fmt.Sprintf("h%d", i)
	host, err := newSite(t.Name, name)
	if err != nil {
		return err
	}
	defer host.Close()
	if err := sw.Cable(name, host, "eth0"); err != nil {
		return err
	}
	if err := sw.Join(name, "br0"); err != nil {
		return err
	}
	for _, p := range t.hostAddresses(i) {
		if err := host.AddAddress("eth0", p); err != nil {
			return err
		}
	}
	return nil
}

// newSite makes the namespace of a member with its loopback up.
func newSite(lab, member string) (*kernel.Site, error) {
	ns, err := claim(lab, member)
	if err != nil {
		return nil, err
	}
	site, err := kernel.OpenSite(ns)
	if err != nil {
		ns.Close()
		return nil, err
	}
	if err := site.Up("lo"); err != nil {
		site.Close()
		return nil, err
	}
	return site, nil
}
