// Package windows holds what must be so at every moment: no forbidden packet
// arrives and no allowed one is lost, whatever the agent goes through.
package windows

import (
	"bytes"
	"context"
	"encoding/json"
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

// patience bounds every program that a test runs, and every wait.
const patience = time.Minute

// world is a lab of two hosts with two workloads each: w1 and w2 on h1, w3 and
// w4 on h2.
type world struct {
	t    *testing.T
	name string
	env  []string
	work map[string]workload
}

type workload struct {
	Name, Netns, Host string
	Addresses         []string
}

// program is the program under test.
func program() (string, error) {
	path, err := filepath.Abs("../../bin/brindle")
	if err == nil {
		_, err = os.Stat(path)
	}
	if err != nil {
		return "", fmt.Errorf("%w: run make build", err)
	}
	return path, nil
}

// up builds the lab and takes it down after the test.
func up(t *testing.T, name string) *world {
	t.Helper()
	testenv.NeedRoot(t)
	w := &world{t: t, name: name, work: map[string]workload{}}
	w.run("lab", "up", "--hosts", "2", "--workloads", "2")
	t.Cleanup(func() {
		if t.Failed() {
			w.logs()
		}
		w.t = t
		w.run("lab", "down")
	})
	for line := range strings.Lines(w.run("lab", "env")) {
		if v, ok := strings.CutPrefix(strings.TrimSpace(line), "export "); ok {
			w.env = append(w.env, strings.ReplaceAll(v, "'", ""))
		}
	}
	w.learn()
	return w
}

// learn reads which workloads there are.
func (w *world) learn() {
	w.t.Helper()
	var status struct {
		Workloads []workload `json:"workloads"`
	}
	if err := json.Unmarshal([]byte(w.run("lab", "status", "-o", "json")), &status); err != nil {
		w.t.Fatal(err)
	}
	clear(w.work)
	for _, x := range status.Workloads {
		w.work[x.Name] = x
	}
}

// logs shows the end of each agent's log.
func (w *world) logs() {
	files, _ := filepath.Glob("/run/brindle/lab/" + w.name + "/*/*.log")
	for _, f := range files {
		data, err := os.ReadFile(f)
		if err == nil {
			w.t.Logf("%s\n%s", f, data[max(0, len(data)-4000):])
		}
	}
}

// try runs brindle with these arguments and stdin.
func (w *world) try(stdin string, args ...string) (string, error) {
	path, err := program()
	if err != nil {
		w.t.Fatal(err)
	}
	if args[0] == "lab" {
		args = append([]string{"lab", args[1], "--name", w.name}, args[2:]...)
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
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

func (w *world) run(args ...string) string {
	w.t.Helper()
	out, err := w.try("", args...)
	if err != nil {
		w.t.Fatal(err)
	}
	return out
}

// apply writes documents to the datastore.
func (w *world) apply(documents string) {
	w.t.Helper()
	if _, err := w.try(documents, "apply", "-f", "-"); err != nil {
		w.t.Fatal(err)
	}
}

// addr returns a workload's address of a family.
func (w *world) addr(name string, family int) string {
	w.t.Helper()
	for _, a := range w.work[name].Addresses {
		a, _, _ = strings.Cut(a, "/")
		if strings.Contains(a, ":") == (family == 6) {
			return a
		}
	}
	w.t.Fatalf("workload %s has no IPv%d address: %+v", name, family, w.work[name])
	return ""
}

// ns opens the namespace of a workload.
func (w *world) ns(name string) *netns.NS {
	w.t.Helper()
	ns, err := netns.Open(w.work[name].Netns)
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { ns.Close() })
	return ns
}

// drops sums our counters of dropped packets over the hosts.
func (w *world) drops() int {
	w.t.Helper()
	total := 0
	for _, h := range []string{"h1", "h2"} {
		total += dropsOf(w.t, w.run("lab", "exec", h, "--", "nft", "-j", "list", "ruleset"))
	}
	return total
}

// dropsOf sums the counters that stand before a drop in a ruleset.
func dropsOf(t *testing.T, text string) int {
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
	counters := map[string]int{}
	drops := map[string]bool{}
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
	total := 0
	for name := range drops {
		total += counters[name]
	}
	return total
}
