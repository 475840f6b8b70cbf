package nft

import (
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/brindle-net/brindle/internal/conntrack"
	"github.com/brindle-net/brindle/internal/dataplane/rules"
	"github.com/brindle-net/brindle/internal/desired"
	"github.com/brindle-net/brindle/internal/netns"
	"github.com/brindle-net/brindle/internal/testenv"
)

// needFlowtable skips a test on a kernel without flowtables.
func needFlowtable(t *testing.T, ns *netns.NS) {
	t.Helper()
	all, err := Try(ns)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range all {
		if f.Name != FeatureFlowtable || f.Err == nil {
			continue
		}
		if os.Getenv("BRINDLE_VM") != "" {
			t.Fatalf("each virtual machine has flowtables: %v", f.Err)
		} else {
			t.Skipf("this kernel has no flowtable: %v", f.Err)
		}
	}
}

func offloading(c *rules.Config) { c.Offload, c.OffloadDevices = c.CutMark, "^eth" }

// newOffloadStreet is a street whose established connections bypass the rules.
func newOffloadStreet(t *testing.T) *street {
	needFlowtable(t, testenv.NetNS(t))
	s := newStreet(t)
	s.configure(offloading)
	if err := s.driver.Offloads(); err != nil || !strings.Contains(s.driver.Rules(), "flowtable offload: cali1, eth0\n") {
		t.Fatalf("%v: packets are looked for elsewhere:\n%s", err, s.driver.Rules())
	}
	testenv.Run(t, s.host, "nft", `table inet watch {
		counter passed {}
		chain watch { type filter hook forward priority -10
			meta l4proto {tcp, udp} counter name passed
		}
	}`)
	return s
}

// passed is how many packets have come by the rules.
func (s *street) passed() int {
	s.t.Helper()
	watch := tableID{unix.NFPROTO_INET, "watch"}
	im := newImage()
	im.tables[watch] = newTable()
	if err := s.driver.look.dump(im, unix.NFT_MSG_GETOBJ, watch, unix.NFTA_OBJ_TABLE); err != nil {
		s.t.Fatal(err)
	}
	return int(im.tables[watch].counters["passed"].packets)
}

// bypasses reports that packets of a connection come by no rules, both ways.
func (s *street) bypasses(c net.Conn) error {
	before := s.passed()
	for range 5 {
		if _, err := seen(c); err != nil {
			return err
		}
	}
	if n := s.passed() - before; n != 0 {
		return fmt.Errorf("%d of some ten packets came by the rules", n)
	}
	return nil
}

func (s *street) mustBypass(what string, c net.Conn) {
	s.t.Helper()
	testenv.Until(s.t, 10*time.Second, func() error {
		if err := s.bypasses(c); err != nil {
			return fmt.Errorf("%s: %w", what, err)
		}
		return nil
	})
}

// entry is a connection as the kernel tracks it.
func (s *street) entry(table *conntrack.Table, c net.Conn) []conntrack.Entry {
	s.t.Helper()
	all, err := table.List()
	if err != nil {
		s.t.Fatal(err)
	}
	at := netip.MustParseAddrPort(c.LocalAddr().String())
	for _, e := range all {
		if e.Orig.Src == at.Addr() && e.Orig.SrcPort == at.Port() {
			return []conntrack.Entry{e}
		}
	}
	s.t.Fatalf("no connection from %v among %d", at, len(all))
	return nil
}

