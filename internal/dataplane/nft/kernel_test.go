package nft

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/brindle-net/brindle/internal/dataplane/rules"
	"github.com/brindle-net/brindle/internal/desired"
	"github.com/brindle-net/brindle/internal/netns"
	"github.com/brindle-net/brindle/internal/testenv"
)

// lists asks nft(8) for everything that is in a namespace, as text and as JSON.
// In the virtual machines of other kernels, which have no programs, it says
// nothing: there the kernel's own answers have to do.
func lists(t testing.TB, ns *netns.NS) string {
	t.Helper()
	if os.Getenv("BRINDLE_VM") != "" {
		return ""
	}
	text := testenv.Run(t, ns, "nft", "list", "ruleset")
	var doc struct {
		Nftables []map[string]any `json:"nftables"`
	}
	if err := json.Unmarshal([]byte(testenv.Run(t, ns, "nft", "-j", "list", "ruleset")), &doc); err != nil {
		t.Fatalf("nft -j: %v", err)
	}
	return text
}

// shownLines are lines that a listing must have, if there is one.
func shownLines(text string, lines ...string) []string {
	if text == "" {
		return nil
	}
	return lines
}

// missing says what an edit would do, in few words.
func missing(e *edit) string {
	text := fmt.Sprintf("flush %v, drop chains %v sets %v counters %v, empty %v, add counters %v chains %v sets %v rules in %v",
		sorted(e.flush), sorted(e.dropChains), sorted(e.dropSets), sorted(e.dropCounter), sorted(e.empties),
		sorted(e.counters), sorted(e.chains), sorted(e.sets), sorted(e.rules))
	for name, elems := range e.dropElems {
		text += fmt.Sprintf(", drop %d elements of %s", len(elems), name)
	}
	for name, elems := range e.elems {
		text += fmt.Sprintf(", add %d elements to %s", len(elems), name)
	}
	return text
}

// settled fails unless the kernel holds exactly what the policy asks for. The
// numbers that look-ups give to things depend on the history, and are nobody's
// business but the builder's.
func settled(t testing.TB, d *Driver, want *desired.Policy) {
	t.Helper()
	program := d.builder.Program()
	if !d.cfg.Compiled {
		cfg := d.cfg
		cfg.NAT.Begun = d.builder.Translates()
		program = rules.Render(cfg, want)
	}
	have, _, err := d.look.readImage()
	if err != nil {
		t.Fatal(err)
	}
	im, _, err := lowerProgram(program)
	if err != nil {
		t.Fatal(err)
	}
	for _, id := range []tableID{inet, arp} {
		if e := difference(id, have.tables[id], im.tables[id]); !e.empty() {
			t.Fatalf("table %v is not what it should be: %s", id, missing(e))
		}
	}
}

func mustSync(t testing.TB, d *Driver, want *desired.Policy, changed *desired.PolicyPatch) {
	t.Helper()
	if err := d.Sync(t.Context(), want, changed); err != nil {
		t.Fatal(err)
	}
}

// Everything that we write reads back as it was written, and nft(8) lists it.
func TestEverythingReadsBack(t *testing.T) {
	ns := testenv.NetNS(t)
	d := open(t, ns)
	want := everything()
	mustSync(t, d, want, nil)
	settled(t, d, want)
	text := lists(t, ns)
	for _, line := range shownLines(text,
		`comment "NetworkPolicy default/all, ingress rule 1"`,
		"elements = { 0.0.0.0/1, 192.0.2.1,", "255.0.0.0/8 }",
		`elements = { "cali1" . ee:ee:ee:ee:ee:ee . 10.0.0.2 }`, `"tap2" . 198.51.100.0/24`,
		"10.0.0.2 . tcp . 80", `"cali1" : goto g-`, "type filter hook forward priority filter + 1; policy accept;",
		"ct state established,related accept", `iifname "cali*" counter name "d-unknown-from" drop`,
		"tcp dport 1000-2000", "icmp type echo-request", "meta mark set meta mark | 0x00020000 return",
		`log prefix "brindle NetworkPolicy default/all: "`, "icmpv6 type @in-byte-",
		`arp operation reply oifname . arp saddr ip @arp-own counter name "d-arp-claim" drop`,
	) {
		if !strings.Contains(text, line) {
			t.Errorf("nft does not list %q", line)
		}
	}
	if strings.Contains(text, "type 0") {
		t.Error("nft does not know the type of a set")
	}
	before, err := d.look.generation()
	if err != nil {
		t.Fatal(err)
	}
	mustSync(t, d, want, nil) // nothing to do
	if after, err := d.look.generation(); err != nil || after != before {
		t.Errorf("a read-back without a difference wrote something: generation %d, then %d (%v)", before, after, err)
	}
}

