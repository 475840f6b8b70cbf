package cli

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/brindle-net/brindle/internal/files"
)

// installFile is one file as it should be.
type installFile struct {
	path string
	body []byte
	mode fs.FileMode
	link string // target of a symbolic link; "": a plain file
	conf bool   // a network configuration: first to go, last to come
}

// sum is what a file is recognised by.
func (f installFile) sum() string {
	if f.link != "" {
		return "link " + f.link
	}
	h := sha256.Sum256(f.body)
	return hex.EncodeToString(h[:])
}

// installNote says what was installed, by which version.
type installNote struct {
	Version int                    `json:"version"`
	Build   string                 `json:"build"`
	Files   map[string]installedAs `json:"files"` // by path
}

// installedAs is what may be at a path: the file before and after an
// installation that was cut short, else one.
type installedAs struct {
	Sums []string `json:"sums"`
	Conf bool     `json:"conf,omitempty"`
}

// noteVersion is the version of the file that installNote is kept in.
const noteVersion = 1

// installer puts files where others look for them, and knows them again.
type installer struct {
	state string
	build string
	force bool
	out   io.Writer
}

// install brings files to what they should be, in their order. Nothing is
// touched where one of them is somebody else's.
func (in installer) install(files []installFile) error {
	note, err := in.note()
	if err != nil {
		return err
	}
	if !in.force && newer(note.Build, in.build) {
		return fmt.Errorf("version %s has installed what is there, which is newer than this one (%s): install that version, or give --force", note.Build, in.build)
	}
	before := make([]string, len(files))
	var errs []error
	for i, f := range files {
		if before[i], err = sumAt(f.path); err != nil {
			errs = append(errs, err)
		} else if theirs := before[i] != "" && before[i] != f.sum() && !slices.Contains(note.Files[f.path].Sums, before[i]); theirs && !in.force {
			errs = append(errs, fmt.Errorf("%s was not written by this program, or was changed since: move it away, or give --force, which keeps it as %s%s", f.path, filepath.Base(f.path), replacedSuffix))
		}
	}
	if err := errors.Join(errs...); err != nil {
		return err
	}
	next := installNote{Version: noteVersion, Build: in.build, Files: maps.Clone(note.Files)}
	known := maps.Clone(note.Files)
	for _, f := range files {
		as := next.Files[f.path]
		if !slices.Contains(as.Sums, f.sum()) {
			as.Sums = append(slices.Clone(as.Sums), f.sum())
		}
		as.Conf = f.conf
		next.Files[f.path] = as
	}
	if err := in.write(next, note); err != nil {
		return err
	}
	for i, f := range files {
		if err := in.put(f, before[i], slices.Contains(known[f.path].Sums, before[i])); err != nil {
			return err
		}
	}
	done := installNote{Version: noteVersion, Build: in.build, Files: maps.Clone(next.Files)}
	for _, f := range files {
		done.Files[f.path] = installedAs{Sums: []string{f.sum()}, Conf: f.conf}
	}
	return in.write(done, next)
}

// put brings one file to what it should be. What is there and not ours is kept
// beside it.
func (in installer) put(f installFile, before string, ours bool) error {
	if before == f.sum() {
		if f.link == "" {
			if err := os.Chmod(f.path, f.mode); err != nil {
				return fmt.Errorf("install: %w", err)
			}
		}
		fmt.Fprintf(in.out, "unchanged %s\n", f.path)
		return nil
	}
	if err := os.MkdirAll(filepath.Dir(f.path), 0o755); err != nil {
		return fmt.Errorf("install: %w", err)
	}
	if before != "" && !ours {
		if err := in.keep(f.path); err != nil {
			return err
		}
	}
	var err error
	if f.link == "" {
		err = files.Write(f.path, f.body, f.mode)
	} else {
		err = link(f.link, f.path)
	}
	if err != nil {
		return fmt.Errorf("install %s: %w", f.path, err)
	}
	fmt.Fprintf(in.out, "installed %s\n", f.path)
	return nil
}

// link makes a symbolic link, at once in the place of what is there.
func link(target, path string) error {
	dir, err := os.MkdirTemp(filepath.Dir(path), ".new-*")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	fresh := filepath.Join(dir, "link")
	if err := os.Symlink(target, fresh); err != nil {
		return err
	}
	return os.Rename(fresh, path)
}

// replacedSuffix is what the name of a file ends with whose place another has
// taken. No runtime reads a file of such a name.
const replacedSuffix = ".replaced"

// keep moves a file out of the way, beside where it was. An older one that was
// kept there stays, too.
func (in installer) keep(path string) error {
	to := path + replacedSuffix
	for i := 2; ; i++ {
		if _, err := os.Lstat(to); errors.Is(err, fs.ErrNotExist) {
			break
		} else if err != nil {
			return fmt.Errorf("keep what is there: %w", err)
		}
		to = path + replacedSuffix + "." + strconv.Itoa(i)
	}
	if err := os.Rename(path, to); err != nil {
		return fmt.Errorf("keep what is there: %w", err)
	}
	fmt.Fprintf(in.out, "kept      %s\n", to)
	return nil
}

