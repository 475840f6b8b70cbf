//go:build linux

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/brindle-net/brindle/test/vm/image"
)

// Exit statuses of our own, beside those of the test.
const (
	exitTimeout = 124
	exitDied    = 125 // the machine ended without a word
)

// execute boots a machine, runs the test in it and returns its exit status.
func execute(ctx context.Context, c config) (int, error) {
	argv, err := qemu(ctx, c)
	if err != nil {
		return 1, err
	}
	tmp, err := os.MkdirTemp("", "vmlab-")
	if err != nil {
		return 1, err
	}
	defer os.RemoveAll(tmp)
	initrd, console := filepath.Join(tmp, "initrd"), filepath.Join(tmp, "console")
	if err := c.writeInitrd(initrd); err != nil {
		return 1, err
	}
	ctx, cancel := context.WithTimeout(ctx, c.timeout)
	defer cancel()
	argv = append(argv, "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot",
		"-serial", "file:"+console, "-serial", "stdio",
		"-M", "q35", "-accel", "tcg,thread=multi", "-cpu", "max", "-smp", "1", "-m", strconv.Itoa(c.memory),
		"-kernel", filepath.Join(c.kernelDir(), "vmlinuz"), "-initrd", initrd,
		"-append", "console=ttyS0 quiet panic=-1 nokaslr mitigations=off tsc=reliable rdinit=/init")
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	cmd.Env = c.qemuEnv()
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	cmd.WaitDelay = 5 * time.Second
	runErr := cmd.Run()
	said, err := os.ReadFile(console)
	if err != nil {
		return exitDied, errors.Join(runErr, err)
	}
	if ctx.Err() != nil {
		return exitTimeout, fmt.Errorf("the machine was stopped: %w\n%s", context.Cause(ctx), said)
	}
	return verdict(string(said))
}

var guestExit = regexp.MustCompile(`(?m)^guest: exit (\d+)\r?$`)

// verdict reads the exit status off the console. What else stands there is
// shown when the machine itself is at fault.
func verdict(console string) (int, error) {
	m := guestExit.FindStringSubmatch(console)
	switch {
	case strings.Contains(console, "Kernel panic"):
		return exitDied, fmt.Errorf("the kernel panicked:\n%s", console)
	case m == nil:
		return exitDied, fmt.Errorf("the machine ended without a result:\n%s", console)
	}
	code, err := strconv.Atoi(m[1])
	if err != nil {
		return exitDied, err
	}
	if code == exitDied {
		return code, fmt.Errorf("the machine could not run the test:\n%s", console)
	}
	return code, nil
}

// find returns the path of a program of this machine. Administrators' folders
// are searched too.
func find(name string) (string, error) {
	path, err := exec.LookPath(name)
	for _, dir := range []string{"/usr/local/sbin", "/usr/sbin", "/sbin"} {
		if err == nil {
			break
		}
		path, err = exec.LookPath(filepath.Join(dir, name))
	}
	return path, err
}

// writeInitrd puts the test behind the archive of the kernel.
func (c config) writeInitrd(to string) error {
	base, err := os.Open(filepath.Join(c.kernelDir(), "base.cpio"))
	if err != nil {
		return fmt.Errorf("kernel %s is not prepared; run `make vm-test`: %w", c.kernel, err)
	}
	defer base.Close()
	out, err := os.Create(to)
	if err != nil {
		return err
	}
	defer out.Close()
	if _, err := io.Copy(out, base); err != nil {
		return err
	}
	spec, err := json.Marshal(image.Job{
		Args: c.args[1:],
		Env:  []string{"PATH=/bin", "HOME=/tmp", "TMPDIR=/tmp", "BRINDLE_VM=" + c.kernel, "BRINDLE_CI=" + os.Getenv("BRINDLE_CI")},
		Dir:  "/src",
	})
	if err != nil {
		return err
	}
	w := image.NewWriter(out)
	w.Dir("src")
	w.File("job.json", 0o644, spec)
	for _, name := range c.programs {
		from, err := find(name)
		if err == nil {
			err = w.Program(name, from)
		}
		if err != nil {
			return err
		}
	}
	return errors.Join(
		w.Copy("init", c.guest),
		w.Copy("test", c.args[0]),
		w.CopyTree("src/testdata", "testdata"), // `go test` runs us in the package's folder
		w.Close(),
	)
}
