package ipip

import (
	"bytes"
	_ "embed" // the compiled programs
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/rlimit"
	"golang.org/x/sys/unix"
)

//go:generate bpf/generate.sh

//go:embed bpf/ipip.o
var object []byte

// tables are the maps that the programs share. Their names are those in bpf.
type tables struct {
	Counts    *ebpf.Map `ebpf:"counts"`
	Hosts     *ebpf.Map `ebpf:"hosts"`
	Networks  *ebpf.Map `ebpf:"networks"`
	Strict    *ebpf.Map `ebpf:"strict"`
	Strangers *ebpf.Map `ebpf:"strangers"`
	Paths     *ebpf.Map `ebpf:"paths"`
	Hops      *ebpf.Map `ebpf:"hops"`
	Slots     *ebpf.Map `ebpf:"slots"`
}

// programs are made for one set of settings.
type programs struct {
	usual
	plain
}

// usual are the programs that every host needs.
type usual struct {
	Encapsulate         *ebpf.Program `ebpf:"encapsulate"`
	DecapsulateEthernet *ebpf.Program `ebpf:"decapsulate_ethernet"`
}

// plain is for interfaces without Ethernet headers: loaded when there is one.
type plain struct {
	DecapsulatePlain *ebpf.Program `ebpf:"decapsulate_plain"`
}

// programNames are the names that the kernel has for the programs. It keeps 15
// letters.
var programNames = map[string]string{
	"encapsulate": programPrefix + "encap", "decapsulate_ethernet": programPrefix + "decap", "decapsulate_plain": programPrefix + "plain",
}

// programPrefix is how our programs begin, where others attach theirs.
const programPrefix = "brindle_"

// settings are what is fixed in the programs when they are loaded.
type settings struct {
	local netip.Addr
	index uint32
	mac   [6]byte
}

func (t *tables) all() map[string]**ebpf.Map {
	return map[string]**ebpf.Map{
		"counts": &t.Counts, "hosts": &t.Hosts, "networks": &t.Networks, "strict": &t.Strict,
		"strangers": &t.Strangers, "paths": &t.Paths, "hops": &t.Hops, "slots": &t.Slots,
	}
}

func (t *tables) close() error {
	var failed error
	for _, m := range t.all() {
		if *m != nil {
			failed = errors.Join(failed, (*m).Close())
		}
	}
	return failed
}

// unpin lets the tables go with the last program and process that use them.
func (t *tables) unpin() error {
	var failed error
	for _, m := range t.all() {
		failed = errors.Join(failed, (*m).Unpin())
	}
	return failed
}

func (p *programs) close() {
	if p != nil {
		p.Encapsulate.Close()
		p.DecapsulateEthernet.Close()
		p.DecapsulatePlain.Close() // also when it was never loaded
	}
}

func readObject() (*ebpf.CollectionSpec, error) {
	spec, err := ebpf.LoadCollectionSpecFromReader(bytes.NewReader(object))
	if err != nil {
		return nil, fmt.Errorf("read the compiled programs for IP in IP: %w", err)
	}
	return spec, nil
}

// openTables opens the tables pinned in dir, or makes and pins them. A table
// of another shape is another version's: a fresh one takes its place, and the
// old one goes with the programs that use it.
func openTables(dir string, log *slog.Logger) (tables, error) {
	var t tables
	spec, err := readObject()
	if err != nil {
		return t, err
	}
	if err := rlimit.RemoveMemlock(); err != nil {
		return t, fmt.Errorf("allow BPF tables to be locked in memory: %w", err)
	}
	for name, m := range t.all() {
		want := spec.Maps[name]
		want.Pinning = ebpf.PinByName
		opts := ebpf.MapOptions{PinPath: dir}
		*m, err = ebpf.NewMapWithOptions(want, opts)
		if errors.Is(err, ebpf.ErrMapIncompatible) {
			log.Info("a table for IP in IP of another version was replaced", "table", name)
			if err = os.Remove(filepath.Join(dir, name)); err == nil {
				*m, err = ebpf.NewMapWithOptions(want, opts)
			}
		}
		if err != nil {
			return t, errors.Join(fmt.Errorf("open table %s for IP in IP in %s: %w", name, dir, err), t.close())
		}
	}
	return t, nil
}

// load loads the programs that into points to a struct of, with settings fixed
// in them.
func load(s settings, t *tables, into any) error {
	spec, err := readObject()
	if err != nil {
		return err
	}
	for name, value := range map[string]any{"local_address": s.local.As4(), "tunnel_index": s.index, "tunnel_mac": s.mac} {
		if err := spec.Variables[name].Set(value); err != nil {
			return fmt.Errorf("set %s in the programs for IP in IP: %w", name, err)
		}
	}
	for name, program := range spec.Programs {
		program.Name = programNames[name]
	}
	replace := map[string]*ebpf.Map{}
	for name, m := range t.all() {
		replace[name] = *m
	}
	if err := spec.LoadAndAssign(into, &ebpf.CollectionOptions{MapReplacements: replace}); err != nil {
		return fmt.Errorf("load the programs for IP in IP: %w", err)
	}
	return nil
}

// mountBPF makes dir a folder of a BPF file system. The usual place for them
// is empty on a host where nobody has mounted one yet: then it gets one.
func mountBPF(dir string) error {
	var st unix.Statfs_t
	if above := filepath.Dir(dir); unix.Statfs(above, &st) == nil && st.Type == unix.SYSFS_MAGIC {
		if err := unix.Mount("bpf", above, "bpf", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, "mode=0700"); err != nil {
			return fmt.Errorf("mount a BPF file system at %s: %w", above, err)
		}
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("folder for BPF tables: %w", err)
	}
	on, err := onBPF(dir)
	if err != nil || on {
		return err
	}
	if err := unix.Mount("bpf", dir, "bpf", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, "mode=0700"); err != nil {
		return fmt.Errorf("mount a BPF file system at %s: %w", dir, err)
	}
	return nil
}

// unmountBPF removes dir, and the file system that was mounted for it.
func unmountBPF(dir string) error {
	if _, err := os.Stat(dir); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	above, err := onBPF(filepath.Dir(dir))
	if err != nil {
		return err
	}
	if !above {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil && !errors.Is(err, unix.EINVAL) {
			return fmt.Errorf("unmount %s: %w", dir, err)
		}
	}
	if err := os.Remove(dir); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("folder for BPF tables: %w", err)
	}
	return nil
}

func onBPF(dir string) (bool, error) {
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return false, fmt.Errorf("file system of %s: %w", dir, err)
	}
	return st.Type == unix.BPF_FS_MAGIC, nil
}
