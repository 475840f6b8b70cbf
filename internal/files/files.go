// Package files replaces files whole: whoever reads one finds what was there
// before or what is there after, never a part. It imports nothing but the
// system, for the smallest of programs use it.
package files

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// Write replaces a file, or makes it, and returns when it is on the disk. Until
// then what was there before is there; at no moment has anybody more rights to
// it than mode gives. Its folder must exist.
func Write(path string, body []byte, mode fs.FileMode) error {
	return Replace(path, mode, func(w io.Writer) error {
		_, err := w.Write(body)
		return err
	})
}

// Replace is Write of what write writes. When that fails its error is
// returned, and the file stays as it was.
func Replace(path string, mode fs.FileMode, write func(io.Writer) error) error {
	if err := swap(path, mode, write, (*os.File).Sync); err != nil {
		return err
	}
	return SyncDir(filepath.Dir(path))
}

// Swap is Write without the disk: after a power loss the file may be the old
// one, the new one, or empty. It is for what such a loss ends anyway.
func Swap(path string, body []byte, mode fs.FileMode) error {
	write := func(w io.Writer) error {
		_, err := w.Write(body)
		return err
	}
	return swap(path, mode, write, func(*os.File) error { return nil })
}

// begun is what the name of a file begins with while it is written.
const begun = ".new-"

// Unfinished reports whether a name in a folder is that of a file that was
// being written, by a process that was killed if nobody writes there now.
func Unfinished(name string) bool { return strings.HasPrefix(name, begun) }

// swap writes a new file beside the old one and puts it in its place.
func swap(path string, mode fs.FileMode, write func(io.Writer) error, sync func(*os.File) error) error {
	f, err := os.CreateTemp(filepath.Dir(path), begun+"*") // readable by its owner only
	if err != nil {
		return err
	}
	if err = write(f); err == nil {
		err = f.Chmod(mode)
	}
	if err == nil {
		err = sync(f)
	}
	if err = errors.Join(err, f.Close()); err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	return nil
}

// SyncDir makes what was renamed, made and removed in a folder survive a power
// loss.
func SyncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
