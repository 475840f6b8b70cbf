package server

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/brindle-net/brindle/internal/controllers"
	"github.com/brindle-net/brindle/internal/store"
	"github.com/brindle-net/brindle/internal/store/embedded"
	"github.com/brindle-net/brindle/internal/store/etcd"
)

// memberEnv makes the test's own program a member: its configuration.
const memberEnv = "BRINDLE_TEST_MEMBER"

func TestMain(m *testing.M) {
	if text := os.Getenv(memberEnv); text != "" {
		os.Exit(runMember(text))
	}
	os.Exit(m.Run())
}

// runMember is a server in a process of its own, until that is killed.
func runMember(text string) int {
	cfg := Config{UnsafeNoFsync: true, Log: slog.New(slog.NewTextHandler(os.Stderr, nil))}
	if err := json.Unmarshal([]byte(text), &cfg); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 2
	}
	cfg.Jobs = map[string]func(context.Context, store.Driver) error{"controllers": func(ctx context.Context, d store.Driver) error {
		return controllers.Lead(ctx, controllers.LeadConfig{Driver: d, Name: cfg.Cluster.Name, Lease: 3 * time.Second, Work: work(cfg.Cluster.Name)})
	}}
	if err := Run(context.Background(), cfg); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

// work signs again and again, as only the leader may.
func work(name string) func(context.Context, store.Driver) error {
	return func(ctx context.Context, d store.Driver) error {
		tick := time.NewTicker(50 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return ctx.Err()
			case <-tick.C:
			}
			_, err := d.Create(ctx, workKey, []byte(name))
			if errors.Is(err, store.ErrExists) {
				_, _ = d.Update(ctx, store.KV{Key: workKey, Value: []byte(name)}) // tried again
			}
		}
	}
}

// workKey is what work writes.
const workKey = "/work"

// signed waits until somebody other than these signs, and returns who.
func (c *cluster) signed(d store.Driver, not ...string) string {
	c.t.Helper()
	var name string
	c.until(fmt.Sprintf("another one than %v does the leader's work", not), func() error {
		kv, err := d.Get(c.t.Context(), workKey)
		if name = string(kv.Value); err == nil && slices.Contains(not, name) {
			err = fmt.Errorf("it is %s", name)
		}
		return err
	})
	return name
}

// cluster is three servers in processes of their own. Two are members by IPv4
// and one by IPv6, so one run is about both.
type cluster struct {
	t       *testing.T
	dir     string
	certs   Certs
	peers   []embedded.Peer
	clients map[string]string // name: ADDRESS:PORT
	procs   map[string]*exec.Cmd
	logs    map[string]*logBook
}

func newCluster(t *testing.T) *cluster {
	t.Helper()
	c := &cluster{t: t, dir: shortDir(t), clients: map[string]string{}, procs: map[string]*exec.Cmd{}, logs: map[string]*logBook{}}
	c.certs.Dir = filepath.Join(c.dir, "certs")
	must(t, second(c.certs.Init()))
	must(t, second(c.certs.Make(CertRequest{Kind: embedded.ClientUser, Name: "ops"})))
	for name, ip := range map[string]string{"a": "127.0.0.1", "b": "127.0.0.1", "c": "::1"} {
		must(t, second(c.certs.Make(CertRequest{Kind: MemberCert, Name: name, Addresses: []string{ip}})))
		c.peers = append(c.peers, embedded.Peer{Name: name, URL: "https://" + freePort(t, ip)})
		c.clients[name] = freePort(t, ip)
	}
	return c
}

func second[T any](_ T, err error) error { return err }

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// freePort returns a port that nobody used just now.
func freePort(t *testing.T, ip string) string {
	t.Helper()
	l, err := net.Listen("tcp", net.JoinHostPort(ip, "0"))
	must(t, err)
	defer l.Close()
	return l.Addr().String()
}

func (c *cluster) data(name string) string { return filepath.Join(c.dir, name) }

func (c *cluster) config(name string) Config {
	cert, key := CertFiles(c.certs.Dir, MemberCert, name)
	files := embedded.TLS{CertFile: cert, KeyFile: key, CAFile: AuthorityFile(c.certs.Dir)}
	client := files
	client.Listen = c.clients[name]
	return Config{Dir: c.data(name), TLS: &client, Cluster: &embedded.Cluster{Name: name, Peers: c.peers, TLS: files}, Users: true}
}

