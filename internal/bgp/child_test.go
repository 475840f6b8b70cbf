package bgp

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/brindle-net/brindle/internal/desired"
	"github.com/brindle-net/brindle/internal/netns"
	"github.com/brindle-net/brindle/internal/reconcile"
	"github.com/brindle-net/brindle/internal/testenv"
)

// The engine dials in the network namespace of its process. So a speaker under
// test is this test binary started again inside a namespace of its own, with
// this in its environment: the settings as JSON.
const childEnv = "BRINDLE_BGP_TEST_CHILD"

func TestMain(m *testing.M) {
	if settings := os.Getenv(childEnv); settings != "" {
		if err := child(settings, os.Stdin, os.Stdout); err != nil {
			fmt.Fprintln(os.Stderr, "child:", err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

type childSettings struct {
	Hold, Retry, LimitHold time.Duration
	Debug, Fresh           bool
}

// wantPeer is desired.Peer with a password that JSON does not hide.
type wantPeer struct {
	desired.Peer
	Port     uint16
	Password string
}

// tables is all that a speaker is asked for.
type tables struct {
	Speaker desired.Speaker
	Peers   map[string]wantPeer
	Paths   map[string]desired.Path
	Imports map[string]bool // prefix -> own
	Aside   map[string]bool // of Imports
}

type request struct {
	Op   string // want, insync, files, sessions, states, routes, stop
	Want tables
	Addr string
	Port uint16
}

type reply struct {
	Event    string // "" for an answer
	Prefix   string
	Hops     []string
	Err      string
	Sessions []Session
	In, Out  []Route
}

// child serves requests until its input ends.
func child(settings string, in io.Reader, out io.Writer) error {
	var set childSettings
	if err := json.Unmarshal([]byte(settings), &set); err != nil {
		return err
	}
	var mu sync.Mutex
	say := func(r reply) {
		mu.Lock()
		defer mu.Unlock()
		_ = json.NewEncoder(out).Encode(r)
	}
	level := slog.LevelInfo
	if set.Debug {
		level = slog.LevelDebug
	}
	s := New(Config{
		Log:      slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: level})),
		HoldTime: set.Hold, ConnectRetry: set.Retry, LimitHold: set.LimitHold, Fresh: set.Fresh,
		Learned: func(p desired.Patch[desired.RouteKey, desired.Route]) {
			for k, v := range p.Set {
				var hops []string
				for _, h := range v.Hops {
					hops = append(hops, h.Via.String())
				}
				say(reply{Event: "set", Prefix: k.Prefix.String(), Hops: hops})
			}
			for _, k := range p.Delete {
				say(reply{Event: "delete", Prefix: k.Prefix.String()})
			}
		},
		LearnedInSync: func() { say(reply{Event: "insync"}) },
	})
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() { defer close(ended); _ = s.Run(ctx) }()
	defer func() { cancel(); <-ended }()
	var now tables
	for dec := json.NewDecoder(in); ; {
		var r request
		if err := dec.Decode(&r); err == io.EOF {
			return nil
		} else if err != nil {
			return err
		}
		if r.Op == "stop" {
			cancel()
			<-ended
			say(reply{})
			return nil
		}
		say(serve(s, r, &now))
	}
}

func serve(s *Server, r request, now *tables) reply {
	ctx := context.Background()
	var out reply
	var err error
	switch r.Op {
	case "want":
		err = s.applyTables(*now, r.Want)
		*now = r.Want
	case "insync":
		state := now.state()
		s.InSync(slices.Collect(maps.Keys(state.Peers)), slices.Collect(maps.Keys(state.Paths)), slices.Collect(maps.Keys(state.Imports)))
	case "files":
		err = limitFiles(r.Port)
	case "sessions":
		out.Sessions, err = s.Sessions(ctx)
	case "states":
		out.Sessions, err = s.States(ctx)
	case "routes":
		out.In, out.Out, err = s.Routes(ctx, desired.PeerKey{Addr: netip.MustParseAddr(r.Addr), Port: r.Port})
	default:
		err = fmt.Errorf("unknown request %q", r.Op)
	}
	if err != nil {
		out.Err = err.Error()
	}
	return out
}

// limitFiles allows so many more files than are open. It opens none itself, for
// it is also what ends the want of them.
func limitFiles(more uint16) error {
	// The limit is one of numbers. Below the first that is free all are taken,
	// whatever is open above it.
	free := 0
	for {
		if _, err := unix.FcntlInt(uintptr(free), unix.F_GETFD, 0); err != nil {
			break
		}
		free++
	}
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		return err
	}
	limit.Cur = min(uint64(free)+uint64(more), limit.Max)
	return unix.Setrlimit(unix.RLIMIT_NOFILE, &limit)
}

