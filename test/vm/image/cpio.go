// Package image builds the small initial file systems that virtual machines
// of the tests boot from: cpio archives as the kernel unpacks them, and the
// kernel modules that they hold, in the order in which they can be loaded.
package image

import (
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
)

// Job is what the first process of a machine is to run: /test with Args, in
// Dir. It lies at /job.json.
type Job struct {
	Args []string `json:"args"`
	Env  []string `json:"env"`
	Dir  string   `json:"dir"`
}

// Writer writes one archive in the format "newc" (kernel documentation,
// driver-api/early-userspace/buffer-format). The kernel takes several
// archives one after the other, so a cached one can be put before a fresh one.
type Writer struct {
	out       io.Writer
	inode     uint32
	dirs      map[string]bool
	libraries map[string]bool
	err       error // the first one; nothing is written after it
}

// NewWriter starts an archive on out.
func NewWriter(out io.Writer) *Writer {
	return &Writer{out: out, dirs: map[string]bool{}, libraries: map[string]bool{}}
}

// Dir adds a folder with those above it. Adding it twice adds it once.
func (w *Writer) Dir(name string) {
	name = path.Clean(name)
	if name == "." || name == "/" || w.dirs[name] {
		return
	}
	w.Dir(path.Dir(name))
	w.dirs[name] = true
	w.entry(name, 0o040755, nil)
}

// File adds a file with the folders above it.
func (w *Writer) File(name string, perm fs.FileMode, data []byte) {
	w.Dir(path.Dir(name))
	w.entry(path.Clean(name), 0o100000|uint32(perm.Perm()), data)
}

// Copy adds a file of this machine.
func (w *Writer) Copy(name, from string) error {
	data, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	info, err := os.Stat(from)
	if err != nil {
		return err
	}
	w.File(name, info.Mode(), data)
	return w.err
}

// CopyTree adds the regular files below a folder of this machine; a folder
// that is not there adds nothing.
func (w *Writer) CopyTree(name, from string) error {
	if _, err := os.Stat(from); os.IsNotExist(err) {
		return nil
	}
	return filepath.WalkDir(from, func(p string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		rel, err := filepath.Rel(from, p)
		if err != nil {
			return err
		}
		return w.Copy(path.Join(name, filepath.ToSlash(rel)), p)
	})
}

// Close writes the end of the archive and returns the first error of all.
func (w *Writer) Close() error {
	w.entry("TRAILER!!!", 0, nil)
	return w.err
}

// entry writes one member: a header of 13 numbers, name and data, each padded
// to four bytes.
func (w *Writer) entry(name string, mode uint32, data []byte) {
	if w.err != nil {
		return
	}
	w.inode++
	header := "070701"
	for _, n := range []int{int(w.inode), int(mode), 0, 0, 1, 0, len(data), 0, 0, 0, 0, len(name) + 1, 0} {
		header += fmt.Sprintf("%08X", n)
	}
	head := header + name + "\x00"
	for _, part := range [][]byte{[]byte(head), pad(len(head)), data, pad(len(data))} {
		if _, err := w.out.Write(part); err != nil {
			w.err = fmt.Errorf("write %s to the archive: %w", name, err)
			return
		}
	}
}

// pad is what brings n bytes to a multiple of four.
func pad(n int) []byte { return make([]byte, (4-n%4)%4) }
