package nft

import (
	"errors"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/brindle-net/brindle/internal/dataplane/rules"
)

// seeds are the bytes of batches that we write.
func seeds(f *testing.F) {
	var b batch
	t := stock()
	for _, form := range forms() {
		t.chains["forms"].rules = append(t.chains["forms"].rules, rule{form.exprs, form.name})
	}
	difference(inet, nil, t).write(&b)
	b.seal()
	f.Add(b.buf)
	for i, at := range b.starts {
		end := len(b.buf)
		if i+1 < len(b.starts) {
			end = b.starts[i+1]
		}
		f.Add(b.buf[at:end])
	}
	im, _, err := lowerProgram(rules.Render(settings(), everything()))
	if err != nil {
		f.Fatal(err)
	}
	var whole batch
	difference(inet, nil, im.tables[inet]).write(&whole)
	difference(arp, nil, im.tables[arp]).write(&whole)
	whole.seal()
	f.Add(whole.buf)
	var flows batch
	cfg := settings()
	cfg.Offload = cfg.CutMark
	if err := flows.addFlows(inet, cfg.OffloadChains()); err != nil {
		f.Fatal(err)
	}
	flows.addFlowtable(inet, rules.Flowtable, []string{"cali1"})
	flows.seal()
	f.Add(flows.buf)
	f.Add([]byte{})
}

// Whatever bytes come in: reading them does not fail otherwise than with an
// error, what was read can be written and reads back the same, and packets can
// be sent through it.
func FuzzRead(f *testing.F) {
	seeds(f)
	f.Fuzz(func(t *testing.T, data []byte) {
		im := newImage()
		im.tables[inet], im.tables[arp] = stock(), newTable()
		if split(data, im.take) != nil {
			return
		}
		l := &listener{}
		l.drift(data)
		for _, id := range []tableID{inet, arp} {
			if im.tables[id] != nil {
				again(t, id, im.tables[id])
			}
		}
		m := newMachine(im)
		for _, p := range []rules.Packet{
			{Way: rules.Forwarded, Source: at4(1), Dest: at4(2), Protocol: 6, DestPort: 80, In: "cali1", State: rules.StateNew},
			{Way: rules.ToHost, Source: at6(1), Dest: at6(2), Protocol: 17, EthSource: "\x02\x00\x00\x00\x00\x01"},
			{Way: rules.ARPIn},
		} {
			if _, err := m.Trace(p); err != nil && !errors.Is(err, ErrUnsound) {
				t.Errorf("trace: %v", err)
			}
		}
	})
}

// again writes a table and reads it back. Tables with what we never write are
// passed over.
func again(t *testing.T, id tableID, have *table) {
	var b batch
	difference(id, nil, have).write(&b)
	if b.seal(); b.err != nil {
		return // longer than a message can be
	}
	im := newImage()
	if err := im.play(&b); err != nil {
		t.Fatalf("what was read cannot be read again: %v", err)
	}
	for name, c := range have.chains {
		if got := im.tables[id].chains[name]; name != "" && (got == nil || !sameRules(got, c)) {
			t.Errorf("chain %q changed on the way", name)
		}
	}
}

// sameRules is sameChain without what is shortened when it is written.
func sameRules(a, b *chain) bool {
	if len(a.rules) != len(b.rules) {
		return false
	}
	for i := range a.rules {
		if !sameExprs(a.rules[i].exprs, b.rules[i].exprs) {
			return false
		}
	}
	return true
}

// Whatever an acknowledgement looks like, reading it ends with an error or none.
func FuzzAck(f *testing.F) {
	f.Add([]byte{0, 0, 0, 0}, uint16(0))
	f.Add([]byte{254, 255, 255, 255}, uint16(unix.NLM_F_ACK_TLVS))
	f.Fuzz(func(t *testing.T, body []byte, flags uint16) {
		_ = ackError(message{kind: unix.NLMSG_ERROR, flags: flags, body: body})
	})
}
