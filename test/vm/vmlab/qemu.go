//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

const emulator = "qemu-system-x86_64"

// unpackedQemu is where qemu lies when it is not installed.
func (c config) unpackedQemu() string { return filepath.Join(c.cache, "qemu") }

// qemu returns the beginning of the command line: the installed program, or
// one out of packages that are unpacked into the cache, so that a user who is
// not root needs to install nothing.
func qemu(ctx context.Context, c config) ([]string, error) {
	if p, err := exec.LookPath(emulator); err == nil {
		return []string{p}, nil
	}
	root := c.unpackedQemu()
	exe := filepath.Join(root, "usr", "bin", emulator)
	argv := []string{exe, "-L", filepath.Join(root, "usr", "share", "qemu"), "-L", filepath.Join(root, "usr", "share", "seabios")}
	if _, err := os.Stat(exe); err == nil {
		return argv, nil
	}
	if err := fetchQemu(ctx, c); err != nil {
		return nil, fmt.Errorf("%s is not installed and could not be fetched: %w", emulator, err)
	}
	return argv, nil
}

// qemuEnv lets an unpacked qemu find its libraries.
func (c config) qemuEnv() []string {
	env := os.Environ()
	if _, err := exec.LookPath(emulator); err == nil {
		return env
	}
	var dirs []string
	for _, d := range []string{"usr/lib/x86_64-linux-gnu", "lib/x86_64-linux-gnu"} {
		dirs = append(dirs, filepath.Join(c.unpackedQemu(), d))
	}
	return append(env, "LD_LIBRARY_PATH="+strings.Join(dirs, ":"))
}

// fetchQemu fetches qemu with the libraries that this system lacks, and
// unpacks them. It installs nothing and takes no lock.
func fetchQemu(ctx context.Context, c config) (err error) {
	if err := os.MkdirAll(c.cache, 0o755); err != nil {
		return err
	}
	tmp, err := os.MkdirTemp(c.cache, "qemu-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(tmp)) }()
	if err := os.MkdirAll(filepath.Join(tmp, "debs", "partial"), 0o755); err != nil {
		return err
	}
	fmt.Println("vmlab: fetching qemu")
	_, err = output(ctx, "", "apt-get", "install", "-q", "-y", "--no-install-recommends", "--download-only",
		"-o", retries, "-o", "Debug::NoLocking=1", "-o", "Dir::Cache::archives="+filepath.Join(tmp, "debs"), "qemu-system-x86")
	if err != nil {
		return err
	}
	if err := unpack(ctx, filepath.Join(tmp, "debs"), filepath.Join(tmp, "root")); err != nil {
		return err
	}
	return os.Rename(filepath.Join(tmp, "root"), c.unpackedQemu())
}