func (t tables) state() desired.State {
	st := desired.State{
		Speakers: map[string]desired.Speaker{}, Peers: map[desired.PeerKey]desired.Peer{},
		Paths: map[desired.PathKey]desired.Path{}, Imports: map[desired.ImportKey]desired.Import{},
	}
	if t.Speaker.AS != 0 {
		st.Speakers[""] = t.Speaker
	}
	for a, p := range t.Peers {
		p.Peer.Password = desired.NewSecret(p.Password)
		st.Peers[desired.PeerKey{Addr: netip.MustParseAddr(a), Port: p.Port}] = p.Peer
	}
	for a, p := range t.Paths {
		st.Paths[netip.MustParsePrefix(a)] = p
	}
	for a, own := range t.Imports {
		st.Imports[desired.ImportKey{Prefix: netip.MustParsePrefix(a)}] = desired.Import{Own: own, Aside: t.Aside[a]}
	}
	return st
}

// applyTables brings a speaker from one set of tables to another.
func (s *Server) applyTables(from, to tables) error {
	a, b := from.state(), to.state()
	if err := applyDiff(s.Imports(), a.Imports, b.Imports, func(x, y desired.Import) bool { return x == y }); err != nil {
		return err
	}
	if err := applyDiff(s.Paths(), a.Paths, b.Paths, desired.Path.Equal); err != nil {
		return err
	}
	if err := applyDiff(s.Speakers(), a.Speakers, b.Speakers, desired.Speaker.Equal); err != nil {
		return err
	}
	return applyDiff(s.Peers(), a.Peers, b.Peers, func(x, y desired.Peer) bool { return x == y })
}

func applyDiff[K comparable, V any](t reconcile.Target[K, V], from, to map[K]V, equal func(a, b V) bool) error {
	var plan reconcile.Plan[K, V]
	for k, v := range to {
		if old, ok := from[k]; !ok || !equal(old, v) {
			plan.Set = append(plan.Set, reconcile.Entry[K, V]{Key: k, Value: v})
		}
	}
	for k := range from {
		if _, ok := to[k]; !ok {
			plan.Delete = append(plan.Delete, k)
		}
	}
	if len(plan.Set)+len(plan.Delete) == 0 {
		return nil
	}
	for k, err := range t.Apply(context.Background(), plan) {
		return fmt.Errorf("%v: %w", k, err)
	}
	return nil
}

// process is a speaker in a namespace, seen from the test.
type process struct {
	t       *testing.T
	cmd     *exec.Cmd
	in      *json.Encoder
	log     string
	answers chan reply

	mu      sync.Mutex // guards everything below
	learned map[string]string
	history []string // "set 10.0.0.0/24 via …", "delete …", "insync"
}

// start runs a speaker in ns with the tables in place and peers let in.
func start(t *testing.T, ns *netns.NS, set childSettings, want tables) *process {
	t.Helper()
	p := launch(t, ns, set)
	p.want(want)
	p.ask(request{Op: "insync"})
	return p
}

// launch runs a speaker in ns that has been told nothing yet.
func launch(t *testing.T, ns *netns.NS, set childSettings) *process {
	t.Helper()
	text, err := json.Marshal(set)
	if err != nil {
		t.Fatal(err)
	}
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	p := &process{
		t: t, cmd: exec.Command(exe), answers: make(chan reply, 1), learned: map[string]string{},
		log: filepath.Join(t.TempDir(), "speaker.log"),
	}
	p.cmd.Env = append(os.Environ(), childEnv+"="+string(text))
	logFile, err := os.Create(p.log)
	if err != nil {
		t.Fatal(err)
	}
	defer logFile.Close()
	p.cmd.Stderr = logFile
	stdin, err := p.cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := p.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	p.in = json.NewEncoder(stdin)
	if err := netns.Do(ns, p.cmd.Start); err != nil {
		t.Fatal(err)
	}
	go p.listen(stdout)
	t.Cleanup(func() {
		p.kill()
		text := p.logText()
		for _, bad := range []string{"DATA RACE", "panic:", "fatal error:"} {
			if strings.Contains(text, bad) {
				t.Errorf("%s in the speaker", bad)
			}
		}
		if t.Failed() {
			t.Logf("log of the speaker:\n%s", text)
		}
	})
	return p
}

