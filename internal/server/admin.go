package server

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"

	"github.com/brindle-net/brindle/internal/store/embedded"
)

// adminTimeout bounds a change of members or users: without most of the
// members there is none, and etcd would wait for ever.
const adminTimeout = 20 * time.Second

// change is a request to change members or users.
type change struct {
	User embedded.User `json:"user,omitzero"`
	Peer embedded.Peer `json:"peer,omitzero"`
	Name string        `json:"name,omitempty"`
}

// administer adds what changes members and users to the control socket, which
// is for root alone.
func (s *server) administer(mux *http.ServeMux) {
	mux.HandleFunc("GET /members", func(w http.ResponseWriter, _ *http.Request) { answer(w, s.etcd.Members(), nil) })
	mux.HandleFunc("GET /users", func(w http.ResponseWriter, r *http.Request) {
		users, err := s.etcd.Users(r.Context())
		answer(w, users, err)
	})
	for path, do := range map[string]func(context.Context, change) error{
		"/members/add":    func(ctx context.Context, c change) error { return s.etcd.AddMember(ctx, c.Peer) },
		"/members/remove": func(ctx context.Context, c change) error { return s.etcd.RemoveMember(ctx, c.Name) },
		"/users/add":      func(ctx context.Context, c change) error { return s.etcd.AddUser(ctx, c.User) },
		"/users/remove":   func(ctx context.Context, c change) error { return s.etcd.RemoveUser(ctx, c.User) },
	} {
		mux.HandleFunc("POST "+path, func(w http.ResponseWriter, r *http.Request) {
			var c change
			if err := json.NewDecoder(io.LimitReader(r.Body, 1<<16)).Decode(&c); err != nil {
				http.Error(w, path+": "+err.Error(), http.StatusBadRequest)
				return
			}
			ctx, cancel := context.WithTimeout(r.Context(), adminTimeout)
			defer cancel()
			err := do(ctx, c)
			if errors.Is(err, context.DeadlineExceeded) {
				err = fmt.Errorf("%w: most of the members must run and reach each other for that", err)
			}
			switch {
			case err != nil:
			case c.User != embedded.User{}:
				s.cfg.Log.InfoContext(ctx, "users changed", "request", path, "kind", c.User.Kind, "name", c.User.Name)
			default:
				s.cfg.Log.InfoContext(ctx, "members changed", "request", path, "name", c.Name+c.Peer.Name)
			}
			answer(w, struct{}{}, err)
		})
	}
}

// answer sends a value, or an error.
func answer(w http.ResponseWriter, v any, err error) {
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(v) // the asker is gone if this fails
}

// Members asks the server that runs on a data directory for all members.
// Without one the error is ErrNotRunning, here and in the rest of this file.
func Members(ctx context.Context, dir string) ([]embedded.Member, error) {
	var out []embedded.Member
	err := read(ctx, dir, "/members", &out)
	return out, err
}

// AddMember tells the cluster of a member that is to join.
func AddMember(ctx context.Context, dir string, p embedded.Peer) error {
	return tell(ctx, dir, "/members/add", change{Peer: p})
}

// RemoveMember takes a member, by name, address or number, out of the cluster.
func RemoveMember(ctx context.Context, dir, name string) error {
	return tell(ctx, dir, "/members/remove", change{Name: name})
}

// Users returns who is let in over TCP.
func Users(ctx context.Context, dir string) ([]embedded.User, error) {
	var out []embedded.User
	err := read(ctx, dir, "/users", &out)
	return out, err
}

// AddUser lets a host or a client in.
func AddUser(ctx context.Context, dir string, u embedded.User) error {
	return tell(ctx, dir, "/users/add", change{User: u})
}

// RemoveUser shuts a host or a client out, at once.
func RemoveUser(ctx context.Context, dir string, u embedded.User) error {
	return tell(ctx, dir, "/users/remove", change{User: u})
}

func read(ctx context.Context, dir, path string, to any) error {
	body, err := ask(ctx, dir, http.MethodGet, path, nil)
	if err == nil {
		err = json.Unmarshal(body, to)
	}
	if err != nil {
		return fmt.Errorf("ask the server on %s: %w", dir, err)
	}
	return nil
}

func tell(ctx context.Context, dir, path string, c change) error {
	body, err := json.Marshal(c)
	if err == nil {
		_, err = ask(ctx, dir, http.MethodPost, path, body)
	}
	return err
}
