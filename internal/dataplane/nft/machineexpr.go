package nft

import (
	"bytes"
	"fmt"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/brindle-net/brindle/internal/dataplane/rules"
)

// at returns size bytes of the registers.
func (w *walk) at(r reg, size int) ([]byte, error) {
	from := 4 * int(r)
	if size < 0 || from+size > regBytes {
		return nil, fmt.Errorf("%d bytes in register %d: %w", size, r, ErrUnsound)
	}
	return w.regs[from : from+size], nil
}

// load fills registers, and the rest of the last word with zeroes.
func (w *walk) load(r reg, v []byte) error {
	to, err := w.at(r, padded(len(v)))
	if err != nil {
		return err
	}
	clear(to[copy(to, v):])
	return nil
}

var (
	onward = verdict{code: goOn}
	ended  = verdict{code: broken}
)

func onwardIf(ok bool) verdict {
	if ok {
		return onward
	}
	return ended
}

// expr does one expression.
func (w *walk) expr(e expr, step *rules.Step) (verdict, error) {
	switch e := e.(type) {
	case payload:
		v, ok := w.packet.part(e)
		if !ok {
			return ended, nil
		}
		return onward, w.load(e.to, v)
	case meta:
		return w.meta(e)
	case ct:
		return w.ct(e)
	case immediate:
		if e.verdict != nil {
			return *e.verdict, nil
		}
		return onward, w.load(e.to, e.value)
	case bitwise:
		return onward, w.bitwise(e)
	case byteorder:
		return onward, w.byteorder(e)
	case comparison:
		return w.cmp(e)
	case between:
		return w.between(e)
	case lookup:
		return w.lookup(e)
	case dynset:
		return w.dynset(e)
	case objref:
		return w.count(e, step)
	case log:
		step.Log = e.prefix
		return onward, nil
	case limit:
		return onwardIf(!e.over), nil
	case reject:
		w.trace.Rejected = true
		return verdict{code: drop}, nil
	case counter, flowAdd:
		return onward, nil
	case notrack:
		w.packet.state, w.trace.Untracked = stateUntracked, true
		return onward, nil
	case fib:
		return w.fib(e)
	case nat:
		return w.nat(e)
	}
	return ended, fmt.Errorf("expression %s: %w", e.kind(), ErrUnsound)
}

func (w *walk) meta(e meta) (verdict, error) {
	if e.set {
		v, err := w.at(e.reg, 4)
		if err != nil {
			return ended, err
		}
		if e.key != unix.NFT_META_MARK {
			return ended, fmt.Errorf("setting meta key %d: %w", e.key, ErrUnsound)
		}
		w.trace.Mark = native.Uint32(v)
		return onward, nil
	}
	switch e.key {
	case unix.NFT_META_MARK:
		return onward, w.load(e.reg, native.AppendUint32(nil, w.trace.Mark))
	case unix.NFT_META_IIFNAME:
		return onward, w.load(e.reg, interfaceName(w.in))
	case unix.NFT_META_OIFNAME:
		return onward, w.load(e.reg, interfaceName(w.out))
	case unix.NFT_META_NFPROTO:
		return onward, w.load(e.reg, []byte{w.packet.family})
	case unix.NFT_META_L4PROTO:
		if w.packet.transport == nil {
			return ended, nil
		}
		return onward, w.load(e.reg, []byte{w.packet.protocol})
	case unix.NFT_META_LEN:
		size := len(w.packet.network) + len(w.packet.transport)
		return onward, w.load(e.reg, native.AppendUint32(nil, uint32(size)))
	}
	return ended, fmt.Errorf("meta key %d: %w", e.key, ErrUnsound)
}

func interfaceName(name string) []byte {
	buf := make([]byte, unix.IFNAMSIZ)
	copy(buf[:unix.IFNAMSIZ-1], name)
	return buf
}