// Random histories on the real kernel: after each change it holds what the
// policy asks for, what it holds means what the program says, and nft(8) lists
// it. Now and then the driver is a new one, as after a restart.
func TestRandomHistories(t *testing.T) {
	for seed := range rounds(8) {
		ns := testenv.NetNS(t)
		c := newChaos(seed)
		d := openWith(t, ns, c.cfg)
		mustSync(t, d, &c.policy, nil)
		for step := range 25 {
			patch := c.step(6)
			if step%10 == 9 {
				d, patch = openWith(t, ns, c.cfg), nil
			}
			mustSync(t, d, &c.policy, patch)
			settled(t, d, &c.policy)
		}
		lists(t, ns)
		m, err := d.Enforced()
		if err != nil {
			t.Fatal(err)
		}
		agree(t, c, d.builder.Program(), m, 100)
	}
}

// What others do to our tables is heard of, and mended by a read-back; their
// own tables are not touched.
func TestDrift(t *testing.T) {
	for _, tt := range []struct{ name, do string }{
		{"flush the ruleset", "flush ruleset"},
		{"delete a table", "delete table inet brindle"},
		{"delete the ARP table", "delete table arp brindle"},
		{"flush a chain", "flush chain inet brindle forward-from"},
		{"insert a rule", "insert rule inet brindle forward-from accept"},
		{"append a rule nobody knows", "add rule inet brindle forward-to ip saddr 10.0.0.1 numgen random mod 2 0 accept"},
		{"add a chain", "add chain inet brindle mine { type filter hook input priority -500; policy drop; }"},
		{"add a chain and jump there", "add chain inet brindle mine; insert rule inet brindle spoof jump mine"},
		{"a rule with a set of its own", "insert rule inet brindle forward-from ip saddr { 10.0.0.1, 10.0.0.2 } accept"},
		{"a rule with a map of its own", "add rule inet brindle spoof ip saddr vmap { 10.0.0.1 : accept, 10.0.0.2 : drop }"},
		{"a rule with a chain of its own", "insert rule inet brindle forward-to jump { counter; accept; }"},
		{"a chain with a set of its own", "add chain inet brindle mine; add rule inet brindle mine tcp dport { 1, 2-7 } drop; insert rule inet brindle spoof jump mine"},
		{"change a policy", "add chain inet brindle output { policy drop; }"},
		{"add an element", "add element inet brindle workloads { \"evil\" }"},
		{"delete an element", "delete element inet brindle workloads { \"cali1\" }"},
		{"change an element", "delete element inet brindle from { \"cali1\" }; add element inet brindle from { \"cali1\" : accept }"},
		{"flush a set", "flush set inet brindle workloads"},
		{"take an interval out", "delete element inet brindle N4 { 255.0.0.0/8 }"},
		{"cut an interval in two", "delete element inet brindle N4 { 0.0.0.0/1 }; add element inet brindle N4 { 0.0.0.0/4, 32.0.0.0/3 }"},
		{"put an interval in", "add element inet brindle N4 { 200.0.0.0/8 }"},
		{"flush intervals", "flush set inet brindle N4"},
		{"add a set", "add set inet brindle mine { type ipv4_addr; flags interval; elements = { 10.0.0.0/8 }; }"},
		{"add an object", "add counter inet brindle mine"},
		{"put the table to sleep", "add table inet brindle { flags dormant; }"},
		{"all at once", "flush chain inet brindle spoof; add rule inet brindle spoof drop; flush map inet brindle from; add set inet brindle x { type mark; }"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			ns := testenv.NetNS(t)
			testenv.Run(t, ns, "nft", "add table inet other; add chain inet other c; add rule inet other c accept")
			d := open(t, ns)
			want := everything()
			mustSync(t, d, want, nil)

			intervals := ""
			for name, s := range rules.Render(settings(), want).Sets {
				if s.Interval && len(s.Elements) == 3 && len(s.Key) == 1 && s.Key[0] == rules.Addr4Type {
					intervals = name
				}
			}

			told := make(chan struct{}, 1000)
			ctx, stop := context.WithCancel(t.Context())
			ended := make(chan error)
			go func() { ended <- d.Watch(ctx, func() { told <- struct{}{} }) }()
			defer func() {
				stop()
				if err := <-ended; !errors.Is(err, context.Canceled) {
					t.Error(err)
				}
			}()
			<-told // the first, at the start
			testenv.Run(t, ns, "nft", strings.ReplaceAll(tt.do, "N4", intervals))
			select {
			case <-told:
			case <-time.After(10 * time.Second):
				t.Fatal("not heard of")
			}
			mustSync(t, d, want, nil)
			settled(t, d, want)
			if text := lists(t, ns); strings.Contains(tt.do, "flush ruleset") == strings.Contains(text, "table inet other") {
				t.Errorf("other tables were touched:\n%s", text)
			}
			if strings.Contains(lists(t, ns), "dormant") {
				t.Error("the table still sleeps")
			}
		})
	}
}

