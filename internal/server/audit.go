package server

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"time"

	v3 "github.com/brindle-net/brindle/api/v3"
	"github.com/brindle-net/brindle/internal/client"
	"github.com/brindle-net/brindle/internal/store"
)

// Actions of a Change.
const (
	ActionCreated = "created"
	ActionChanged = "changed"
	ActionDeleted = "deleted"
	ActionBegan   = "began" // of the log: what was before is not in it
	ActionGap     = "gap"   // in the log: what follows was found out later, by whom is not known
)

// Change is one line of an audit log: who changed what, and when. It has no
// values, and so no secret.
type Change struct {
	Time      time.Time `json:"time"` // when it was seen, which is when it was made unless Later is set
	Action    string    `json:"action"`
	Kind      string    `json:"kind,omitempty"`
	Namespace string    `json:"namespace,omitempty"`
	Name      string    `json:"name,omitempty"`
	By        string    `json:"by,omitempty"`  // user@host as the writer says, "" if it says nothing
	Via       string    `json:"via,omitempty"` // the command
	Old       string    `json:"old,omitempty"` // resource version before
	New       string    `json:"new,omitempty"` // and after
	At        string    `json:"at,omitempty"`  // revision of the datastore
	Later     bool      `json:"later,omitempty"`
	Message   string    `json:"message,omitempty"`
}

// AuditConfig says how an audit log is kept. Dir must be set.
type AuditConfig struct {
	Dir      string        // mode 0700, made if it is not there
	MaxBytes int64         // of one file; 0 means 8 MiB
	Files    int           // that are kept, the newest included; 0 means 8
	Save     time.Duration // most time between two notes of how far the log is; 0 means 10 s
	Log      *slog.Logger  // nil means nowhere
}

// AuditDir is where the server of a data folder keeps its audit log.
func AuditDir(dir string) string { return filepath.Join(dir, "audit") }

// unaudited are kinds that programs write all the time, for each workload.
func unaudited(plural string) bool { return plural == "workloadendpoints" }

// auditor is one running audit.
type auditor struct {
	cfg    AuditConfig
	driver store.Driver
	log    *auditLog
	kinds  map[string]string // by the plural in a key
	state  auditState
	now    store.Revision // of the datastore at the start: all before is seen later
	dirty  bool           // resources have changed since the state was saved
	moved  bool           // anything has
	saved  time.Time      // when that was
}

// saveMoved is how often the position is saved while no resource changes:
// history that is forgotten meanwhile must not make a gap.
const saveMoved = 5 * time.Minute

// auditState is how far a log is, so that it goes on from there.
type auditState struct {
	Position store.Revision            `json:"position"`
	Known    map[string]store.Revision `json:"known"` // of each resource
}

// KeepAudit writes every change of a resource to an audit log until ctx ends,
// whose error it returns. It goes on where the log ends. A datastore that has
// forgotten what happened since is compared with what was there then, and the
// log says that it has a gap.
func KeepAudit(ctx context.Context, d store.Driver, cfg AuditConfig) error {
	a, err := openAudit(ctx, d, cfg)
	if err != nil {
		return err
	}
	defer a.close(ctx)
	pause := 100 * time.Millisecond
	for ctx.Err() == nil {
		began := time.Now()
		err := a.follow(ctx)
		if ctx.Err() != nil {
			break
		}
		if time.Since(began) > time.Minute {
			pause = 100 * time.Millisecond
		}
		a.cfg.Log.WarnContext(ctx, "audit interrupted", "retry_in", pause, "err", err)
		timer := time.NewTimer(pause)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
		}
		pause = min(2*pause, 5*time.Second)
	}
	return ctx.Err()
}