// Bits of a packet's state (linux/netfilter/nf_conntrack_common.h).
const (
	stateInvalid   = 1
	stateNew       = 8
	stateUntracked = 64
)

func (w *walk) ct(e ct) (verdict, error) {
	p := &w.packet
	state := p.state
	if !w.known {
		state = stateInvalid
	}
	has := state&(stateInvalid|stateUntracked) == 0
	switch {
	case e.set && !has:
		return onward, nil
	case e.set && e.key == unix.NFT_CT_MARK:
		v, err := w.at(e.reg, 4)
		if err == nil {
			p.connMark = native.Uint32(v)
		}
		return onward, err
	case e.set:
		return ended, fmt.Errorf("setting ct key %d: %w", e.key, ErrUnsound)
	case e.key == unix.NFT_CT_STATE:
		return onward, w.load(e.reg, native.AppendUint32(nil, state))
	case !has:
		return ended, nil
	case e.key == unix.NFT_CT_MARK:
		return onward, w.load(e.reg, native.AppendUint32(nil, p.connMark))
	}
	return ended, fmt.Errorf("ct key %d: %w", e.key, ErrUnsound)
}

func (w *walk) bitwise(e bitwise) error {
	from, err := w.at(e.from, int(e.size))
	if err != nil {
		return err
	}
	v := bytes.Clone(from)
	switch {
	case e.op == unix.NFT_BITWISE_BOOL && len(e.mask) == len(v) && len(e.xor) == len(v):
		for i := range v {
			v[i] = v[i]&e.mask[i] ^ e.xor[i]
		}
	case e.op != unix.NFT_BITWISE_BOOL && len(v)%4 == 0 && len(e.shift) == 4 && native.Uint32(e.shift) < 32:
		shiftWords(v, native.Uint32(e.shift), e.op == bitwiseLeft)
	default:
		return fmt.Errorf("bitwise of %d bytes: %w", len(v), ErrUnsound)
	}
	return w.load(e.to, v)
}

// shiftWords shifts a row of words as one number, of which the first is the
// highest.
func shiftWords(v []byte, by uint32, left bool) {
	carry := uint32(0)
	for i := range len(v) / 4 {
		at := v[4*i:]
		if left {
			at = v[len(v)-4*(i+1):]
		}
		n := uint64(native.Uint32(at))
		if left {
			native.PutUint32(at, uint32(n<<by)|carry)
			carry = uint32(n << by >> 32)
		} else {
			native.PutUint32(at, uint32(n>>by)|carry)
			carry = uint32(n << 32 >> by)
		}
	}
}

func (w *walk) byteorder(e byteorder) error {
	from, err := w.at(e.from, int(e.length))
	if err != nil {
		return err
	}
	if e.size == 0 || e.length%e.size != 0 {
		return fmt.Errorf("byte order of %d in %d: %w", e.size, e.length, ErrUnsound)
	}
	v := bytes.Clone(from)
	if native.Uint16([]byte{0, 1}) != 1 { // the machine's order is not the network's
		for part := range slices.Chunk(v, int(e.size)) {
			slices.Reverse(part)
		}
	}
	return w.load(e.to, v)
}

func (w *walk) cmp(e comparison) (verdict, error) {
	v, err := w.at(e.from, len(e.value))
	if err != nil {
		return ended, err
	}
	d := bytes.Compare(v, e.value)
	switch e.op {
	case unix.NFT_CMP_EQ:
		return onwardIf(d == 0), nil
	case unix.NFT_CMP_NEQ:
		return onwardIf(d != 0), nil
	case unix.NFT_CMP_LT:
		return onwardIf(d < 0), nil
	case unix.NFT_CMP_LTE:
		return onwardIf(d <= 0), nil
	case unix.NFT_CMP_GT:
		return onwardIf(d > 0), nil
	case unix.NFT_CMP_GTE:
		return onwardIf(d >= 0), nil
	}
	return ended, fmt.Errorf("comparison %d: %w", e.op, ErrUnsound)
}

