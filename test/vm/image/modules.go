package image

import (
	"bytes"
	"debug/elf"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
)

// Module is one kernel module ready to be loaded.
type Module struct {
	Name string
	Data []byte
}

// Modules are those below a folder of a kernel package (lib/modules/VERSION).
// Debian's packages come without modules.dep, so what a module needs is read
// out of the module itself.
type Modules struct {
	paths  map[string]string // by name, with _ for -
	loaded map[string]bool
	order  []Module
}

// FindModules looks for the modules below a folder.
func FindModules(dir string) (*Modules, error) {
	m := &Modules{paths: map[string]string{}, loaded: map[string]bool{}}
	err := filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		base := strings.TrimSuffix(d.Name(), ".xz")
		if name, ok := strings.CutSuffix(base, ".ko"); ok && !d.IsDir() {
			m.paths[moduleName(name)] = p
		}
		return nil
	})
	if err == nil && len(m.paths) == 0 {
		err = fmt.Errorf("no kernel module below %s", dir)
	}
	return m, err
}

// Need adds a module behind all that it needs. It reports whether there is
// one of that name; one that is built into the kernel is not.
func (m *Modules) Need(name string) (bool, error) {
	name = moduleName(name)
	p, ok := m.paths[name]
	if !ok || m.loaded[name] {
		return ok, nil
	}
	m.loaded[name] = true // before what it needs: a circle must end
	data, err := readModule(p)
	if err != nil {
		return true, err
	}
	needs, err := dependencies(data)
	if err != nil {
		return true, fmt.Errorf("read %s: %w", p, err)
	}
	for _, n := range needs {
		if _, err := m.Need(n); err != nil {
			return true, err
		}
	}
	m.order = append(m.order, Module{name, data})
	return true, nil
}

// Order are the modules needed so far, in the order to load them.
func (m *Modules) Order() []Module { return slices.Clone(m.order) }

func moduleName(s string) string { return strings.ReplaceAll(s, "-", "_") }

// readModule reads a module, unpacking it if need be.
func readModule(p string) ([]byte, error) {
	if !strings.HasSuffix(p, ".xz") {
		return os.ReadFile(p)
	}
	data, err := exec.Command("xz", "-dc", p).Output()
	if err != nil {
		return nil, fmt.Errorf("unpack %s: %w", p, err)
	}
	return data, nil
}

// dependencies reads the section .modinfo: strings "key=value", each ended by
// a zero byte.
func dependencies(module []byte) ([]string, error) {
	f, err := elf.NewFile(bytes.NewReader(module))
	if err != nil {
		return nil, err
	}
	section := f.Section(".modinfo")
	if section == nil {
		return nil, fmt.Errorf("no section .modinfo")
	}
	data, err := section.Data()
	if err != nil {
		return nil, err
	}
	return parseModinfo(string(data)), nil
}

// parseModinfo returns the modules that depends= and softdep=pre: name.
func parseModinfo(info string) []string {
	var needs []string
	for entry := range strings.SplitSeq(info, "\x00") {
		key, value, _ := strings.Cut(entry, "=")
		switch key {
		case "depends":
			for n := range strings.SplitSeq(value, ",") {
				if n != "" {
					needs = append(needs, n)
				}
			}
		case "softdep":
			pre, ok := strings.CutPrefix(value, "pre: ")
			pre, _, _ = strings.Cut(pre, "post:")
			if ok {
				needs = append(needs, strings.Fields(pre)...)
			}
		}
	}
	return needs
}
