package lab

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/brindle-net/brindle/internal/testenv"
)

// folder makes the folder of a lab that only this test knows.
func folder(t *testing.T, name string) {
	t.Helper()
	testenv.NeedRoot(t)
	if err := makeDir(name); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		os.RemoveAll(dir(name))
		os.Remove(Root)
	})
}

func TestOneOfManyMakesALab(t *testing.T) {
	testenv.NeedRoot(t)
	const name = "test-many"
	t.Cleanup(func() {
		os.RemoveAll(dir(name))
		os.Remove(Root)
	})
	var made atomic.Int32
	var wg sync.WaitGroup
	for range 20 {
		wg.Go(func() {
			if err := makeDir(name); err == nil {
				made.Add(1)
			} else if !errors.Is(err, ErrIsUp) {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if made.Load() != 1 {
		t.Errorf("%d of 20 made the lab, want 1", made.Load())
	}
}

// Lookers look all the while: none of them may take the lock for held when it
// is not, nor keep it from whoever takes it.
func TestLookersAtALockDoNotDisturb(t *testing.T) {
	const name = "test-look"
	folder(t, name)
	stale := strconv.Itoa(1 << 22) // a number that is no process's any more
	if err := os.WriteFile(lockFile(name), []byte(stale), 0o600); err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 2000 {
				if pid, err := supervisorOf(name); pid != 0 || err != nil {
					t.Errorf("process %d (%v) holds a lock that nobody holds", pid, err)
					return
				}
			}
		})
	}
	wg.Wait()
	if err := os.Remove(lockFile(name)); err != nil {
		t.Fatal(err)
	}
	stop := make(chan struct{})
	for range 4 {
		wg.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				if pid, err := supervisorOf(name); pid != 0 && pid != os.Getpid() || err != nil {
					t.Errorf("process %d (%v) holds the lock of this process", pid, err)
					return
				}
			}
		})
	}
	lock, err := lockLab(name)
	close(stop)
	wg.Wait()
	if err != nil {
		t.Fatal(err)
	}
	defer lock.Close()
	if pid, err := supervisorOf(name); pid != os.Getpid() || err != nil {
		t.Errorf("got %d, %v; this process holds the lock", pid, err)
	}
}

// What a lab's lock says of a process that does not hold it is no reason to
// end that process.
func TestAProcessThatHoldsNoLockIsLeftAlone(t *testing.T) {
	const name = "test-pid"
	folder(t, name)
	cmd := exec.Command("sleep", "1000")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	}()
	if err := os.WriteFile(lockFile(name), []byte(strconv.Itoa(cmd.Process.Pid)), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := Down(t.Context(), name); err != nil {
		t.Fatal(err)
	}
	if zombie(strconv.Itoa(cmd.Process.Pid)) {
		t.Error("a process was ended that was none of the lab's")
	}
	if Exists(name) {
		t.Error("the lab is still there")
	}
}

func TestDownOfALabLeavesItsSuccessorAlone(t *testing.T) {
	const name = "test-next"
	folder(t, name)
	was, err := os.Lstat(dir(name))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(dir(name), filepath.Join(Root, "test-was")); err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(filepath.Join(Root, "test-was"))
	if err := makeDir(name); err != nil {
		t.Fatal(err)
	}
	if err := remove(t.Context(), name, was); err != nil {
		t.Fatal(err)
	}
	if !Exists(name) {
		t.Error("took down a lab that was brought up meanwhile")
	}
}

func TestOnlyRootSeesLabs(t *testing.T) {
	denied := fmt.Errorf("stat: %w", os.ErrPermission)
	if err := asRoot(denied); !errors.Is(err, os.ErrPermission) || !strings.Contains(err.Error(), "sudo") {
		t.Errorf("got %v", err)
	}
	if other := errors.New("broken"); asRoot(other) != other {
		t.Errorf("got %v", asRoot(other))
	}
}
