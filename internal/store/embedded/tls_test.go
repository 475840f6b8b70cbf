package embedded

import (
	"os"
	"path/filepath"
	"testing"
)

// TestWritePairThatFails leaves what was there, and no key that waits for a
// certificate that will not come.
func TestWritePairThatFails(t *testing.T) {
	dir := t.TempDir()
	cert, key := filepath.Join(dir, "x.crt"), filepath.Join(dir, "x.key")
	if err := os.MkdirAll(filepath.Join(cert, "in the way"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(key, []byte("old"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := WritePair(cert, key, []byte("c"), []byte("k")); err == nil {
		t.Fatal("a folder was replaced by a certificate")
	}
	if got, err := os.ReadFile(key); err != nil || string(got) != "old" {
		t.Errorf("the key is %q, %v", got, err)
	}
	list, err := os.ReadDir(dir)
	if err != nil || len(list) != 2 {
		t.Errorf("%v are left, %v", list, err)
	}
}
