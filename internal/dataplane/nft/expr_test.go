package nft

import (
	"bytes"
	"net/netip"
	"reflect"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/brindle-net/brindle/internal/dataplane/rules"
	"github.com/brindle-net/brindle/internal/desired"
	"github.com/brindle-net/brindle/internal/testenv"
)

func mark(n uint32) []byte { return native.AppendUint32(nil, n) }

func loadMark(at reg) expr { return meta{key: unix.NFT_META_MARK, reg: at} }

func end(c code) expr { return immediate{verdict: &verdict{code: c}} }

// is makes the two expressions that nft(8) wants before it shows a part of a
// packet by its name.
func is(key uint32, value ...byte) []expr { return []expr{meta{key: key}, comparison{value: value}} }

// source gives a packet another source.
func source(to string, first, last uint16) []expr {
	s := rules.SourceNAT{Ports: desired.PortRange{Min: first, Max: last}}
	if to != "" {
		s.To = netip.MustParseAddr(to)
	}
	list, _ := newSource(s)
	return list
}

// forms has each form of each expression, and how nft(8) shows the rule.
func forms() []struct {
	name, shown string
	exprs       []expr
} {
	const th, nh = unix.NFT_PAYLOAD_TRANSPORT_HEADER, unix.NFT_PAYLOAD_NETWORK_HEADER
	tcp := is(unix.NFT_META_L4PROTO, 6)
	four, six := is(unix.NFT_META_NFPROTO, unix.NFPROTO_IPV4), is(unix.NFT_META_NFPROTO, unix.NFPROTO_IPV6)
	dport := payload{base: th, offset: 2, size: 2}
	and := func(a []expr, b ...expr) []expr { return append(a[:len(a):len(a)], b...) }
	return []struct {
		name, shown string
		exprs       []expr
	}{
		{"payload", "tcp dport 80 accept", and(tcp, dport, comparison{value: []byte{0, 80}}, end(accept))},
		{"cmp neq", "tcp dport != 80", and(tcp, dport, comparison{op: unix.NFT_CMP_NEQ, value: []byte{0, 80}})},
		{"cmp lt", "tcp dport < 80", and(tcp, dport, comparison{op: unix.NFT_CMP_LT, value: []byte{0, 80}})},
		{"cmp gte", "tcp dport >= 80", and(tcp, dport, comparison{op: unix.NFT_CMP_GTE, value: []byte{0, 80}})},
		{"range", "tcp dport 80-90", and(tcp, dport, between{first: []byte{0, 80}, last: []byte{0, 90}})},
		{"range not", "tcp dport != 80-90", and(tcp, dport, between{op: unix.NFT_RANGE_NEQ, first: []byte{0, 80}, last: []byte{0, 90}})},
		{"range of marks", "meta mark 0x00000010-0x00000020", []expr{loadMark(0), toNetwork, between{first: []byte{0, 0, 0, 16}, last: []byte{0, 0, 0, 32}}}},
		{"bitwise", "ip saddr 10.0.0.0/9", and(four, payload{base: nh, offset: 12, size: 4},
			bitwise{size: 4, mask: []byte{255, 128, 0, 0}, xor: make([]byte, 4)}, comparison{value: []byte{10, 0, 0, 0}})},
		{"shift", "meta mark set meta mark << 8", []expr{loadMark(0), bitwise{size: 4, op: bitwiseLeft, shift: mark(8)}, meta{key: unix.NFT_META_MARK, set: true}}},
		{"shift right", "meta mark set meta mark >> 8", []expr{loadMark(0), bitwise{size: 4, op: bitwiseEnd, shift: mark(8)}, meta{key: unix.NFT_META_MARK, set: true}}},
		{"mark set", "meta mark set meta mark & 0xffff42ff | 0x00004200", []expr{loadMark(0), masked(0, 0xffff00ff, 0x4200), meta{key: unix.NFT_META_MARK, set: true}}},
		{"iiftype", "iiftype ether", []expr{meta{key: unix.NFT_META_IIFTYPE}, comparison{value: native.AppendUint16(nil, 1)}}},
		{"oifname", `oifname "eth0"`, []expr{meta{key: unix.NFT_META_OIFNAME}, comparison{value: interfaceName("eth0")}}},
		{"ct state", "ct state established,related", []expr{ct{dir: -1}, masked(0, 6, 0), comparison{op: unix.NFT_CMP_NEQ, value: mark(0)}}},
		{"ct mark set", "ct mark set meta mark", []expr{loadMark(0), ct{key: unix.NFT_CT_MARK, set: true, dir: -1}}},
		{"ct direction", "ct direction reply", []expr{ct{key: unix.NFT_CT_DIRECTION, dir: -1}, comparison{value: []byte{1}}}},
		{"ct of a direction", "ct original proto-dst 80", and(tcp, ct{key: unix.NFT_CT_PROTO_DST, dir: 0}, comparison{value: []byte{0, 80}})},
		{"ct label", "ct label set", []expr{immediate{value: bytes.Repeat([]byte{1, 0, 0, 0}, 4)}, ct{key: unix.NFT_CT_LABELS, set: true, dir: -1}}},
		{"lookup", "tcp dport @ports accept", and(tcp, dport, lookup{set: "ports"}, end(accept))},
		{"lookup not", "tcp dport != @ports drop", and(tcp, dport, lookup{set: "ports", not: true}, end(drop))},
		{"lookup of several", "ip saddr . meta l4proto . tcp dport @triples", and(and(four, tcp...),
			payload{base: nh, offset: 12, size: 4}, meta{key: unix.NFT_META_L4PROTO, reg: 1}, payload{to: 2, base: th, offset: 2, size: 2}, lookup{set: "triples"})},
		{"class and port", "meta mark set meta mark & 0x0000ffff . meta l4proto . tcp dport map @rows", and(tcp,
			loadMark(0), masked(0, 0xffff, 0), meta{key: unix.NFT_META_L4PROTO, reg: 1}, payload{to: 2, base: th, offset: 2, size: 2},
			lookup{set: "rows", load: true}, meta{key: unix.NFT_META_MARK, set: true})},
		{"verdict map", "tcp dport vmap @verdicts", and(tcp, dport, lookup{set: "verdicts", verdict: true})},
		{"data map", "meta mark set tcp dport map @marks", and(tcp, dport, lookup{set: "marks", load: true}, meta{key: unix.NFT_META_MARK, set: true})},
		{"object map", "counter name tcp dport map @objects", and(tcp, dport, objref{set: "objects"})},
		{"counter", "counter packets 0 bytes 0", []expr{counter{}}},
		{"named counter", `counter name "hits"`, []expr{objref{object: unix.NFT_OBJECT_COUNTER, name: "hits"}}},
		{"jump", "jump sub", []expr{immediate{verdict: &verdict{jump, "sub"}}}},
		{"goto", "goto sub", []expr{immediate{verdict: &verdict{goTo, "sub"}}}},
		{"return", "return", []expr{end(goReturn)}},
		{"continue", "continue", []expr{end(goOn)}},
		{"log", `log prefix "denied: "`, []expr{log{prefix: "denied: ", level: logLevel}}},
		{"log level", `log prefix "x" level err flags all`, []expr{log{prefix: "x", level: 3, flags: 0x2f}}},
		{"log group", `log prefix "x" group 7 snaplen 128 queue-threshold 5`, []expr{log{prefix: "x", toGroup: true, group: 7, snaplen: 128, threshold: 5}}},
		{"limit", "limit rate 10/minute", []expr{limit{rate: 10, unit: 60, burst: 5}}},
		{"limit over bytes", "limit rate over 10 kbytes/second", []expr{limit{rate: 10240, unit: 1, bytes: true, over: true}}},
		{"reject", "reject with icmpx admin-prohibited", []expr{reject{with: unix.NFT_REJECT_ICMPX_UNREACH, icmp: 3}}},
		{"reset", "meta l4proto tcp reject with tcp reset", and(tcp, reject{with: unix.NFT_REJECT_TCP_RST})},
		{"fib", "fib daddr type local", []expr{fib{result: unix.NFT_FIB_RESULT_ADDRTYPE, flags: unix.NFTA_FIB_F_DADDR}, comparison{value: mark(unix.RTN_LOCAL)}}},
		{"way back", "fib saddr . iif oif 0", []expr{fib{result: unix.NFT_FIB_RESULT_OIF, flags: unix.NFTA_FIB_F_SADDR | unix.NFTA_FIB_F_IIF}, comparison{value: mark(0)}}},
		{"dynset", "update @seen { ip saddr timeout 1m }", and(four, payload{base: nh, offset: 12, size: 4}, dynset{set: "seen", key: 0, refresh: true, timeout: 60000})},
		{"dynset not", "ip saddr", and(four, payload{base: nh, offset: 12, size: 4}, dynset{set: "seen", key: 0, not: true})},
		{"notrack", "notrack", []expr{notrack{}}},
		{"network of VXLAN", "udp dport 4789 @th,96,24 0x1000", and(is(unix.NFT_META_L4PROTO, 17), dport, comparison{value: []byte{0x12, 0xb5}},
			payload{base: th, offset: 12, size: 3}, comparison{value: []byte{0, 16, 0}})},
		{"nat: masquerade", "masquerade", source("", 0, 0)},
		{"nat: masquerade with ports", "masquerade to :1024-4788", and(tcp, source("", 1024, 4788)...)},
		{"nat: address", "snat ip to 192.0.2.1 comment", and(four, source("192.0.2.1", 0, 0)...)},
		{"nat: address with ports", "snat ip to 192.0.2.1:1024-4788", and(and(four, tcp...), source("192.0.2.1", 1024, 4788)...)},
		{"nat: address with a port", "snat ip to 192.0.2.1:1024-1024", and(and(four, tcp...), source("192.0.2.1", 1024, 1024)...)},
		{"nat: address, IPv6", "snat ip6 to 2001:db8::1 comment", and(six, source("2001:db8::1", 0, 0)...)},
		{"nat: address with ports, IPv6", "snat ip6 to [2001:db8::1]:1024-4788", and(and(six, tcp...), source("2001:db8::1", 1024, 4788)...)},
	}
}

