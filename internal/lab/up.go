package lab

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/brindle-net/brindle/internal/kernel"
	"github.com/brindle-net/brindle/internal/netns"
)

// Preflight says, before anything is built, why a lab cannot be: no root, or
// a kernel that lacks something. It tries each thing in a namespace that is
// gone when it returns.
func Preflight() error {
	if os.Geteuid() != 0 {
		return errors.New("a lab needs root, for network namespaces: run the same command with sudo")
	}
	a, err := netns.New()
	if err != nil {
		return fmt.Errorf("this kernel or container does not allow network namespaces (CONFIG_NET_NS, CAP_SYS_ADMIN): %w", err)
	}
	site, err := kernel.OpenSite(a)
	if err != nil {
		return errors.Join(err, a.Close())
	}
	defer site.Close()
	b, err := netns.New()
	if err != nil {
		return err
	}
	far, err := kernel.OpenSite(b)
	if err != nil {
		return errors.Join(err, b.Close())
	}
	defer far.Close()
	if err := site.AddBridge("try"); err != nil {
		return fmt.Errorf("this kernel has no bridges (CONFIG_BRIDGE; try `modprobe bridge`): %w", err)
	}
	if err := site.Cable("a", far, "b"); err != nil {
		return fmt.Errorf("this kernel has no veth pairs (CONFIG_VETH; try `modprobe veth`): %w", err)
	}
	if err := site.SetSysctl("net/ipv4/ip_forward", "1"); err != nil {
		return fmt.Errorf("network sysctls cannot be written here (a read-only /proc/sys?): %w", err)
	}
	return nil
}

// event is one line that the supervisor writes to whoever started it.
type event struct {
	Step  string `json:"step,omitempty"`
	Ready bool   `json:"ready,omitempty"`
	Error string `json:"error,omitempty"`
}

// Up starts a supervisor in the background and waits until the lab is ready.
// When ctx ends first, or anything fails, nothing of the lab is left.
func Up(ctx context.Context, t Topology, progress func(string)) error {
	if err := t.Check(); err != nil {
		return err
	}
	if Exists(t.Name) {
		if pid, err := supervisorOf(t.Name); err == nil && pid == 0 {
			return fmt.Errorf("lab %s was left behind when its supervisor was killed: remove it first with `brindle lab down --name %s`", t.Name, t.Name)
		}
		return fmt.Errorf("lab %s: %w: take it down first with `brindle lab down --name %s`, or choose another --name", t.Name, ErrIsUp, t.Name)
	}
	if err := Preflight(); err != nil {
		return err
	}
	if err := makeDir(t.Name); err != nil {
		return err
	}
	own, err := os.Lstat(dir(t.Name))
	if err != nil {
		return fmt.Errorf("look for the folder of lab %s: %w", t.Name, err)
	}
	r, cmd, err := launch(t)
	if err != nil {
		return errors.Join(err, os.RemoveAll(dir(t.Name)))
	}
	defer r.Close()
	defer context.AfterFunc(ctx, func() { _ = cmd.Process.Signal(unix.SIGTERM) })()
	ready, err := follow(r, progress)
	if ready {
		if err := ctx.Err(); err == nil {
			return cmd.Process.Release()
		}
	}
	_ = cmd.Wait() // its words came through the pipe
	if ctx.Err() != nil {
		err = errors.New("interrupted; everything was removed again")
	} else if err == nil {
		err = errors.New("the supervisor ended without a word")
	}
	// It may have been killed before it could clean up.
	return errors.Join(err, remove(context.WithoutCancel(ctx), t.Name, own))
}

// What the supervisor is born with.
const (
	announceFD = 3 // where it tells of its steps
	lockFD     = 4 // the lab's lock
)

// launch starts the supervisor in a session of its own, in the lab's folder,
// which this process has made; what it has to say comes through the pipe.
func launch(t Topology) (*os.File, *exec.Cmd, error) {
	lock, err := lockLab(t.Name)
	if err != nil {
		return nil, nil, err
	}
	defer lock.Close() // the supervisor's stays
	if err := saveTopology(t); err != nil {
		return nil, nil, err
	}
	log, err := os.OpenFile(dir(t.Name)+"/supervisor.log", os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, nil, fmt.Errorf("open the supervisor's log: %w", err)
	}
	defer log.Close()
	r, w, err := os.Pipe()
	if err != nil {
		return nil, nil, err
	}
	defer w.Close()
	spec, err := json.Marshal(t)
	if err != nil {
		return nil, nil, err
	}
	cmd := exec.Command(t.Binary, "lab", "supervise")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(string(spec)), log, log
	cmd.ExtraFiles = []*os.File{announceFD - 3: w, lockFD - 3: lock}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		return nil, nil, errors.Join(fmt.Errorf("start the supervisor: %w", err), r.Close())
	}
	return r, cmd, nil
}

// follow passes on the supervisor's steps until it is ready or has failed.
func follow(r *os.File, progress func(string)) (ready bool, err error) {
	lines := bufio.NewScanner(r)
	for lines.Scan() {
		var e event
		if json.Unmarshal(lines.Bytes(), &e) != nil {
			continue
		}
		switch {
		case e.Error != "":
			return false, errors.New(e.Error)
		case e.Ready:
			return true, nil
		case e.Step != "":
			progress(e.Step)
		}
	}
	return false, lines.Err()
}

// Announce writes events to the pipe that launch made.
type Announce struct{ w *os.File }

// NewAnnounce opens the pipe. No child gets it: one that outlives a supervisor
// that is killed would leave the reader waiting for ever.
func NewAnnounce() Announce {
	unix.CloseOnExec(announceFD)
	return Announce{os.NewFile(announceFD, "announce")}
}

// Step tells of one step.
func (a Announce) Step(s string) { a.send(event{Step: s}) }

// Ready tells that the lab is up, and closes the pipe.
func (a Announce) Ready() {
	a.send(event{Ready: true})
	_ = a.w.Close()
}

// Failed tells why the lab is not up, and closes the pipe.
func (a Announce) Failed(err error) {
	a.send(event{Error: err.Error()})
	_ = a.w.Close()
}

// send writes one line; nobody may be reading any more.
func (a Announce) send(e event) {
	if b, err := json.Marshal(e); err == nil {
		_, _ = a.w.Write(append(b, '\n'))
	}
}
