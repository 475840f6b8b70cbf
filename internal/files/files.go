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
	"syscall"
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
// returned, and the file stays as it was. What writers that were killed left in
// the folder goes.
func Replace(path string, mode fs.FileMode, write func(io.Writer) error) error {
	return replace(path, mode, write, (*os.File).Sync)
}

func replace(path string, mode fs.FileMode, write func(io.Writer) error, sync func(*os.File) error) error {
	tidy(filepath.Dir(path))
	if err := swap(path, mode, write, sync); err != nil {
		return err
	}
	return syncDir(filepath.Dir(path), sync)
}

// Swap is Write without the disk: after a power loss the file may be the old
// one, the new one, or empty. It is for what such a loss ends anyway. It is quick
// in a folder of many files, and leaves to others to tidy up there.
func Swap(path string, body []byte, mode fs.FileMode) error {
	write := func(w io.Writer) error {
		_, err := w.Write(body)
		return err
	}
	return swap(path, mode, write, func(*os.File) error { return nil })
}

// begun is what the name of a file begins with while it is written. Digits
// follow. The folder may be anybody's, so the name says whose it is.
const begun = ".brindle-new-"

// Unfinished reports whether a name in a folder is that of a file that was
// being written, by a process that was killed if nobody writes there now.
func Unfinished(name string) bool {
	rest, ok := strings.CutPrefix(name, begun)
	return ok && rest != "" && strings.Trim(rest, "0123456789") == ""
}

// tidy removes what is unfinished and has no writer any more: a writer holds a
// lock on it. What cannot be removed stays, for nobody reads it.
func tidy(dir string) {
	list, err := os.ReadDir(dir)
	if err != nil {
		return // whoever writes there will say so
	}
	for _, e := range list {
		if !Unfinished(e.Name()) || !e.Type().IsRegular() {
			continue
		}
		path := filepath.Join(dir, e.Name())
		f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NOFOLLOW, 0)
		if err != nil {
			continue
		}
		if syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB) == nil {
			_ = os.Remove(path) // see above
		}
		f.Close()
	}
}

// begin makes a file to write to, readable by its owner only, and takes the lock
// on it, which end gives free. Where the file system has no locks nobody removes
// it.
func begin(dir string) (f *os.File, end func(), err error) {
	for {
		if f, err = os.CreateTemp(dir, begun+"*"); err != nil {
			return nil, nil, err
		}
		_ = syscall.Flock(int(f.Fd()), syscall.LOCK_EX)
		// The lock outlives f, which is closed before the file has its place.
		syscall.ForkLock.RLock()
		lock, err := syscall.Dup(int(f.Fd()))
		if err == nil {
			syscall.CloseOnExec(lock)
		}
		syscall.ForkLock.RUnlock()
		if err != nil {
			return nil, nil, errors.Join(err, f.Close(), os.Remove(f.Name()))
		}
		end = func() { syscall.Close(lock) }
		var stat syscall.Stat_t
		if syscall.Fstat(lock, &stat) == nil && stat.Nlink == 0 { // somebody tidied up before it was locked
			f.Close()
			end()
			continue
		}
		return f, end, nil
	}
}

// swap writes a new file beside the old one and puts it in its place.
func swap(path string, mode fs.FileMode, write func(io.Writer) error, sync func(*os.File) error) error {
	f, end, err := begin(filepath.Dir(path))
	if err != nil {
		return err
	}
	defer end()
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
// loss, as far as its file system can: where folders cannot be synced (fsync(2):
// EINVAL), nobody can do more.
func SyncDir(dir string) error { return syncDir(dir, (*os.File).Sync) }

func syncDir(dir string, sync func(*os.File) error) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	err = sync(d)
	if errors.Is(err, syscall.EINVAL) || errors.Is(err, syscall.ENOTSUP) {
		err = nil
	}
	return errors.Join(err, d.Close())
}
