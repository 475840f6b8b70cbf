package workload

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"github.com/brindle-net/brindle/internal/agentapi"
	"github.com/brindle-net/brindle/internal/files"
)

// unfinished is what the name of a record ended with in earlier releases while
// it was written.
const unfinished = ".json.new"

// recordVersion is the version of the files that records are kept in.
const recordVersion = 1

// record says that an attachment was begun on this host. It is written before
// the first address is asked for and removed after the last is given back, so
// that an agent which was killed in between knows afterwards whose interface
// and addresses these are. Records live as long as the wires do: in a folder
// that a reboot empties.
type record struct {
	Version       int                  `json:"version"`
	Handle        string               `json:"handle"`
	HostInterface string               `json:"hostInterface,omitempty"` // "": a newer container of the same workload has it
	AddressesOnly bool                 `json:"addressesOnly,omitempty"` // another plugin lays the wire
	Ref           agentapi.WorkloadRef `json:"ref"`

	claimed int // tells this claim from later ones, while this agent runs
}

// sameWorkload reports whether two records are of one workload, as two
// containers of a pod that was restarted are.
func (r record) sameWorkload(o record) bool {
	a, b := r.Ref, o.Ref
	return a.Orchestrator == b.Orchestrator && namespaceOf(a) == namespaceOf(b) && a.Pod == b.Pod && a.Workload == b.Workload &&
		a.IfName == b.IfName && (a.Pod != "" || a.Workload != "" || a.ContainerID == b.ContainerID)
}

// records are the attachments of this host, by handle.
type records struct {
	dir string // "": kept in memory only

	mu       sync.Mutex // guards everything below
	byHandle map[string]record
	claims   int            // so far
	busy     map[string]int // calls under way, by handle
	broken   error          // why not all records could be read
}

// openRecords reads the records that an earlier agent left.
func openRecords(dir string) *records {
	r := &records{dir: dir, byHandle: map[string]record{}, busy: map[string]int{}}
	if dir == "" {
		return r
	}
	entries, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		r.broken = fmt.Errorf("read the records of attachments: %w", err)
	}
	for _, f := range entries {
		if strings.HasSuffix(f.Name(), unfinished) || files.Unfinished(f.Name()) {
			// An agent that was killed while it wrote. Its attachment has no
			// address yet, or has its record from before.
			if err := os.Remove(filepath.Join(dir, f.Name())); err != nil && !errors.Is(err, os.ErrNotExist) {
				r.broken = errors.Join(r.broken, fmt.Errorf("remove the remainder of a record: %w", err))
			}
			continue
		}
		if !strings.HasSuffix(f.Name(), ".json") {
			continue // nobody of ours
		}
		rec, err := readRecord(filepath.Join(dir, f.Name()))
		if err != nil {
			r.broken = errors.Join(r.broken, err)
			continue
		}
		r.byHandle[rec.Handle] = rec
	}
	return r
}

func readRecord(file string) (record, error) {
	var rec record
	data, err := os.ReadFile(file)
	if err == nil {
		err = json.Unmarshal(data, &rec)
	}
	if err == nil && (rec.Version < 1 || rec.Version > recordVersion+1 || rec.Handle == "") {
		err = fmt.Errorf("version %d is not known: this agent reads up to %d", rec.Version, recordVersion+1)
	}
	if err != nil {
		return rec, fmt.Errorf("record of an attachment %s: %w", file, err)
	}
	return rec, nil
}

// begin notes that a call about a handle is under way, until done is called.
func (r *records) begin(handle string) (done func()) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.busy[handle]++
	return func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		if r.busy[handle]--; r.busy[handle] == 0 {
			delete(r.busy, handle)
		}
	}
}

