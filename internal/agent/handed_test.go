package agent

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"golang.org/x/sys/unix"
)

func TestHanded(t *testing.T) {
	me := fmt.Sprintf("LISTEN_PID=%d", os.Getpid())
	for _, tt := range []struct {
		name string
		env  []string
		want []int
	}{
		{"none", nil, nil},
		{"two", []string{"A=b", me, "LISTEN_FDS=2"}, []int{3, 4}},
		{"of the process that started this one", []string{"LISTEN_PID=1", "LISTEN_FDS=2"}, nil},
		{"no number", []string{me, "LISTEN_FDS=x"}, nil},
		{"below none", []string{me, "LISTEN_FDS=-1"}, nil},
	} {
		if got := Handed(tt.env); !slices.Equal(got, tt.want) {
			t.Errorf("%s: got %v, want %v", tt.name, got, tt.want)
		}
	}
	if err := KeepHanded([]int{1 << 20}, true); err == nil {
		t.Error("a descriptor that is not there was kept")
	}
}

// TestCallsWaitForTheNextAgent: with a socket that somebody else holds, nobody
// who calls between two agents is turned away.
func TestCallsWaitForTheNextAgent(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a.sock")
	held, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	defer held.Close()
	f, err := held.File()
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	fd := int(f.Fd())
	for range 2 {
		c, err := net.Dial("unix", path) // nobody accepts yet
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		l, err := listenSocket(path, fd)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := listenSocket(path, fd); err == nil {
			t.Error("two agents have the socket")
		}
		got, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		got.Close()
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
	}
	other, err := listenSocket(path+"2", fd)
	if err != nil {
		t.Fatalf("a socket of another path: %v", err)
	}
	other.Close()
	for _, keep := range []bool{true, false} {
		if err := KeepHanded([]int{fd}, keep); err != nil {
			t.Fatal(err)
		}
		flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0)
		if err != nil || flags&unix.FD_CLOEXEC == 0 != keep {
			t.Errorf("keep %v: flags %#x, %v", keep, flags, err)
		}
	}
	if _, err := listenSocket(path, 1<<20); err == nil {
		t.Error("took a descriptor that is not there")
	}
}