// Neither our own changes nor those of others in tables of their own are told.
func TestWatchIsQuiet(t *testing.T) {
	ns := testenv.NetNS(t)
	d := open(t, ns)
	want := everything()
	told := make(chan string, 1000)
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error)
	go func() { ended <- d.Watch(ctx, func() { told <- "drift" }) }()
	<-told
	mustSync(t, d, want, nil)
	many := desired.SetPatch{}
	for i := range 5000 {
		a := netip.AddrFrom4([4]byte{10, 77, byte(i >> 8), byte(i)})
		many.Add = append(many.Add, desired.Member{Prefix: netip.PrefixFrom(a, 32)})
	}
	patch := &desired.PolicyPatch{Sets: map[desired.SetID]desired.SetPatch{"s:web": many}}
	patch.Play(*want)
	mustSync(t, d, want, patch)
	testenv.Run(t, ns, "nft", "add table inet other; add chain inet other c; add rule inet other c accept; add table ip brindle; add set ip brindle s { type mark; }")
	// The last word: one that must be heard.
	testenv.Run(t, ns, "nft", "add chain inet brindle last")
	<-told
	stop()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	if n := len(told); n != 0 {
		t.Errorf("told %d times more", n)
	}
}

// What we cause ourselves does not even get into the queue, where it could
// push out what others cause.
func TestListenerIsDeafToUs(t *testing.T) {
	ns := testenv.NetNS(t)
	d := open(t, ns)
	l, err := d.listen()
	if err != nil {
		t.Fatal(err)
	}
	defer l.close()
	mustSync(t, d, everything(), nil)
	if n, err := readNow(l); n > 0 || !errors.Is(err, unix.EAGAIN) {
		t.Errorf("our own change: %d bytes, %v", n, err)
	}
	var b batch
	b.addChain(inet, "of another", nil)
	if err := d.look.commit(&b, 0); err != nil {
		t.Fatal(err)
	}
	if n, err := readNow(l); err != nil || !l.drift(l.buf[:n]) {
		t.Errorf("somebody else's change: %d bytes, %v", n, err)
	}
}

