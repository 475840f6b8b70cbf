// Package lab builds a data centre on one machine: hosts, workloads and
// switches in network namespaces, a real agent on every host, an embedded
// etcd between them. It is where a newcomer first meets Brindle, and the
// bench on which its stories are told.
package lab

import (
	"bytes"
	encoding "encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"path/filepath"
	"regexp"
	"time"
)

// Root is where labs keep their files, one folder each.
const Root = "/run/brindle/lab"

// Errors that callers decide on.
var (
	ErrNoLab = errors.New("no such lab")
	ErrIsUp  = errors.New("the lab is up already")
)

// Families of addresses that a lab may use.
const (
	V4   = "v4"
	V6   = "v6"
	Dual = "dual"
)

// Topology says what to build.
type Topology struct {
	Name      string `json:"name"`
	Preset    string `json:"preset"`
	Hosts     int    `json:"hosts"`
	Workloads int    `json:"workloads"` // on each host
	Family    string `json:"family"`    // v4, v6 or dual
	Binary    string `json:"binary"`    // the brindle that hosts run; not for files
	Fsync     bool   `json:"fsync"`     // etcd waits for the disk; off, it is faster and forgets on power loss

	HoldTime time.Duration `json:"holdTime"` // after how much silence BGP peers give each other up
}

// Presets are the shapes that `lab up` knows.
var Presets = []string{"flat"}

// Default is the topology of `lab up` without arguments.
func Default() Topology {
	return Topology{Name: "lab", Preset: "flat", Hosts: 3, Workloads: 2, Family: Dual, HoldTime: 90 * time.Second}
}

// ReadTopology reads the fields of a topology that a file gives, over those
// that t has. Fields are those of Topology as JSON has them; another is an
// error.
func (t Topology) ReadTopology(file string, json []byte) (Topology, error) {
	d := encoding.NewDecoder(bytes.NewReader(json))
	d.DisallowUnknownFields()
	if err := d.Decode(&t); err != nil {
		return t, fmt.Errorf("topology %s: %w; the fields are name, preset, hosts, workloads, family and fsync", file, err)
	}
	return t, nil
}

// labName keeps namespace names, folder names and socket paths short and
// unambiguous.
var labName = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{0,13}[a-z0-9])?$`)

// memberName is the rule for names inside a lab.
var memberName = regexp.MustCompile(`^[a-z0-9]([a-z0-9.-]{0,61}[a-z0-9])?$`)

// maxHosts is how many hosts fit into the segment's numbering.
const maxHosts = 200

// The hold times that BGP can negotiate (RFC 4271, section 4.2), but for none.
const (
	minHold = 3 * time.Second
	maxHold = 65535 * time.Second
)

// CheckName says whether a lab may have this name.
func CheckName(name string) error {
	if !labName.MatchString(name) {
		return fmt.Errorf("lab name %q: lower-case letters, digits and '-', at most 15, starting and ending with a letter or digit", name)
	}
	return nil
}

// Check says what is wrong with a topology.
func (t Topology) Check() error {
	if err := CheckName(t.Name); err != nil {
		return err
	}
	if t.Preset != "flat" {
		return fmt.Errorf("preset %q: there is one preset in this version, flat", t.Preset)
	}
	if t.Hosts < 1 || t.Hosts > maxHosts {
		return fmt.Errorf("--hosts %d: a lab has 1 to %d hosts", t.Hosts, maxHosts)
	}
	if t.Workloads < 0 || t.Workloads > 200 {
		return fmt.Errorf("--workloads %d: a host has 0 to 200 workloads to begin with", t.Workloads)
	}
	if t.HoldTime < minHold || t.HoldTime > maxHold || t.HoldTime%time.Second != 0 {
		return fmt.Errorf("--hold-time %s: must be whole seconds, %s to %s (RFC 4271)", t.HoldTime, minHold, maxHold)
	}
	switch t.Family {
	case V4, V6, Dual:
		return nil
	}
	return fmt.Errorf("--family %q: must be v4, v6 or dual", t.Family)
}

func (t Topology) has4() bool { return t.Family != V6 }
func (t Topology) has6() bool { return t.Family != V4 }

// The addresses of the segment that joins the hosts, and the pools that
// workloads are numbered from. They overlap with nothing that Brindle or
// Calico chooses by default.
var (
	segment4 = netip.MustParsePrefix("172.30.0.0/24")
	segment6 = netip.MustParsePrefix("fd00:172:30::/64")
	pool4    = netip.MustParsePrefix("10.48.0.0/16")
	pool6    = netip.MustParsePrefix("fd00:10:48::/48")
)

// hostAddresses returns the addresses of the i-th host (from 1).
func (t Topology) hostAddresses(i int) []netip.Prefix {
	var out []netip.Prefix
	if t.has4() {
		a := segment4.Addr().As4()
		a[3] = byte(10 + i)
		out = append(out, netip.PrefixFrom(netip.AddrFrom4(a), segment4.Bits()))
	}
	if t.has6() {
		a := segment6.Addr().As16()
		a[15] = byte(10 + i)
		out = append(out, netip.PrefixFrom(netip.AddrFrom16(a), segment6.Bits()))
	}
	return out
}

// netnsName is the namespace of a member of a lab.
func netnsName(lab, member string) string { return "brindle-" + lab + "-" + member }

// dir is the folder of a lab.
func dir(lab string) string { return filepath.Join(Root, lab) }

// The files of a lab.
func controlSocket(lab string) string { return filepath.Join(dir(lab), "control.sock") }
func lockFile(lab string) string      { return filepath.Join(dir(lab), "lock") }
func etcdSocket(lab string) string    { return filepath.Join(dir(lab), "etcd.sock") }
func hostDir(lab, host string) string { return filepath.Join(dir(lab), host) }
func agentSocket(lab, host string) string {
	return filepath.Join(hostDir(lab, host), "agent.sock")
}
func hostEtcdSocket(lab, host string) string { return filepath.Join(hostDir(lab, host), "etcd.sock") }

// Endpoints is how a program reaches the datastore of a lab.
func Endpoints(lab string) string { return "unix://" + etcdSocket(lab) }
