package bgp

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/brindle-net/brindle/internal/netns"
	"github.com/brindle-net/brindle/internal/testenv"
)

// fabric is a bridge in a namespace that joins hosts.
type fabric struct {
	t    *testing.T
	ns   *netns.NS
	name string
	n    int
}

// host is a namespace on a fabric with eth0 172.30.0.N/24 and fd30::N/64.
type host struct {
	ns     *netns.NS
	v4, v6 string
	port   string // its end on the bridge
	fabric *fabric
}

func newFabric(t *testing.T) *fabric {
	t.Helper()
	testenv.NeedProgram(t, "ip")
	ns, name := testenv.NamedNS(t, "bgpf")
	testenv.Run(t, ns, "ip", "link", "add", "br0", "type", "bridge")
	testenv.Run(t, ns, "ip", "link", "set", "br0", "up")
	return &fabric{t: t, ns: ns, name: name}
}

func (f *fabric) host() *host {
	f.t.Helper()
	f.n++
	ns, name := testenv.NamedNS(f.t, "bgph")
	h := &host{
		ns: ns, v4: fmt.Sprintf("172.30.0.%d", f.n), v6: fmt.Sprintf("fd30::%x", f.n),
		port: fmt.Sprintf("p%d", f.n), fabric: f,
	}
	testenv.Run(f.t, f.ns, "ip", "link", "add", h.port, "type", "veth", "peer", "name", "eth0", "netns", name)
	testenv.Run(f.t, f.ns, "ip", "link", "set", h.port, "master", "br0", "up")
	testenv.Run(f.t, ns, "ip", "addr", "add", h.v4+"/24", "dev", "eth0")
	testenv.Run(f.t, ns, "ip", "addr", "add", h.v6+"/64", "dev", "eth0", "nodad")
	testenv.Run(f.t, ns, "ip", "link", "set", "eth0", "up")
	return h
}

// cut takes the cable out, without a word to either end.
func (h *host) cut() {
	h.fabric.t.Helper()
	testenv.Run(h.fabric.t, h.fabric.ns, "ip", "link", "set", h.port, "nomaster")
}

// daemon is BIRD or FRR in a host.
type daemon struct {
	t       *testing.T
	host    *host
	dir     string
	argv    []string
	head    string // of the configuration
	cmd     *exec.Cmd
	control func(command string) (string, error)
}

func (d *daemon) start() {
	d.t.Helper()
	d.cmd = exec.Command(d.argv[0], d.argv[1:]...)
	out, err := os.OpenFile(filepath.Join(d.dir, "output"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		d.t.Fatal(err)
	}
	defer out.Close()
	d.cmd.Stdout, d.cmd.Stderr = out, out
	if err := netns.Do(d.host.ns, d.cmd.Start); err != nil {
		d.t.Fatal(err)
	}
	d.t.Cleanup(d.kill)
}

// kill ends the daemon as SIGKILL does.
func (d *daemon) kill() {
	if d.cmd.ProcessState == nil {
		_ = d.cmd.Process.Kill()
		_ = d.cmd.Wait()
	}
}

func (d *daemon) ask(command string) string {
	d.t.Helper()
	out, err := d.control(command)
	if err != nil {
		d.t.Fatal(err)
	}
	return out
}

// write replaces a configuration.
func (d *daemon) write(name, config string) {
	d.t.Helper()
	if err := os.WriteFile(filepath.Join(d.dir, name), []byte(d.head+config), 0o600); err != nil {
		d.t.Fatal(err)
	}
}

func (d *daemon) read(name string) string {
	text, err := os.ReadFile(filepath.Join(d.dir, name))
	if err != nil {
		d.t.Fatal(err)
	}
	return string(text)
}

// shows waits until the answer to a command has all of these lines' beginnings
// and none of those.
func (d *daemon) shows(command string, all []string, none ...string) {
	d.t.Helper()
	testenv.Until(d.t, time.Minute, func() error {
		out, err := d.control(command)
		if err != nil {
			return err
		}
		for _, want := range all {
			if !strings.Contains(out, want) {
				return fmt.Errorf("%s: no %q in\n%s", command, want, out)
			}
		}
		for _, bad := range none {
			if strings.Contains(out, bad) {
				return fmt.Errorf("%s: %q in\n%s", command, bad, out)
			}
		}
		return nil
	})
}

// bird runs BIRD 2 with a configuration after the usual beginning.
func bird(t *testing.T, h *host, config string) *daemon {
	t.Helper()
	program := testenv.NeedProgram(t, "bird")
	client := testenv.NeedProgram(t, "birdc")
	dir := t.TempDir()
	d := &daemon{t: t, host: h, dir: dir, argv: []string{
		program, "-f", "-c", filepath.Join(dir, "bird.conf"),
		"-s", filepath.Join(dir, "ctl"), "-P", filepath.Join(dir, "pid"),
	}}
	head := fmt.Sprintf(`log %q all;
router id %s;
debug protocols { states, routes, events, packets };
protocol device {}
`, filepath.Join(dir, "log"), h.v4)
	d.head = head
	d.write("bird.conf", config)
	d.control = func(command string) (string, error) {
		out, err := exec.Command(client, append([]string{"-s", filepath.Join(dir, "ctl")}, strings.Fields(command)...)...).CombinedOutput()
		if err != nil {
			return "", fmt.Errorf("birdc %s: %w\n%s\n%s", command, err, out, d.read("output"))
		}
		return string(out), nil
	}
	d.start()
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("log of bird in %s:\n%s", h.v4, d.read("log"))
		}
	})
	return d
}

// frr runs FRR's bgpd with a configuration.
func frr(t *testing.T, h *host, config string) *daemon {
	t.Helper()
	program := testenv.NeedProgram(t, "bgpd")
	client := testenv.NeedProgram(t, "vtysh")
	dir := t.TempDir()
	d := &daemon{t: t, host: h, dir: dir, argv: []string{
		program, "-f", filepath.Join(dir, "bgpd.conf"), "-i", filepath.Join(dir, "pid"),
		"-z", filepath.Join(dir, "zebra"), "--vty_socket", dir, "-n", "-Z", "-S", "-P", "0",
	}}
	head := fmt.Sprintf("log file %s debugging\ndebug bgp updates in\ndebug bgp neighbor-events\ndebug bgp graceful-restart\n",
		filepath.Join(dir, "log"))
	for name, text := range map[string]string{"bgpd.conf": head + config, "log": ""} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	d.control = func(command string) (string, error) {
		out, err := exec.Command(client, "--vty_socket", dir, "-d", "bgpd", "-c", command).CombinedOutput()
		if err != nil {
			return "", fmt.Errorf("vtysh %s: %w\n%s\n%s", command, err, out, d.read("output"))
		}
		return string(out), nil
	}
	d.start()
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("log of bgpd in %s:\n%s", h.v4, d.read("log"))
		}
	})
	return d
}
