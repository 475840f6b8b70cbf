package rtnl

import (
	"bytes"
	"errors"
	"net/netip"

	"golang.org/x/sys/unix"
)

// ErrMalformed says that bytes from the kernel do not parse.
var ErrMalformed = errors.New("malformed netlink message")

// A Message is one answer or notification, cut loose from its buffer only by
// copying: it is valid until the next read.
type Message struct {
	Kind  uint16 // RTM_ or NLMSG_
	Flags uint16
	Seq   uint32
	Port  uint32 // netlink port of who caused it; 0: the kernel itself
	Body  []byte
}

// split cuts a datagram into messages.
func split(buf []byte, each func(Message) error) error {
	for len(buf) >= headerLen {
		n := int(native.Uint32(buf))
		if n < headerLen || n > len(buf) {
			return ErrMalformed
		}
		m := Message{
			Kind: native.Uint16(buf[4:]), Flags: native.Uint16(buf[6:]), Seq: native.Uint32(buf[8:]),
			Port: native.Uint32(buf[12:]), Body: buf[headerLen:n],
		}
		if err := each(m); err != nil {
			return err
		}
		buf = buf[min(align(n), len(buf)):]
	}
	if len(buf) > 0 {
		return ErrMalformed
	}
	return nil
}

func align(n int) int { return (n + 3) &^ 3 }

// Attrs calls each for every attribute in buf, flags of the kind removed.
func Attrs(buf []byte, each func(kind uint16, value []byte)) error {
	for len(buf) >= unix.SizeofRtAttr {
		n := int(native.Uint16(buf))
		if n < unix.SizeofRtAttr || n > len(buf) {
			return ErrMalformed
		}
		each(native.Uint16(buf[2:])&^(unix.NLA_F_NESTED|unix.NLA_F_NET_BYTEORDER), buf[unix.SizeofRtAttr:n])
		buf = buf[min(align(n), len(buf)):]
	}
	return nil
}

// Uint32 reads a number of an attribute; 0 when it has another size.
func Uint32(value []byte) uint32 {
	if len(value) != 4 {
		return 0
	}
	return native.Uint32(value)
}

// Uint16 reads a number of two bytes; 0 when value has another size.
func Uint16(value []byte) uint16 {
	if len(value) != 2 {
		return 0
	}
	return native.Uint16(value)
}

// Text reads a string up to its zero byte.
func Text(value []byte) string {
	text, _, _ := bytes.Cut(value, []byte{0})
	return string(text)
}

// Addr reads an address; the zero Addr when value is none.
func Addr(value []byte) netip.Addr {
	a, _ := netip.AddrFromSlice(value)
	return a
}
