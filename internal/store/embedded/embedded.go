// Package embedded runs an etcd inside this process, for networks that have
// no datastore yet, for the lab and for tests: alone, or as one member of
// several. It listens on a unix socket that only its owner may open, and on
// TCP only with client certificates.
package embedded

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"go.etcd.io/etcd/server/v3/embed"

	"github.com/brindle-net/brindle/internal/store"
)

// Defaults of Config.
const (
	DefaultQuota   = 2 << 30 // bytes
	DefaultHistory = time.Hour
)

// memberName is how the one member is called in its own data.
const memberName = "brindle"

// maxSocketPath is what fits into sockaddr_un of Linux, the final zero apart.
const maxSocketPath = 107

// startPatience is how long a start may take before a human is told.
const startPatience = 10 * time.Second

// ErrInUse says that another process runs on the data directory or listens on
// the socket.
var ErrInUse = errors.New("in use by another process")

// Config says where an etcd keeps its data and where it listens. Dir must be
// set, the rest has useful zero values.
type Config struct {
	// Dir is the data directory, made with mode 0700 if it does not exist.
	Dir string

	// Socket is the unix socket for clients, at most 107 bytes long. Empty
	// means etcd.sock in Dir. Its directory is made with mode 0700 if it does
	// not exist; the socket has mode 0600.
	Socket string

	// TLS adds a TCP listener; nil means none.
	TLS *TLS

	// Cluster makes this etcd one of several members; nil means it is alone.
	Cluster *Cluster

	// Users makes everybody who comes over TCP a user of etcd, by the common
	// name of the certificate, with the rights of that user's roles: see
	// AddUser. Whoever opens the socket may do everything. Once
	// on, it stays on in the data.
	Users bool

	// CheckHost says why a user that is a host may not write a block or handle of
	// address management; nil refuses all.
	CheckHost func(store.HostWrite) error

	// History is for how long old revisions are kept, so that a watch may
	// resume from them; 0 means DefaultHistory, negative means for ever.
	History time.Duration

	// Quota is the size in bytes at which etcd refuses further writes; 0 means
	// DefaultQuota.
	Quota int64

	// UnsafeNoFsync loses data when the machine crashes. For tests and labs.
	UnsafeNoFsync bool

	// Log receives what etcd has to say; nil means nowhere.
	Log *slog.Logger
}

// Server is a running etcd. Close it after use.
type Server struct {
	cfg     Config
	etcd    *embed.Etcd
	lock    *os.File // held on the data directory
	log     *logCore
	streams *streamEnder
	guard   guard

	once     sync.Once // closes
	closeErr error
}

// Start starts an etcd and returns when it answers. The data directory is made
// at the first start. ErrInUse says that another one runs there.
func Start(ctx context.Context, cfg Config) (_ *Server, err error) {
	if err := cfg.complete(); err != nil {
		return nil, fmt.Errorf("start etcd: %w", err)
	}
	s := &Server{cfg: cfg, log: newLogCore(cfg.Log), streams: newStreamEnder()}
	s.guard.check = cfg.CheckHost
	defer func() {
		if err != nil {
			err = fmt.Errorf("start etcd on %s: %w", cfg.Dir, errors.Join(err, s.Close()))
		}
	}()
	if err := makeDir(cfg.Dir); err != nil {
		return nil, err
	}
	if err := makeDir(filepath.Dir(cfg.Socket)); err != nil {
		return nil, err
	}
	if s.lock, err = lockDir(cfg.Dir); err != nil {
		return nil, err
	}
	if err := finishRestore(cfg.Dir); err != nil {
		return nil, err
	}
	if err := freeSocket(ctx, cfg.Socket); err != nil {
		return nil, err
	}
	if err := claimDir(cfg.Dir, cfg.name()); err != nil {
		return nil, err
	}
	etcdConfig, err := s.etcdConfig()
	if err != nil {
		return nil, err
	}
	if s.etcd, err = embed.StartEtcd(etcdConfig); err != nil {
		return nil, cfg.Cluster.explain(err)
	}
	// The directory kept others out until now.
	if err := os.Chmod(cfg.Socket, 0o600); err != nil {
		return nil, err
	}
	if err := s.await(ctx); err != nil {
		return nil, cfg.Cluster.explain(err)
	}
	if cfg.Users {
		if err := s.enableUsers(ctx); err != nil {
			return nil, err
		}
	}
	s.guard.open.Store(s.etcd)
	return s, nil
}

// await returns when etcd answers. A member does not before most of the
// members run.
func (s *Server) await(ctx context.Context) error {
	patience := time.NewTimer(startPatience)
	defer patience.Stop()
	for {
		select {
		case <-s.etcd.Server.ReadyNotify():
			return nil
		case <-s.etcd.Server.StopNotify():
			return errors.New("etcd stopped while starting")
		case err := <-s.etcd.Err():
			return err
		case <-ctx.Done():
			return ctx.Err()
		case <-patience.C:
			s.cfg.Log.WarnContext(ctx, "etcd does not answer yet; a member waits until most of the members run")
		}
	}
}

