package agent

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

// socket is the agent's listener. It holds a lock for as long as it is open.
type socket struct {
	*net.UnixListener
	lock *os.File
}

// Close takes the socket away, and only then lets another agent in.
func (s *socket) Close() error { return errors.Join(s.UnixListener.Close(), s.lock.Close()) }

// listenSocket opens the agent's socket for root alone. A socket that was left
// behind is replaced; one that somebody holds, busy or stuck as he may be, is
// an error, for two agents on one host would undo each other's work. One that
// was opened for this process is among the descriptors handed.
func listenSocket(path string, handed ...int) (*socket, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, fmt.Errorf("make the socket's folder: %w", err)
	}
	lock, err := os.OpenFile(path+".lock", os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock the socket: %w", err)
	}
	l, err := listenLocked(path, lock, handed)
	if err != nil {
		return nil, errors.Join(err, lock.Close())
	}
	return &socket{l, lock}, nil
}

func listenLocked(path string, lock *os.File, handed []int) (*net.UnixListener, error) {
	taken := fmt.Errorf("another agent has %s: stop it first", path)
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		return nil, taken // the kernel lets go of it when that agent ends, however it ends
	}
	if l, err := handedListener(handed, path); l != nil || err != nil {
		return l, err
	}
	c, err := net.DialTimeout("unix", path, time.Second)
	switch {
	case err == nil:
		c.Close()
		return nil, taken
	case !errors.Is(err, unix.ECONNREFUSED) && !errors.Is(err, unix.ENOENT):
		return nil, fmt.Errorf("%w (%w)", taken, err) // it listens, and does not come to answer
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("remove the old socket: %w", err)
	}
	old := unix.Umask(0o177) // there is no moment at which others could connect
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	unix.Umask(old)
	if err != nil {
		return nil, fmt.Errorf("listen on %s: %w", path, err)
	}
	return l, nil
}

// serveHTTP serves until ctx ends, and lets calls under way finish for a
// moment.
func serveHTTP(ctx context.Context, l net.Listener, h http.Handler) error {
	srv := &http.Server{Handler: h, ReadHeaderTimeout: 10 * time.Second}
	done := make(chan struct{})
	defer context.AfterFunc(ctx, func() {
		defer close(done)
		grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*time.Second)
		defer cancel()
		if srv.Shutdown(grace) != nil {
			srv.Close()
		}
	})()
	err := srv.Serve(l)
	if ctx.Err() != nil {
		<-done
		return ctx.Err()
	}
	return err
}