// discard removes a configuration that another has taken the place of.
func (in installer) discard(path string) error {
	if _, err := os.Lstat(path); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return in.keep(path)
}

// uninstall removes what was installed, configurations first. With workloads
// alive, programs stay: the runtime needs them to end the workloads.
func (in installer) uninstall(live int) error {
	note, err := in.note()
	if err != nil {
		return err
	}
	if len(note.Files) == 0 {
		fmt.Fprintln(in.out, "nothing is installed")
		return nil
	}
	left := installNote{Version: noteVersion, Build: note.Build, Files: maps.Clone(note.Files)}
	var errs []error
	for _, path := range inOrder(note.Files) {
		as := note.Files[path]
		sum, err := sumAt(path)
		switch {
		case err != nil:
			errs = append(errs, err)
			continue
		case sum == "":
		case !slices.Contains(as.Sums, sum) && !in.force:
			errs = append(errs, fmt.Errorf("%s was changed since it was installed: remove it by hand, or give --force", path))
			continue
		case !as.Conf && live > 0 && !in.force:
			errs = append(errs, fmt.Errorf("%s stays: %d workload interfaces of this host live, and the runtime needs it to remove them: uninstall again when they have ended", path, live))
			continue
		default:
			if err := os.Remove(path); err != nil {
				errs = append(errs, fmt.Errorf("uninstall: %w", err))
				continue
			}
			fmt.Fprintf(in.out, "removed   %s\n", path)
		}
		delete(left.Files, path)
	}
	if err := in.write(left, note); err != nil {
		errs = append(errs, err)
	}
	if len(errs) > 0 {
		return fmt.Errorf("%w:\n%w", errKept, errors.Join(errs...))
	}
	return nil
}

// inOrder are the paths of a note: configurations, then links and programs.
func inOrder(files map[string]installedAs) []string {
	paths := slices.Sorted(maps.Keys(files))
	slices.SortStableFunc(paths, func(a, b string) int {
		switch {
		case files[a].Conf == files[b].Conf:
			return strings.Compare(b, a) // brindle-ipam is a link to brindle-cni
		case files[a].Conf:
			return -1
		}
		return 1
	})
	return paths
}

// note reads what was installed before.
func (in installer) note() (installNote, error) {
	note := installNote{Files: map[string]installedAs{}}
	data, err := os.ReadFile(in.state)
	if errors.Is(err, fs.ErrNotExist) {
		return note, nil
	}
	if err == nil {
		err = json.Unmarshal(data, &note)
	}
	if err == nil && note.Version > noteVersion {
		err = fmt.Errorf("version %d is not known: a newer version of this program has written it: use that one", note.Version)
	}
	if err != nil {
		return note, fmt.Errorf("read what was installed (%s): %w", in.state, err)
	}
	if note.Files == nil {
		note.Files = map[string]installedAs{}
	}
	return note, nil
}

// write stores what is installed by now, if that is something else than was
// noted; nothing: the file goes.
func (in installer) write(note, old installNote) error {
	if len(note.Files) == 0 {
		if err := os.Remove(in.state); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("note what is installed: %w", err)
		}
		return nil
	}
	data, err := json.MarshalIndent(note, "", "  ")
	if err != nil {
		return err
	}
	if was, err := json.MarshalIndent(old, "", "  "); err == nil && string(was) == string(data) {
		return nil
	}
	err = os.MkdirAll(filepath.Dir(in.state), 0o700)
	if err == nil {
		err = files.Write(in.state, append(data, '\n'), 0o600)
	}
	if err != nil {
		return fmt.Errorf("note what is installed: %w", err)
	}
	return nil
}

// sumAt is what is at a path; "": nothing.
func sumAt(path string) (string, error) {
	info, err := os.Lstat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return "", nil
	case err != nil:
		return "", err
	case info.Mode()&fs.ModeSymlink != 0:
		target, err := os.Readlink(path)
		return installFile{link: target}.sum(), err
	case !info.Mode().IsRegular():
		return "", fmt.Errorf("%s is no plain file: move it away", path)
	}
	body, err := os.ReadFile(path)
	return installFile{body: body}.sum(), err
}

// newer reports whether version a is known to come after b. Versions are those
// of git describe: v1.2.3, and v1.2.3-4-gabcdef four commits later.
func newer(a, b string) bool {
	x, ok := versionNumbers(a)
	y, ok2 := versionNumbers(b)
	return ok && ok2 && slices.Compare(x, y) > 0
}

func versionNumbers(v string) ([]int, bool) {
	v, ok := strings.CutPrefix(v, "v")
	release, after, _ := strings.Cut(strings.TrimSuffix(v, "-dirty"), "-")
	commits, _, _ := strings.Cut(after, "-g")
	var out []int
	for _, part := range append(strings.Split(release, "."), commits) {
		n, err := strconv.Atoi(part)
		if err != nil && part != "" {
			return nil, false
		}
		out = append(out, n)
	}
	return out, ok && len(out) == 4
}
