//go:build linux

// Command vmlab runs a test binary on another kernel, in a small virtual
// machine that boots in seconds and needs nothing but qemu. `vmlab prepare`
// fetches a kernel of Debian's; `vmlab exec` is made for `go test -exec`.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"time"
)

// config is what the command line says.
type config struct {
	kernel  string // series: "6.1"
	cache   string // folder for kernels and for qemu where it is not installed
	guest   string // the first process of the machine
	timeout time.Duration
	memory  int // MiB
	// programs of this machine that the test runs in that one.
	programs []string
	args     []string
}

func main() {
	runtime.LockOSThread() // qemu is told to die with the thread that started it
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGQUIT)
	code, err := run(ctx, os.Args[1:])
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "vmlab:", err)
		code = max(code, 1)
	}
	os.Exit(code)
}

func run(ctx context.Context, args []string) (int, error) {
	self, err := os.Executable()
	if err != nil {
		return 1, err
	}
	bin := filepath.Dir(self)
	if len(args) == 0 || args[0] != "prepare" && args[0] != "exec" {
		return 2, errors.New("usage: vmlab prepare|exec -kernel SERIES [TEST ARGS…]")
	}
	var c config
	fs := flag.NewFlagSet("vmlab "+args[0], flag.ContinueOnError)
	fs.StringVar(&c.kernel, "kernel", "6.1", "series of the kernel: 6.1 or 6.12")
	fs.StringVar(&c.cache, "cache", filepath.Join(bin, "..", "vm"), "folder for kernels")
	fs.StringVar(&c.guest, "guest", filepath.Join(bin, "guest"), "program that is the first process of the machine")
	fs.DurationVar(&c.timeout, "timeout", 5*time.Minute, "most time that a machine may run")
	fs.IntVar(&c.memory, "memory", 384, "memory of the machine in MiB")
	programs := fs.String("programs", "", "programs of this machine, with commas between them, to be had in that one")
	if err := fs.Parse(args[1:]); err != nil {
		return 2, err
	}
	c.args = fs.Args()
	c.programs = strings.FieldsFunc(*programs, func(r rune) bool { return r == ',' })
	if runtime.GOARCH != "amd64" {
		return 1, errors.New("the kernels and qemu are fetched for amd64 only")
	}
	if args[0] == "prepare" {
		return 0, prepare(ctx, c)
	}
	if len(c.args) == 0 {
		return 2, errors.New("exec: no test binary named")
	}
	return execute(ctx, c)
}