// claim writes the record of an attachment that begins. Where another
// workload has the host's interface of that name already, other is taken
// instead.
func (r *records) claim(rec record, other string) (record, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.claims++
	rec.Version, rec.claimed = recordVersion, r.claims
	if old, ok := r.byHandle[rec.Handle]; ok {
		if old.AddressesOnly != rec.AddressesOnly || !old.sameWorkload(rec) {
			return rec, &Error{"conflict", fmt.Errorf("handle %q is that of another attachment of the container: remove that one first", rec.Handle)}
		}
		if old.HostInterface != "" {
			rec.HostInterface = old.HostInterface
		}
	}
	if !rec.AddressesOnly {
		for _, name := range []string{rec.HostInterface, other, ""} {
			if name == "" {
				return rec, &Error{"conflict", fmt.Errorf("interfaces %s and %s belong to other workloads", rec.HostInterface, other)}
			}
			if !r.taken(name, rec) {
				rec.HostInterface = name
				break
			}
		}
	}
	return rec, r.write(rec)
}

// taken reports whether another workload has the interface. The caller holds
// the lock.
func (r *records) taken(name string, by record) bool {
	for _, old := range r.byHandle {
		if old.HostInterface == name && old.Handle != by.Handle && !old.sameWorkload(by) {
			return true
		}
	}
	return false
}

// supersede takes the interface from older containers of the same workload.
func (r *records) supersede(by record) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, old := range r.byHandle {
		if old.HostInterface == by.HostInterface && old.Handle != by.Handle {
			old.HostInterface = ""
			if err := r.write(old); err != nil {
				return err
			}
		}
	}
	return nil
}

// get returns the record of a handle.
func (r *records) get(handle string) (record, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	rec, ok := r.byHandle[handle]
	return rec, ok
}

// yields reports whether the wire behind an interface may go when the
// attachment of a handle does: nobody else has claimed it, or only another
// container of the workload that has it too.
func (r *records) yields(hostInterface, handle string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	mine, ok := r.byHandle[handle]
	ok = ok && mine.HostInterface == hostInterface
	for _, rec := range r.byHandle {
		if rec.HostInterface == hostInterface && rec.Handle != handle && !(ok && rec.sameWorkload(mine)) {
			return false
		}
	}
	return true
}

// drop removes the record of a handle.
func (r *records) drop(handle string) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.remove(handle)
}

// dropIdle removes a record as it was read, unless there has been a call about
// its handle since.
func (r *records) dropIdle(rec record) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.busy[rec.Handle] > 0 || r.byHandle[rec.Handle] != rec {
		return nil
	}
	return r.remove(rec.Handle)
}

func (r *records) remove(handle string) error {
	if _, ok := r.byHandle[handle]; !ok {
		return nil
	}
	if r.dir != "" {
		if err := os.Remove(r.file(handle)); err != nil && !errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("remove the record of an attachment: %w", err)
		}
	}
	delete(r.byHandle, handle)
	return nil
}

// list returns the records sorted by handle, and the handles that calls are
// under way about.
func (r *records) list() (all []record, busy map[string]bool, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	busy = map[string]bool{}
	for h := range r.busy {
		busy[h] = true
	}
	for _, rec := range r.byHandle {
		all = append(all, rec)
	}
	slices.SortFunc(all, func(a, b record) int { return strings.Compare(a.Handle, b.Handle) })
	return all, busy, r.broken
}

// write stores a record, whole or not at all. The caller holds the lock.
func (r *records) write(rec record) error {
	old := r.byHandle[rec.Handle]
	old.claimed = rec.claimed
	if r.dir != "" && old != rec {
		if err := r.writeFile(rec); err != nil {
			return fmt.Errorf("record the attachment: %w", err)
		}
	}
	r.byHandle[rec.Handle] = rec
	return nil
}

// writeFile need not sync: what it is about does not survive the machine
// either.
func (r *records) writeFile(rec record) error {
	if err := os.MkdirAll(r.dir, 0o700); err != nil {
		return err
	}
	data, err := json.Marshal(rec)
	if err != nil {
		return err
	}
	return files.Swap(r.file(rec.Handle), data, 0o600)
}

// file names the file of a handle by a hash: a handle may hold anything.
func (r *records) file(handle string) string {
	sum := sha256.Sum256([]byte(handle))
	return filepath.Join(r.dir, hex.EncodeToString(sum[:16])+".json")
}
