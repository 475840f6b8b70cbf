package main

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/brindle-net/brindle/internal/desired"
)

// bareNetlink is the least that puts routes into the kernel and knows that
// they are there: messages of rtnetlink(7), many to a write, acknowledged.
type bareNetlink struct {
	fd  int
	buf []byte
}

// bareRoute is one route by one gateway.
type bareRoute struct {
	dst      netip.Prefix
	via      netip.Addr
	priority int
	link     int
}

// bareBatch is how many routes go into one write.
const bareBatch = 256

// openBare opens a socket in the calling thread's namespace.
func openBare() (*bareNetlink, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_ROUTE)
	if err != nil {
		return nil, err
	}
	b := &bareNetlink{fd: fd, buf: make([]byte, 1<<20)}
	if err := unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		b.close()
		return nil, err
	}
	if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 4<<20); err != nil {
		b.close()
		return nil, err
	}
	return b, nil
}

func (b *bareNetlink) close() { _ = unix.Close(b.fd) }

// add creates or replaces all routes of a list.
func (b *bareNetlink) add(list []bareRoute) error {
	for len(list) > 0 {
		n := min(bareBatch, len(list))
		var msg []byte
		for i, r := range list[:n] {
			msg = r.append(msg, uint32(i))
		}
		if err := unix.Sendto(b.fd, msg, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
			return fmt.Errorf("write to netlink: %w", err)
		}
		if err := b.acknowledged(n); err != nil {
			return err
		}
		list = list[n:]
	}
	return nil
}

// acknowledged reads n acknowledgements.
func (b *bareNetlink) acknowledged(n int) error {
	for n > 0 {
		got, _, err := unix.Recvfrom(b.fd, b.buf, 0)
		if err != nil {
			return fmt.Errorf("read from netlink: %w", err)
		}
		for rest := b.buf[:got]; len(rest) >= unix.SizeofNlMsghdr+4; n-- {
			if errno := int32(binary.NativeEndian.Uint32(rest[unix.SizeofNlMsghdr:])); errno != 0 {
				return fmt.Errorf("add a route: %w", unix.Errno(-errno))
			}
			rest = rest[min(len(rest), int(binary.NativeEndian.Uint32(rest)+3)&^3):]
		}
	}
	return nil
}

// append writes the request for one route.
func (r bareRoute) append(msg []byte, seq uint32) []byte {
	begin := len(msg)
	head := unix.NlMsghdr{
		Type: unix.RTM_NEWROUTE, Seq: seq,
		Flags: unix.NLM_F_REQUEST | unix.NLM_F_ACK | unix.NLM_F_CREATE | unix.NLM_F_REPLACE,
	}
	rt := unix.RtMsg{
		Family: unix.AF_INET, Dst_len: uint8(r.dst.Bits()), Table: unix.RT_TABLE_MAIN,
		Protocol: desired.ProtocolBGP, Type: unix.RTN_UNICAST,
	}
	msg = append(msg, (*[unix.SizeofNlMsghdr]byte)(unsafe.Pointer(&head))[:]...)
	msg = append(msg, (*[unix.SizeofRtMsg]byte)(unsafe.Pointer(&rt))[:]...)
	attr := func(kind uint16, value [4]byte) {
		msg = binary.NativeEndian.AppendUint16(msg, 8)
		msg = binary.NativeEndian.AppendUint16(msg, kind)
		msg = append(msg, value[:]...)
	}
	number := func(v int) (b [4]byte) {
		binary.NativeEndian.PutUint32(b[:], uint32(v))
		return b
	}
	attr(unix.RTA_DST, r.dst.Addr().As4())
	attr(unix.RTA_GATEWAY, r.via.As4())
	attr(unix.RTA_OIF, number(r.link))
	attr(unix.RTA_PRIORITY, number(r.priority))
	binary.NativeEndian.PutUint32(msg[begin:], uint32(len(msg)-begin))
	return msg
}
