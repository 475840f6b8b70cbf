package scenarios

import (
	"os"
	"path/filepath"
)

// agentsOf old|new says of which release an agent is that a host starts from
// now on. A lab that is built after the first such line starts its agents from
// a file of its own, which is replaced whole.
func (c call) agentsOf(args []string) outcome {
	if len(args) != 1 || args[0] != "old" && args[0] != "new" {
		return failf("usage: agents old|new")
	}
	from := c.bin
	if args[0] == "old" {
		from = os.Getenv(older)
	}
	program, err := os.ReadFile(from)
	if err != nil {
		return outcome{err: err}
	}
	dir := c.ts.MkAbs("agents")
	to := filepath.Join(dir, "brindle")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return outcome{err: err}
	}
	if err := os.WriteFile(to+".new", program, 0o700); err != nil {
		return outcome{err: err}
	}
	if err := os.Rename(to+".new", to); err != nil {
		return outcome{err: err}
	}
	c.agents = to
	return outcome{}
}
