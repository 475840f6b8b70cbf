package scenarios

import (
	"context"
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
)

// labState is what these tests read of `lab status -o json`.
type labState struct {
	Hosts []struct {
		Name      string
		Netns     string
		PID       int
		Addresses []string
		Ready     bool
	}
	Workloads []struct {
		Name      string
		Netns     string
		Host      string
		Addresses []string
	}
}

// state asks the lab how it is.
func (c call) state() (labState, error) {
	var st labState
	out := c.lab([]string{"status", "-o", "json"})
	if out.err != nil {
		return st, fmt.Errorf("lab status: %w: %s", out.err, out.stderr)
	}
	return st, json.Unmarshal([]byte(out.stdout), &st)
}

// find returns the namespace and the addresses of a member.
func (c call) find(name string) (netns string, addrs []string, err error) {
	st, err := c.state()
	if err != nil {
		return "", nil, err
	}
	for _, h := range st.Hosts {
		if h.Name == name {
			return h.Netns, h.Addresses, nil
		}
	}
	for _, w := range st.Workloads {
		if w.Name == name {
			return w.Netns, w.Addresses, nil
		}
	}
	return "", nil, fmt.Errorf("the lab has no %s", name)
}

// address is a member's address of an IP version.
func (c call) address(name string, version int) (netip.Addr, error) {
	_, addrs, err := c.find(name)
	if err != nil {
		return netip.Addr{}, err
	}
	for _, s := range addrs {
		if a, err := netip.ParseAddr(s); err == nil && a.Is4() == (version == 4) {
			return a, nil
		}
	}
	return netip.Addr{}, fmt.Errorf("%s has no IPv%d address: %v", name, version, addrs)
}

// uniqueAddresses: no two workloads share one.
func (c call) uniqueAddresses([]string) outcome {
	st, err := c.state()
	if err != nil {
		return failf("%v", err)
	}
	owner := map[string]string{}
	for _, w := range st.Workloads {
		if len(w.Addresses) != len(c.versions()) {
			return failf("%s has addresses %v, want %d", w.Name, w.Addresses, len(c.versions()))
		}
		for _, a := range w.Addresses {
			if other, taken := owner[a]; taken {
				return failf("%s and %s both have %s", w.Name, other, a)
			}
			owner[a] = w.Name
		}
	}
	return outcome{}
}

// killSupervisor kills the lab's supervisor without a word.
func (c call) killSupervisor([]string) outcome {
	pid, err := c.supervisor()
	if err != nil {
		return failf("%v", err)
	}
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		return failf("kill the supervisor (process %d): %v", pid, err)
	}
	return outcome{}
}

func (c call) supervisor() (int, error) {
	data, err := os.ReadFile(filepath.Join(labDir(c.story.lab), "lock"))
	if err != nil {
		return 0, err
	}
	return strconv.Atoi(strings.TrimSpace(string(data)))
}

// nothingLeft: no namespace, process, link, mount or file of the lab is on
// the machine.
func (c call) nothingLeft([]string) outcome {
	var found []string
	prefix := "brindle-" + c.story.lab + "-"
	for _, dir := range []string{"/run/netns", "/run/brindle/lab", "/var/lib/brindle", "/run/brindle"} {
		entries, _ := os.ReadDir(dir) // a folder that is not there holds nothing
		for _, e := range entries {
			if strings.HasPrefix(e.Name(), prefix) || e.Name() == c.story.lab {
				found = append(found, filepath.Join(dir, e.Name()))
			}
		}
	}
	for what, text := range map[string]string{"mount": readFile("/proc/self/mounts"), "link": c.program("ip", "-d", "link").stdout} {
		for line := range strings.Lines(text) {
			if strings.Contains(line, prefix) || strings.Contains(line, labDir(c.story.lab)+"/") {
				found = append(found, what+" "+strings.TrimSpace(line))
			}
		}
	}
	found = append(found, c.processes(prefix)...)
	if len(found) > 0 {
		return failf("left of lab %s:\n%s", c.story.lab, strings.Join(found, "\n"))
	}
	return outcome{}
}

