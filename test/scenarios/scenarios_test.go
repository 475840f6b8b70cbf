// Package scenarios tells the stories of the lab: each *.txtar file here is
// one, and is run once for IPv4, once for IPv6 and once for both. The words of
// the stories are explained in docs/testing.md.
package scenarios

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/brindle-net/brindle/internal/testenv"
)

// root is the top of the tree.
const root = "../.."

// storyKey is where a script finds its story.
type storyKey struct{}

// labs counts the labs of this process: each story has one of its own name.
var labs atomic.Int64

// TestScenarios runs every story for every family that it does not exclude.
func TestScenarios(t *testing.T) { tell(t, "*.txtar") }

// TestUpgrade runs the stories in which hosts have agents of two releases. The
// variable names the older one's program.
func TestUpgrade(t *testing.T) {
	if os.Getenv(older) == "" {
		t.Skipf("%s names no program of another release: `make upgrade-drill FROM=REVISION` builds one", older)
	}
	tell(t, "upgrade/*.txtar")
}

// older is the variable that names the program of another release.
const older = "BRINDLE_UPGRADE_FROM"

// tell runs stories for every family that they do not exclude.
func tell(t *testing.T, pattern string) {
	testenv.NeedRoot(t)
	bin, err := filepath.Abs(filepath.Join(root, "bin"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(bin, "brindle")); err != nil {
		t.Fatalf("%v: run `make build` first", err)
	}
	for _, program := range []string{"bash", "ip", "ping", "traceroute", "setpriv", "timeout"} {
		testenv.NeedProgram(t, program)
	}
	files, err := filepath.Glob(pattern)
	if err != nil || len(files) == 0 {
		t.Fatalf("no stories: %v", err)
	}
	testenv.EachFamily(t, func(t *testing.T, family testenv.Family) {
		t.Parallel()
		var mine []string
		for _, f := range files {
			told, err := families(f)
			if err != nil {
				t.Fatal(err)
			}
			if slices.Contains(told, family.String()) {
				mine = append(mine, f)
			}
		}
		testscript.Run(t, testscript.Params{
			Files: mine, Cmds: commands(), RequireUniqueNames: true,
			Setup: func(env *testscript.Env) error { return setup(env, family, bin) },
		})
	})
}

// families reads for which families a story is told: all, unless a line
// `# families: v4 dual: REASON` says otherwise.
func families(file string) ([]string, error) {
	src, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	for line := range strings.Lines(string(src)) {
		rest, ok := strings.CutPrefix(line, "# families:")
		if !ok {
			continue
		}
		list, reason, _ := strings.Cut(rest, ":")
		if strings.TrimSpace(reason) == "" {
			return nil, fmt.Errorf("%s: a story that leaves out a family says why: # families: v4: REASON", file)
		}
		told := strings.Fields(list)
		for _, f := range told {
			if f != "v4" && f != "v6" && f != "dual" {
				return nil, fmt.Errorf("%s: family %q: must be v4, v6 or dual", file, f)
			}
		}
		return told, nil
	}
	return []string{"v4", "v6", "dual"}, nil
}

// setup gives a script its lab's name and its environment, and sees to it
// that nothing of the lab outlives it.
func setup(env *testscript.Env, family testenv.Family, bin string) error {
	s := &story{
		lab: fmt.Sprintf("t%d-%d", os.Getpid()%1000000, labs.Add(1)), family: family, bin: filepath.Join(bin, "brindle"),
		floods: map[string]*flood{}, bursts: map[string]*burst{}, background: map[string]*background{},
	}
	env.Values[storyKey{}] = s
	env.Setenv("LAB", s.lab)
	env.Setenv("FAMILY", family.String())
	env.Setenv("PATH", bin+":/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
	env.Setenv("HOME", env.WorkDir)
	env.Setenv("NO_COLOR", "1")
	env.Setenv("OUTAGE", "30") // how long outages last, in seconds
	env.Setenv("CUT", "60")
	t := env.T().(interface {
		testscript.T
		Failed() bool
	})
	env.Defer(func() {
		if t.Failed() {
			t.Log(s.autopsy())
		}
		s.end()
	})
	return nil
}

// story is one run of one script.
type story struct {
	lab        string
	family     testenv.Family
	bin        string
	agents     string // program that hosts run; "": the same
	floods     map[string]*flood
	bursts     map[string]*burst
	background map[string]*background
}

// versions lists the IP versions in use, 4 first.
func (s *story) versions() []int {
	var out []int
	if s.family.HasV4() {
		out = append(out, 4)
	}
	if s.family.HasV6() {
		out = append(out, 6)
	}
	return out
}

// labDir is where a lab keeps its files.
func labDir(lab string) string { return filepath.Join("/run/brindle/lab", lab) }

// end stops what still runs and takes the lab down, and any other that the
// script named after it.
func (s *story) end() {
	for _, f := range s.floods {
		f.stop()
	}
	for _, b := range s.background {
		b.stop()
	}
	left, _ := filepath.Glob(labDir(s.lab) + "*") // the pattern is well-formed
	for _, dir := range left {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		_ = exec.CommandContext(ctx, s.bin, "lab", "--name", filepath.Base(dir), "down").Run() // nothing-left is what looks
		cancel()
	}
}

// autopsy gathers what helps to understand a failure.
func (s *story) autopsy() string {
	var b strings.Builder
	logs, _ := filepath.Glob(labDir(s.lab) + "*/supervisor.log")
	agents, _ := filepath.Glob(labDir(s.lab) + "*/h*/agent.log")
	for _, path := range append(logs, agents...) {
		data, err := os.ReadFile(path)
		if err != nil {
			continue
		}
		lines := strings.Split(strings.TrimSpace(string(data)), "\n")
		if n := len(lines); n > 15 {
			lines = append([]string{fmt.Sprintf("… %d lines before", n-15)}, lines[n-15:]...)
		}
		for i, l := range lines {
			lines[i] = l[:min(len(l), 300)]
		}
		fmt.Fprintf(&b, "\n--- %s\n%s\n", path, strings.Join(lines, "\n"))
	}
	return b.String()
}
