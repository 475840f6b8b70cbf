package cli

import (
	"bytes"
	"context"
	"flag"
	"io"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/spf13/cobra"

	"github.com/brindle-net/brindle/internal/store/etcd"
	"github.com/brindle-net/brindle/internal/store/mem"
)

//go:generate go test . -run ^TestReferenceIsCurrent$ -update

var update = flag.Bool("update", false, "write the reference page anew")

const referencePage = "../../docs/reference/cli.md"

func TestReferenceIsCurrent(t *testing.T) {
	want := []byte(Reference())
	if *update {
		if err := os.WriteFile(referencePage, want, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile(referencePage)
	if err != nil || !bytes.Equal(got, want) {
		t.Errorf("%s is not what the commands say (%v): run go generate ./internal/cli", referencePage, err)
	}
}

// quietEnv is an environment in which nothing is there.
func quietEnv() *Env {
	return &Env{
		Stdin: strings.NewReader(""), Stdout: io.Discard, Stderr: io.Discard,
		Getenv: func(string) string { return "" }, Environ: func() []string { return nil },
		Open: func(etcd.Config) (Datastore, error) { return memStore{mem.New()}, nil },
	}
}

// every visits each command, hidden ones too.
func every(c *cobra.Command, visit func(*cobra.Command)) {
	visit(c)
	for _, sub := range c.Commands() {
		every(sub, visit)
	}
}

func TestEveryCommandExplainsItself(t *testing.T) {
	commands := 0
	every(newRoot(quietEnv()), func(c *cobra.Command) {
		path := c.CommandPath()
		if c.Name() == "help" || strings.HasPrefix(path, "brindle completion") {
			return // the library's own
		}
		commands++
		if !c.Hidden && c.Short == "" {
			t.Errorf("%s has no short text", path)
		}
		if strings.HasSuffix(c.Short, ".") {
			t.Errorf("%s: the short text ends with a full stop", path)
		}
		if !c.Runnable() {
			t.Errorf("%s does nothing", path)
		}
		if !c.HasParent() || c.Parent().HasParent() {
			if c.GroupID != "" {
				t.Errorf("%s has a group below the top", path)
			}
		} else if c.GroupID == "" && !c.Hidden {
			t.Errorf("%s has no group", path)
		}
		for _, name := range flagsOf(c) {
			f := c.LocalFlags().Lookup(name)
			if f.Usage == "" || strings.Contains(f.Usage, "`") || strings.HasSuffix(f.Usage, ".") {
				t.Errorf("%s --%s: usage %q is empty, has a back quote or ends with a full stop", path, name, f.Usage)
			}
		}
		var names []string
		for _, sub := range c.Commands() {
			names = append(names, append([]string{sub.Name()}, sub.Aliases...)...)
		}
		slices.Sort(names)
		if len(slices.Compact(slices.Clone(names))) != len(names) {
			t.Errorf("%s: two subcommands share a name: %q", path, names)
		}
		c.InitDefaultHelpFlag()
		var help bytes.Buffer
		c.SetOut(&help)
		if err := c.Help(); err != nil || !c.Hidden && help.Len() == 0 {
			t.Errorf("%s --help: %v", path, err)
		}
	})
	if commands < 35 {
		t.Errorf("%d commands: the tree was not walked", commands)
	}
}

func TestStrangers(t *testing.T) {
	w := newWorld(t)
	for _, c := range []struct{ in, want string }{
		{"gte", "there is no command \"gte\" in `brindle`"},
		{"aply", "did you mean apply?"},
		{"ipam", ""},
		{"ipam shwo", "did you mean show?"},
		{"lab nosuch", "there is no command \"nosuch\" in `brindle lab`"},
		{"server snapshot sav", "did you mean save?"},
		{"lab host x", "in `brindle lab host`"},
	} {
		if c.want == "" {
			if got := w.ok(line(c.in)...); !strings.Contains(got, "Available Commands:") {
				t.Errorf("%s: %q", c.in, got)
			}
			continue
		}
		w.fails(c.want, line(c.in)...)
	}
	if got := w.ok(); !strings.Contains(got, "Resources:") {
		t.Errorf("%q", got)
	}
}

// Whatever is typed, the program answers. What would start a program or reach
// out of the process is left out.
func FuzzArguments(f *testing.F) {
	for _, s := range []string{
		"get nodes -o wide", "get np -A -l a=b,c!=d", "apply -f -", "patch ippool x -p {\"spec\":1}", "label nodes n1 a=b c-",
		"ipam show --ip 1.2.3.4", "ipam release --ip ::1 --force", "delete np/a np/b", "get wep -o custom-columns=NAME,NODE",
		"get np -o go-template={{range .}}{{.}}{{end}}", "ipam configure --strictaffinity=1", "create -f - -n x", "help get", "__complete get i",
	} {
		f.Add(s, "kind: Tier\napiVersion: projectcalico.org/v3\nmetadata: {name: a}\nspec: {order: 5}\n")
	}
	f.Add("convert -f - -o json", "{kind: policy, apiVersion: v1, metadata: {name: A.b}, spec: {selector: \"a == 'b\", ingress: [{action: allow, source: {tag: a, net: 10.0.0.1/8}}]}}\n")
	allowed := []string{"get", "convert", "apply", "create", "replace", "delete", "patch", "label", "validate", "kinds", "ipam", "version", "help", "__complete"}
	f.Fuzz(func(t *testing.T, command, stdin string) {
		args := strings.Split(command, " ")
		if !slices.Contains(allowed, args[0]) || strings.Contains(command, "/") && strings.Contains(command, "-") || strings.Contains(command, "check") {
			return // paths of files stay out, and who writes some
		}
		e := quietEnv()
		e.Stdin = strings.NewReader(stdin)
		e.Getenv = func(name string) string {
			if name == "ETCD_ENDPOINTS" {
				return "http://192.0.2.1:2379"
			}
			return ""
		}
		var stderr bytes.Buffer
		e.Stderr = &stderr
		switch status := Run(context.Background(), e, args); {
		case status != 0 && status != 1:
			t.Errorf("%q: exit status %d", args, status)
		case status == 1 && stderr.Len() == 0:
			t.Errorf("%q failed and said nothing", args)
		}
	})
}
