package cni

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"

	"github.com/brindle-net/brindle/internal/files"
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
	if err := files.Write(filepath.Join(dir, hex.EncodeToString(sum[:16])+".json"), body, 0o600); err != nil {
		return fmt.Errorf("queue the removal: %w", err)
	}
	return nil
}
