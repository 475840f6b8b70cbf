// Package server is "brindle server": the datastore of a network that has
// none yet. It runs an etcd, alone or as a member of several, fills it with what every network needs, looks
// after its size, and answers on a control socket how it is doing.
package server

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"sync"
	"time"

	"github.com/brindle-net/brindle/internal/client"
	"github.com/brindle-net/brindle/internal/ipam"
	"github.com/brindle-net/brindle/internal/store"
	"github.com/brindle-net/brindle/internal/store/embedded"
	"github.com/brindle-net/brindle/internal/store/etcd"
)

// Names of the sockets in Config.Dir.
const (
	etcdSocket    = "etcd.sock"
	controlSocket = "control.sock"
)

// Config says what a server does. Dir must be set.
type Config struct {
	Dir       string                 // data and control socket, mode 0700
	Socket    string                 // for clients of etcd; empty means etcd.sock in Dir
	TLS       *embedded.TLS          // also listen on TCP; nil means no
	Cluster   *embedded.Cluster      // be a member of several; nil means alone
	Users     bool                   // who comes over TCP has the rights of a user only
	History   time.Duration          // kept by compaction; 0 means an hour
	Quota     int64                  // bytes; 0 means 2 GiB
	Bootstrap client.BootstrapConfig // what a new datastore starts with
	Interval  time.Duration          // between looks at the size; 0 means 10 s
	Log       *slog.Logger           // nil means nowhere

	// UnsafeNoFsync loses data when the machine crashes. For tests and labs.
	UnsafeNoFsync bool

	// Jobs run beside etcd, once it is up, until ctx ends; one that returns
	// earlier ends the server. Keys are their names.
	Jobs map[string]func(ctx context.Context, d store.Driver) error

	// Ready is called once, when all is up; nil does nothing.
	Ready func(Status)
}

// server is one running server.
type server struct {
	cfg  Config
	etcd *embedded.Server

	mu      sync.Mutex // guards everything below
	started time.Time
	level   level
	problem string    // what a human must see to; "" if nothing
	since   time.Time // of the problem
	look    look
}

// Run runs a server until ctx ends, which is no error.
func Run(ctx context.Context, cfg Config) error {
	cfg = cfg.complete()
	db, err := embedded.Start(ctx, cfg.embedded())
	if err != nil {
		return err
	}
	s := &server{cfg: cfg, etcd: db, started: time.Now()}
	err = s.run(ctx)
	if ctx.Err() != nil && errors.Is(err, ctx.Err()) {
		err = nil
	}
	return errors.Join(err, db.Close())
}

// complete fills what is zero.
func (c Config) complete() Config {
	if c.Socket == "" {
		c.Socket = filepath.Join(c.Dir, etcdSocket)
	}
	if c.Interval == 0 {
		c.Interval = 10 * time.Second
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	return c
}

func (c Config) embedded() embedded.Config {
	return embedded.Config{
		Dir: c.Dir, Socket: c.Socket, TLS: c.TLS, Cluster: c.Cluster, Users: c.Users, History: c.History,
		Quota: c.Quota, UnsafeNoFsync: c.UnsafeNoFsync, Log: c.Log,
		CheckHost: ipam.CheckHostWrite,
	}
}

func (s *server) run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	db, err := etcd.New(etcd.Config{Endpoints: []string{s.etcd.Endpoint()}})
	if err != nil {
		return err
	}
	defer db.Close()
	if err := s.bootstrap(ctx, db); err != nil {
		return err
	}
	control, err := s.listen(ctx)
	if err != nil {
		return err
	}
	jobs := map[string]func(context.Context) error{"control socket": control, "housekeeping": s.keepHouse, "etcd": s.watchEtcd}
	for name, job := range s.cfg.Jobs {
		jobs[name] = func(ctx context.Context) error { return job(ctx, db) }
	}
	jobs["audit"] = func(ctx context.Context) error { return s.audit(ctx, db) }
	ended := make(chan error)
	for name, job := range jobs {
		go func() { ended <- named(name, job(ctx)) }()
	}
	s.cfg.Log.InfoContext(ctx, "server ready", "endpoint", s.etcd.Endpoint(), "dir", s.cfg.Dir)
	if s.cfg.Ready != nil {
		s.cfg.Ready(s.status())
	}
	err = <-ended // the first one ends all
	cancel()
	for range len(jobs) - 1 {
		<-ended
	}
	return err
}

// named says which job ended.
func named(name string, err error) error {
	if err == nil {
		err = errors.New("ended")
	}
	return fmt.Errorf("%s: %w", name, err)
}

// bootstrap fills a new datastore and announces what it made.
func (s *server) bootstrap(ctx context.Context, db store.Driver) error {
	c := client.New(db, client.Config{Component: true})
	made, err := c.Bootstrap(ctx, s.cfg.Bootstrap)
	for _, o := range made {
		s.cfg.Log.InfoContext(ctx, "created", "kind", o.Type().Kind, "name", o.Meta().Name)
	}
	return err
}

// watchEtcd ends when etcd does, or serves no more at one of its addresses: a
// server that is started anew does again, or says why not.
func (s *server) watchEtcd(ctx context.Context) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-s.etcd.Done():
		return errors.New("stopped by itself; its log says why")
	case err := <-s.etcd.Err():
		if err == nil { // it has been stopped
			return errors.New("stopped by itself; its log says why")
		}
		return fmt.Errorf("lets nobody in any more at one of its addresses; its log says why: %w", err)
	}
}
