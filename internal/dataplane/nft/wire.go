package nft

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// Netlink's own numbers are in the machine's byte order, those of nf_tables in
// the network's (linux/netfilter/nf_tables.h).
var (
	native  = binary.NativeEndian
	network = binary.BigEndian
)

const (
	headLen   = unix.NLMSG_HDRLEN
	genLen    = 4       // struct nfgenmsg
	attrHead  = 4       // struct nlattr
	attrLimit = 1 << 16 // an attribute's length is a number of 16 bits
	cutBytes  = 60 << 10

	subsystem = unix.NFNL_SUBSYS_NFTABLES << 8
)

// Errors of the codec.
var (
	errMalformed = errors.New("malformed netlink message")
	errTooLong   = errors.New("an attribute would be longer than 65,535 bytes")
)

// A step says what a message of a batch does, for errors: "add rule 3 of chain x".
type step struct {
	verb string // add, delete, flush
	kind string // table, chain, rule, set, elements of set, counter
	name string
}

func (s step) String() string { return s.verb + " " + s.kind + " " + s.name }

// A batch is messages that take effect together or not at all.
type batch struct {
	buf    []byte
	starts []int
	steps  []step
	err    error // the first thing that could not be written down
}

// len returns the number of messages.
func (b *batch) len() int { return len(b.starts) }

// start begins a message: an NFT_MSG_ kind and NLM_F_ flags beyond NLM_F_REQUEST.
func (b *batch) start(kind int, flags uint16, family uint8, what step) {
	b.seal()
	b.starts = append(b.starts, len(b.buf))
	b.steps = append(b.steps, what)
	b.buf = appendHead(b.buf, uint16(subsystem|kind), flags|unix.NLM_F_REQUEST)
	b.buf = append(b.buf, family, unix.NFNETLINK_V0, 0, 0)
}

// seal fills in the length of the message that was begun last.
func (b *batch) seal() {
	if n := len(b.starts); n > 0 {
		m := b.buf[b.starts[n-1]:]
		native.PutUint32(m, uint32(len(m)))
	}
}

// size returns how long the message that was begun last is by now.
func (b *batch) size() int { return len(b.buf) - b.starts[len(b.starts)-1] }

func appendHead(buf []byte, kind, flags uint16) []byte {
	buf = native.AppendUint32(buf, headLen)
	buf = native.AppendUint16(buf, kind)
	buf = native.AppendUint16(buf, flags)
	return append(buf, 0, 0, 0, 0, 0, 0, 0, 0)
}

// bytes adds an attribute.
func (b *batch) bytes(kind uint16, value []byte) {
	b.buf = native.AppendUint16(b.buf, uint16(attrHead+len(value)))
	b.buf = native.AppendUint16(b.buf, kind)
	b.buf = append(b.buf, value...)
	b.check(len(value))
	b.pad()
}

// text adds a string with the zero byte that ends it.
func (b *batch) text(kind uint16, value string) {
	b.buf = native.AppendUint16(b.buf, uint16(attrHead+len(value)+1))
	b.buf = native.AppendUint16(b.buf, kind)
	b.buf = append(b.buf, value...)
	b.buf = append(b.buf, 0)
	b.check(len(value) + 1)
	b.pad()
}

func (b *batch) u8(kind uint16, value uint8) { b.bytes(kind, []byte{value}) }

func (b *batch) u16(kind uint16, value uint16) {
	var v [2]byte
	network.PutUint16(v[:], value)
	b.bytes(kind, v[:])
}

func (b *batch) u32(kind uint16, value uint32) {
	var v [4]byte
	network.PutUint32(v[:], value)
	b.bytes(kind, v[:])
}

func (b *batch) u64(kind uint16, value uint64) {
	var v [8]byte
	network.PutUint64(v[:], value)
	b.bytes(kind, v[:])
}

// nest adds an attribute that holds what f adds.
func (b *batch) nest(kind uint16, f func()) {
	at := b.open(kind)
	f()
	b.shut(at)
}

