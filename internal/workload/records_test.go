package workload

import (
	"os"
	"path/filepath"
	"testing"
)

// TestRemaindersOfRecordsGo: an agent that is killed while it writes a record
// leaves half of one, which the next agent removes. What others put there
// stays.
func TestRemaindersOfRecordsGo(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"0123" + unfinished, ".brindle-new-123", "readme.txt"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte("half a"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if r := openRecords(dir); r.broken != nil || len(r.byHandle) != 0 {
		t.Errorf("records %v, broken %v", r.byHandle, r.broken)
	}
	files, err := os.ReadDir(dir)
	if err != nil || len(files) != 1 || files[0].Name() != "readme.txt" {
		t.Errorf("left are %v (%v), want what others put there alone", files, err)
	}
}
