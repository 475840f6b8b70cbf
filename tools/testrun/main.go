// Command testrun runs the layers of tests one after the other, each test
// once, times them, and says at the end what passed, what failed and what was
// skipped. Under -ci a skip without a listed reason is a failure, and so is a
// layer that ran no test: what must run in CI and cannot has not passed.
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
	"slices"
	"strings"
	"syscall"
	"time"
)

// options is what the command line says.
type options struct {
	root     string // of the main module
	ci       bool
	packages string // what the layer unit is narrowed to
	fuzztime time.Duration
	steps    []string
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:], os.Stdout)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "testrun:", err)
		os.Exit(1)
	}
}

// run carries out the steps that args name, writing to out, and returns an
// error unless all passed.
func run(ctx context.Context, args []string, out io.Writer) error {
	opts, err := parse(args)
	if err != nil {
		return err
	}
	allowed, err := readAllowed(filepath.Join(opts.root, "tools", "testrun", "skips.txt"))
	if err != nil {
		return err
	}
	r := &runner{opts: opts, out: out, start: time.Now()}
	for _, name := range opts.steps {
		ok, err := r.step(ctx, name)
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		if !ok && slices.Contains([]string{"deps", "build"}, name) {
			break // nothing after it could tell anything
		}
		if ctx.Err() != nil {
			break
		}
	}
	return r.report(allowed)
}

func parse(args []string) (options, error) {
	var o options
	fs := flag.NewFlagSet("testrun", flag.ContinueOnError)
	fs.StringVar(&o.root, "root", ".", "folder of the main module")
	fs.BoolVar(&o.ci, "ci", false, "tests that cannot run fail instead of being skipped")
	fs.StringVar(&o.packages, "packages", "./...", "packages of the step unit")
	fs.DurationVar(&o.fuzztime, "fuzztime", 30*time.Second, "time for each fuzz target")
	if err := fs.Parse(args); err != nil {
		return o, err
	}
	o.steps = fs.Args()
	if len(o.steps) == 0 {
		return o, errors.New("no step named; the steps are: " + strings.Join(stepNames, " "))
	}
	for _, s := range o.steps {
		if !slices.Contains(stepNames, s) {
			return o, fmt.Errorf("unknown step %q; the steps are: %s", s, strings.Join(stepNames, " "))
		}
	}
	return o, nil
}
