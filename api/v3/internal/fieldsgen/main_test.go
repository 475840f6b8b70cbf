package main

import (
	"bytes"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	v3 "github.com/brindle-net/brindle/api/v3"
)

// root is the folder of the module, seen from here.
const root = "../../../.."

func TestReferenceIsCurrent(t *testing.T) {
	got, err := os.ReadFile(filepath.Join(root, "docs/reference/fields.md"))
	if err != nil {
		t.Fatal(err)
	}
	if want := render(v3.Kinds(), v3.Fields()); !bytes.Equal(got, want) {
		t.Errorf("docs/reference/fields.md is not current: run go generate ./api/v3\n%s",
			cmp.Diff(strings.Split(string(want), "\n"), strings.Split(string(got), "\n")))
	}
}

func TestHonouredFieldsAreProven(t *testing.T) {
	known := map[string]bool{}
	for _, f := range v3.Fields() {
		known[f.Key()] = true
		for _, list := range []string{".spec.ingress[].", ".spec.egress[]."} {
			if _, field, ok := strings.Cut(f.Key(), list); ok {
				known["Rule."+field] = true
			}
		}
	}
	for key, test := range v3.HonouredFields() {
		if !known[key] {
			t.Errorf("%s is no field", key)
		}
		if err := exists(test); err != "" {
			t.Errorf("%s: %s %s", key, test, err)
		}
	}
}

// exists says what is wrong with the name of a test, "" if nothing.
func exists(test string) string {
	if strings.HasSuffix(test, ".txtar") {
		if _, err := os.Stat(filepath.Join(root, test)); err != nil {
			return "is no scenario of the project"
		}
		return ""
	}
	dir, name, ok := strings.Cut(test, ".")
	if !ok || !strings.HasPrefix(name, "Test") && !strings.HasPrefix(name, "Fuzz") {
		return `must read "folder.TestName" or "path/of/scenario.txtar"`
	}
	files, err := filepath.Glob(filepath.Join(root, dir, "*_test.go"))
	if err != nil {
		return err.Error()
	}
	declared := regexp.MustCompile(`(?m)^func ` + regexp.QuoteMeta(name) + `\(`)
	for _, f := range files {
		text, err := os.ReadFile(f)
		if err != nil {
			return err.Error()
		}
		if declared.Match(text) {
			return ""
		}
	}
	return "is no test of the project"
}

func TestExists(t *testing.T) {
	for _, tt := range []struct {
		name, in string
		want     bool
	}{
		{"a test", "api/v3/internal/fieldsgen.TestExists", true},
		{"a fuzz test", "api/v3.FuzzDecodeAll", true},
		{"a test of another folder", "api/v3.TestExists", false},
		{"no such test", "api/v3.TestNothing", false},
		{"part of a name", "api/v3/internal/fieldsgen.TestExist", false},
		{"no folder", "internal/nothing.TestExists", false},
		{"no test at all", "api/v3.Fields", false},
		{"no such scenario", "test/scenarios/nothing.txtar", false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if err := exists(tt.in); (err == "") != tt.want {
				t.Errorf("%s %s", tt.in, err)
			}
		})
	}
}

func TestRender(t *testing.T) {
	kinds := []v3.KindInfo{{Kind: "IPPool", Plural: "ippools", Aliases: []string{"pool"}}, {Kind: "LiveMigration", Plural: "livemigrations", Namespaced: true, ReadOnly: true}}
	fields := []v3.FieldInfo{
		{Path: "metadata.name", Type: "text"},
		{Kind: "IPPool", Path: "spec.cidr", Type: "text", Test: "internal/ipam.TestX"},
		{Kind: "IPPool", Path: "spec.pattern", Type: "text", Default: "a|b"},
		{Kind: "IPPool", Path: "status.conditions", Type: "list of object", Block: true},
	}
	got := string(render(kinds, fields))
	for _, want := range []string{
		"| [IPPool](#ippool) | 2 | 1 |\n",
		"## Metadata of every kind\n\n| field | type | default | status |\n|---|---|---|---|\n| `metadata.name` | text |  | *accepted, not honoured yet* |\n",
		"## IPPool\n\nOf the cluster; plural `ippools`; also `pool`.\n\n",
		"| `spec.cidr` | text |  | **honoured**: `internal/ipam.TestX` |\n",
		"| `spec.pattern` | text | `a\\|b` | *accepted, not honoured yet* |\n",
		"| `status.conditions` | list of object |  | see its fields |\n",
		"Of a namespace; plural `livemigrations`; written by components only.",
	} {
		if !strings.Contains(got, want) {
			t.Errorf("no %q in\n%s", want, got)
		}
	}
}
