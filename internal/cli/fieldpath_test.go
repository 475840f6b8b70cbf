package cli

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
)

func TestFieldPath(t *testing.T) {
	var doc any
	text := `{"metadata":{"name":"a","labels":{"app.kubernetes.io/name":"shop"}},"spec":{"n":9007199254740993,"list":[{"x":1},{"x":2}],"on":true}}`
	if err := json.Unmarshal([]byte(text), &doc); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct{ path, want string }{
		{".metadata.name", "[a]"}, {"metadata.name", "[a]"}, {"{.metadata.name}", "[a]"}, {"$.metadata.name", "[a]"},
		{`.metadata.labels.app\.kubernetes\.io/name`, "[shop]"}, {".metadata.labels['app.kubernetes.io/name']", "[shop]"},
		{`.metadata.labels["app.kubernetes.io/name"]`, "[shop]"},
		{".spec.list[0].x", "[1]"}, {".spec.list[-1].x", "[2]"}, {".spec.list[*].x", "[1 2]"}, {".spec.list[].x", "[1 2]"},
		{".spec.list[2].x", "[]"}, {".spec.list.x", "[]"}, {".spec.on", "[true]"}, {".spec.nothing.deeper", "[]"}, {".metadata.name.x", "[]"},
		{".metadata.labels.*", "[shop]"}, {".spec[0]", "[]"},
	} {
		p, err := parseFieldPath(tt.path)
		if err != nil {
			t.Errorf("%s: %v", tt.path, err)
			continue
		}
		if got := fmt.Sprint(p.find(doc)); got != tt.want {
			t.Errorf("%s: got %s, want %s", tt.path, got, tt.want)
		}
	}
	for path, want := range map[string]string{
		".spec.list[0": "not closed", ".spec..x": "missing", ".spec.list[x]": "neither a number nor *", ".spec['x]": "not closed", ".spec.list[0]x": "a dot or a bracket", ".spec.": "missing",
	} {
		if _, err := parseFieldPath(path); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v, want %q", path, err, want)
		}
	}
}

func FuzzFieldPath(f *testing.F) {
	for _, seed := range []string{".a.b[0]", `.a\.b['c']`, "{.x[*]}", "["} {
		f.Add(seed)
	}
	var doc any
	if err := json.Unmarshal([]byte(`{"a":{"b":[1,{"c":null}]}}`), &doc); err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(_ *testing.T, text string) { // it neither panics nor hangs
		if p, err := parseFieldPath(text); err == nil {
			_ = p.find(doc)
		}
	})
}
