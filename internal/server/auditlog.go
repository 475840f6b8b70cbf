package server

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"github.com/brindle-net/brindle/internal/files"
	"github.com/brindle-net/brindle/internal/store"
)

// Names of files in the folder of an audit log: the newest lines are in the
// first; audit.1.jsonl is the one before, and so on.
const (
	auditFile      = "audit.jsonl"
	auditStateFile = "state.json"
)

// maxLine is more than any line of an audit log has, in bytes.
const maxLine = 64 << 10

// auditLog is a log of bounded size: lines of JSON in files, one after the
// other.
type auditLog struct {
	cfg  AuditConfig
	file *os.File
	size int64
	last store.Revision // of the last line
}

// olderAudit is the name of the nth file, of which 0 is the newest.
func olderAudit(dir string, n int) string {
	if n == 0 {
		return filepath.Join(dir, auditFile)
	}
	return filepath.Join(dir, fmt.Sprintf("audit.%d.jsonl", n))
}

// openAuditLog opens a log to go on with it. What is left of a line that was
// being written when the program was killed goes.
func openAuditLog(cfg AuditConfig) (*auditLog, error) {
	if err := os.MkdirAll(cfg.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("open the audit log: %w", err)
	}
	l := &auditLog{cfg: cfg}
	for n := cfg.Files - 1; n >= 0; n-- { // the newest line of all
		err := readAuditFile(olderAudit(cfg.Dir, n), func(c Change) bool {
			if c.At != "" {
				l.last = store.Revision(c.At)
			}
			return true
		})
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("open the audit log: %w", err)
		}
	}
	if err := mendTail(olderAudit(cfg.Dir, 0)); err != nil {
		return nil, fmt.Errorf("open the audit log: %w", err)
	}
	return l, l.open()
}

// open opens the newest file.
func (l *auditLog) open() error {
	f, err := os.OpenFile(olderAudit(l.cfg.Dir, 0), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("open the audit log: %w", err)
	}
	info, err := f.Stat()
	if err != nil {
		return errors.Join(fmt.Errorf("open the audit log: %w", err), f.Close())
	}
	l.file, l.size = f, info.Size()
	return nil
}

// mendTail cuts off what follows the last end of a line.
func mendTail(path string) error {
	data, err := os.ReadFile(path) // its size is bounded
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if end := bytes.LastIndexByte(data, '\n') + 1; end < len(data) {
		return os.Truncate(path, int64(end))
	}
	return nil
}

// append writes lines in one go.
func (l *auditLog) append(lines []Change) error {
	if len(lines) == 0 {
		return nil
	}
	var b bytes.Buffer
	for _, c := range lines {
		line, err := json.Marshal(c)
		if err != nil {
			return fmt.Errorf("write the audit log: %w", err)
		}
		b.Write(line)
		b.WriteByte('\n')
	}
	if l.size > 0 && l.size+int64(b.Len()) > l.cfg.MaxBytes {
		if err := l.rotate(); err != nil {
			return err
		}
	}
	if _, err := l.file.Write(b.Bytes()); err != nil { // a part of it is worse than nothing
		return errors.Join(fmt.Errorf("write the audit log: %w", err), l.file.Truncate(l.size))
	}
	l.size += int64(b.Len())
	if at := lines[len(lines)-1].At; at != "" {
		l.last = store.Revision(at)
	}
	return nil
}

// rotate begins a new file, and forgets the oldest. When it fails, it can be
// done again.
func (l *auditLog) rotate() error {
	if err := l.sync(); err != nil {
		return err
	}
	if err := l.shift(); err != nil {
		return fmt.Errorf("rotate the audit log: %w", err)
	}
	full := l.file
	if err := l.open(); err != nil {
		return err
	}
	if err := full.Close(); err != nil {
		return fmt.Errorf("rotate the audit log: %w", err)
	}
	return nil
}

