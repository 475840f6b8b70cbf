package lab

import (
	"bytes"
	"flag"
	"os"
	"testing"
)

//go:generate go test . -run ^TestReferenceIsCurrent$ -update

var update = flag.Bool("update", false, "write the reference page anew")

const referencePage = "../../docs/reference/topology.md"

func TestReferenceIsCurrent(t *testing.T) {
	want := []byte(FileReference())
	if *update {
		if err := os.WriteFile(referencePage, want, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile(referencePage)
	if err != nil || !bytes.Equal(got, want) {
		t.Errorf("%s is not what the code says (%v): run go generate ./internal/lab", referencePage, err)
	}
}