func (p *process) listen(out io.Reader) {
	defer close(p.answers)
	scanner := bufio.NewScanner(out)
	scanner.Buffer(nil, 64<<20)
	for scanner.Scan() {
		var r reply
		if err := json.Unmarshal(scanner.Bytes(), &r); err != nil {
			return
		}
		p.mu.Lock()
		switch hops := strings.Join(r.Hops, ","); r.Event {
		case "set":
			p.learned[r.Prefix] = hops
			p.history = append(p.history, "set "+r.Prefix+" via "+hops)
		case "delete":
			delete(p.learned, r.Prefix)
			p.history = append(p.history, "delete "+r.Prefix)
		case "insync":
			p.history = append(p.history, "insync")
		default:
			p.answers <- r
		}
		p.mu.Unlock()
	}
}

func (p *process) ask(r request) reply {
	p.t.Helper()
	if err := p.in.Encode(r); err != nil {
		p.t.Fatalf("ask the speaker to %s: %v", r.Op, err)
	}
	a, ok := <-p.answers
	if !ok {
		text, _ := os.ReadFile(p.log)
		p.t.Fatalf("the speaker ended\n%s", text)
	}
	return a
}

func (p *process) want(want tables) {
	p.t.Helper()
	if a := p.ask(request{Op: "want", Want: want}); a.Err != "" {
		p.t.Fatal(a.Err)
	}
}

func (p *process) session(addr string) Session {
	p.t.Helper()
	a := p.ask(request{Op: "sessions"})
	if a.Err != "" {
		p.t.Fatal(a.Err)
	}
	for _, s := range a.Sessions {
		if s.Key.Addr.String() == addr {
			return s
		}
	}
	p.t.Fatalf("no session with %s", addr)
	return Session{}
}

// up waits for sessions to be established and End-of-RIB both ways.
func (p *process) up(addrs ...string) {
	p.t.Helper()
	testenv.Until(p.t, time.Minute, func() error {
		for _, a := range addrs {
			if s := p.session(a); s.State != established || !s.EndOfRIBReceived || !s.EndOfRIBSent {
				return fmt.Errorf("session with %s: %+v", a, s)
			}
		}
		return nil
	})
}

// state waits until the session with addr is as it should be.
func (p *process) state(most time.Duration, addr string, good func(Session) bool) {
	p.t.Helper()
	testenv.Until(p.t, most, func() error {
		if s := p.session(addr); !good(s) {
			return fmt.Errorf("session with %s: %+v", addr, s)
		}
		return nil
	})
}

// table waits until exactly these routes are learned.
func (p *process) table(want map[string]string) {
	p.t.Helper()
	testenv.Until(p.t, time.Minute, func() error {
		p.mu.Lock()
		defer p.mu.Unlock()
		if !maps.Equal(p.learned, want) {
			if len(want) > 100 || len(p.learned) > 100 {
				return fmt.Errorf("learned %d routes, want %d", len(p.learned), len(want))
			}
			return fmt.Errorf("learned %v, want %v", p.learned, want)
		}
		return nil
	})
}

func (p *process) events() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.history)
}

func (p *process) logText() string {
	text, err := os.ReadFile(p.log)
	if err != nil {
		p.t.Fatal(err)
	}
	return string(text)
}

// alive fails the test if the process has ended.
func (p *process) alive() {
	p.t.Helper()
	p.ask(request{Op: "sessions"})
}

// kill ends the process as SIGKILL does.
func (p *process) kill() {
	if p.cmd.ProcessState == nil {
		_ = p.cmd.Process.Kill()
		_ = p.cmd.Wait()
	}
}
