// Command brindle is the agent, the server and the command line in one static
// program. See package cli.
package main

import (
	"context"
	"os"
	"os/signal"
	"runtime/debug"
	"syscall"

	"github.com/brindle-net/brindle/internal/cli"
)

// version is set by the linker.
var version = "dev"

func main() { os.Exit(run()) }

func run() int {
	ends := []os.Signal{os.Interrupt, syscall.SIGTERM}
	if !signal.Ignored(syscall.SIGHUP) { // nohup(1) asks to outlive the terminal
		ends = append(ends, syscall.SIGHUP)
	}
	ctx, stop := signal.NotifyContext(context.Background(), ends...)
	defer stop()
	exe, err := os.Executable()
	if err != nil {
		exe = os.Args[0]
	}
	terminal := func(f *os.File) bool {
		info, err := f.Stat()
		return err == nil && info.Mode()&os.ModeCharDevice != 0
	}
	return cli.Run(ctx, &cli.Env{
		Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr, Getenv: os.Getenv, Environ: os.Environ,
		Terminal: terminal(os.Stdout), ErrTerminal: terminal(os.Stderr), Executable: exe, Build: build(), Restart: func() error { return restart(exe) },
	}, os.Args[1:])
}

// self is the program that runs here, also when its file has been replaced.
const self = "/proc/self/exe"

// restart runs this very program again in the place of this process. A newer
// file in its place is left alone: an upgrade happens when it is asked for.
func restart(path string) error {
	is, err := os.Stat(self)
	if err != nil {
		return err
	}
	// The path gives the process its name in ps; self would call it "exe".
	if at, err := os.Stat(path); err != nil || !os.SameFile(is, at) {
		path = self
	}
	return syscall.Exec(path, os.Args, os.Environ())
}

// build is the version with the toolchain that made it.
func build() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return version
	}
	return version + " (" + info.GoVersion + ")"
}
