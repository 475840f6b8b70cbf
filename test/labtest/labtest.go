// Package labtest is what tests of whole hosts have in common: a lab of the
// program under test, the workloads in it, streams of numbered packets, our
// counters of packets that were dropped, and what a host's kernel has against
// what the oracle says.
package labtest

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/brindle-net/brindle/internal/netns"
	"github.com/brindle-net/brindle/internal/testenv"
)

// Patience bounds every program that a test runs, and every wait.
const Patience = time.Minute

// World is a lab of two hosts with two workloads each: w1 and w2 on h1, w3 and
// w4 on h2. It reports to T, which a test may exchange while it has subtests.
type World struct {
	T    *testing.T
	Name string
	Work map[string]Workload // as Learn saw them
	env  []string
}

// Workload is what the lab says of one.
type Workload struct {
	Name, Netns, Host, HostInterface string
	Addresses                        []string
}

// Up builds the lab and takes it down after the test. Further arguments go to
// `brindle lab up`.
func Up(t *testing.T, name string, args ...string) *World {
	t.Helper()
	w := Start(t, name, args...)
	t.Cleanup(func() {
		w.T = t
		if t.Failed() {
			w.Logs()
		}
		w.Run("lab", "down")
	})
	return w
}

// Start builds the lab. Whoever calls it calls Down.
func Start(t *testing.T, name string, args ...string) *World {
	t.Helper()
	testenv.NeedRoot(t)
	w := &World{T: t, Name: name, Work: map[string]Workload{}}
	w.Run(append([]string{"lab", "up", "--hosts", "2", "--workloads", "2"}, args...)...)
	for line := range strings.Lines(w.Run("lab", "env")) {
		if v, ok := strings.CutPrefix(strings.TrimSpace(line), "export "); ok {
			w.env = append(w.env, strings.ReplaceAll(v, "'", ""))
		}
	}
	w.Learn()
	return w
}

// Down takes the lab down.
func (w *World) Down() error {
	_, err := w.Try("", "lab", "down")
	return err
}

// With is the same lab, reporting to t.
func (w *World) With(t *testing.T) *World {
	other := *w
	other.T, other.Work = t, maps.Clone(w.Work)
	return &other
}

// Learn reads which workloads there are.
func (w *World) Learn() {
	w.T.Helper()
	var status struct {
		Workloads []Workload `json:"workloads"`
	}
	if err := json.Unmarshal([]byte(w.Run("lab", "status", "-o", "json")), &status); err != nil {
		w.T.Fatal(err)
	}
	clear(w.Work)
	for _, x := range status.Workloads {
		w.Work[x.Name] = x
	}
}

// A Path is how packets travel from one host to workloads of another, as the
// lab says.
type Path struct {
	From, To, Family, Pool, Form string
}

// Paths asks the lab.
func (w *World) Paths() ([]Path, error) {
	out, err := w.Try("", "lab", "status", "-o", "json")
	if err != nil {
		return nil, err
	}
	var status struct {
		Paths []Path `json:"paths"`
	}
	err = json.Unmarshal([]byte(out), &status)
	return status.Paths, err
}

// Agree says where hosts' kernels have something else than the oracle says.
func (w *World) Agree() error {
	c := Cluster{Netns: map[string]string{}}
	for _, h := range w.hosts() {
		c.Netns[h] = "brindle-" + w.Name + "-" + h
	}
	for _, v := range w.env {
		if e, ok := strings.CutPrefix(v, "ETCD_ENDPOINTS="); ok {
			c.Endpoint = e
		}
	}
	ctx, cancel := context.WithTimeout(context.Background(), Patience)
	defer cancel()
	return c.Agree(ctx)
}

// Metrics are the lines of an agent's metrics that begin so.
func (w *World) Metrics(host, prefix string) (lines []string) {
	w.T.Helper()
	Inside(w.T, w.NS(host), func() error {
		c, err := net.Dial("tcp", "localhost:9091")
		if err != nil {
			return err
		}
		defer c.Close()
		if _, err := io.WriteString(c, "GET /metrics HTTP/1.0\r\n\r\n"); err != nil {
			return err
		}
		all := bufio.NewScanner(c)
		for all.Scan() {
			if strings.HasPrefix(all.Text(), prefix) {
				lines = append(lines, all.Text())
			}
		}
		return all.Err()
	})
	return lines
}

// LogOf is all that the agent of a host has logged.
func (w *World) LogOf(host string) string {
	files, _ := filepath.Glob(filepath.Join("/run/brindle/lab", w.Name, host, "*.log")) // the pattern is good
	var all strings.Builder
	for _, f := range files {
		data, err := os.ReadFile(f)
		if err != nil {
			w.T.Fatal(err)
		}
		all.Write(data)
	}
	return all.String()
}

// Logs shows the end of each agent's log.
func (w *World) Logs() {
	for _, h := range w.hosts() {
		text := w.LogOf(h)
		w.T.Logf("%s\n%s", h, text[max(0, len(text)-4000):])
	}
}

func (w *World) hosts() []string {
	seen := map[string]bool{}
	for _, x := range w.Work {
		seen[x.Host] = true
	}
	return slices.Sorted(maps.Keys(seen))
}

