package server

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/brindle-net/brindle/internal/store/embedded"
)

// ErrNotRunning says that no server runs on a data directory.
var ErrNotRunning = errors.New("no server is running here")

// StatusVersion is the version of Status as JSON.
const StatusVersion = 1

// maxSocketPath is what fits into sockaddr_un of Linux, the final zero apart.
const maxSocketPath = 107

// Status is how a server is doing.
type Status struct {
	Version   int       `json:"version"`
	Endpoint  string    `json:"endpoint"` // where etcd's clients connect on this machine
	Listen    string    `json:"listen,omitempty"`
	Started   time.Time `json:"started"`
	Revision  int64     `json:"revision"`          // of the last write
	Size      int64     `json:"size"`              // bytes of the database file
	SizeInUse int64     `json:"sizeInUse"`         // bytes of it that hold data
	Quota     int64     `json:"quota"`             // bytes at which writes are refused
	Full      bool      `json:"full"`              // writes are refused
	Member    string    `json:"member,omitempty"`  // its name, if it is one of several
	Members   int       `json:"members,omitempty"` // how many there are
	Leads     bool      `json:"leads"`             // this member leads the others
	Users     bool      `json:"users"`             // who comes over TCP must be a user
	Expires   time.Time `json:"expires,omitzero"`  // the first of its certificates
	Problem   string    `json:"problem,omitempty"`
	Since     time.Time `json:"since,omitzero"` // of the problem
}

// status returns how this server is doing.
func (s *server) status() Status {
	st := s.etcd.Status()
	s.mu.Lock()
	defer s.mu.Unlock()
	out := Status{
		Version: StatusVersion, Endpoint: st.Endpoint, Started: s.started, Revision: st.Revision, Size: st.Size,
		SizeInUse: st.SizeInUse, Quota: st.Quota, Full: st.Full, Problem: s.problem, Since: s.since,
	}
	if s.cfg.TLS != nil {
		out.Listen = s.cfg.TLS.Listen
	}
	if s.cfg.Cluster != nil {
		out.Member, out.Members = s.cfg.Cluster.Name, len(s.etcd.Members())
	}
	out.Leads, out.Users, out.Expires = s.etcd.IsLeader(), s.etcd.UsersOn(), s.look.expires
	return out
}

// listen opens the control socket, which only its owner may use, and returns
// the job that serves it.
func (s *server) listen(ctx context.Context) (func(context.Context) error, error) {
	path := filepath.Join(s.cfg.Dir, controlSocket)
	if len(path) > maxSocketPath {
		return nil, fmt.Errorf("open the control socket: path %s has %d bytes, the kernel allows %d; choose a shorter directory", path, len(path), maxSocketPath)
	}
	// The lock on the directory is ours: whoever left this socket is gone.
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "unix", path)
	if err != nil {
		return nil, fmt.Errorf("open the control socket: %w", err)
	}
	if err := os.Chmod(path, 0o600); err != nil {
		return nil, errors.Join(err, l.Close())
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /status", s.serveStatus)
	mux.HandleFunc("POST /snapshot", s.serveSnapshot)
	s.administer(mux)
	h := &http.Server{Handler: mux, ReadHeaderTimeout: 10 * time.Second, BaseContext: func(net.Listener) context.Context { return ctx }}
	return func(ctx context.Context) error {
		stop := context.AfterFunc(ctx, func() { h.Close() })
		defer stop()
		err := h.Serve(l)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		return err
	}, nil
}

func (s *server) serveStatus(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(s.status()) // the asker is gone if this fails
}

// snapshotRequest asks the server to write a snapshot.
type snapshotRequest struct {
	Path string `json:"path"` // absolute
}

func (s *server) serveSnapshot(w http.ResponseWriter, r *http.Request) {
	var req snapshotRequest
	err := json.NewDecoder(io.LimitReader(r.Body, 1<<16)).Decode(&req)
	if err == nil && !filepath.IsAbs(req.Path) {
		err = fmt.Errorf("path %q is not absolute", req.Path)
	}
	if err != nil {
		http.Error(w, "snapshot: "+err.Error(), http.StatusBadRequest)
		return
	}
	if err := s.etcd.SaveSnapshot(r.Context(), req.Path); err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	s.cfg.Log.InfoContext(r.Context(), "snapshot saved", "path", req.Path)
	w.WriteHeader(http.StatusNoContent)
}

// ReadStatus asks the server that runs on a data directory how it is doing.
// Without one the error is ErrNotRunning.
func ReadStatus(ctx context.Context, dir string) (Status, error) {
	var st Status
	body, err := ask(ctx, dir, http.MethodGet, "/status", nil)
	if err != nil {
		return st, fmt.Errorf("ask the server on %s: %w", dir, err)
	}
	if err := json.Unmarshal(body, &st); err != nil {
		return st, fmt.Errorf("ask the server on %s: %w", dir, err)
	}
	if st.Version < StatusVersion-1 || st.Version > StatusVersion+1 {
		return st, fmt.Errorf("ask the server on %s: it speaks version %d, this program version %d; use the same release", dir, st.Version, StatusVersion)
	}
	return st, nil
}

// SnapshotSave writes the datastore of a data directory to a file, whether a
// server runs on it or not. The file appears only when it is complete.
func SnapshotSave(ctx context.Context, dir, path string) error {
	path, err := filepath.Abs(path)
	if err != nil {
		return fmt.Errorf("save snapshot: %w", err)
	}
	body, err := json.Marshal(snapshotRequest{Path: path})
	if err != nil {
		return fmt.Errorf("save snapshot: %w", err)
	}
	_, err = ask(ctx, dir, http.MethodPost, "/snapshot", body)
	if !errors.Is(err, ErrNotRunning) {
		return err
	}
	if _, err := os.Stat(filepath.Join(dir, "etcd")); err != nil {
		return fmt.Errorf("save snapshot of %s: there is no datastore: %w", dir, err)
	}
	return embedded.SaveStopped(ctx, dir, path)
}

// SnapshotRestore fills an empty data directory from a snapshot. Every program
// that watched the old datastore lists again. No server may run on dir.
// With a cluster it is filled for that member of it; every member restores the
// same snapshot, each into its own folder.
func SnapshotRestore(dir, path string, cluster *embedded.Cluster) error {
	return embedded.RestoreSnapshot(path, dir, cluster)
}

// maxAnswer bounds an answer, in bytes: half a million users.
const maxAnswer = 64 << 20

// ask sends one request to the control socket of a data directory.
func ask(ctx context.Context, dir, method, path string, body []byte) ([]byte, error) {
	var dialer net.Dialer
	transport := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		conn, err := dialer.DialContext(ctx, "unix", filepath.Join(dir, controlSocket))
		if err != nil && !errors.Is(err, os.ErrPermission) && ctx.Err() == nil {
			err = fmt.Errorf("%w: %w", ErrNotRunning, err)
		}
		return conn, err
	}}
	defer transport.CloseIdleConnections()
	req, err := http.NewRequestWithContext(ctx, method, "http://server"+path, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	resp, err := (&http.Client{Transport: transport}).Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer+1))
	if err != nil {
		return nil, err
	}
	if len(answer) > maxAnswer {
		return nil, fmt.Errorf("the answer to %s has more than %d MiB, which no list of ours has", path, maxAnswer>>20)
	}
	if resp.StatusCode >= 300 {
		return nil, errors.New(strings.TrimSpace(string(answer)))
	}
	return answer, nil
}