// shift makes room for a new file.
func (l *auditLog) shift() error {
	if _, err := os.Lstat(olderAudit(l.cfg.Dir, 0)); errors.Is(err, fs.ErrNotExist) {
		return nil // room was made, and the new file could not be
	}
	for n := l.cfg.Files - 1; n > 0; n-- {
		err := os.Rename(olderAudit(l.cfg.Dir, n-1), olderAudit(l.cfg.Dir, n))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	if l.cfg.Files == 1 {
		return os.Remove(olderAudit(l.cfg.Dir, 0))
	}
	return nil
}

// sync makes sure that the lines are on the disk.
func (l *auditLog) sync() error {
	if err := l.file.Sync(); err != nil {
		return fmt.Errorf("write the audit log: %w", err)
	}
	return nil
}

func (l *auditLog) close() error {
	if err := errors.Join(l.file.Sync(), l.file.Close()); err != nil {
		return fmt.Errorf("close the audit log: %w", err)
	}
	return nil
}

// readAuditFile calls line with every line of a file until it returns false.
// A line that cannot be read, such as a last one that is being written or one
// that is too long, is left out.
func readAuditFile(path string, line func(Change) bool) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	r, long := bufio.NewReaderSize(f, maxLine), false
	for {
		text, err := r.ReadSlice('\n')
		if errors.Is(err, bufio.ErrBufferFull) {
			long = true
			continue
		}
		var c Change
		if !long && json.Unmarshal(text, &c) == nil && c.Action != "" && !line(c) {
			return nil
		}
		long = false
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("read %s: %w", path, err)
		}
	}
}

// ErrNoAudit says that there is no audit log in a place.
var ErrNoAudit = errors.New("there is no audit log here")

// ReadAudit reads the audit log in a folder, or a single file of such lines:
// the changes that want accepts, oldest first, the newest most of them. Lines
// that are about the log itself, and not about a resource, are always among
// them. Without a log the error is ErrNoAudit.
func ReadAudit(path string, most int, want func(Change) bool) ([]Change, error) {
	var out []Change
	keep := func(c Change) bool {
		if c.Kind == "" || want(c) {
			if out = append(out, c); len(out) >= 2*most {
				out = slices.Clone(out[len(out)-most:])
			}
		}
		return true
	}
	files := []string{path}
	info, err := os.Stat(path)
	if err == nil && info.IsDir() {
		files = nil
		names, _ := filepath.Glob(filepath.Join(path, "audit.*.jsonl")) // the pattern is fine
		for n := len(names); n >= 0; n-- {
			files = append(files, olderAudit(path, n))
		}
	}
	found := false
	for _, f := range files {
		err := readAuditFile(f, keep)
		if errors.Is(err, fs.ErrNotExist) {
			continue // rotated away meanwhile
		}
		if found = true; err != nil {
			return nil, err
		}
	}
	if !found {
		return nil, fmt.Errorf("%s: %w", path, ErrNoAudit)
	}
	return out[max(0, len(out)-most):], nil
}

// readAuditState reads how far a log is; nothing if it was never noted.
func readAuditState(dir string) (auditState, error) {
	s := auditState{Known: map[string]store.Revision{}}
	data, err := os.ReadFile(filepath.Join(dir, auditStateFile))
	if errors.Is(err, fs.ErrNotExist) {
		return s, nil
	}
	if err == nil {
		err = json.Unmarshal(data, &s)
	}
	if err != nil {
		return auditState{Known: map[string]store.Revision{}}, fmt.Errorf("read how far the audit log is: %w", err)
	}
	if s.Known == nil {
		s.Known = map[string]store.Revision{}
	}
	return s, nil
}

// writeAuditState notes how far a log is, whole or not at all.
func writeAuditState(dir string, s auditState) error {
	data, err := json.Marshal(s)
	if err != nil {
		return fmt.Errorf("note how far the audit log is: %w", err)
	}
	if err := files.Write(filepath.Join(dir, auditStateFile), data, 0o600); err != nil {
		return fmt.Errorf("note how far the audit log is: %w", err)
	}
	return nil
}
