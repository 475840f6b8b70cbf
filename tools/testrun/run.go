package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"time"
)

// runner carries out steps and remembers how they went.
type runner struct {
	opts  options
	out   io.Writer
	start time.Time
	steps []stepResult
}

// stepResult is how one step went.
type stepResult struct {
	name   string
	took   time.Duration
	ok     bool
	tests  *results // nil for a step that is no `go test`
	reason string   // why it failed, beyond the tests
}

// kernels are those of `make vm-test`, oldest first.
var kernels = []string{"6.1", "6.12"}

// step carries out one step. It returns an error only if the step could not
// even be tried.
func (r *runner) step(ctx context.Context, name string) (bool, error) {
	r.headline(name)
	switch name {
	case "deps", "build", "check":
		return r.command(ctx, name, "make", "--no-print-directory", name), nil
	case "vm":
		return r.vm(ctx)
	case "fuzz":
		return r.fuzz(ctx)
	}
	pattern := "./..."
	if name == "unit" {
		pattern = r.opts.packages
	}
	pkgs, err := list(ctx, r.opts.root, strings.Fields(pattern)...)
	if err != nil {
		return false, err
	}
	paths := inLayer(pkgs, name)
	if name == "unit" && !slices.Contains(r.opts.steps, "kernel") {
		// Alone, the step is every package but the stories and the VM's.
		paths = append(append(paths, inLayer(pkgs, "conformance")...), inLayer(pkgs, "kernel")...)
		slices.Sort(paths)
	}
	args := append([]string{"-timeout", timeouts[name]}, r.race(name)...)
	ok := r.goTest(ctx, name, append(args, paths...), len(paths))
	if name == "unit" && r.opts.packages == "./..." {
		// The race detector makes random histories ten times as dear, so there
		// only a few are played; here all of them.
		ok = r.goTest(ctx, "histories", append([]string{"-timeout", timeouts[name], "-run", histories}, historyPackages...), len(historyPackages)) && ok
	}
	return ok, nil
}

// The random histories and clusters that are all played only without the race
// detector, and the packages that they are in.
const histories = "^(TestHistories|TestTablesMeanWhatTheObjectsSay|TestClusters|TestCorruption|TestEventOrder)$"

var historyPackages = []string{"./internal/ipam", "./internal/oracle", "./test/differential"}

// timeouts bound each test binary of a layer.
var timeouts = map[string]string{"unit": "15m", "conformance": "15m", "kernel": "15m", "lab": "25m", "vm": "10m"}

// race returns the flag of the race detector where it helps and can be had.
func (r *runner) race(name string) []string {
	if name == "lab" || name == "vm" {
		return nil // they drive processes, not goroutines of their own
	}
	if _, err := exec.LookPath("gcc"); err != nil {
		fmt.Fprintln(r.out, "no gcc: the race detector is off")
		return nil
	}
	return []string{"-race"}
}

func (r *runner) headline(name string) {
	fmt.Fprintf(r.out, "\n=== %s (%s)\n", name, time.Since(r.start).Round(time.Second))
}

// command runs a step that is a program, its output passed on.
func (r *runner) command(ctx context.Context, name string, argv ...string) bool {
	begin := time.Now()
	cmd := r.prepare(ctx, argv...)
	cmd.Stdout, cmd.Stderr = r.out, r.out
	err := cmd.Run()
	s := stepResult{name: name, took: time.Since(begin), ok: err == nil}
	if err != nil {
		s.reason = err.Error()
	}
	r.steps = append(r.steps, s)
	return s.ok
}

// prepare makes a command that dies with its children when ctx ends.
func (r *runner) prepare(ctx context.Context, argv ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	cmd.Dir = r.opts.root
	cmd.Env = os.Environ()
	if r.opts.ci {
		cmd.Env = append(cmd.Env, "BRINDLE_CI=1")
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGTERM) }
	cmd.WaitDelay = 20 * time.Second
	return cmd
}

// goTest runs `go test` with args, which name n packages.
func (r *runner) goTest(ctx context.Context, name string, args []string, n int) bool {
	begin := time.Now()
	s := stepResult{name: name, tests: newResults(name, r.out)}
	if n > 0 {
		argv := append([]string{goCommand(), "test", "-json", "-vet=off"}, args...)
		if r.opts.ci || name != "unit" {
			argv = slices.Insert(argv, 4, "-count=1") // the world is not among what the cache compares
		}
		s.reason = r.collect(r.prepare(ctx, argv...), s.tests)
	}
	s.took = time.Since(begin)
	if r.opts.ci && s.tests.passed == 0 && s.reason == "" {
		s.reason = "no test ran"
	}
	s.ok = s.reason == "" && s.tests.failed == 0
	r.steps = append(r.steps, s)
	return s.ok
}

