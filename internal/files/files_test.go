package files

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"syscall"
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

// TestFolderThatCannotBeSynced: a file system that syncs no folders is no error,
// a disk that fails is one. The file is the new one in any case.
func TestFolderThatCannotBeSynced(t *testing.T) {
	broken := errors.New("the disk is gone")
	for name, tt := range map[string]struct{ says, want error }{
		"there is no such thing": {syscall.EINVAL, nil},
		"not supported":          {&fs.PathError{Op: "sync", Err: syscall.ENOTSUP}, nil},
		"input/output error":     {&fs.PathError{Op: "sync", Err: syscall.EIO}, syscall.EIO},
		"another":                {broken, broken},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "f")
			err := replace(path, 0o600, func(w io.Writer) error { return nil }, func(f *os.File) error {
				if info, err := f.Stat(); err != nil || !info.IsDir() {
					return err
				}
				return tt.says
			})
			if !errors.Is(err, tt.want) || (err == nil) != (tt.want == nil) {
				t.Errorf("error is %v, want %v", err, tt.want)
			}
			if _, err := os.Stat(path); err != nil {
				t.Error(err)
			}
		})
	}
	if err := SyncDir("/proc/self"); err != nil { // one whose folders cannot be
		t.Error(err)
	}
	if err := replace(filepath.Join(t.TempDir(), "f"), 0o600, func(w io.Writer) error { return nil }, func(*os.File) error { return syscall.EINVAL }); err == nil {
		t.Error("a file that cannot be synced is written")
	}
}

// TestUnfinishedGoes: what a writer that was killed left goes with the next write
// to the folder, and nothing else: not what somebody writes, nor what is not ours.
func TestUnfinishedGoes(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{begun + "1234", begun + "mine", ".new-77", begun} {
		if err := os.WriteFile(filepath.Join(dir, name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink("f", filepath.Join(dir, begun+"5")); err != nil {
		t.Fatal(err)
	}
	err := Replace(filepath.Join(dir, "f"), 0o600, func(w io.Writer) error {
		return Write(filepath.Join(dir, "g"), nil, 0o600) // while f is written
	})
	if err != nil {
		t.Fatal(err)
	}
	list, err := os.ReadDir(dir)
	var names []string
	for _, e := range list {
		names = append(names, e.Name())
	}
	if want := []string{begun, begun + "5", begun + "mine", ".new-77", "f", "g"}; err != nil || !slices.Equal(names, want) {
		t.Errorf("there is %v, %v; want %v", names, err, want)
	}
}

// TestManyWriters: writers do not take each other's work for left over.
func TestManyWriters(t *testing.T) {
	dir := t.TempDir()
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			for range 20 {
				if err := Write(filepath.Join(dir, fmt.Sprint(i%3)), []byte("x"), 0o600); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	if list, err := os.ReadDir(dir); err != nil || len(list) != 3 {
		t.Errorf("there is %v, %v", list, err)
	}
}
