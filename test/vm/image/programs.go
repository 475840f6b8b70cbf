package image

import (
	"debug/elf"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// Program adds a program of this machine as bin/NAME, with the libraries that
// it is linked to and the loader that it asks for, each where it lies here.
// Adding two programs adds a library that both need once.
func (w *Writer) Program(name, from string) error {
	if err := w.Copy("bin/"+name, from); err != nil {
		return fmt.Errorf("program %s: %w", name, err)
	}
	if err := w.linked(from); err != nil {
		return fmt.Errorf("program %s: %w", name, err)
	}
	return nil
}

// linked adds what an ELF file needs at its start.
func (w *Writer) linked(file string) error {
	f, err := elf.Open(file)
	if err != nil {
		return err
	}
	defer f.Close()
	for _, p := range f.Progs {
		if p.Type != elf.PT_INTERP {
			continue
		}
		loader := make([]byte, p.Filesz)
		if _, err := p.ReadAt(loader, 0); err != nil {
			return err
		}
		if err := w.library(strings.TrimRight(string(loader), "\x00")); err != nil {
			return err
		}
	}
	names, err := f.ImportedLibraries()
	if err != nil {
		return err
	}
	for _, name := range names {
		path, err := findLibrary(name)
		if err != nil {
			return err
		}
		if err := w.library(path); err != nil {
			return err
		}
	}
	return nil
}

// library adds a shared library with those that it needs, once.
func (w *Writer) library(path string) error {
	name := strings.TrimPrefix(path, "/")
	if w.libraries[name] {
		return nil
	}
	w.libraries[name] = true
	if err := w.Copy(name, path); err != nil {
		return err
	}
	return w.linked(path)
}

// findLibrary looks where the loader looks when nobody tells it anything.
func findLibrary(name string) (string, error) {
	for _, dir := range []string{"/lib/*-linux-gnu", "/usr/lib/*-linux-gnu", "/lib64", "/usr/lib64", "/lib", "/usr/lib"} {
		found, err := filepath.Glob(filepath.Join(dir, name))
		if err != nil {
			return "", err
		}
		if len(found) > 0 {
			return found[0], nil
		}
	}
	return "", fmt.Errorf("library %s: %w", name, os.ErrNotExist)
}
