package image

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestWriter(t *testing.T) {
	src := t.TempDir()
	if err := os.WriteFile(filepath.Join(src, "three"), []byte("abc"), 0o640); err != nil {
		t.Fatal(err)
	}
	var buf bytes.Buffer
	w := NewWriter(&buf)
	w.File("init", 0o755, []byte("first"))
	w.File("a/b/two", 0o600, nil)
	if err := w.CopyTree("testdata", src); err != nil {
		t.Fatal(err)
	}
	if err := w.CopyTree("none", filepath.Join(src, "missing")); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	want := []string{"init 755 first", "a 755 ", "a/b 755 ", "a/b/two 600 ", "testdata 755 ", "testdata/three 640 abc", "TRAILER!!! 0 "}
	if d := cmp.Diff(want, members(t, buf.Bytes())); d != "" {
		t.Error(d)
	}
}

// members reads an archive back: "name mode data" of each.
func members(t *testing.T, b []byte) []string {
	t.Helper()
	var list []string
	for len(b) > 0 {
		if len(b)%4 != 0 || string(b[:6]) != "070701" {
			t.Fatalf("bad header at %d bytes from the end", len(b))
		}
		field := func(i int) int {
			n := 0
			for _, c := range b[6+8*i : 14+8*i] {
				n = n<<4 + bytes.IndexByte([]byte("0123456789ABCDEF"), c)
			}
			return n
		}
		mode, size, name := field(1), field(6), field(11)
		start := (110 + name + 3) &^ 3
		list = append(list, string(b[110:110+name-1])+" "+octal(mode&0o777)+" "+string(b[start:start+size]))
		b = b[(start+size+3)&^3:]
	}
	return list
}

// TestProgram: a program comes with its loader and its libraries, what two
// need once, and a static one alone.
func TestProgram(t *testing.T) {
	sh, err := exec.LookPath("sh")
	if err != nil {
		t.Fatal(err)
	}
	var buf bytes.Buffer
	w := NewWriter(&buf)
	for _, name := range []string{"one", "two"} {
		if err := w.Program(name, sh); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	count := map[string]int{}
	for _, m := range members(t, buf.Bytes()) {
		count[strings.TrimRight(filepath.Base(strings.Fields(m)[0]), "-.0123456789")]++
	}
	if count["one"] != 1 || count["two"] != 1 || count["libc.so"] != 1 {
		t.Errorf("got %v", count)
	}
	if err := NewWriter(&buf).Program("none", filepath.Join(t.TempDir(), "none")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a program that is not there: %v", err)
	}
}

func octal(n int) string {
	s := ""
	for ; n > 0; n >>= 3 {
		s = string(rune('0'+n&7)) + s
	}
	if s == "" {
		return "0"
	}
	return s
}

func TestWriterFails(t *testing.T) {
	f, err := os.Create(filepath.Join(t.TempDir(), "full"))
	if err != nil {
		t.Fatal(err)
	}
	f.Close()
	w := NewWriter(f)
	w.File("x", 0o600, nil)
	if err := w.Close(); err == nil {
		t.Error("an archive on a closed file closed without an error")
	}
}

func TestParseModinfo(t *testing.T) {
	for _, c := range []struct {
		name, in string
		want     []string
	}{
		{"nothing", "license=GPL\x00depends=\x00", nil},
		{"two", "depends=udp_tunnel,ip6_udp_tunnel\x00name=x\x00", []string{"udp_tunnel", "ip6_udp_tunnel"}},
		{"soft", "softdep=pre: crypto-a crypto-b post: late\x00depends=d\x00", []string{"crypto-a", "crypto-b", "d"}},
		{"soft, after only", "softdep=post: late\x00", nil},
	} {
		if got := parseModinfo(c.in); !slices.Equal(got, c.want) {
			t.Errorf("%s: got %q, want %q", c.name, got, c.want)
		}
	}
}

func TestModulesComeInOrder(t *testing.T) {
	gcc, err := exec.LookPath("gcc")
	if err != nil {
		if os.Getenv("BRINDLE_CI") == "1" {
			t.Fatal(err)
		}
		t.Skip("needs gcc to make modules")
	}
	dir := t.TempDir()
	module := func(name, depends string) {
		src := filepath.Join(dir, name+".c")
		code := `__attribute__((section(".modinfo"), used)) static const char d[] = "depends=` + depends + `";`
		if err := os.WriteFile(src, []byte(code), 0o600); err != nil {
			t.Fatal(err)
		}
		if out, err := exec.Command(gcc, "-c", "-o", filepath.Join(dir, name+".ko"), src).CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
	}
	module("top", "mid-dle,base")
	module("mid-dle", "base,top") // a circle
	module("base", "builtin")
	m, err := FindModules(dir)
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]bool{"top": true, "builtin": false, "base": true} {
		if ok, err := m.Need(name); ok != want || err != nil {
			t.Errorf("%s: got %v, %v; want %v", name, ok, err, want)
		}
	}
	var got []string
	for _, mod := range m.Order() {
		got = append(got, mod.Name)
	}
	if slices.Index(got, "base") > slices.Index(got, "mid_dle") || slices.Index(got, "mid_dle") > slices.Index(got, "top") || len(got) != 3 {
		t.Errorf("got %q: want base before mid_dle before top", got)
	}
	if _, err := FindModules(t.TempDir()); err == nil {
		t.Error("a folder without modules was taken")
	}
}
