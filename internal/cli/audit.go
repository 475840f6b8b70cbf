package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	v3 "github.com/brindle-net/brindle/api/v3"
	"github.com/brindle-net/brindle/internal/client"
	"github.com/brindle-net/brindle/internal/server"
	"github.com/brindle-net/brindle/internal/store"
)

// auditVariable names the file in which a user's commands note what they change.
const auditVariable = "BRINDLE_AUDIT_LOG"

// maxOwnAudit is how large such a file may be before it is put aside, in bytes.
const maxOwnAudit = 8 << 20

// signed returns a datastore in which this command signs what it changes, and
// notes it in the user's own file if there is to be one.
func (d *datastoreFlags) signed(e *Env, driver store.Driver) store.Driver {
	who := client.Writer{By: author(e), Via: e.command}
	out := client.Sign(driver, who)
	path := d.auditLog
	if path == "" {
		path = e.Getenv(auditVariable)
	}
	if path == "" {
		return out
	}
	return &noted{Driver: out, path: path, who: who}
}

// openOwnAudit opens the user's file. A large one becomes FILE.1.
func openOwnAudit(path string) (*os.File, error) {
	info, err := os.Stat(path)
	if err == nil && info.Mode().IsRegular() && info.Size() > maxOwnAudit {
		err = os.Rename(path, path+".1")
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) { // another command may have put it aside
		return nil, fmt.Errorf("audit log: %w", err)
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, fmt.Errorf("audit log: %w", err)
	}
	return f, nil
}

// noted is a datastore whose changes of resources are noted in a file.
type noted struct {
	store.Driver
	path string
	who  client.Writer

	mu   sync.Mutex // guards what is below
	file *os.File   // nil: nothing has been changed yet
}

// open opens the file before the first change: nothing is changed that cannot
// be noted.
func (n *noted) open(keys ...string) error {
	if !slices.ContainsFunc(keys, func(k string) bool { return strings.HasPrefix(k, store.ResourceRoot) }) {
		return nil
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.file != nil {
		return nil
	}
	f, err := openOwnAudit(n.path)
	n.file = f
	return err
}

// Close closes the file.
func (n *noted) Close() error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.file == nil {
		return nil
	}
	return n.file.Close()
}

// Pages implements store.Pager.
func (n *noted) Pages(ctx context.Context, prefix string, page func([]store.KV, store.Revision) error) error {
	return store.Pages(ctx, n.Driver, prefix, page)
}

// Reached implements store.Orderer.
func (n *noted) Reached(at, rev store.Revision) (bool, error) {
	return store.Reached(n.Driver, at, rev)
}

// Create implements store.Driver.
func (n *noted) Create(ctx context.Context, key string, value []byte) (store.Revision, error) {
	if err := n.open(key); err != nil {
		return "", err
	}
	rev, err := n.Driver.Create(ctx, key, value)
	if err == nil {
		err = n.note(server.ActionCreated, key, "", rev)
	}
	return rev, err
}

// Update implements store.Driver.
func (n *noted) Update(ctx context.Context, kv store.KV) (store.Revision, error) {
	if err := n.open(kv.Key); err != nil {
		return "", err
	}
	rev, err := n.Driver.Update(ctx, kv)
	if err == nil {
		err = n.note(server.ActionChanged, kv.Key, kv.Revision, rev)
	}
	return rev, err
}

// Delete implements store.Driver.
func (n *noted) Delete(ctx context.Context, key string, rev store.Revision) error {
	if err := n.open(key); err != nil {
		return err
	}
	err := n.Driver.Delete(ctx, key, rev)
	if err == nil {
		err = n.note(server.ActionDeleted, key, rev, "")
	}
	return err
}

// Transact implements store.Transactor where the datastore below does.
func (n *noted) Transact(ctx context.Context, writes []store.Write) (store.Revision, error) {
	tx, ok := n.Driver.(store.Transactor)
	if !ok {
		return "", errors.New("this datastore writes one key at a time")
	}
	keys := make([]string, len(writes))
	for i, w := range writes {
		keys[i] = w.Key
	}
	if err := n.open(keys...); err != nil {
		return "", err
	}
	rev, err := tx.Transact(ctx, writes)
	if err != nil {
		return rev, err
	}
	for _, w := range writes {
		action, now := server.ActionChanged, rev
		switch {
		case w.Value == nil:
			action, now = server.ActionDeleted, ""
		case w.Revision == "":
			action = server.ActionCreated
		}
		err = errors.Join(err, n.note(action, w.Key, w.Revision, now))
	}
	return rev, err
}

// note writes a line, in one go: other commands may write at the same time.
func (n *noted) note(action, key string, old, now store.Revision) error {
	id, ok := store.ParseResourceKey(key)
	if !ok {
		return nil
	}
	kind := id.Plural
	for _, k := range v3.Kinds() {
		if k.Plural == id.Plural {
			kind = k.Kind
		}
	}
	line, err := json.Marshal(server.Change{
		Time: time.Now().UTC(), Action: action, Kind: kind, Namespace: id.Namespace, Name: id.Name, By: n.who.By, Via: n.who.Via,
		Old: old.ResourceVersion(), New: now.ResourceVersion(),
	})
	if err == nil {
		_, err = n.file.Write(append(line, '\n'))
	}
	if err != nil {
		return fmt.Errorf("%s %s %s, and could not note it: %w", action, kind, strings.TrimPrefix(id.Namespace+"/"+id.Name, "/"), err)
	}
	return nil
}