// open begins an attribute that holds others; shut ends it.
func (b *batch) open(kind uint16) (at int) {
	at = len(b.buf)
	b.buf = native.AppendUint16(b.buf, 0)
	b.buf = native.AppendUint16(b.buf, kind|unix.NLA_F_NESTED)
	return at
}

func (b *batch) shut(at int) {
	b.check(len(b.buf) - at - attrHead)
	native.PutUint16(b.buf[at:], uint16(len(b.buf)-at))
}

// check notes an attribute whose length does not fit into its head: the kernel
// would read a part of it and say nothing.
func (b *batch) check(size int) {
	if attrHead+size >= attrLimit && b.err == nil {
		b.err = errTooLong
		if n := len(b.steps); n > 0 {
			b.err = fmt.Errorf("%v: %w", b.steps[n-1], errTooLong)
		}
	}
}

func (b *batch) pad() {
	for len(b.buf)%4 != 0 {
		b.buf = append(b.buf, 0)
	}
}

// A message is one answer or notification. It is valid until the next read.
type message struct {
	kind   uint16 // NFT_MSG_ with the subsystem, or NLMSG_
	flags  uint16
	seq    uint32
	port   uint32
	family uint8
	body   []byte // attributes; of NLMSG_ kinds, all after the header
}

// split cuts a datagram into messages.
func split(buf []byte, each func(message) error) error {
	for len(buf) >= headLen {
		n := int(native.Uint32(buf))
		if n < headLen || n > len(buf) {
			return errMalformed
		}
		m := message{
			kind: native.Uint16(buf[4:]), flags: native.Uint16(buf[6:]), seq: native.Uint32(buf[8:]),
			port: native.Uint32(buf[12:]), body: buf[headLen:n],
		}
		if m.kind >= unix.NLMSG_MIN_TYPE {
			if len(m.body) < genLen {
				return errMalformed
			}
			m.family, m.body = m.body[0], m.body[genLen:]
		}
		if err := each(m); err != nil {
			return err
		}
		buf = buf[min(align(n), len(buf)):]
	}
	if len(buf) > 0 {
		return errMalformed
	}
	return nil
}

func align(n int) int { return (n + 3) &^ 3 }

// attrs calls each for every attribute in buf.
func attrs(buf []byte, each func(kind uint16, value []byte) error) error {
	for len(buf) >= attrHead {
		n := int(native.Uint16(buf))
		if n < attrHead || n > len(buf) {
			return errMalformed
		}
		kind := native.Uint16(buf[2:]) &^ (unix.NLA_F_NESTED | unix.NLA_F_NET_BYTEORDER)
		if err := each(kind, buf[attrHead:n]); err != nil {
			return err
		}
		buf = buf[min(align(n), len(buf)):]
	}
	if len(buf) > 0 {
		return errMalformed
	}
	return nil
}

// A reader reads attribute values and remembers the first that has a wrong size.
type reader struct{ err error }

func (r *reader) fail() {
	if r.err == nil {
		r.err = errMalformed
	}
}

func (r *reader) u8(v []byte) uint8 {
	if len(v) != 1 {
		r.fail()
		return 0
	}
	return v[0]
}

func (r *reader) u16(v []byte) uint16 {
	if len(v) != 2 {
		r.fail()
		return 0
	}
	return network.Uint16(v)
}

func (r *reader) u32(v []byte) uint32 {
	if len(v) != 4 {
		r.fail()
		return 0
	}
	return network.Uint32(v)
}

func (r *reader) u64(v []byte) uint64 {
	if len(v) != 8 {
		r.fail()
		return 0
	}
	return network.Uint64(v)
}

func (r *reader) text(v []byte) string {
	text, _, _ := bytes.Cut(v, []byte{0})
	return string(text)
}

// attrs reads the attributes inside one.
func (r *reader) attrs(buf []byte, each func(kind uint16, value []byte)) {
	err := attrs(buf, func(kind uint16, value []byte) error {
		each(kind, value)
		return nil
	})
	if err != nil && r.err == nil {
		r.err = err
	}
}