// stock is what the forms refer to: every kind of set that there is.
func stock() *table {
	t := newTable()
	t.counters["hits"] = object{note: "what was hit"}
	t.chains["sub"] = &chain{}
	t.chains["forms"] = &chain{base: &base{hook: unix.NF_INET_LOCAL_IN, priority: -5}}
	t.chains["nat"] = &chain{base: &base{hook: unix.NF_INET_POST_ROUTING, priority: 100, nat: true}}
	t.chains["early"] = &chain{base: &base{hook: unix.NF_INET_PRE_ROUTING, priority: -300, drops: true}}
	port := func(n uint16) string { return string(network.AppendUint16(nil, n)) }
	ports := shape{keyType: typePort, keyLen: 2}
	add := func(name string, s set) { t.sets[name] = &s }
	add("ports", set{shape: ports, keyOrder: orderNetwork, elems: map[elemID]elem{
		{key: port(80)}: {rare: &rareElem{note: "web"}}, {key: port(443)}: {},
	}})
	with := func(s shape, change func(*shape)) shape { change(&s); return s }
	add("spans", set{shape: with(ports, func(s *shape) { s.flags = unix.NFT_SET_INTERVAL }), keyOrder: orderNetwork, elems: map[elemID]elem{
		{key: port(80)}: {}, {key: port(90), end: true}: {}, {key: port(90)}: {}, {key: port(95), end: true}: {}, {key: port(60000)}: {},
	}})
	add("verdicts", set{shape: with(ports, func(s *shape) { s.flags, s.dataType = unix.NFT_SET_MAP, verdictType }), keyOrder: orderNetwork, elems: map[elemID]elem{
		{key: port(1)}: {judges: true, verdict: verdict{code: accept}}, {key: port(2)}: {judges: true, verdict: verdict{code: drop}},
		{key: port(3)}: {judges: true, verdict: verdict{jump, "sub"}}, {key: port(4)}: {judges: true, verdict: verdict{goTo, "sub"}},
		{key: port(5)}: {judges: true, verdict: verdict{code: goReturn}}, {key: port(6)}: {judges: true, verdict: verdict{code: goOn}},
	}})
	marks := with(ports, func(s *shape) { s.flags, s.dataType, s.dataLen = unix.NFT_SET_MAP, typeMark, 4 })
	add("marks", set{shape: marks, keyOrder: orderNetwork, dataOrder: orderHost, elems: map[elemID]elem{
		{key: port(1)}: {data: string(mark(0x20000))},
	}})
	add("spanmarks", set{shape: with(marks, func(s *shape) { s.flags |= unix.NFT_SET_INTERVAL }), keyOrder: orderNetwork, dataOrder: orderHost,
		elems: map[elemID]elem{{key: port(1)}: {data: string(mark(7))}, {key: port(9), end: true}: {}}})
	add("objects", set{shape: with(ports, func(s *shape) { s.flags, s.object = unix.NFT_SET_OBJECT, unix.NFT_OBJECT_COUNTER }), keyOrder: orderNetwork,
		elems: map[elemID]elem{{key: port(1)}: {object: "hits"}}})
	add("seen", set{shape: shape{flags: unix.NFT_SET_TIMEOUT | unix.NFT_SET_EVAL, keyType: typeAddr4, keyLen: 4, timeout: 5000, size: 1000}, keyOrder: orderNetwork,
		elems: map[elemID]elem{}})
	add("timed", set{shape: shape{flags: unix.NFT_SET_TIMEOUT, keyType: typeAddr4, keyLen: 4}, keyOrder: orderNetwork,
		elems: map[elemID]elem{{key: "\x0a\x00\x00\x01"}: {rare: &rareElem{timeout: 3600000}}}})
	add("counted", set{shape: shape{keyType: typeAddr4, keyLen: 4}, keyOrder: orderNetwork,
		elems: map[elemID]elem{{key: "\x0a\x00\x00\x01"}: {rare: &rareElem{counts: true, packets: 5, bytes: 300}}}})
	triple := shape{keyType: typeAddr4<<12 | typeProtocol<<6 | typePort, keyLen: 12}
	add("triples", set{shape: triple, keyOrder: orderNetwork, elems: map[elemID]elem{{key: "\x0a\x00\x00\x01\x06\x00\x00\x00\x00\x50\x00\x00"}: {}}})
	row := shape{flags: unix.NFT_SET_INTERVAL | unix.NFT_SET_MAP | flagConcat, keyType: typeMark<<12 | typeProtocol<<6 | typePort,
		keyLen: 12, fields: "\x04\x04\x04", dataType: typeMark, dataLen: 4}
	class := string(mark(0x11))
	add("rows", set{shape: row, keyOrder: orderHost, dataOrder: orderHost, elems: map[elemID]elem{
		{key: class + "\x06\x00\x00\x00\x00\x50\x00\x00"}: {last: class + "\x06\x00\x00\x00\x00\x5a\x00\x00", data: string(mark(9))},
		{key: class + "\x11\x00\x00\x00\x00\x00\x00\x00"}: {last: class + "\x11\x00\x00\x00\xff\xff\x00\x00", data: string(mark(8))},
	}})
	return t
}