// Connections of both families and protocols bypass the rules, translated or
// not. No neighbour can send in another's; one that is cut stops, and the others
// go on; an address that is used again brings nothing along; a driver that goes
// takes the bypass with it.
func TestOffload(t *testing.T) {
	s := newOffloadStreet(t)
	table, err := conntrack.Open(s.host)
	if err != nil {
		t.Fatal(err)
	}
	defer table.Close()
	calls := map[string]net.Conn{}
	for i, network := range []string{"tcp", "udp"} {
		for j, place := range []string{"outside", "a workload there"} { // translated, and not
			name := fmt.Sprintf("%s %s", network, place)
			c, err := s.call(s.pod, network, "", places()[place][(i+j)%2])
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			calls[name] = c
			s.mustBypass(name, c)
		}
	}
	t.Run("forged", func(t *testing.T) { s.forge(t, calls) })
	t.Run("listed", s.listFlows)
	t.Run("cut", func(t *testing.T) { s.cutOffloaded(t, table, calls) })
	t.Run("endpoint gone", func(t *testing.T) { s.withoutEndpoint(t, calls) })
	t.Run("driver gone", s.endWithDriver)
	t.Run("address used again", func(t *testing.T) { s.offloadedUsedAgain(t, table, calls) })
}

// cutOffloaded cuts some of the connections, and in the end forgets the others.
func (s *street) cutOffloaded(t *testing.T, table *conntrack.Table, calls map[string]net.Conn) {
	bit := natSettings().CutMark
	victims := []string{"tcp outside", "udp outside"} // IPv4, IPv6
	for _, name := range victims {
		s.mustBypass(name, calls[name])
		e := s.entry(table, calls[name])
		if err := table.SetMark(e, bit, bit); err != nil {
			t.Fatal(err)
		}
		if err := s.bypasses(calls[name]); err != nil {
			t.Errorf("%s: to be marked is not enough, is it? %v", name, err)
		}
	}
	if err := s.driver.Halt(); err != nil {
		t.Fatal(err)
	}
	s.driver.Resume(t.Context())
	before := s.passed()
	for _, name := range victims {
		if _, err := seen(calls[name]); err == nil {
			t.Errorf("%s: it is cut and goes on", name)
		}
		delete(calls, name)
	}
	if s.passed() == before {
		t.Error("packets of connections that are cut do not come by the rules")
	}
	for name, c := range calls {
		s.mustBypass(name, c)
	}
	if err := s.driver.Halt(); err != nil {
		t.Fatal(err)
	}
	for name, c := range calls { // at once: nothing is in the flowtable any more
		if err := table.Delete(s.entry(table, c)); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	s.driver.Resume(t.Context())
}

// forge has a neighbour send packets of others' connections, from either end.
func (s *street) forge(t *testing.T, calls map[string]net.Conn) {
	far, farName := testenv.NamedNS(s.t, "brindle-nft-far")
	testenv.Run(t, s.host, "ip", "link", "add", "cali2", "type", "veth", "peer", "name", "far2", "netns", farName)
	testenv.Run(t, s.host, "ip", "link", "set", "cali2", "address", "ee:ee:ee:ee:ee:ee", "addrgenmode", "none", "up")
	testenv.Run(t, far, "ip", "link", "set", "far2", "up")
	w := &wires{t: s.t, host: s.host, far: far, ends: map[int]int{}}
	w.listen(2, "far2")
	s.wires = w
	s.patch(desired.PolicyPatch{Endpoints: desired.Patch[string, *desired.Endpoint]{Set: map[string]*desired.Endpoint{"cali2": {
		Name: "WorkloadEndpoint default/b", MAC: "02:00:00:00:00:02", Profiles: []string{"Profile kns.default"},
		Addrs: []netip.Addr{at4(2), at6(2)},
	}}}})
	before, err := s.driver.Counters(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	passed, sent := s.passed(), 0
	for name, c := range calls {
		from, to := netip.MustParseAddrPort(c.LocalAddr().String()), netip.MustParseAddrPort(c.RemoteAddr().String())
		p := rules.Packet{EthSource: "\x02\x00\x00\x00\x00\x01", Protocol: unix.IPPROTO_UDP,
			Source: from.Addr(), Dest: to.Addr(), SourcePort: from.Port(), DestPort: to.Port()}
		if strings.HasPrefix(name, "tcp") {
			p.Protocol = unix.IPPROTO_TCP
		}
		w.send(2, p)
		p.Source, p.Dest, p.SourcePort, p.DestPort = p.Dest, p.Source, p.DestPort, p.SourcePort
		w.send(2, p)
		sent += 2
	}
	now, err := s.driver.Counters(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if n := int(now["d-spoof"].Packets - before["d-spoof"].Packets); n != sent {
		t.Errorf("of %d forged packets %d were dropped", sent, n)
	}
	if s.passed() != passed {
		t.Error("a forged packet was forwarded")
	}
	for name, c := range calls {
		s.mustBypass(name+", after forged packets", c)
	}
}

// listFlows shows the table as nft(8) does, and that nobody else can change it.
func (s *street) listFlows(t *testing.T) {
	text := testenv.Run(t, s.host, "nft", "list", "table", "inet", FlowsName)
	for _, want := range []string{"flags owner", "flowtable offload", "cali1", "eth0", "flow add @offload", "ct state ! established"} {
		if !strings.Contains(text, want) {
			t.Errorf("nft(8) shows no %q:\n%s", want, text)
		}
	}
	testenv.Run(t, s.host, "nft", "-j", "list", "ruleset")
	if out, err := testenv.TryRun(t, s.host, "nft", "delete", "table", "inet", FlowsName); err == nil {
		t.Errorf("somebody else took the flowtable away:\n%s", out)
	}
	if shown := s.driver.Rules(); !strings.Contains(shown, "\nflowtable offload: cali1, cali2, eth0\n") || !strings.Contains(shown, "flow add @offload accept") {
		t.Errorf("the program's text says nothing of it:\n%s", shown)
	}
}

// withoutEndpoint shows that what a workload sends is dropped from the moment on
// that it may not send, whatever is established.
func (s *street) withoutEndpoint(t *testing.T, calls map[string]net.Conn) {
	for name, c := range calls {
		s.mustBypass(name, c)
	}
	patch := desired.PolicyPatch{}
	patch.Endpoints.Delete = []string{"cali1"}
	back := s.policy.Endpoints["cali1"]
	s.patch(patch)
	before, err := s.driver.Counted(t.Context(), "d-spoof")
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range calls {
		if err := c.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
			t.Fatal(err)
		}
		if _, err := c.Write([]byte("?")); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	now, err := s.driver.Counted(t.Context(), "d-spoof")
	if err != nil || now["d-spoof"].Packets < before["d-spoof"].Packets+uint64(len(calls)) {
		t.Errorf("%v: of %d packets the rules dropped %d", err, len(calls), now["d-spoof"].Packets-before["d-spoof"].Packets)
	}
	patch.Endpoints.Delete, patch.Endpoints.Set = nil, map[string]*desired.Endpoint{"cali1": back}
	s.patch(patch)
	for name, c := range calls {
		s.mustBypass(name+", allowed again", c)
	}
}

// endWithDriver shows that a driver that is closed, or whose process dies, leaves
// nothing that bypasses the rules; the next one takes it up again, and
// connections last.
func (s *street) endWithDriver(t *testing.T) {
	c, err := s.call(s.pod, "tcp", "", places()["outside"][0])
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	s.mustBypass("at first", c)
	cfg := natSettings()
	offloading(&cfg)
	other, err := Open(Config{NS: s.host, Rules: cfg, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	s.t.Cleanup(func() { other.Close() })
	owner := s.driver.flows.conn
	s.driver.flows.conn = nil
	if err := owner.close(); err != nil { // what the end of a process does
		t.Fatal(err)
	}
	if s.bypasses(c) == nil {
		t.Error("it bypasses the rules with nobody there")
	}
	s.driver = other
	mustSync(t, other, &s.policy, nil)
	s.mustBypass("with the next driver", c)
	other.Configure(natSettings())
	mustSync(t, other, &s.policy, nil)
	if s.bypasses(c) == nil {
		t.Error("it bypasses the rules though that is switched off")
	}
	if out, err := testenv.TryRun(t, s.host, "nft", "list", "table", "inet", FlowsName); err == nil {
		t.Errorf("switched off, the table is there:\n%s", out)
	}
	s.configure(offloading)
}

// offloadedUsedAgain gives the workload's addresses to its neighbour.
func (s *street) offloadedUsedAgain(t *testing.T, table *conntrack.Table, calls map[string]net.Conn) {
	const name = "udp a workload there"
	s.mustBypass(name, calls[name])
	old := s.entry(table, calls[name])
	for _, a := range []string{podAddr4, podAddr6} { // the old interface stays
		testenv.Run(t, s.host, "ip", "route", "replace", a, "dev", "cali2")
		testenv.Run(t, s.host, "ip", "neigh", "replace", a, "lladdr", "02:00:00:00:00:02", "dev", "cali2", "nud", "permanent")
	}
	if err := s.driver.Halt(); err != nil { // as the agent does, ahead of the new workload's policy
		t.Fatal(err)
	}
	if err := table.Delete(old); err != nil {
		t.Fatal(err)
	}
	s.driver.Resume(t.Context())
	next := *s.policy.Endpoints["cali1"]
	next.Name, next.MAC, next.Profiles = "WorkloadEndpoint default/b", "02:00:00:00:00:02", nil
	s.patch(desired.PolicyPatch{Endpoints: desired.Patch[string, *desired.Endpoint]{
		Delete: []string{"cali1"}, Set: map[string]*desired.Endpoint{"cali2": &next}}})
	const counter = "d-no-profile-ingress"
	before, err := s.driver.Counted(t.Context(), counter)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range old { // whom it talked to goes on
		to := net.UDPAddrFromAddrPort(netip.AddrPortFrom(e.Orig.Src, e.Orig.SrcPort))
		if _, err := s.ears[e.Orig.Dst.String()].WriteTo([]byte("still there?"), to); err != nil {
			t.Fatal(err)
		}
	}
	testenv.Until(t, 10*time.Second, func() error {
		now, err := s.driver.Counted(t.Context(), counter)
		if err == nil && now[counter].Packets == before[counter].Packets {
			err = fmt.Errorf("not dropped by policy: %+v", now)
		}
		return err
	})
	got := map[uint32]int{}
	s.wires.arrived(got)
	if len(got) > 0 {
		t.Errorf("the new workload got %d packets of the old one's", len(got))
	}
}

// What leads to the flowtable reads back from the bytes as it was written.
func TestFlowAddReadsBack(t *testing.T) {
	cfg := natSettings()
	offloading(&cfg)
	var b batch
	if err := b.addFlows(inet, cfg.OffloadChains()); err != nil {
		t.Fatal(err)
	}
	b.addFlowtable(inet, rules.Flowtable, []string{"cali1", "eth0"})
	im := newImage()
	if err := im.play(&b); err != nil {
		t.Fatal(err)
	}
	added := 0
	for _, r := range im.tables[inet].chains["offload-add"].rules {
		for _, e := range r.exprs {
			if e == expr(flowAdd{rules.Flowtable}) {
				added++
			}
		}
	}
	if added != 4 {
		t.Errorf("%d rules lead to the flowtable, not one for each prefix and direction", added)
	}
}

// A process that is being started has all sockets of the one that starts it until
// its program begins: the table is gone all the same. It is that of both families.
func TestHaltWhileAProcessStarts(t *testing.T) {
	ns := testenv.NetNS(t)
	c, err := dial(ns)
	if err != nil {
		t.Fatal(err)
	}
	var b batch
	b.start(unix.NFT_MSG_NEWTABLE, unix.NLM_F_CREATE|unix.NLM_F_EXCL, flowsTable.family, step{"add", "table", flowsTable.name})
	b.text(unix.NFTA_TABLE_NAME, flowsTable.name)
	b.u32(unix.NFTA_TABLE_FLAGS, tableOwner)
	if err := c.commit(&b, 0); err != nil {
		t.Fatal(err)
	}
	child, err := unix.Dup(c.fd)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(child)
	if err := (&offload{ns: ns, conn: c}).halt(); err != nil {
		t.Fatal(err)
	}
	if text := testenv.Run(t, ns, "nft", "list", "tables"); strings.Contains(text, FlowsName) {
		t.Errorf("it is still there:\n%s", text)
	}
}