// processes lists those that name the lab in their arguments or hold one of
// its files.
func (c call) processes(prefix string) []string {
	var found []string
	procs, _ := filepath.Glob("/proc/[0-9]*")
	for _, p := range procs {
		line := strings.ReplaceAll(readFile(p+"/cmdline"), "\x00", " ")
		if strings.Contains(line, prefix) || strings.Contains(line, labDir(c.story.lab)+"/") {
			found = append(found, "process "+filepath.Base(p)+": "+line)
			continue
		}
		fds, _ := os.ReadDir(p + "/fd")
		for _, fd := range fds {
			if to, err := os.Readlink(p + "/fd/" + fd.Name()); err == nil && strings.HasPrefix(to, labDir(c.story.lab)+"/") {
				found = append(found, "process "+filepath.Base(p)+" has open: "+to)
				break
			}
		}
	}
	return found
}

func readFile(path string) string {
	data, _ := os.ReadFile(path) // gone is empty
	return string(data)
}

// background is a program that runs while the story goes on.
type background struct {
	cmd  *exec.Cmd
	out  strings.Builder // complete once done is closed
	err  error
	done chan struct{}
}

// inBackground start NAME COMMAND… | stop NAME | interrupt NAME | wait NAME
// runs a `lab …` command or any program beside the story. Stop and wait print
// what it printed; interrupt sends what Ctrl-C sends and waits.
func (c call) inBackground(args []string) outcome {
	verb, name := args[0], args[1]
	if verb == "start" {
		argv := args[2:]
		if argv[0] == "lab" {
			argv = append([]string{"brindle", "lab", "--name", c.story.lab}, argv[1:]...)
			if argv[4] == "up" || argv[4] == "demo" {
				argv = append(argv, "--family", c.family.String())
			}
		}
		b := &background{cmd: c.command(context.Background(), argv...), done: make(chan struct{})}
		b.cmd.Stdout, b.cmd.Stderr = &b.out, &b.out
		if err := b.cmd.Start(); err != nil {
			return failf("%v", err)
		}
		go func() {
			defer close(b.done)
			b.err = b.cmd.Wait()
		}()
		c.story.background[name] = b
		return outcome{}
	}
	b, ok := c.story.background[name]
	if !ok {
		return failf("nothing called %s runs in the background", name)
	}
	switch verb {
	case "stop":
		b.stop()
		return outcome{stdout: b.out.String()}
	case "interrupt":
		_ = syscall.Kill(-b.cmd.Process.Pid, syscall.SIGINT) // it may have ended
	case "wait":
	default:
		return failf("background %s: must be start, stop, interrupt or wait", verb)
	}
	<-b.done
	out := outcome{stdout: b.out.String(), stderr: b.out.String(), err: b.err}
	if b.err != nil {
		out.status = b.cmd.ProcessState.ExitCode()
	}
	return out
}

// stop ends the program, and waits.
func (b *background) stop() {
	_ = syscall.Kill(-b.cmd.Process.Pid, syscall.SIGTERM) // it may have ended
	<-b.done
}

// burst adds many workloads at once.
type burst struct {
	wg     sync.WaitGroup
	mu     sync.Mutex // guards everything below
	done   []string
	failed []string
	errs   []string
}

// burstAtOnce is how many adds of a burst are under way at any time.
const burstAtOnce = 4

// burst start NAME HOST COUNT adds NAME1, NAME2, … to the host, a few at once,
// while the story goes on. `burst wait NAME` waits for the last and prints
// how many were added; `burst some NAME N` fails while fewer than N are; `burst
// reach NAME FROM` pings all that were added, from a member; `burst retry NAME
// HOST` adds again those that failed.
func (c call) burst(args []string) outcome {
	verb, name := args[0], args[1]
	if verb == "start" {
		count, err := strconv.Atoi(args[3])
		if err != nil {
			return failf("burst: %v", err)
		}
		var names []string
		for i := range count {
			names = append(names, fmt.Sprintf("%s%d", name, i+1))
		}
		b := &burst{}
		c.bursts[name] = b
		b.start(c, args[2], names)
		return outcome{}
	}
	b, ok := c.bursts[name]
	if !ok {
		return failf("no burst called %s", name)
	}
	switch verb {
	case "some":
		n, err := strconv.Atoi(args[2])
		if err != nil {
			return failf("burst: %v", err)
		}
		b.mu.Lock()
		defer b.mu.Unlock()
		if len(b.done) < n {
			return failf("%d added so far", len(b.done))
		}
		return outcome{}
	case "wait":
		b.wg.Wait()
	case "reach":
		return b.reach(c, args[2])
	case "retry":
		b.wg.Wait()
		again := b.failed
		b.failed, b.errs = nil, nil
		b.start(c, args[2], again)
		b.wg.Wait()
	default:
		return failf("burst %s: must be start, some, wait, reach or retry", verb)
	}
	slices.Sort(b.errs)
	return outcome{stdout: fmt.Sprintf("added %d, failed %d\n%s\n", len(b.done), len(b.failed), strings.Join(b.errs, "\n"))}
}

