package docs

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/brindle-net/brindle/internal/testenv"
)

// TestUnits has systemd read the units, and judge how much each service may do:
// 0 is nothing, 10 is everything. That they may do enough is what the pages on
// installation and on moving find out.
func TestUnits(t *testing.T) {
	analyze := testenv.NeedProgram(t, "systemd-analyze")
	for name, most := range map[string]string{"brindle-agent.service": "45", "brindle-server.service": "20"} {
		text, err := os.ReadFile(filepath.Join(root, "packaging", "systemd", name))
		if err != nil {
			t.Fatal(err)
		}
		// What the program is does not matter here, but it must be there.
		file := filepath.Join(t.TempDir(), name)
		if err := os.WriteFile(file, []byte(strings.ReplaceAll(string(text), "/usr/local/bin/brindle", analyze)), 0o600); err != nil {
			t.Fatal(err)
		}
		if out, err := exec.Command(analyze, "verify", "--man=no", file).CombinedOutput(); err != nil || len(out) > 0 {
			t.Errorf("%s: %v\n%s", name, err, out)
		}
		if name == "brindle-agent.service" {
			verifySocket(t, analyze, filepath.Dir(file))
		}
		if out, err := exec.Command(analyze, "security", "--offline=yes", "--threshold="+most, file).CombinedOutput(); err != nil {
			t.Errorf("%s may do more than %s tenths of all: %v\n%s", name, most, err, out)
		}
	}
}

// verifySocket has systemd read the unit of the agent's socket, beside that of
// the service which it starts.
func verifySocket(t *testing.T, analyze, dir string) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(root, "packaging", "systemd", "brindle-agent.socket"))
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(dir, "brindle-agent.socket")
	if err := os.WriteFile(file, text, 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command(analyze, "verify", "--man=no", file).CombinedOutput(); err != nil || len(out) > 0 {
		t.Errorf("brindle-agent.socket: %v\n%s", err, out)
	}
}
