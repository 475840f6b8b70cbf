// Command bench measures what docs/performance.md aims at: each figure is CPU
// time, or a ratio of two things measured side by side in one run, because
// wall time on a shared machine says little. Latencies and rates are measured
// twice, in turns (A/A); a difference within that spread is none.
//
// It runs the real programs in network namespaces of its own with an etcd
// that waits for the disk, and leaves nothing behind. It judges nothing: a
// missed aim is printed, not an error.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"regexp"
	"syscall"

	"golang.org/x/sys/unix"
)

// options say what to measure and how long.
type options struct {
	bin   string // folder with brindle and brindle-cni
	dir   string // where to make the folder with etcd's data; on a disk
	write string // file whose table to replace; "": none
	some  bool   // not all is measured
	quick bool   // few repetitions: shows that it runs, its figures mean nothing
	only  *regexp.Regexp
	out   io.Writer
}

// A measurement produces some rows of the table.
type measurement struct {
	name string
	run  func(ctx context.Context, o options) ([]row, error)
}

// measurements lists what can be measured, in the order of the table.
func measurements() []measurement {
	return []measurement{
		{"cni", measureCNI}, {"core", measureCore}, {"routes", measureRoutes},
		{"memory", measureMemory}, {"ipam", measureIPAM},
		{"policy-change", measurePolicyChange}, {"policy-start", measurePolicyStart},
		{"policy-packets", measurePolicyPackets}, {"policy-rows", measurePolicyRows},
		{"policy-core", measurePolicyCore}, {"policy-tools", measurePolicyTools},
		{"tunnel-packets", measureEncap}, {"tunnel-hosts", measureNewHost},
		{"tunnel-ready", measureReady},
	}
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGPIPE)
	err := run(ctx, os.Args[1:], os.Stdout)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// run is main without the process.
func run(ctx context.Context, args []string, out io.Writer) error {
	o, err := parse(args, out)
	if err != nil {
		return err
	}
	if os.Geteuid() != 0 {
		return errors.New("root is needed, for network namespaces: run it with sudo")
	}
	rows, err := measure(ctx, o)
	if err != nil {
		return err
	}
	if o.write != "" {
		return replaceTable(o.write, rows, o.some)
	}
	return nil
}

// parse reads the command line.
func parse(args []string, out io.Writer) (options, error) {
	o := options{out: out}
	var only string
	f := flag.NewFlagSet("bench", flag.ContinueOnError)
	f.SetOutput(out)
	f.StringVar(&o.bin, "bin", "bin", "folder with brindle and brindle-cni")
	f.StringVar(&o.dir, "dir", "/var/tmp", "folder on a disk for etcd's data")
	f.StringVar(&o.write, "write", "", "file whose table of results to replace; with -only, its rows")
	f.BoolVar(&o.quick, "quick", false, "few repetitions, to see that it runs")
	f.StringVar(&only, "only", ".", "regular expression: which of cni, core, routes, memory, ipam, policy-… and tunnel-… to measure")
	if err := f.Parse(args); err != nil {
		return o, err
	}
	if f.NArg() > 0 {
		return o, fmt.Errorf("unexpected argument %q", f.Arg(0))
	}
	if o.write != "" && o.quick {
		return o, errors.New("-write needs figures that mean something: leave out -quick")
	}
	o.some = only != "."
	var err error
	if o.only, err = regexp.Compile(only); err != nil {
		return o, fmt.Errorf("-only: %w", err)
	}
	if o.bin, err = filepath.Abs(o.bin); err != nil {
		return o, err
	}
	for _, name := range []string{"brindle", "brindle-cni"} {
		if err := unix.Access(filepath.Join(o.bin, name), unix.X_OK); err != nil {
			return o, fmt.Errorf("%s: %w: run `make build` first", filepath.Join(o.bin, name), err)
		}
	}
	return o, nil
}

// measure runs what was chosen and prints the table.
func measure(ctx context.Context, o options) ([]row, error) {
	dir, err := os.MkdirTemp(o.dir, "brindle-bench-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	o.dir = dir
	if onMemory(dir) {
		fmt.Fprintf(o.out, "warning: %s is in memory, so etcd's writes wait for no disk; choose another folder with -dir\n", dir)
	}
	var rows []row
	for _, m := range measurements() {
		if !o.only.MatchString(m.name) {
			continue
		}
		fmt.Fprintf(o.out, "measuring %s\n", m.name)
		got, err := m.run(ctx, o)
		if err != nil {
			return nil, fmt.Errorf("measure %s: %w", m.name, err)
		}
		rows = append(rows, got...)
	}
	if len(rows) == 0 {
		return nil, errors.New("-only chose nothing")
	}
	fmt.Fprintf(o.out, "\n%s\n\n", machine())
	printTable(o.out, rows)
	return rows, nil
}

// onMemory reports whether a folder's file system forgets at power loss.
func onMemory(dir string) bool {
	var st unix.Statfs_t
	return unix.Statfs(dir, &st) == nil && (st.Type == unix.TMPFS_MAGIC || st.Type == unix.RAMFS_MAGIC)
}
