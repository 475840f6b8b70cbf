package workload

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"github.com/brindle-net/brindle/internal/agentapi"
	"github.com/brindle-net/brindle/internal/files"
)

// delegationVersion is the version of the files that delegations are kept in.
const delegationVersion = 1

// delegation says that an IPAM plugin of the runtime was asked for the
// addresses of an attachment, and everything that it takes to give them back:
// the configuration may be another by then, or gone. It is written before the
// plugin is asked, and removed after the plugin has taken them back. Unlike a
// record it survives a reboot, as the plugin's own notes do.
type delegation struct {
	Version int                  `json:"version"`
	Handle  string               `json:"handle"`
	Plugin  string               `json:"plugin"`
	Ref     agentapi.WorkloadRef `json:"ref"`
	Env     agentapi.CNIEnv      `json:"env"`
	Config  json.RawMessage      `json:"config"`
	Result  json.RawMessage      `json:"result,omitempty"` // what the plugin answered; none: it never did
}

// delegations are those of this host, by handle.
type delegations struct {
	dir string // "": kept in memory only

	mu       sync.Mutex // guards everything below
	byHandle map[string]delegation
}

// openDelegations reads what earlier agents left. What cannot be read is said
// and left alone: its addresses are given back by the configuration.
func openDelegations(dir string, log *slog.Logger) *delegations {
	ds := &delegations{dir: dir, byHandle: map[string]delegation{}}
	if dir == "" {
		return ds
	}
	files, err := filepath.Glob(filepath.Join(dir, "*.json"))
	if err != nil {
		log.ErrorContext(context.Background(), "delegated addresses cannot be read", "err", err)
	}
	for _, file := range files {
		var d delegation
		data, err := os.ReadFile(file)
		if err == nil {
			err = json.Unmarshal(data, &d)
		}
		if err == nil && (d.Version < 1 || d.Version > delegationVersion+1 || d.Handle == "" || d.Plugin == "") {
			err = fmt.Errorf("version %d is not known: this agent reads up to %d", d.Version, delegationVersion+1)
		}
		if err != nil {
			log.ErrorContext(context.Background(), "delegated addresses cannot be read", "file", file, "err", err)
			continue
		}
		ds.byHandle[d.Handle] = d
	}
	return ds
}

// get returns what was delegated for a handle.
func (ds *delegations) get(handle string) (delegation, bool) {
	ds.mu.Lock()
	defer ds.mu.Unlock()
	d, ok := ds.byHandle[handle]
	return d, ok
}

// list returns all, sorted by handle.
func (ds *delegations) list() []delegation {
	ds.mu.Lock()
	defer ds.mu.Unlock()
	var out []delegation
	for _, d := range ds.byHandle {
		out = append(out, d)
	}
	slices.SortFunc(out, func(a, b delegation) int { return strings.Compare(a.Handle, b.Handle) })
	return out
}

// put stores a delegation, whole or not at all.
func (ds *delegations) put(d delegation) error {
	ds.mu.Lock()
	defer ds.mu.Unlock()
	d.Version = delegationVersion
	if ds.dir != "" {
		data, err := json.Marshal(d)
		if err == nil {
			err = os.MkdirAll(ds.dir, 0o700)
		}
		if err == nil {
			err = files.Write(ds.file(d.Handle), data, 0o600)
		}
		if err != nil {
			return fmt.Errorf("note that addresses are delegated: %w", err)
		}
	}
	ds.byHandle[d.Handle] = d
	return nil
}

// drop forgets a delegation.
func (ds *delegations) drop(handle string) error {
	ds.mu.Lock()
	defer ds.mu.Unlock()
	if _, ok := ds.byHandle[handle]; ok && ds.dir != "" {
		if err := os.Remove(ds.file(handle)); err != nil && !errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("forget that addresses were delegated: %w", err)
		}
	}
	delete(ds.byHandle, handle)
	return nil
}

// file names the file of a handle by a hash: a handle may hold anything.
func (ds *delegations) file(handle string) string {
	sum := sha256.Sum256([]byte(handle))
	return filepath.Join(ds.dir, hex.EncodeToString(sum[:16])+".json")
}