func (w *walk) between(e between) (verdict, error) {
	v, err := w.at(e.from, len(e.first))
	if err != nil || len(e.last) != len(e.first) {
		return ended, fmt.Errorf("range of %d and %d bytes: %w", len(e.first), len(e.last), ErrUnsound)
	}
	in := bytes.Compare(e.first, v) <= 0 && bytes.Compare(v, e.last) <= 0
	return onwardIf(in == (e.op == unix.NFT_RANGE_EQ)), nil
}

// find returns the element of a set that a key in the registers is in.
func (w *walk) find(name string, at reg) (*elem, error) {
	s := w.table.sets[name]
	if s == nil {
		return nil, fmt.Errorf("no set %s: %w", name, ErrUnsound)
	}
	v, err := w.at(at, int(s.keyLen))
	if err != nil {
		return nil, err
	}
	return w.machine.find(s, string(v)), nil
}

func (m *Machine) find(s *set, key string) *elem {
	if e, ok := m.findKey(s, key); ok {
		return &e
	}
	if e, ok := s.elems[elemID{}]; ok {
		return &e // the one for all keys
	}
	return nil
}

func (m *Machine) findKey(s *set, key string) (elem, bool) {
	switch {
	case s.flags&unix.NFT_SET_INTERVAL == 0:
		e, ok := s.elems[elemID{key: key}]
		return e, ok
	case s.fields != "":
		for id, e := range s.elems {
			if id.key != "" && inBox(s.fields, id.key, e.last, key) {
				return e, true
			}
		}
		return elem{}, false
	}
	// The last element that is not after the key is what it is in, or the end
	// of what lies before it.
	order := m.order[s]
	n, _ := slices.BinarySearchFunc(order, key, func(id elemID, key string) int {
		if id.key <= key {
			return -1
		}
		return 1
	})
	if n == 0 || order[n-1].end || order[n-1].key == "" {
		return elem{}, false
	}
	return s.elems[order[n-1]], true
}

// inBox reports whether each field of a key lies in that of a range.
func inBox(fields, lo, hi, key string) bool {
	at := 0
	for _, n := range []byte(fields) {
		end := at + padded(int(n))
		if end > len(lo) || end > len(hi) || end > len(key) {
			return false
		}
		if key[at:end] < lo[at:end] || key[at:end] > hi[at:end] {
			return false
		}
		at = end
	}
	return true
}

func (w *walk) lookup(e lookup) (verdict, error) {
	found, err := w.find(e.set, e.from)
	switch {
	case err != nil:
		return ended, err
	case (found != nil) == e.not:
		return ended, nil
	case found == nil:
		return onward, nil
	case e.verdict:
		return found.verdict, nil
	case e.load:
		return onward, w.load(e.to, []byte(found.data))
	}
	return onward, nil
}

func (w *walk) dynset(e dynset) (verdict, error) {
	s := w.table.sets[e.set]
	if s == nil {
		return ended, fmt.Errorf("no set %s: %w", e.set, ErrUnsound)
	}
	v, err := w.at(e.key, int(s.keyLen))
	if err != nil {
		return ended, err
	}
	id := elemID{key: string(v)}
	_, there := s.elems[id]
	full := !there && s.size != 0 && len(s.elems) >= int(s.size)
	if !there && !full {
		s.elems[id] = elem{rare: &rareElem{timeout: e.timeout}}
	}
	return onwardIf(full == e.not), nil
}

func (w *walk) count(e objref, step *rules.Step) (verdict, error) {
	name := e.name
	if e.set != "" {
		found, err := w.find(e.set, e.key)
		if err != nil || found == nil {
			return ended, err
		}
		name = found.object
	}
	if _, ok := w.table.counters[name]; !ok {
		return ended, fmt.Errorf("no counter %s: %w", name, ErrUnsound)
	}
	step.Counter = strings.TrimPrefix(step.Counter+" "+name, " ")
	return onward, nil
}