// start starts members and waits until they answer.
func (c *cluster) start(join bool, names ...string) {
	c.t.Helper()
	for _, name := range names {
		cfg := c.config(name)
		cfg.Cluster.Join = join
		text, err := json.Marshal(map[string]any{"Dir": cfg.Dir, "TLS": cfg.TLS, "Cluster": cfg.Cluster, "Users": true})
		must(c.t, err)
		self, err := os.Executable()
		must(c.t, err)
		log := &logBook{}
		cmd := exec.Command(self)
		cmd.Env = append(os.Environ(), memberEnv+"="+string(text))
		cmd.Stderr = log
		must(c.t, cmd.Start())
		c.procs[name], c.logs[name] = cmd, log
		c.t.Cleanup(func() { c.kill(name) })
	}
	for _, name := range names {
		c.until("member "+name+" answers", func() error { return second(ReadStatus(c.t.Context(), c.data(name))) })
	}
}

// kill ends a member as a power cut does; again is fine.
func (c *cluster) kill(name string) {
	if cmd := c.procs[name]; cmd != nil {
		delete(c.procs, name)
		_ = cmd.Process.Kill()
		_ = cmd.Wait() // it was killed
	}
}

// until waits for something, which must come.
func (c *cluster) until(what string, try func() error) {
	c.t.Helper()
	deadline := time.Now().Add(time.Minute)
	for {
		err := try()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			for name, log := range c.logs {
				c.t.Logf("%s:\n%s", name, log)
			}
			c.t.Fatalf("%s: %v", what, err)
		}
		<-time.After(50 * time.Millisecond)
	}
}

// dial connects a client that knows all members.
func (c *cluster) dial(names ...string) *etcd.Driver {
	c.t.Helper()
	cert, key := CertFiles(c.certs.Dir, embedded.ClientUser, "ops")
	cfg := etcd.Config{CertFile: cert, KeyFile: key, CAFile: AuthorityFile(c.certs.Dir), CallTimeout: 5 * time.Second}
	for _, name := range names {
		cfg.Endpoints = append(cfg.Endpoints, "https://"+c.clients[name])
	}
	d, err := etcd.New(cfg)
	must(c.t, err)
	c.t.Cleanup(func() { d.Close() })
	return d
}

// load writes keys one after another until stopped; it returns how many were
// acknowledged.
func load(ctx context.Context, d *etcd.Driver) (stop func() int) {
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan int)
	go func() {
		n := 0
		for ctx.Err() == nil {
			_, err := d.Create(ctx, fmt.Sprintf("/load/%06d", n), []byte("x"))
			if err == nil || errors.Is(err, store.ErrExists) { // a lost answer
				n++
			}
		}
		done <- n
	}()
	return func() int { cancel(); return <-done }
}

func count(t *testing.T, d store.Driver) int {
	t.Helper()
	list, err := d.List(t.Context(), "/load/")
	must(t, err)
	return len(list.KVs)
}

// TestAMemberThatWaitsCanBeStopped: the first of three, which waits for a second
// one, ends when it is told to.
func TestAMemberThatWaitsCanBeStopped(t *testing.T) {
	c := newCluster(t)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	ended := make(chan error, 1)
	go func() { ended <- Run(ctx, c.config("a")) }()
	c.until("the member listens", func() error { return second(os.Stat(filepath.Join(c.data("a"), etcdSocket))) })
	cancel()
	select {
	case err := <-ended:
		if !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
	case <-time.After(time.Minute):
		t.Fatal("it goes on")
	}
}

