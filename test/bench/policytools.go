package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// measurePolicyTools measures `brindle policy test` and `brindle explain`
// against files, from the start of the process to its end.
func measurePolicyTools(ctx context.Context, o options) ([]row, error) {
	n := o.pick(1000, 20)
	dir := filepath.Join(o.dir, "policies")
	if err := errors.Join(os.Mkdir(dir, 0o700), writeShop(dir, n)); err != nil {
		return nil, err
	}
	var test, explain runs
	for i := range o.pick(10, 2) {
		err := errors.Join(
			test.once(ctx, i, 0, o.bin, "policy", "test", "-f", dir),
			explain.once(ctx, i, 1, o.bin, "explain", "-f", dir, "--from", "w1", "--to", "w10:9000"),
		)
		if err != nil {
			return nil, err
		}
	}
	return []row{
		{what: fmt.Sprintf("brindle policy test, %d policies and as many assertions: p50", n), value: test.wall.all().p50(), unit: "ms", aim: 1000, spread: test.wall.apart(sample.p50)},
		{what: "– CPU", value: test.cpu.all().p50(), unit: "ms", spread: test.cpu.apart(sample.p50)},
		{what: fmt.Sprintf("brindle explain with files of %d policies: p50", n), value: explain.wall.all().p50(), unit: "ms", aim: 200, spread: explain.wall.apart(sample.p50)},
		{what: "– CPU", value: explain.cpu.all().p50(), unit: "ms", spread: explain.cpu.apart(sample.p50)},
	}, nil
}

// runs are times that a program ran.
type runs struct{ wall, cpu twice }

// once runs brindle, which shall end with a status.
func (r *runs) once(ctx context.Context, i, status int, bin string, args ...string) error {
	cmd := exec.CommandContext(ctx, filepath.Join(bin, "brindle"), args...)
	begin := time.Now()
	out, err := cmd.CombinedOutput()
	took := time.Since(begin)
	if got := cmd.ProcessState.ExitCode(); got != status {
		return fmt.Errorf("brindle %s: status %d, not %d: %w: %s", args[0], got, status, err, out[max(0, len(out)-500):])
	}
	r.wall[i%2] = append(r.wall[i%2], took)
	r.cpu[i%2] = append(r.cpu[i%2], cmd.ProcessState.UserTime()+cmd.ProcessState.SystemTime())
	return nil
}

// writeShop writes n policies of five rules each for 250 workloads in 20
// namespaces, and as many assertions.
func writeShop(dir string, n int) error {
	r := rand.New(rand.NewPCG(1, 1))
	var policies, test strings.Builder
	for i := range n {
		fmt.Fprintf(&policies, "---\napiVersion: projectcalico.org/v3\nkind: NetworkPolicy\nmetadata: {name: p%d, namespace: ns%d}\n"+
			"spec:\n  selector: tier == \"t%d\"\n  order: %d\n  ingress:\n", i, i%20, i%5, i)
		for range 5 {
			fmt.Fprintf(&policies, "  - {action: Allow, protocol: TCP, source: {selector: app == \"app%d\"}, destination: {ports: [%d]}}\n",
				r.IntN(100), 8000+r.IntN(20))
		}
	}
	test.WriteString("apiVersion: brindle.net/v1\nkind: PolicyTest\nmetadata: {name: many}\nspec:\n  workloads:\n")
	for i := range 250 {
		fmt.Fprintf(&test, "  - {name: w%d, namespace: ns%d, labels: {app: app%d, tier: t%d}}\n", i, i%20, i%100, i%5)
	}
	test.WriteString("  assertions:\n")
	for i := range n {
		fmt.Fprintf(&test, "  - {from: w%d, to: w%d, port: 9000, verdict: deny}\n", i%250, (i*7+3)%250)
	}
	return errors.Join(
		os.WriteFile(filepath.Join(dir, "policies.yaml"), []byte(policies.String()), 0o600),
		os.WriteFile(filepath.Join(dir, "test.yaml"), []byte(test.String()), 0o600),
	)
}

// snapshot is a network that Calico's agent was measured with: seconds of CPU,
// heap that it kept and what it allocated, in megabytes.
type snapshot struct {
	name            string
	cpu, heap, size float64
}

// snapshots are those of the package's benchmarks. What is 0 nobody measured.
func snapshots() []snapshot {
	return []snapshot{
		{"IsolatedCustomers1k", 0, 9.5, 16},
		{"IsolatedCustomers10k", 0.8, 39, 122},
		{"IsolatedCustomers100k", 13.5, 317, 1130},
		{"Snapshot200Local10kTotal1000NetsetPols", 1.7, 98, 368},
		{"Snapshot200Local10kTotal10000NetsetPols", 15.3, 792, 3700},
		{"Snapshot200Local250kTotal10000TagPols", 11.6, 283, 1400},
	}
}

// measurePolicyCore runs the benchmarks of the core whose networks are those of
// Calico's own, and compares with what its agent needed on such a machine.
func measurePolicyCore(ctx context.Context, o options) ([]row, error) {
	which := "Snapshot200Local|IsolatedCustomers"
	if o.quick {
		which = "IsolatedCustomers1k"
	}
	cmd := exec.CommandContext(ctx, "go", "test", "-run", "^$", "-bench", which+"$", "-benchtime", "1x", "-count", strconv.Itoa(o.pick(2, 1)),
		"github.com/brindle-net/brindle/internal/calc")
	if !o.quick {
		cmd.Args[5] = "^Benchmark(" + which + ")"
	}
	var problem bytes.Buffer
	cmd.Stderr = &problem
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("run the core's benchmarks: %w: %s%s", err, problem.String(), out)
	}
	var rows []row
	for _, s := range snapshots() {
		rows = append(rows, s.rows(string(out))...)
	}
	if len(rows) == 0 {
		return nil, fmt.Errorf("no benchmark told what it needed: %s", out)
	}
	return rows, nil
}

// rows are the figures of one network, as parts of what Calico's agent needed.
func (s snapshot) rows(out string) []row {
	var rows []row
	for _, f := range []struct {
		what, unit    string
		scale, calico float64
		aim           float64
		old           string
	}{
		{"CPU", "cpu-s/op", 1, s.cpu, 0.33, "%g s"},
		{"heap kept", "heap-MB", 1, s.heap, 0.5, "%g MB"},
		{"allocated", "B/op", 1e6, s.size, 0.1, "%g MB"},
	} {
		var list []float64
		for _, line := range regexp.MustCompile(`(?m)^Benchmark`+s.name+`(-\d+)?\s.*$`).FindAllString(out, -1) {
			words := strings.Fields(line)
			for i := 1; i < len(words); i++ {
				if words[i] == f.unit {
					v, err := strconv.ParseFloat(words[i-1], 64)
					if err != nil {
						v = math.NaN()
					}
					list = append(list, v/f.scale)
				}
			}
		}
		if f.calico == 0 || len(list) == 0 {
			continue
		}
		rows = append(rows, row{
			what: "core, " + s.name + ": " + f.what, value: median(list) / f.calico, unit: "×", aim: f.aim,
			spread: medianApart(list), calico: fmt.Sprintf(f.old, f.calico),
		})
	}
	return rows
}
