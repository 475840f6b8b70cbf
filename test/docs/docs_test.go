// Package docs runs the commands of the README and the guides, in the order
// in which a reader would type them.
package docs

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/brindle-net/brindle/internal/doctest"
	"github.com/brindle-net/brindle/internal/testenv"
)

const root = "../.."

// pages are the documents whose commands are run, each as one session.
var pages = []string{"README.md", "docs/guides/lab.md", "docs/guides/policy.md", "docs/guides/encapsulation.md", "docs/guides/pools.md", "docs/guides/day-2.md", "docs/guides/trouble.md"}

// asRoot stands in for sudo: the tests are root, and a machine that runs them
// may lack it.
const asRoot = "sudo() { while [[ \"$1\" == -* ]]; do shift; done; \"$@\"; }\n"

// refute stands in for the shell's "!", after which a shell goes on whatever
// comes of the command.
const refute = "refute() { if \"$@\"; then echo 'it should have failed' >&2; return 1; fi; }\n"

var negated = regexp.MustCompile(`(?m)^! `)

func TestPages(t *testing.T) {
	testenv.NeedRoot(t)
	if _, err := os.Stat(filepath.Join(root, "bin", "brindle")); err != nil {
		t.Fatalf("%v: run `make build` first", err)
	}
	for _, page := range pages {
		t.Run(page, func(t *testing.T) {
			src, err := os.ReadFile(filepath.Join(root, page))
			if err != nil {
				t.Fatal(err)
			}
			blocks, err := doctest.Blocks(page, string(src))
			if err != nil {
				t.Fatal(err)
			}
			script := asRoot + refute
			for _, b := range blocks {
				if b.Test == "test/docs/docs_test.go" {
					script += negated.ReplaceAllString(b.Script(), "refute ")
				}
			}
			runScript(t, script)
		})
	}
}

// runScript runs a script as a reader's shell would, and takes the lab down
// that a script which fails leaves behind.
func runScript(t *testing.T, script string) {
	t.Helper()
	cmd := exec.Command("bash", "-euxo", "pipefail", "-c", script)
	cmd.Dir = root
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Run(); err != nil {
		if strings.Contains(out.String(), "lab up") {
			down := exec.Command("bin/brindle", "lab", "down", "--name", labOf(script))
			down.Dir = root
			if said, err := down.CombinedOutput(); err != nil {
				t.Logf("take the lab down: %v: %s", err, said)
			}
		}
		t.Fatalf("%v\n%s", err, &out)
	}
	t.Logf("%s", &out)
}

var named = regexp.MustCompile(`lab up .*--name (\S+)`)

// labOf is the name of a script's lab.
func labOf(script string) string {
	if m := named.FindStringSubmatch(script); m != nil {
		return m[1]
	}
	return "lab"
}