// TestThreeMembers is the life of a datastore of three: one is killed under
// load, comes back, is replaced by an empty one; then all are lost, and a
// snapshot becomes three new ones. Whoever does the leader's work, another one
// takes over.
func TestThreeMembers(t *testing.T) {
	c := newCluster(t)
	ctx := t.Context()
	c.start(false, "a", "b", "c")
	must(t, AddUser(ctx, c.data("a"), embedded.User{Kind: embedded.ClientUser, Name: "ops"}))
	db := c.dial("a", "b", "c")
	stop := load(ctx, db)
	local := func(name string) *etcd.Driver {
		d, err := etcd.New(etcd.Config{Endpoints: []string{"unix://" + filepath.Join(c.data(name), etcdSocket)}})
		must(t, err)
		return d
	}
	more := func(name string, than int) int {
		t.Helper()
		d := local(name)
		defer d.Close()
		n := 0
		c.until(fmt.Sprintf("more than %d keys on %s", than, name), func() error {
			list, err := d.List(ctx, "/load/")
			if n = len(list.KVs); err == nil && n <= than {
				err = fmt.Errorf("%d keys", n)
			}
			return err
		})
		return n
	}

	leader := "a"
	members, err := Members(ctx, c.data("a"))
	must(t, err)
	for _, m := range members {
		if m.Leader {
			leader = m.Name
		}
	}
	others := slices.DeleteFunc([]string{"a", "b", "c"}, func(s string) bool { return s == leader })
	n := more(others[0], 0)
	worker := c.signed(db)
	c.kill(leader) // the worst one to lose
	n = more(others[0], n+20)
	if worker == leader {
		c.signed(db, leader)
	}
	c.start(false, leader)
	n = more(leader, n)

	// Its disk is lost: it does not silently begin anew.
	c.kill(leader)
	must(t, os.RemoveAll(c.data(leader)))
	if err := Run(ctx, c.config(leader)); err == nil || !strings.Contains(err.Error(), "members remove "+leader) {
		t.Errorf("an empty folder for a member: %v", err)
	}
	must(t, os.RemoveAll(c.data(leader)))
	must(t, RemoveMember(ctx, c.data(others[0]), leader))
	if err := RemoveMember(ctx, c.data(others[0]), leader); err == nil || !strings.Contains(err.Error(), "no such member") {
		t.Errorf("removed twice: %v", err)
	}
	own := c.peers[slices.IndexFunc(c.peers, func(p embedded.Peer) bool { return p.Name == leader })]
	must(t, AddMember(ctx, c.data(others[0]), own))
	c.start(true, leader)
	more(leader, n)
	written := stop()

	file := filepath.Join(c.dir, "snapshot")
	must(t, SnapshotSave(ctx, c.data(leader), file))
	if got := count(t, db); got < written {
		t.Errorf("%d keys, but %d were acknowledged", got, written)
	}
	for name := range c.clients {
		c.kill(name)
	}
	// Without a majority, a member's folder still gives a snapshot.
	must(t, SnapshotSave(ctx, c.data(others[0]), file+"-of-one"))
	must(t, SnapshotRestore(filepath.Join(c.dir, "one"), file+"-of-one", nil))
	c.restore(file, written)
}

// restore loses everything but a snapshot, which has all that was acknowledged.
func (c *cluster) restore(file string, written int) {
	c.t.Helper()
	for name := range c.clients {
		c.kill(name)
		must(c.t, os.RemoveAll(c.data(name)))
		cfg := c.config(name)
		must(c.t, SnapshotRestore(cfg.Dir, file, cfg.Cluster))
	}
	c.start(false, "a", "b", "c")
	d := c.dial("a", "b", "c")
	keys := count(c.t, d)
	if keys < written {
		c.t.Errorf("%d keys after the restore, but %d were acknowledged before", keys, written)
	}
	// One who joins later is sent what was restored, too.
	ctx := c.t.Context()
	c.kill("c")
	must(c.t, os.RemoveAll(c.data("c")))
	must(c.t, RemoveMember(ctx, c.data("a"), "c")) // it may have led
	own := c.peers[slices.IndexFunc(c.peers, func(p embedded.Peer) bool { return p.Name == "c" })]
	must(c.t, AddMember(ctx, c.data("a"), own))
	c.start(true, "c")
	c.kill("a")
	c.until("c has what was restored", func() error {
		list, err := c.dial("b", "c").List(ctx, "/load/")
		if err == nil && len(list.KVs) != keys {
			c.t.Fatalf("%d keys on b and c, want %d", len(list.KVs), keys)
		}
		return err
	})
	c.signed(c.dial("b", "c"), "a")
	alone, err := etcd.New(etcd.Config{Endpoints: []string{"unix://" + filepath.Join(c.data("c"), etcdSocket)}})
	must(c.t, err)
	defer alone.Close()
	if got := count(c.t, alone); got != keys {
		c.t.Errorf("%d keys on c, want %d", got, keys)
	}
}