// openAudit opens the log and reads how far it is.
func openAudit(ctx context.Context, d store.Driver, cfg AuditConfig) (*auditor, error) {
	if cfg.MaxBytes == 0 {
		cfg.MaxBytes = 8 << 20
	}
	if cfg.Files == 0 {
		cfg.Files = 8
	}
	if cfg.Save == 0 {
		cfg.Save = 10 * time.Second
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	a := &auditor{cfg: cfg, driver: d, kinds: map[string]string{}}
	for _, k := range v3.Kinds() {
		a.kinds[k.Plural] = k.Kind
	}
	var err error
	if a.log, err = openAuditLog(cfg); err != nil {
		return nil, err
	}
	a.state, err = readAuditState(cfg.Dir)
	if err != nil { // the log goes on nonetheless, with a gap
		cfg.Log.WarnContext(ctx, "audit does not know how far it was", "err", err)
	}
	return a, nil
}

// follow writes what changes until something goes wrong.
func (a *auditor) follow(ctx context.Context) error {
	if a.state.Position == "" {
		if err := a.begin(ctx); err != nil {
			return err
		}
	}
	list, err := a.driver.List(ctx, store.WriterRoot)
	if err != nil {
		return err
	}
	a.now = list.Revision
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	due := time.NewTicker(a.cfg.Save)
	defer due.Stop()
	// One watch of everything: two would not say in which order they are, and
	// who wrote comes with what was written.
	watch := a.driver.Watch(ctx, "/", a.state.Position)
	for {
		select {
		case b, ok := <-watch:
			if !ok {
				return errors.New("the watch ended")
			}
			if err := a.take(b); err != nil {
				return err
			}
			if errors.Is(b.Err, store.ErrCompacted) {
				return a.bridge(ctx, b.Err)
			}
			if b.Err != nil {
				return b.Err
			}
		case <-due.C:
			if err := a.save(); err != nil {
				return err
			}
		}
	}
}

// begin notes what there is. A log that has lines already has a gap.
func (a *auditor) begin(ctx context.Context) error {
	list, err := a.driver.List(ctx, store.ResourceRoot)
	if err != nil {
		return err
	}
	c := Change{Action: ActionBegan, At: list.Revision.ResourceVersion(), Message: "what was changed before is not in this log"}
	if a.log.last != "" {
		c.Action, c.Message = ActionGap, "how far the log was is not known: changes before this one may be missing"
	}
	if err := a.write([]Change{c}); err != nil {
		return err
	}
	a.state = auditState{Position: list.Revision, Known: a.known(list)}
	a.dirty = true
	return a.save()
}

// known lists the resources that are audited.
func (a *auditor) known(list store.Listing) map[string]store.Revision {
	out := map[string]store.Revision{}
	for _, kv := range list.KVs {
		if _, audited := a.resource(kv.Key); audited {
			out[kv.Key] = kv.Revision
		}
	}
	return out
}

// bridge finds out what has changed since the datastore was last seen, when its
// history is gone.
func (a *auditor) bridge(ctx context.Context, why error) error {
	list, err := a.driver.List(ctx, store.ResourceRoot)
	if err != nil {
		return err
	}
	lines := []Change{{Action: ActionGap, Old: a.state.Position.ResourceVersion(), At: list.Revision.ResourceVersion(),
		Message: "the datastore has forgotten what happened between, or was replaced: what differs follows, without who and when"}}
	now := a.known(list)
	both := maps.Clone(a.state.Known)
	if both == nil {
		both = map[string]store.Revision{}
	}
	maps.Copy(both, now)
	for _, key := range slices.Sorted(maps.Keys(both)) {
		if a.state.Known[key] == now[key] {
			continue
		}
		c := a.change(key, a.state.Known[key], now[key])
		c.At, c.Later = list.Revision.ResourceVersion(), true
		lines = append(lines, c)
	}
	if err := a.write(lines); err != nil {
		return err
	}
	a.state, a.dirty = auditState{Position: list.Revision, Known: now}, true
	return errors.Join(a.save(), why)
}

// take writes what a watch brings. Events of one moment have one revision: the
// signature among them says whose they are.
func (a *auditor) take(b store.Batch) error {
	signed := map[store.Revision]client.Writer{}
	for _, e := range b.Events {
		var w client.Writer
		if strings.HasPrefix(e.Key, store.WriterRoot) && e.Value != nil && json.Unmarshal(e.Value, &w) == nil {
			signed[e.Revision] = w
		}
	}
	var lines []Change
	before := map[string]store.Revision{}
	for _, e := range b.Events {
		if _, audited := a.resource(e.Key); !audited {
			continue
		}
		if _, noted := before[e.Key]; !noted {
			before[e.Key] = a.state.Known[e.Key]
		}
		rev := e.Revision
		if e.Value == nil {
			rev = ""
		}
		c := a.change(e.Key, a.state.Known[e.Key], rev)
		if a.state.Known[e.Key] = rev; rev == "" {
			delete(a.state.Known, e.Key)
		}
		a.dirty = true
		if done, err := store.Reached(a.driver, a.log.last, e.Revision); err == nil && done {
			continue // it was written before the program was last killed
		}
		c.At, c.By, c.Via = e.Revision.ResourceVersion(), signed[e.Revision].By, signed[e.Revision].Via
		c.Later, _ = store.Reached(a.driver, a.now, e.Revision)
		lines = append(lines, c)
	}
	if err := a.write(lines); err != nil {
		for key, rev := range before { // they come again
			if a.state.Known[key] = rev; rev == "" {
				delete(a.state.Known, key)
			}
		}
		return err
	}
	if b.Revision != "" {
		a.moved = a.moved || a.state.Position != b.Revision
		a.state.Position = b.Revision
	}
	return nil
}

// resource says which resource a key holds; false if it is not audited.
func (a *auditor) resource(key string) (store.ResourceID, bool) {
	id, ok := store.ParseResourceKey(key)
	return id, ok && !unaudited(id.Plural)
}

// change is the line of a change of one key.
func (a *auditor) change(key string, old, now store.Revision) Change {
	id, _ := a.resource(key)
	c := Change{Action: ActionChanged, Kind: a.kinds[id.Plural], Namespace: id.Namespace, Name: id.Name,
		Old: old.ResourceVersion(), New: now.ResourceVersion()}
	if c.Kind == "" {
		c.Kind = id.Plural
	}
	switch {
	case now == "":
		c.Action = ActionDeleted
	case old == "":
		c.Action = ActionCreated
	}
	return c
}

// write adds lines to the log.
func (a *auditor) write(lines []Change) error {
	for i := range lines {
		c := &lines[i]
		c.Time = time.Now().UTC()
		for _, text := range []*string{&c.Kind, &c.Namespace, &c.Name, &c.By, &c.Via} {
			*text = bounded(*text)
		}
	}
	return a.log.append(lines)
}

// mostText bounds each text of a line, in bytes: others choose them, and no
// name that is valid has as many.
const mostText = 1024

func bounded(text string) string {
	if len(text) <= mostText {
		return text
	}
	return strings.ToValidUTF8(text[:mostText], "") + "…"
}

// save notes how far the log is, if there is a reason to.
func (a *auditor) save() error {
	if !a.dirty && (!a.moved || time.Since(a.saved) < saveMoved) {
		return nil
	}
	if err := a.log.sync(); err != nil {
		return err
	}
	if err := writeAuditState(a.cfg.Dir, a.state); err != nil {
		return err
	}
	a.dirty, a.moved, a.saved = false, false, time.Now()
	return nil
}

// close notes how far the log is, and closes it.
func (a *auditor) close(ctx context.Context) {
	a.dirty = a.dirty || a.moved
	if err := errors.Join(a.save(), a.log.close()); err != nil {
		a.cfg.Log.WarnContext(ctx, "audit log not closed in order", "err", err)
	}
}

// auditAgain is how long a server waits after an audit log that cannot be kept.
const auditAgain = time.Minute

// audit keeps the server's audit log until ctx ends. A log that cannot be kept
// is said, and stops nothing else.
func (s *server) audit(ctx context.Context, db store.Driver) error {
	for {
		err := KeepAudit(ctx, db, AuditConfig{Dir: AuditDir(s.cfg.Dir), Log: s.cfg.Log})
		if ctx.Err() != nil {
			return ctx.Err()
		}
		s.cfg.Log.ErrorContext(ctx, "audit log not kept", "retry_in", auditAgain, "err", err)
		timer := time.NewTimer(auditAgain)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return ctx.Err()
		}
	}
}