// Of a large change of ours nothing is written for us to drop, and what others
// change meanwhile is told all the same.
func TestLargeChangesAreQuiet(t *testing.T) {
	ns := testenv.NetNS(t)
	d := open(t, ns)
	mustSync(t, d, everything(), nil)
	l, err := d.listen()
	if err != nil {
		t.Fatal(err)
	}
	defer l.close()
	told := 0
	l.tell = func() { told++ }
	d.hearing.Store(l)
	foreign := func(name string) {
		t.Helper()
		var b batch
		b.addChain(inet, name, nil)
		if err := d.look.commit(&b, 0); err != nil {
			t.Fatal(err)
		}
	}
	own := func(name string) func() error {
		var b batch
		b.addChain(inet, name, nil)
		return func() error { return d.conn.commit(&b, 0) }
	}
	broken := errors.New("no space")
	for _, tt := range []struct {
		name   string
		size   int
		commit func() error
		told   int
		heard  bool
	}{
		{"ours alone", loud, own("a"), 0, false},
		{"another's before it", loud, func() error { foreign("b"); return own("c")() }, 1, false},
		{"another's after it", loud, func() error { defer foreign("d"); return own("e")() }, 1, false},
		{"another's, and ours fails", loud, func() error { foreign("f"); foreign("g"); return broken }, 1, false},
		{"a small one", loud - 1, func() error { foreign("h"); return own("i")() }, 0, true},
	} {
		told = 0
		err := d.quietly(tt.size, tt.commit)
		n, _ := readNow(l)
		if told != tt.told || n > 0 != tt.heard || err != nil && !errors.Is(err, broken) {
			t.Errorf("%s: told %d times, heard %d bytes, %v", tt.name, told, n, err)
		}
		for n > 0 { // what there is besides
			n, _ = readNow(l)
		}
	}
	foreign("last")
	if n, err := readNow(l); err != nil || !l.drift(l.buf[:n]) {
		t.Errorf("afterwards another's change: %d bytes, %v", n, err)
	}
}

// What was read before somebody else's change is not written after it.
func TestStaleGeneration(t *testing.T) {
	ns := testenv.NetNS(t)
	d := open(t, ns)
	generation, err := d.conn.generation()
	if err != nil {
		t.Fatal(err)
	}
	testenv.Run(t, ns, "nft", "add table inet other")
	var b batch
	b.addTable(inet)
	if err := d.conn.commit(&b, generation); !errors.Is(err, ErrStale) {
		t.Fatalf("commit: %v, want ErrStale", err)
	}
	if text := lists(t, ns); strings.Contains(text, TableName) {
		t.Errorf("something was written:\n%s", text)
	}
	if generation, err = d.conn.generation(); err != nil {
		t.Fatal(err)
	}
	if err := d.conn.commit(&b, generation); err != nil { // the socket is as good as before
		t.Fatal(err)
	}
}

// A full read-back ends although another program never rests.
func TestRestlessNeighbour(t *testing.T) {
	ns := testenv.NetNS(t)
	d, other := open(t, ns), open(t, ns)
	done := make(chan struct{})
	ended := make(chan error)
	go func() {
		id := tableID{unix.NFPROTO_INET, "other"}
		for {
			select {
			case <-done:
				ended <- nil
				return
			default:
			}
			var b batch
			b.addTable(id)
			b.deleteTable(id)
			if err := other.conn.commit(&b, 0); err != nil {
				ended <- err
				return
			}
		}
	}()
	want := everything()
	testenv.Until(t, 20*time.Second, func() error { return d.Sync(t.Context(), want, nil) })
	close(done)
	if err := <-ended; err != nil {
		t.Fatal(err)
	}
	settled(t, d, want)
}

