package files

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
)

// TestWrite has each way replace a file, and leave it alone when it cannot.
func TestWrite(t *testing.T) {
	cut := errors.New("cut short")
	for name, write := range map[string]func(path, body string, fail error) error{
		"write": func(path, body string, fail error) error {
			return Replace(path, 0o640, func(w io.Writer) error {
				list, err := os.ReadDir(filepath.Dir(path))
				if err != nil || !Unfinished(list[0].Name()) || Unfinished(filepath.Base(path)) {
					return fmt.Errorf("unfinished is not what is: %v, %w", list, err)
				}
				_, err = io.WriteString(w, body)
				return errors.Join(err, fail)
			})
		},
		"swap": func(path, body string, fail error) error {
			if fail != nil { // there is no folder to write to
				return errors.Join(fail, Swap(filepath.Join(path, "x"), nil, 0o640))
			}
			return Swap(path, []byte(body), 0o640)
		},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			path := filepath.Join(dir, "f")
			want := func(body string) {
				t.Helper()
				got, err := os.ReadFile(path)
				info, serr := os.Stat(path)
				if err != nil || serr != nil || string(got) != body || info.Mode() != 0o640 {
					t.Errorf("%q with mode %v, %v, %v; want %q", got, info.Mode(), err, serr, body)
				}
				if list, err := os.ReadDir(dir); err != nil || len(list) != 1 {
					t.Errorf("the folder holds %v, %v", list, err)
				}
			}
			for i := range 2 {
				body := fmt.Sprintf("body %d", i)
				if err := write(path, body, nil); err != nil {
					t.Fatal(err)
				}
				want(body)
			}
			if err := write(path, "half", cut); !errors.Is(err, cut) {
				t.Errorf("error is %v", err)
			}
			want("body 1")
		})
	}
	if err := Write(filepath.Join(t.TempDir(), "no", "f"), nil, 0o600); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("without a folder: %v", err)
	}
	dir := filepath.Join(t.TempDir(), "d")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := Write(dir, []byte("x"), 0o600); err == nil {
		t.Error("a folder was replaced by a file")
	}
	if list, _ := os.ReadDir(filepath.Dir(dir)); len(list) != 1 {
		t.Errorf("it left %v behind", list)
	}
}
