// Package lab builds a data centre on one machine: hosts, workloads, switches
// and routers in network namespaces, a real agent on every host, an embedded
// etcd between them. It is where a newcomer first meets Brindle, and the
// bench on which its stories are told.
package lab

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
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

// labName keeps namespace names, folder names and socket paths short and
// unambiguous.
var labName = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{0,13}[a-z0-9])?$`)

// memberName is the rule for names inside a lab.
var memberName = regexp.MustCompile(`^[a-z0-9]([a-z0-9.-]{0,61}[a-z0-9])?$`)

// CheckName says whether a lab may have this name.
func CheckName(name string) error {
	if !labName.MatchString(name) {
		return fmt.Errorf("lab name %q: lower-case letters, digits and '-', at most 15, starting and ending with a letter or digit", name)
	}
	return nil
}

// asRoot says what to do about a file of a lab that only root may see.
func asRoot(err error) error {
	if errors.Is(err, os.ErrPermission) {
		return fmt.Errorf("%w: labs are for root: run the same command with sudo", err)
	}
	return err
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
