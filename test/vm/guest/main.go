//go:build linux

// Command guest is the first process of a virtual machine of the tests: it
// mounts what a test expects, loads the kernel modules, runs one test binary
// and powers the machine off. What it has to say itself goes to the console;
// the test has a serial line of its own.
package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/brindle-net/brindle/test/vm/image"
)

func main() {
	code, err := run()
	if err != nil {
		fmt.Println("guest:", err)
		code = 125
	}
	fmt.Printf("guest: exit %d\n", code)
	unix.Sync()
	if err := unix.Reboot(unix.LINUX_REBOOT_CMD_POWER_OFF); err != nil {
		fmt.Println("guest: power off:", err)
	}
}

// run prepares the machine and returns the exit status of the test.
func run() (int, error) {
	if os.Getpid() != 1 {
		return 0, errors.New("this is the first process of a virtual machine; it is not for running by hand")
	}
	if err := mounts(); err != nil {
		return 0, err
	}
	if err := modules("/modules"); err != nil {
		return 0, err
	}
	var j image.Job
	data, err := os.ReadFile("/job.json")
	if err != nil {
		return 0, err
	}
	if err := json.Unmarshal(data, &j); err != nil {
		return 0, fmt.Errorf("read /job.json: %w", err)
	}
	line, err := serial("/dev/ttyS1")
	if err != nil {
		return 0, err
	}
	cmd := exec.Command("/test", j.Args...)
	cmd.Dir, cmd.Env, cmd.Stdout, cmd.Stderr = j.Dir, j.Env, line, line
	err = cmd.Run()
	if e, ok := errors.AsType[*exec.ExitError](err); ok {
		return max(e.ExitCode(), 1), nil
	}
	return 0, err
}

// mounts are what tests of a kernel expect to find. The last ones are not in
// every kernel.
func mounts() error {
	for _, m := range []struct {
		kind, at string
		optional bool
	}{
		{"proc", "/proc", false}, {"sysfs", "/sys", false}, {"devtmpfs", "/dev", false},
		{"tmpfs", "/tmp", false}, {"tmpfs", "/run", false},
		{"cgroup2", "/sys/fs/cgroup", true}, {"bpf", "/sys/fs/bpf", true}, {"tracefs", "/sys/kernel/tracing", true},
	} {
		if err := os.MkdirAll(m.at, 0o755); err != nil && !m.optional {
			return err
		}
		if err := unix.Mount(m.kind, m.at, m.kind, 0, ""); err != nil && !m.optional {
			return fmt.Errorf("mount %s at %s: %w", m.kind, m.at, err)
		}
	}
	return nil
}

// modules loads what the folder holds, in the order of the names.
func modules(dir string) error {
	files, err := filepath.Glob(filepath.Join(dir, "*.ko"))
	if err != nil {
		return err
	}
	slices.Sort(files)
	for _, f := range files {
		data, err := os.ReadFile(f)
		if err != nil {
			return err
		}
		if err := unix.InitModule(data, ""); err != nil && !errors.Is(err, unix.EEXIST) {
			return fmt.Errorf("load %s: %w", strings.TrimSuffix(filepath.Base(f), ".ko"), err)
		}
	}
	return nil
}

// serial opens a serial line that passes bytes as they are.
func serial(name string) (*os.File, error) {
	f, err := os.OpenFile(name, os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		return nil, err
	}
	t, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
	if err == nil {
		t.Oflag &^= unix.OPOST
		t.Lflag &^= unix.ECHO | unix.ICANON | unix.ISIG
		err = unix.IoctlSetTermios(int(f.Fd()), unix.TCSETS, t)
	}
	if err != nil {
		return nil, fmt.Errorf("set up %s: %w", name, err)
	}
	return f, nil
}
