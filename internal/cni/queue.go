package cni

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
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
	name := filepath.Join(dir, hex.EncodeToString(sum[:16])+".json")
	f, err := os.CreateTemp(dir, ".new-*") // created 0600
	if err != nil {
		return fmt.Errorf("queue the removal: %w", err)
	}
	defer os.Remove(f.Name()) // gone already after the rename
	_, err = f.Write(body)
	if err == nil {
		err = f.Sync()
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err == nil {
		err = os.Rename(f.Name(), name)
	}
	if err == nil {
		err = syncDir(dir) // the runtime will not ask again
	}
	if err != nil {
		return fmt.Errorf("queue the removal: %w", err)
	}
	return nil
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
