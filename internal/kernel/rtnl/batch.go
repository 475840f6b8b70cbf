package rtnl

import (
	"encoding/binary"
	"net/netip"

	"golang.org/x/sys/unix"
)

// native is the byte order of netlink: that of the machine.
var native = binary.NativeEndian

const headerLen = unix.NLMSG_HDRLEN

// A Batch is a row of requests that are sent together. Start begins a request;
// the methods that follow add to it.
type Batch struct {
	buf    []byte
	starts []int
}

// Len returns the number of requests.
func (b *Batch) Len() int { return len(b.starts) }

// Reset makes the batch empty, to be used again.
func (b *Batch) Reset() { b.buf, b.starts = b.buf[:0], b.starts[:0] }

// Start begins a request: an RTM_ kind, NLM_F_ flags beyond NLM_F_REQUEST, and
// the kind's fixed header (ifinfomsg, rtmsg…).
func (b *Batch) Start(kind, flags uint16, header []byte) {
	b.starts = append(b.starts, len(b.buf))
	b.buf = append(b.buf, make([]byte, headerLen)...)
	h := b.buf[len(b.buf)-headerLen:]
	native.PutUint16(h[4:], kind)
	native.PutUint16(h[6:], flags|unix.NLM_F_REQUEST)
	b.buf = append(b.buf, header...)
	b.pad()
}

// Bytes adds an attribute. The value is at most 65,531 bytes long.
func (b *Batch) Bytes(kind uint16, value []byte) {
	b.head(kind, len(value))
	b.buf = append(b.buf, value...)
	b.pad()
}

// Raw adds bytes that are no attribute, such as an rtnexthop.
func (b *Batch) Raw(value []byte) {
	b.buf = append(b.buf, value...)
	b.pad()
}

// String adds an attribute that holds text, ended by a zero byte.
func (b *Batch) String(kind uint16, value string) {
	b.head(kind, len(value)+1)
	b.buf = append(b.buf, value...)
	b.buf = append(b.buf, 0)
	b.pad()
}

// Uint32 adds an attribute that holds a number.
func (b *Batch) Uint32(kind uint16, value uint32) {
	b.head(kind, 4)
	b.buf = native.AppendUint32(b.buf, value)
}

// Uint64 adds an attribute that holds a long number.
func (b *Batch) Uint64(kind uint16, value uint64) {
	b.head(kind, 8)
	b.buf = native.AppendUint64(b.buf, value)
}

// Uint8 adds an attribute that holds a small number.
func (b *Batch) Uint8(kind uint16, value uint8) {
	b.head(kind, 1)
	b.buf = append(b.buf, value)
	b.pad()
}

// Addr adds an attribute that holds an address of 4 or 16 bytes.
func (b *Batch) Addr(kind uint16, a netip.Addr) {
	if a.Is4() {
		v := a.As4()
		b.Bytes(kind, v[:])
		return
	}
	v := a.As16()
	b.Bytes(kind, v[:])
}

// Nest adds an attribute that holds what f adds.
func (b *Batch) Nest(kind uint16, f func()) {
	at := len(b.buf)
	b.head(kind, 0)
	f()
	native.PutUint16(b.buf[at:], uint16(len(b.buf)-at))
}

func (b *Batch) head(kind uint16, size int) {
	b.buf = native.AppendUint16(b.buf, uint16(unix.SizeofRtAttr+size))
	b.buf = native.AppendUint16(b.buf, kind)
}

func (b *Batch) pad() {
	for len(b.buf)%4 != 0 {
		b.buf = append(b.buf, 0)
	}
}

// message returns the bytes of request i, its length filled in.
func (b *Batch) message(i int) []byte {
	end := len(b.buf)
	if i+1 < len(b.starts) {
		end = b.starts[i+1]
	}
	m := b.buf[b.starts[i]:end]
	native.PutUint32(m, uint32(len(m)))
	return m
}

// IfInfo is the fixed header of link requests (struct ifinfomsg).
func IfInfo(family uint8, index int, flags, change uint32) []byte {
	h := make([]byte, unix.SizeofIfInfomsg)
	h[0] = family
	native.PutUint32(h[4:], uint32(index))
	native.PutUint32(h[8:], flags)
	native.PutUint32(h[12:], change)
	return h
}