// A host with much policy is taken over although another program changes
// nftables faster than all of it can be read: what was to be mended is.
func TestRestlessNeighbourOfMany(t *testing.T) {
	ns := testenv.NetNS(t)
	first, other := open(t, ns), open(t, ns)
	want := crowd(30000)
	mustSync(t, first, want, nil)
	testenv.Run(t, ns, "nft", "insert rule inet brindle forward-from accept")
	done := make(chan struct{})
	ended := make(chan error)
	go func() {
		tick := time.NewTicker(5 * time.Millisecond) // the pace is the test's subject
		defer tick.Stop()
		id := tableID{unix.NFPROTO_INET, "other"}
		for {
			select {
			case <-done:
				ended <- nil
				return
			case <-tick.C:
			}
			var b batch
			b.addTable(id)
			b.deleteTable(id)
			if err := other.conn.commit(&b, 0); err != nil {
				ended <- err
				return
			}
		}
	}()
	d := open(t, ns) // as after a restart
	err := d.Sync(t.Context(), want, nil)
	close(done)
	if err := <-ended; err != nil {
		t.Fatal(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	settled(t, d, want)
}

// An error names what failed, and nothing of the batch is done.
func TestErrorsNameTheObject(t *testing.T) {
	ns := testenv.NetNS(t)
	d := open(t, ns)
	want := everything()
	mustSync(t, d, want, nil)
	before := lists(t, ns)
	var two batch
	two.deleteChain(inet, "one")
	two.deleteCounter(inet, "two")
	two.addTable(inet)
	if err := d.conn.commit(&two, 0); err == nil || !strings.Contains(err.Error(), "delete chain one") || !strings.Contains(err.Error(), "delete counter two") {
		t.Errorf("two failures: %v", err)
	}
	for _, tt := range []struct {
		name, step string
		is         error
		write      func(b *batch)
	}{
		{"missing chain", "add rule forward-from 1", unix.ENOENT, func(b *batch) {
			b.addRules(inet, "forward-from", []rule{{exprs: []expr{counter{}}}, {exprs: []expr{immediate{verdict: &verdict{jump, "nowhere"}}}}})
		}},
		{"missing set", "add rule output 0", unix.ENOENT, func(b *batch) {
			b.addRules(inet, "output", []rule{{exprs: []expr{meta{key: unix.NFT_META_MARK}, lookup{set: "none"}}}})
		}},
		{"missing element", "delete elements of set workloads", unix.ENOENT, func(b *batch) {
			b.addCounter(inet, "fine", "")
			b.deleteElems(inet, "workloads", []member{{id: elemID{key: string(interfaceName("gone"))}}})
		}},
		{"a chain that is in use", "delete chain careful", unix.EBUSY, func(b *batch) {
			b.flushChain(inet, "careful")
			b.deleteChain(inet, "careful")
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var b batch
			tt.write(&b)
			err := d.conn.commit(&b, 0)
			var step *StepError
			if !errors.As(err, &step) || step.Step != tt.step || !errors.Is(err, tt.is) {
				t.Fatalf("got %v, want %q and %v", err, tt.step, tt.is)
			}
			if lists(t, ns) != before {
				t.Error("something of the batch was done")
			}
		})
	}
	settled(t, d, want) // and the socket still works
}

// A failing change leaves the old rules; the next Sync puts everything right,
// whatever it is told.
func TestFailedChange(t *testing.T) {
	ns := testenv.NetNS(t)
	d := open(t, ns)
	want := everything()
	mustSync(t, d, want, nil)
	// Somebody deletes an element that the next change would delete.
	testenv.Run(t, ns, "nft", "delete element inet brindle workloads { \"cali1\" }")
	before := lists(t, ns)
	patch := &desired.PolicyPatch{Endpoints: desired.Patch[string, *desired.Endpoint]{Delete: []string{"cali1"}}}
	patch.Play(*want)
	err := d.Sync(t.Context(), want, patch)
	if !errors.Is(err, unix.ENOENT) || !strings.Contains(err.Error(), "elements of set workloads") {
		t.Fatalf("Sync: %v", err)
	}
	if lists(t, ns) != before {
		t.Error("a failed change changed something")
	}
	patch = &desired.PolicyPatch{Endpoints: desired.Patch[string, *desired.Endpoint]{Delete: []string{"tap2"}}}
	patch.Play(*want)
	mustSync(t, d, want, patch)
	settled(t, d, want)
}

// Remove takes away both tables and nothing else, also when there is nothing.
func TestRemove(t *testing.T) {
	ns := testenv.NetNS(t)
	testenv.Run(t, ns, "nft", "add table inet other; add chain inet other c")
	if err := Remove(ns); err != nil {
		t.Fatal(err)
	}
	d := open(t, ns)
	mustSync(t, d, everything(), nil)
	if err := Remove(ns); err != nil {
		t.Fatal(err)
	}
	if text := lists(t, ns); strings.Contains(text, TableName) || !strings.Contains(text, "table inet other") {
		t.Errorf("left:\n%s", text)
	}
}

// readNow reads what is in a listener's queue.
func readNow(l *listener) (int, error) {
	n, _, err := unix.Recvfrom(l.fd, l.buf, unix.MSG_DONTWAIT)
	return n, err
}
