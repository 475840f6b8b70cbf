package cni

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// Enqueue stores a removal for the agent to carry out when it runs again. The
// file is named by its content, so that asking twice stores it once; it is
// complete or absent, and root's alone.
func Enqueue(dir string, body []byte) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("make the queue: %w", err)
	}
	sum := sha256.Sum256(body)
	// The runtime will not ask again: it must be on the disk.
	if err := WriteFile(filepath.Join(dir, hex.EncodeToString(sum[:16])+".json"), body, 0o600); err != nil {
		return fmt.Errorf("queue the removal: %w", err)
	}
	return nil
}

// WriteFile writes a file whole or not at all, and returns when it is on the
// disk. Until then what was there before is there; at no moment has anybody
// more rights to it than mode gives. Its folder must exist.
func WriteFile(file string, body []byte, mode fs.FileMode) error {
	dir := filepath.Dir(file)
	f, err := os.CreateTemp(dir, ".new-*") // created 0600
	if err != nil {
		return err
	}
	defer os.Remove(f.Name()) // gone already after the rename
	_, err = f.Write(body)
	if err == nil {
		err = f.Chmod(mode)
	}
	if err == nil {
		err = f.Sync()
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err == nil {
		err = os.Rename(f.Name(), file)
	}
	if err == nil {
		err = syncDir(dir)
	}
	return err
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	err = d.Sync()
	if cerr := d.Close(); err == nil {
		err = cerr
	}
	return err
}
