package scenarios

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
)

// patience bounds every program that a story runs.
const patience = 2 * time.Minute

// outcome is what a command of a story did.
type outcome struct {
	stdout, stderr string
	status         int   // exit status of the program
	err            error // nil when it succeeded
}

// failf is an outcome of a command that is no program.
func failf(format string, args ...any) outcome {
	return outcome{status: 1, err: fmt.Errorf(format, args...)}
}

// call carries a command out. env reads a variable of the script.
type call struct {
	*story
	ts *testscript.TestScript
}

// commands are the words that stories add to testscript's own.
func commands() map[string]func(ts *testscript.TestScript, neg bool, args []string) {
	all := map[string]func(ts *testscript.TestScript, neg bool, args []string){}
	for name := range verbs() {
		all[name] = func(ts *testscript.TestScript, neg bool, args []string) {
			c := call{ts.Value(storyKey{}).(*story), ts}
			c.top(neg, append([]string{name}, args...))
		}
	}
	return all
}

// verbs maps each word to what carries it out.
func verbs() map[string]func(c call, args []string) outcome {
	return map[string]func(c call, args []string) outcome{
		// Programs.
		"lab": call.lab, "brindle": call.brindle, "run": call.run,
		// Words before a command.
		"each": call.each, "eventually": call.eventually, "match": call.match, "nomatch": call.nomatch,
		"status": call.status, "fails": call.fails, "save": call.save, "let": call.let,
		// The world.
		"flood": call.flood, "burst": call.burst, "background": call.inBackground,
		"nothing-left": call.nothingLeft, "kill-supervisor": call.killSupervisor, "use-lab": call.useLab,
		"foreign": call.foreign, "unique-addresses": call.uniqueAddresses, "rogue-ra": call.rogueRA,
		"kernels-agree": call.kernelsAgree, "agents": call.agentsOf,
	}
}

// top carries out one line of a script: output goes where the script's
// stdout and stderr look, a wrong end ends the story.
func (c call) top(neg bool, args []string) {
	out := c.do(args)
	fmt.Fprint(c.ts.Stdout(), out.stdout)
	fmt.Fprint(c.ts.Stderr(), out.stderr)
	switch {
	case neg && out.err == nil:
		c.ts.Fatalf("%s: succeeded and should not have", strings.Join(args, " "))
	case !neg && out.err != nil:
		c.ts.Fatalf("%s: %v", strings.Join(args, " "), out.err)
	}
}

// do carries out one command.
func (c call) do(args []string) outcome {
	if len(args) == 0 {
		return failf("no command given")
	}
	verb, ok := verbs()[args[0]]
	if !ok {
		return failf("unknown command %q", args[0])
	}
	return verb(c, args[1:])
}

// program runs a program to its end.
func (c call) program(argv ...string) outcome {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	cmd := c.command(ctx, argv...)
	var stdout, stderr strings.Builder
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err := cmd.Run()
	out := outcome{stdout: stdout.String(), stderr: stderr.String(), err: err}
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		out.status = exit.ExitCode()
	}
	if ctx.Err() != nil {
		out.err = fmt.Errorf("not done within %v", patience)
	}
	return out
}