// Try runs brindle with these arguments and stdin, for the lab.
func (w *World) Try(stdin string, args ...string) (string, error) {
	path, err := filepath.Abs("../../bin/brindle")
	if err == nil {
		_, err = os.Stat(path)
	}
	if err != nil {
		return "", fmt.Errorf("%w: run make build", err)
	}
	if args[0] == "lab" {
		args = append([]string{"lab", args[1], "--name", w.Name}, args[2:]...)
	}
	ctx, cancel := context.WithTimeout(context.Background(), Patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, path, args...)
	cmd.Env = append(os.Environ(), w.env...)
	cmd.Stdin = strings.NewReader(stdin)
	var out, problem bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &problem
	if err := cmd.Run(); err != nil {
		return out.String(), fmt.Errorf("brindle %s: %w\n%s%s", strings.Join(args, " "), err, out.String(), problem.String())
	}
	return out.String(), nil
}

// Run is Try of what must succeed, without stdin.
func (w *World) Run(args ...string) string {
	w.T.Helper()
	out, err := w.Try("", args...)
	if err != nil {
		w.T.Fatal(err)
	}
	return out
}

// On runs a program inside a host or workload.
func (w *World) On(member string, argv ...string) string {
	w.T.Helper()
	return w.Run(append([]string{"lab", "exec", member, "--"}, argv...)...)
}

// Apply writes documents to the datastore.
func (w *World) Apply(documents string) {
	w.T.Helper()
	if _, err := w.Try(documents, "apply", "-f", "-"); err != nil {
		w.T.Fatal(err)
	}
}

// Remove takes documents out of the datastore.
func (w *World) Remove(documents string) {
	w.T.Helper()
	if _, err := w.Try(documents, "delete", "-f", "-"); err != nil {
		w.T.Fatal(err)
	}
}

// Addr returns a workload's address of a family.
func (w *World) Addr(name string, family int) string {
	w.T.Helper()
	for _, s := range w.Work[name].Addresses {
		s, _, _ = strings.Cut(s, "/")
		if a, err := netip.ParseAddr(s); err == nil && a.Is6() == (family == 6) {
			return s
		}
	}
	w.T.Fatalf("workload %s has no IPv%d address: %+v", name, family, w.Work[name])
	return ""
}

// NS opens the namespace of a workload, or of a host.
func (w *World) NS(name string) *netns.NS {
	w.T.Helper()
	path := w.Work[name].Netns
	if path == "" {
		path = "brindle-" + w.Name + "-" + name
	}
	ns, err := netns.Open(path)
	if err != nil {
		w.T.Fatal(err)
	}
	w.T.Cleanup(func() { ns.Close() })
	return ns
}

// Drops sums our counters of dropped packets over the hosts.
func (w *World) Drops() int {
	w.T.Helper()
	total := 0
	for _, h := range w.hosts() {
		total += dropsOf(w.T, w.On(h, "nft", "-j", "list", "ruleset"))
	}
	return total
}

// Counter reads one of our counters, summed over the hosts.
func (w *World) Counter(name string) int {
	w.T.Helper()
	total := 0
	for _, h := range w.hosts() {
		_, counters := counted(w.T, w.On(h, "nft", "-j", "list", "ruleset"))
		total += counters[name]
	}
	return total
}

// DropsOf lists what the counters of a host that stand before a drop have
// counted.
func (w *World) DropsOf(host string) map[string]int {
	w.T.Helper()
	drops, counters := counted(w.T, w.On(host, "nft", "-j", "list", "ruleset"))
	out := map[string]int{}
	for name := range drops {
		if n := counters[name]; n > 0 {
			out[name] = n
		}
	}
	return out
}

// dropsOf sums the counters that stand before a drop in a ruleset.
func dropsOf(t *testing.T, text string) int {
	t.Helper()
	drops, counters := counted(t, text)
	total := 0
	for name := range drops {
		total += counters[name]
	}
	return total
}

// counted reads the named counters, and which of them stand before a drop.
func counted(t *testing.T, text string) (drops map[string]bool, counters map[string]int) {
	t.Helper()
	var list struct {
		NFTables []struct {
			Rule *struct {
				Expr []map[string]json.RawMessage `json:"expr"`
			} `json:"rule"`
			Counter *struct {
				Name    string `json:"name"`
				Packets int    `json:"packets"`
			} `json:"counter"`
		} `json:"nftables"`
	}
	if err := json.Unmarshal([]byte(text), &list); err != nil {
		t.Fatal(err)
	}
	drops, counters = map[string]bool{}, map[string]int{}
	for _, o := range list.NFTables {
		if o.Counter != nil {
			counters[o.Counter.Name] = o.Counter.Packets
		}
		if o.Rule == nil {
			continue
		}
		name, drop := "", false
		for _, e := range o.Rule.Expr {
			if c, ok := e["counter"]; ok {
				_ = json.Unmarshal(c, &name) // an anonymous counter is none of ours
			}
			if _, ok := e["drop"]; ok {
				drop = true
			}
		}
		if drop && name != "" {
			drops[name] = true
		}
	}
	return drops, counters
}