// collect runs cmd and reads its events; it returns why it failed, if it did
// for a reason that no test shows.
func (r *runner) collect(cmd *exec.Cmd, into *results) string {
	cmd.Stderr = r.out
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return err.Error()
	}
	if err := cmd.Start(); err != nil {
		return err.Error()
	}
	readErr := into.read(stdout)
	err = cmd.Wait()
	switch {
	case readErr != nil:
		return readErr.Error()
	case err != nil && into.failed == 0:
		return err.Error()
	}
	return ""
}

// vm runs the packages of test/vm/packages.txt on each kernel.
func (r *runner) vm(ctx context.Context) (bool, error) {
	bin := filepath.Join(r.opts.root, ".cache", "bin")
	build := r.prepare(ctx, goCommand(), "build", "-buildvcs=false", "-o", bin+"/", "./test/vm/vmlab", "./test/vm/guest")
	build.Env = append(build.Env, "CGO_ENABLED=0")
	build.Stdout, build.Stderr = r.out, r.out
	if err := build.Run(); err != nil {
		return false, fmt.Errorf("build vmlab: %w", err)
	}
	pkgs, err := lines(filepath.Join(r.opts.root, "test", "vm", "packages.txt"))
	if err != nil {
		return false, err
	}
	ok := true
	for _, k := range kernels {
		if !r.command(ctx, "vm image "+k, filepath.Join(bin, "vmlab"), "prepare", "-kernel", k) {
			ok = false
			continue
		}
		ok = r.vmTest(ctx, k, pkgs) && ok
	}
	return ok, nil
}

// vmTest runs packages on one kernel, a virtual machine for each, two at a time. Behind a
// package may stand `-programs LIST`, those of this machine that its tests run
// there, and further flags of `go test`.
func (r *runner) vmTest(ctx context.Context, kernel string, pkgs []string) bool {
	os.Setenv("CGO_ENABLED", "0")
	defer os.Unsetenv("CGO_ENABLED")
	var flags []string // in the order of the file, without the same twice
	with := map[string][]string{}
	for _, line := range pkgs {
		pkg, rest, _ := strings.Cut(line, " ")
		if _, seen := with[rest]; !seen {
			flags = append(flags, rest)
		}
		with[rest] = append(with[rest], pkg)
	}
	ok := true
	for _, rest := range flags {
		exe := filepath.Join(r.opts.root, ".cache", "bin", "vmlab") + " exec -kernel " + kernel
		more := strings.Fields(rest)
		if i := slices.Index(more, "-programs"); i >= 0 && i+1 < len(more) {
			exe += " -programs " + more[i+1]
			more = slices.Delete(more, i, i+2)
		}
		args := slices.Concat([]string{"-p", "2", "-timeout", timeouts["vm"], "-exec", exe}, more, with[rest])
		ok = r.goTest(ctx, "vm-"+kernel, args, len(with[rest])) && ok
	}
	return ok
}

var fuzzFunc = regexp.MustCompile(`(?m)^func (Fuzz\w+)\(`)

// fuzz runs every fuzz target for a while, one at a time.
func (r *runner) fuzz(ctx context.Context) (bool, error) {
	pkgs, err := list(ctx, r.opts.root, "./...")
	if err != nil {
		return false, err
	}
	ok := true
	for _, p := range pkgs {
		for _, f := range slices.Concat(p.TestGoFiles, p.XTestGoFiles) {
			src, err := os.ReadFile(filepath.Join(p.Dir, f))
			if err != nil {
				return false, err
			}
			for _, m := range fuzzFunc.FindAllStringSubmatch(string(src), -1) {
				name := strings.TrimPrefix(p.ImportPath, module+"/") + " " + m[1]
				ok = r.command(ctx, name, goCommand(), "test", "-run", "^$", "-fuzz", "^"+m[1]+"$",
					"-fuzztime", r.opts.fuzztime.String(), p.ImportPath) && ok
			}
		}
	}
	return ok, nil
}

// goCommand is the go command that make was told to use.
func goCommand() string {
	if g := os.Getenv("GO"); g != "" {
		return g
	}
	return "go"
}

// lines reads a file of one thing a line; empty lines and # comments go.
func lines(path string) ([]string, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var all []string
	for sc := bufio.NewScanner(f); sc.Scan(); {
		if l := strings.TrimSpace(sc.Text()); l != "" && !strings.HasPrefix(l, "#") {
			all = append(all, l)
		}
	}
	return all, nil
}