// complete fills what is zero, and says what cannot work.
func (c *Config) complete() error {
	if c.Dir == "" {
		return errors.New("no data directory is given")
	}
	var err error
	if c.Dir, err = filepath.Abs(c.Dir); err != nil {
		return err
	}
	if c.Socket == "" {
		c.Socket = filepath.Join(c.Dir, "etcd.sock")
	}
	if c.Socket, err = filepath.Abs(c.Socket); err != nil {
		return err
	}
	if len(c.Socket) > maxSocketPath {
		return fmt.Errorf("socket path %s has %d bytes, the kernel allows %d; choose a shorter one", c.Socket, len(c.Socket), maxSocketPath)
	}
	if c.Quota == 0 {
		c.Quota = DefaultQuota
	}
	if c.History == 0 {
		c.History = DefaultHistory
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	if c.Cluster != nil {
		own := *c.Cluster
		c.Cluster = &own
		if err := own.check(); err != nil {
			return err
		}
	}
	if c.TLS == nil {
		return nil
	}
	return c.TLS.check()
}

// name is how this member is called in its own data.
func (c *Config) name() string {
	if c.Cluster == nil {
		return memberName
	}
	return c.Cluster.Name
}

// etcdConfig translates to etcd's own configuration.
func (s *Server) etcdConfig() (*embed.Config, error) {
	c := embed.NewConfig()
	c.Name = memberName
	c.Dir = filepath.Join(s.cfg.Dir, "etcd")
	// One member talks to no other: the address is a name, nobody listens.
	peer := url.URL{Scheme: "unix", Host: memberName}
	c.ListenPeerUrls = nil
	c.AdvertisePeerUrls = []url.URL{peer}
	c.InitialCluster = memberName + "=" + peer.String()
	// Part of the cluster's id: data that was restored is another cluster.
	c.InitialClusterToken = rand.Text()
	socket := url.URL{Scheme: "unix", Path: s.cfg.Socket}
	c.ListenClientUrls = []url.URL{socket}
	c.AdvertiseClientUrls = []url.URL{socket}
	if t := s.cfg.TLS; t != nil {
		c.ListenClientUrls = append(c.ListenClientUrls, url.URL{Scheme: "https", Host: t.Listen})
		c.AdvertiseClientUrls = c.ListenClientUrls[1:]
		c.ClientTLSInfo.CertFile, c.ClientTLSInfo.KeyFile = t.CertFile, t.KeyFile
		c.ClientTLSInfo.TrustedCAFile = t.CAFile
	}
	c.ClientTLSInfo.ClientCertAuth = true // on the socket, users.go answers for it
	// Nobody competes to be leader: short ticks make the start fast, and cost
	// half a percent of a core.
	c.TickMs, c.ElectionMs = 20, 100
	c.QuotaBackendBytes = s.cfg.Quota
	c.UnsafeNoFsync = s.cfg.UnsafeNoFsync
	c.AutoCompactionMode = embed.CompactorModePeriodic
	if s.cfg.History > 0 {
		c.AutoCompactionRetention = s.cfg.History.String()
	}
	c.WatchProgressNotifyInterval = 30 * time.Second
	c.EnableGRPCGateway = false
	c.GRPCAdditionalServerOptions = append(s.guard.options(), s.streams.options()...)
	c.ZapLoggerBuilder = embed.NewZapLoggerBuilder(s.log.logger())
	if s.cfg.Cluster == nil {
		return c, nil
	}
	return c, s.cfg.Cluster.apply(c)
}

// Endpoint is what clients on this machine connect to, "unix:///…".
func (s *Server) Endpoint() string { return "unix://" + s.cfg.Socket }

// Done is closed when etcd has stopped, by Close or by itself.
func (s *Server) Done() <-chan struct{} { return s.etcd.Server.StopNotify() }

// Err receives an error when etcd cannot serve any more, at one of its addresses
// or at all.
func (s *Server) Err() <-chan error { return s.etcd.Err() }

// Close stops etcd, cuts its clients off, and gives the data directory free.
func (s *Server) Close() error {
	s.once.Do(func() {
		s.log.close()
		// etcd waits 5 s for running streams to end by themselves: end them.
		s.streams.end()
		if s.etcd != nil {
			// A member that waits for others serves nobody yet, and Close would
			// wait for that.
			select {
			case <-s.etcd.Server.ReadyNotify():
			default:
				s.etcd.Server.Stop()
			}
			s.etcd.Close()
		}
		if s.lock != nil {
			s.closeErr = s.lock.Close()
		}
	})
	return s.closeErr
}

// makeDir makes a directory that only its owner may enter. One that exists
// stays as it is, unless others may enter: that is refused.
func makeDir(dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	info, err := os.Stat(dir)
	if err != nil {
		return err
	}
	if info.Mode().Perm()&0o077 != 0 {
		return fmt.Errorf("directory %s has mode %#o, so others could reach the datastore; run chmod 700 %s", dir, info.Mode().Perm(), dir)
	}
	return nil
}

// lockDir keeps a second etcd off the same data, which would wait in silence.
func lockDir(dir string) (*os.File, error) {
	f, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_CREATE|os.O_RDWR|syscall.O_CLOEXEC, 0o600)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		f.Close()
		return nil, fmt.Errorf("data directory %s: %w", dir, ErrInUse)
	}
	return f, nil
}

// freeSocket makes sure that nobody listens on the socket. etcd removes what a
// crashed predecessor has left there.
func freeSocket(ctx context.Context, path string) error {
	var d net.Dialer
	conn, err := d.DialContext(ctx, "unix", path)
	if err != nil {
		return nil
	}
	conn.Close()
	return fmt.Errorf("socket %s: %w", path, ErrInUse)
}