// start adds the named workloads to a host.
func (b *burst) start(c call, host string, names []string) {
	work := make(chan string, len(names))
	for _, n := range names {
		work <- n
	}
	close(work)
	for range burstAtOnce {
		b.wg.Go(func() {
			for n := range work {
				out := c.lab([]string{"workload", "add", n, "--host", host})
				b.mu.Lock()
				if out.err == nil {
					b.done = append(b.done, n)
				} else {
					b.failed, b.errs = append(b.failed, n), append(b.errs, strings.TrimSpace(out.stderr))
				}
				b.mu.Unlock()
			}
		})
	}
}

// reach pings every workload that was added, from a member.
func (b *burst) reach(c call, from string) outcome {
	st, err := c.state()
	if err != nil {
		return failf("%v", err)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, w := range st.Workloads {
		if !slices.Contains(b.done, w.Name) {
			continue
		}
		for _, a := range w.Addresses {
			if out := c.lab([]string{"probe", from, a, "--count", "2"}); out.err != nil {
				out.err = fmt.Errorf("%s was added and does not answer: %w: %s%s", w.Name, out.err, out.stdout, out.stderr)
				return out
			}
		}
	}
	return outcome{stdout: fmt.Sprintf("%d answer\n", len(b.done))}
}

// foreign plant HOST puts things of other makers into a host: a route, an
// address, a rule, a link, a neighbour. `foreign check HOST` sees that all are
// there as they were.
func (c call) foreign(args []string) outcome {
	verb, host := args[0], args[1]
	netns, _, err := c.find(host)
	if err != nil {
		return failf("%v", err)
	}
	in := func(words string) outcome {
		return c.program(append([]string{"ip", "netns", "exec", netns}, strings.Fields(words)...)...)
	}
	var lines, want []string
	lines = append(lines, "ip link add foreign0 type veth peer foreign1", "ip link set foreign0 up", "ip link set foreign1 up")
	if c.family.HasV4() {
		lines = append(lines, "ip address add 192.0.2.1/24 dev foreign0", "ip route add 198.51.100.0/24 via 192.0.2.2 proto static",
			"ip route add 10.99.0.0/16 via 192.0.2.2", "ip rule add from 192.0.2.77 lookup 77 priority 777", "ip neigh add 192.0.2.2 lladdr 02:00:00:00:00:02 dev foreign0 nud permanent")
		want = append(want, "ip -4 address show dev foreign0", "ip -4 route show dev foreign0", "ip -4 rule show priority 777", "ip -4 neigh show dev foreign0")
	}
	if c.family.HasV6() {
		lines = append(lines, "ip -6 address add 2001:db8::1/64 dev foreign0 nodad", "ip -6 route add 2001:db8:1::/48 via 2001:db8::2 proto static",
			"ip -6 route add 2001:db8:2::/48 via 2001:db8::2", "ip -6 rule add from 2001:db8::77 lookup 77 priority 777", "ip -6 neigh add 2001:db8::2 lladdr 02:00:00:00:00:02 dev foreign0 nud permanent")
		want = append(want, "ip -6 address show dev foreign0 scope global", "ip -6 route show root 2001:db8::/32", "ip -6 rule show priority 777", "ip -6 neigh show dev foreign0 nud permanent")
	}
	if verb == "plant" {
		for _, l := range lines {
			if out := in(l); out.err != nil {
				out.err = fmt.Errorf("%s: %w: %s", l, out.err, out.stderr)
				return out
			}
		}
	}
	var now strings.Builder
	for _, l := range want {
		out := in(l)
		if out.err != nil {
			return out
		}
		if strings.TrimSpace(out.stdout) == "" {
			return failf("%s: prints nothing", l)
		}
		fmt.Fprintf(&now, "# %s\n%s", l, out.stdout)
	}
	file := c.ts.MkAbs("foreign-" + host)
	if verb == "plant" {
		if err := os.WriteFile(file, []byte(now.String()), 0o600); err != nil {
			return failf("%v", err)
		}
		return outcome{}
	}
	if before := readFile(file); before != now.String() {
		return failf("what others made on %s has changed:\n%s\nbefore:\n%s", host, now.String(), before)
	}
	return outcome{}
}