// command prepares a program with the environment of the script.
func (c call) command(ctx context.Context, argv ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	if path := c.look(argv[0]); path != "" {
		cmd.Path, cmd.Err = path, nil
	}
	cmd.Dir = c.ts.MkAbs(".")
	for _, name := range []string{"PATH", "HOME", "NO_COLOR", "DATASTORE_TYPE", "ETCD_ENDPOINTS"} {
		if v := c.ts.Getenv(name); v != "" {
			cmd.Env = append(cmd.Env, name+"="+v)
		}
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = 5 * time.Second
	return cmd
}

// look finds a program in the script's PATH.
func (c call) look(name string) string {
	if strings.Contains(name, "/") {
		return name
	}
	for _, dir := range filepath.SplitList(c.ts.Getenv("PATH")) {
		if path := filepath.Join(dir, name); isFile(path) {
			return path
		}
	}
	return ""
}

func isFile(path string) bool {
	st, err := os.Stat(path)
	return err == nil && !st.IsDir()
}

// lab ARGS… is `brindle lab ARGS…` of the story's own lab. `lab up` and `lab
// demo` build it for the family of the run.
func (c call) lab(args []string) outcome {
	argv := []string{"brindle", "lab", "--name", c.story.lab}
	argv = append(argv, args...)
	up := len(args) > 0 && (args[0] == "up" || args[0] == "demo")
	if up && c.agents != "" {
		argv[0] = c.agents
	}
	if up {
		argv = append(argv, "--family", c.family.String())
	}
	out := c.program(argv...)
	if up && out.err == nil {
		if env := c.useEnv(); env.err != nil {
			return env
		}
	}
	return out
}

// useEnv takes over what `lab env` prints, as a reader's shell would.
func (c call) useEnv() outcome {
	out := c.program("brindle", "lab", "--name", c.story.lab, "env")
	for _, line := range strings.Split(out.stdout, "\n") {
		if k, v, ok := strings.Cut(strings.TrimPrefix(line, "export "), "="); ok {
			c.ts.Setenv(k, v)
		}
	}
	if c.ts.Getenv("ETCD_ENDPOINTS") == "" && c.isUp() {
		return failf("`lab env` does not say where the datastore is: %s", out.stdout)
	}
	return outcome{}
}

func (c call) isUp() bool { return isFile(filepath.Join(labDir(c.story.lab), "lock")) }

// useLab NAME-END continues with a lab called $LAB and the ending; without
// one, with the story's first.
func (c call) useLab(args []string) outcome {
	first := c.ts.Getenv("LAB")
	c.story.lab = first + strings.Join(args, "")
	if c.isUp() {
		return c.useEnv()
	}
	return outcome{}
}

// brindle ARGS… runs brindle on the lab's datastore.
func (c call) brindle(args []string) outcome {
	return c.program(append([]string{"brindle"}, args...)...)
}

// run PROGRAM ARGS… runs any program of the machine.
func (c call) run(args []string) outcome { return c.program(args...) }

// member matches @w3: the address of a member in the family under test.
var member = regexp.MustCompile(`@(w[0-9]+|h[0-9]+|[a-z][a-z0-9-]*)`)

// either matches @[A|B]: A for IPv4, B for IPv6.
var either = regexp.MustCompile(`@\[([^|\]]*)\|([^|\]]*)\]`)

// each COMMAND… does the command once for each IP version of the run. @w3 in
// it is the address of w3, @- is -4 or -6, @[A|B] is A for IPv4 and B for
// IPv6.
func (c call) each(args []string) outcome {
	var all outcome
	for _, v := range c.versions() {
		one := make([]string, len(args))
		for i, a := range args {
			a = either.ReplaceAllString(a, map[int]string{4: "$1", 6: "$2"}[v])
			a = strings.ReplaceAll(a, "@-", fmt.Sprintf("-%d", v))
			var err error
			one[i] = member.ReplaceAllStringFunc(a, func(m string) string {
				addr, aerr := c.address(m[1:], v)
				if aerr != nil {
					err = aerr
					return m
				}
				return addr.String()
			})
			if err != nil {
				return failf("%v", err)
			}
		}
		out := c.do(one)
		all.stdout, all.stderr = all.stdout+out.stdout, all.stderr+out.stderr
		if out.err != nil {
			all.err, all.status = fmt.Errorf("IPv%d: %w", v, out.err), out.status
			return all
		}
	}
	return all
}

// eventually LIMIT COMMAND… repeats the command until it succeeds.
func (c call) eventually(args []string) outcome {
	if len(args) < 2 {
		return failf("eventually: give a limit and a command")
	}
	limit, err := time.ParseDuration(args[0])
	if err != nil {
		return failf("eventually: %v", err)
	}
	began := time.Now()
	deadline := began.Add(limit)
	tick := time.NewTicker(40 * time.Millisecond)
	defer tick.Stop()
	for {
		out := c.do(args[1:])
		if out.err == nil {
			c.ts.Logf("[after %v]", time.Since(began).Round(time.Millisecond))
			return out
		}
		if time.Now().After(deadline) {
			out.err = fmt.Errorf("not within %v: %w", limit, out.err)
			return out
		}
		<-tick.C
	}
}

// match REGEXP COMMAND… does the command, which must print what matches.
func (c call) match(args []string) outcome { return c.printed(args, true) }

// nomatch REGEXP COMMAND… does the command, which must succeed and print
// nothing that matches.
func (c call) nomatch(args []string) outcome { return c.printed(args, false) }

func (c call) printed(args []string, want bool) outcome {
	if len(args) < 2 {
		return failf("give a regular expression and a command")
	}
	re, err := regexp.Compile("(?m)" + args[0])
	if err != nil {
		return failf("%v", err)
	}
	out := c.do(args[1:])
	if out.err == nil && re.MatchString(out.stdout) != want {
		out.err = fmt.Errorf("want match of %q to be %t in what it printed:\n%s", args[0], want, out.stdout)
	}
	return out
}

// status N COMMAND… does the command, which must exit with the status.
func (c call) status(args []string) outcome {
	want, err := strconv.Atoi(args[0])
	if err != nil {
		return failf("status: %v", err)
	}
	out := c.do(args[1:])
	if out.status != want {
		out.err = fmt.Errorf("exit status %d, want %d: %s%s", out.status, want, out.stdout, out.stderr)
		return out
	}
	out.err, out.status = nil, 0
	return out
}

// fails REGEXP COMMAND… does the command, which must fail and say on its
// standard error what matches.
func (c call) fails(args []string) outcome {
	re, err := regexp.Compile(args[0])
	if err != nil {
		return failf("%v", err)
	}
	out := c.do(args[1:])
	switch {
	case out.err == nil:
		out.err, out.status = errors.New("succeeded and should not have"), 1
	case !re.MatchString(out.stderr):
		out.err = fmt.Errorf("failed as it should, but did not say %q: %s", args[0], out.stderr)
	default:
		out.err, out.status = nil, 0
	}
	return out
}

// save FILE COMMAND… keeps what the command prints in a file of the script.
func (c call) save(args []string) outcome {
	out := c.do(args[1:])
	if out.err == nil {
		out.err = os.WriteFile(c.ts.MkAbs(args[0]), []byte(out.stdout), 0o600)
	}
	return out
}

// let NAME COMMAND… sets a variable to what the command prints.
func (c call) let(args []string) outcome {
	out := c.do(args[1:])
	if out.err == nil {
		c.ts.Setenv(args[0], strings.TrimSpace(out.stdout))
	}
	return out
}
