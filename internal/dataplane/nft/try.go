package nft

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/brindle-net/brindle/internal/dataplane/rules"
	"github.com/brindle-net/brindle/internal/netns"
)

// Tried is one thing that a driver asks of the kernel's nftables.
type Tried struct {
	Name string
	Err  error // nil: the kernel can do it
}

// Try asks the kernel for each thing that drivers use, one after the other, in
// a namespace that this process made for the purpose: any other is refused.
// Nothing stays behind.
func Try(ns *netns.NS) ([]Tried, error) {
	if ns == nil || !ns.Made() {
		return nil, errors.New("try nftables: refused outside a namespace that was made for it")
	}
	c, err := dial(ns)
	if err != nil {
		return nil, err
	}
	var out []Tried
	for _, f := range features() {
		id := tableID{unix.NFPROTO_INET, "try"}
		if f.arp {
			id.family = unix.NFPROTO_ARP
		}
		var b batch
		b.addTable(id)
		f.ask(&b, id)
		err := c.commit(&b, 0)
		if err == nil {
			var gone batch
			gone.deleteTable(id)
			if err := c.commit(&gone, 0); err != nil {
				return out, errors.Join(fmt.Errorf("try nftables: %w", err), c.close())
			}
		}
		out = append(out, Tried{f.name, err})
	}
	return out, c.close()
}

// A feature is a table that has what a driver's tables may have.
type feature struct {
	name string
	arp  bool
	ask  func(b *batch, id tableID)
}

// FeatureFlowtable is the feature that Config.Offload of rules needs.
const FeatureFlowtable = "flowtable"

func features() []feature {
	mark := shape{keyType: typeMark, keyLen: 4}
	with := func(s shape, flags uint32) shape {
		s.flags |= flags
		return s
	}
	numbers := with(mark, unix.NFT_SET_MAP)
	numbers.dataType, numbers.dataLen = typeMark, 4
	verdicts := with(mark, unix.NFT_SET_MAP)
	verdicts.dataType = verdictType
	objects := with(mark, unix.NFT_SET_OBJECT)
	objects.object = unix.NFT_OBJECT_COUNTER
	pairs := shape{flags: unix.NFT_SET_INTERVAL | flagConcat, keyType: typeMark<<typeBits | typeMark, keyLen: 8, fields: "\x04\x04"}
	one, two := "\x00\x00\x00\x01", "\x00\x00\x00\x02"
	load := meta{key: unix.NFT_META_MARK}
	return []feature{
		{"chains at hooks", false, hookedChains},
		{"chains for ARP", true, func(b *batch, id tableID) { b.addChain(id, "c", &base{}) }},
		{"sets", false, askSet(mark, []member{{id: elemID{key: one}}}, load, lookup{set: "s"})},
		{"sets of intervals", false, askSet(with(mark, unix.NFT_SET_INTERVAL), []member{{id: elemID{key: one}}, {id: elemID{key: two, end: true}}}, load, lookup{set: "s"})},
		{"sets of several intervals each", false, askSet(pairs, []member{{id: elemID{key: one + one}, elem: elem{last: two + two}}}, load, meta{key: unix.NFT_META_MARK, reg: 1}, lookup{set: "s"})},
		{"maps", false, askSet(numbers, []member{{id: elemID{key: one}, elem: elem{data: two}}}, load, lookup{set: "s", load: true}, meta{key: unix.NFT_META_MARK, set: true})},
		{"maps with an element for all other keys", false, askSet(numbers, []member{{elem: elem{data: two}}})},
		{"verdict maps", false, askSet(verdicts, []member{{id: elemID{key: one}, elem: elem{judges: true, verdict: verdict{goTo, "other"}}}}, load, lookup{set: "s", verdict: true})},
		{"counters by map", false, askSet(objects, []member{{id: elemID{key: one}, elem: elem{object: "counted"}}}, load, objref{object: unix.NFT_OBJECT_COUNTER, set: "s"})},
		{"state of connections (ct)", false, askRule(unix.NF_INET_FORWARD, ct{key: unix.NFT_CT_STATE, dir: -1})},
		{"marks of connections (ct)", false, askRule(unix.NF_INET_FORWARD, ct{key: unix.NFT_CT_MARK, dir: -1})},
		{"routing look-up (fib)", false, askRule(unix.NF_INET_PRE_ROUTING, fib{result: unix.NFT_FIB_RESULT_ADDRTYPE, flags: unix.NFTA_FIB_F_DADDR})},
		{"reject", false, askRule(unix.NF_INET_FORWARD, reject{with: unix.NFT_REJECT_ICMPX_UNREACH, icmp: unix.NFT_REJECT_ICMPX_ADMIN_PROHIBITED})},
		{"log to a group", false, askRule(unix.NF_INET_FORWARD, log{toGroup: true, group: 1, prefix: "try"})},
		{"limit", false, askRule(unix.NF_INET_FORWARD, limit{rate: 1, unit: 1, burst: 5})},
		{"notrack", false, askRule(unix.NF_INET_PRE_ROUTING, notrack{})},
		{"masquerade", false, func(b *batch, id tableID) {
			b.addChain(id, "c", &base{hook: unix.NF_INET_POST_ROUTING, priority: 100, nat: true})
			b.addRules(id, "c", []rule{{exprs: []expr{nat{masquerade: true}}}})
		}},
		{FeatureFlowtable, false, func(b *batch, _ tableID) {
			chains := rules.Config{Prefixes: []string{"try"}, Offload: 1}.OffloadChains()
			if err := b.addFlows(flowsTable, chains); err != nil { // it goes with the socket
				b.err = err
			}
		}},
	}
}

// hookedChains asks for a chain at each hook.
func hookedChains(b *batch, id tableID) {
	for i, name := range []string{"prerouting", "input", "forward", "output", "postrouting"} {
		b.addChain(id, name, &base{hook: uint32(i), priority: -1})
	}
}

// askSet asks for a set, elements, and a rule that uses it.
func askSet(s shape, elems []member, use ...expr) func(*batch, tableID) {
	return func(b *batch, id tableID) {
		b.addChain(id, "c", &base{hook: unix.NF_INET_FORWARD})
		b.addChain(id, "other", nil)
		b.addCounter(id, "counted", "")
		b.addSet(id, "s", &set{shape: s, keyOrder: orderHost, dataOrder: orderHost})
		b.addElems(id, "s", elems)
		if len(use) > 0 {
			b.addRules(id, "c", []rule{{exprs: use}})
		}
	}
}

// askRule asks for a rule in a chain at a hook.
func askRule(hook uint32, exprs ...expr) func(*batch, tableID) {
	return func(b *batch, id tableID) {
		at := &base{hook: hook}
		if hook == unix.NF_INET_PRE_ROUTING {
			at.priority = -300 // before connections are tracked
		}
		b.addChain(id, "c", at)
		b.addRules(id, "c", []rule{{exprs: exprs}})
	}
}