// Each form is taken by the kernel, comes back from it as it was written, and
// is shown by nft(8) as what is meant.
func TestForms(t *testing.T) {
	ns := testenv.NetNS(t)
	c, err := dial(ns)
	if err != nil {
		t.Fatal(err)
	}
	defer c.close()
	want := stock()
	for _, f := range forms() {
		name := "forms"
		switch {
		case f.name == "notrack":
			name = "early"
		case strings.HasPrefix(f.name, "nat: "):
			name = "nat"
		}
		want.chains[name].rules = append(want.chains[name].rules, rule{f.exprs, f.name})
	}
	var b batch
	difference(inet, nil, want).write(&b)
	if err := c.commit(&b, 0); err != nil {
		t.Fatal(err)
	}
	have, _, err := c.readImage()
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"forms", "nat"} {
		for i, r := range want.chains[name].rules {
			if got := have.tables[inet].chains[name].rules[i]; !sameExprs(got.exprs, r.exprs) || got.note != r.note {
				t.Errorf("%s came back as %+v, not %+v", r.note, got, r)
			}
		}
	}
	if e := difference(inet, have.tables[inet], want); !e.empty() {
		t.Errorf("the kernel holds something else: %s", missing(e))
	}
	text := lists(t, ns)
	for _, f := range forms() {
		for _, line := range shownLines(text, f.shown) {
			if !strings.Contains(text, line) {
				t.Errorf("%s: nft(8) does not show %q", f.name, line)
			}
		}
	}
	for _, line := range shownLines(text,
		`80 comment "web"`, "80-89", "90-94", "60000-65535", "1 : accept", "3 : jump sub", "5 : return", "6 : continue",
		"1 : 0x00020000", "1-8 : 0x00000007", `1 : "hits"`, "timeout 1h", "counter packets 5 bytes 300", "10.0.0.1 . tcp . 80",
		". tcp . 80-90 : 0x00000009", ". udp . 0-65535 : 0x00000008", `comment "what was hit"`, "policy drop",
	) {
		if !strings.Contains(text, line) {
			t.Errorf("nft(8) does not show %q", line)
		}
	}
	if t.Failed() {
		t.Log(text)
	}
}

// Reading an expression back from the bytes gives the expression.
func TestExprsReadBack(t *testing.T) {
	for _, f := range forms() {
		t.Run(f.name, func(t *testing.T) {
			var b batch
			b.addRules(inet, "c", []rule{{f.exprs, f.name}})
			im := newImage()
			im.tables[inet] = newTable()
			im.tables[inet].chains["c"] = &chain{}
			if err := im.play(&b); err != nil {
				t.Fatal(err)
			}
			got := im.tables[inet].chains["c"].rules[0]
			if !reflect.DeepEqual(got.exprs, f.exprs) || got.note != f.name {
				t.Errorf("got %+v, want %+v", got, f.exprs)
			}
		})
	}
}
