// Package nflog hears of packets that a rule logs to a group (nfnetlink_log,
// linux/netfilter/nfnetlink_log.h). In a network namespace that is not the
// machine's own, the kernel keeps such lines out of its log; the agent hears
// them and writes them to its own.
package nflog

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/brindle-net/brindle/internal/kernel/rtnl"
	"github.com/brindle-net/brindle/internal/netns"
)

// Packet is one logged packet.
type Packet struct {
	Prefix           string
	In, Out          string // interfaces; "" if none
	Src, Dst         netip.Addr
	Protocol         uint8
	SrcPort, DstPort uint16 // of TCP, UDP and SCTP
	Type, Code       uint8  // of ICMP and ICMPv6
	Length           int    // of the IP packet, bytes
}

// KernelLogs reports whether the kernel writes what is logged in this
// process's network namespace to its own log: it does for the machine's first
// namespace, where alone the switch for the others is to be found.
func KernelLogs() bool {
	_, err := os.Stat("/proc/sys/net/netfilter/nf_log_all_netns")
	return err == nil
}

const (
	msgPacket = unix.NFNL_SUBSYS_ULOG << 8
	msgConfig = unix.NFNL_SUBSYS_ULOG<<8 | 1

	cfgCommand, cfgMode, cfgTimeout = 1, 2, 4
	commandBind, modePacket         = 1, 2
	copyBytes                       = 128 // enough for the headers
	flushTime                       = 10  // hundredths of a second that packets may be held back

	attrIn, attrOut, attrPayload, attrPrefix = 4, 5, 9, 10
)

// Listen tells of the packets that are logged to a group in ns (nil: the
// calling thread's) until ctx ends. One process hears a group: that another
// does already is an error. lost says that packets came too fast.
func Listen(ctx context.Context, ns *netns.NS, group uint16, tell func(Packet), lost func()) error {
	b := bind(group)
	l, err := rtnl.ListenNetfilter(ns, &b)
	if err != nil {
		return fmt.Errorf("listen to log group %d: %w", group, err)
	}
	defer l.Close()
	return l.Receive(ctx, func(m rtnl.Message) {
		if m.Kind != msgPacket {
			return
		}
		if p, err := parse(m.Body, interfaceName); err == nil {
			tell(p)
		}
	}, func(error) { lost() })
}

// bind asks for the packets of a group.
func bind(group uint16) rtnl.Batch {
	header := binary.BigEndian.AppendUint16([]byte{unix.AF_UNSPEC, 0}, group)
	var b rtnl.Batch
	b.Start(msgConfig, 0, header)
	b.Bytes(cfgCommand, []byte{commandBind})
	b.Start(msgConfig, 0, header)
	b.Bytes(cfgMode, append(binary.BigEndian.AppendUint32(nil, copyBytes), modePacket, 0))
	b.Start(msgConfig, 0, header)
	b.Bytes(cfgTimeout, binary.BigEndian.AppendUint32(nil, flushTime))
	return b
}

// Try reports why a group cannot be listened to in ns (nil: the calling
// thread's): the kernel may lack what it takes, and would then refuse rules
// that log to a group, too.
func Try(ns *netns.NS, group uint16) error {
	b := bind(group)
	l, err := rtnl.ListenNetfilter(ns, &b)
	if err != nil {
		return fmt.Errorf("listen to log group %d: %w", group, err)
	}
	return l.Close()
}

// interfaceName is the name of a link, or its number if it is gone.
func interfaceName(index int) string {
	i, err := net.InterfaceByIndex(index)
	if err != nil {
		return strconv.Itoa(index)
	}
	return i.Name
}

var errShort = errors.New("packet cut short")

// parse reads one message.
func parse(body []byte, name func(int) string) (Packet, error) {
	var p Packet
	if len(body) < 4 {
		return p, errShort
	}
	var payload []byte
	err := rtnl.Attrs(body[4:], func(kind uint16, v []byte) {
		switch {
		case kind == attrPrefix:
			p.Prefix = strings.TrimRight(string(v), "\x00")
		case kind == attrPayload:
			payload = v
		case kind == attrIn && len(v) == 4:
			p.In = name(int(binary.BigEndian.Uint32(v)))
		case kind == attrOut && len(v) == 4:
			p.Out = name(int(binary.BigEndian.Uint32(v)))
		}
	})
	if err != nil {
		return p, err
	}
	return p, p.parseIP(payload)
}

// parseIP reads the headers (RFC 791, RFC 8200).
func (p *Packet) parseIP(b []byte) error {
	switch {
	case len(b) >= 20 && b[0]>>4 == 4:
		p.Src, p.Dst = netip.AddrFrom4([4]byte(b[12:16])), netip.AddrFrom4([4]byte(b[16:20]))
		p.Length, p.Protocol = int(binary.BigEndian.Uint16(b[2:])), b[9]
		if head := int(b[0]&15) * 4; binary.BigEndian.Uint16(b[6:])&0x1fff == 0 && head <= len(b) {
			p.parsePorts(b[head:])
		}
		return nil
	case len(b) >= 40 && b[0]>>4 == 6:
		p.Src, p.Dst = netip.AddrFrom16([16]byte(b[8:24])), netip.AddrFrom16([16]byte(b[24:40]))
		p.Length, p.Protocol = 40+int(binary.BigEndian.Uint16(b[4:])), b[6]
		p.parseExtensions(b[40:])
		return nil
	}
	return errShort
}

// parseExtensions goes over IPv6 extension headers to the transport's.
func (p *Packet) parseExtensions(b []byte) {
	for len(b) >= 8 {
		switch p.Protocol {
		case unix.IPPROTO_HOPOPTS, unix.IPPROTO_ROUTING, unix.IPPROTO_DSTOPTS:
			n := (int(b[1]) + 1) * 8
			p.Protocol = b[0]
			b = b[min(n, len(b)):]
		case unix.IPPROTO_FRAGMENT:
			p.Protocol = b[0]
			if binary.BigEndian.Uint16(b[2:])&0xfff8 != 0 {
				return
			}
			b = b[8:]
		default:
			p.parsePorts(b)
			return
		}
	}
	p.parsePorts(b)
}

func (p *Packet) parsePorts(b []byte) {
	if len(b) < 4 {
		return
	}
	switch p.Protocol {
	case unix.IPPROTO_TCP, unix.IPPROTO_UDP, unix.IPPROTO_SCTP:
		p.SrcPort, p.DstPort = binary.BigEndian.Uint16(b), binary.BigEndian.Uint16(b[2:])
	case unix.IPPROTO_ICMP, unix.IPPROTO_ICMPV6:
		p.Type, p.Code = b[0], b[1]
	}
}

// String writes the packet in the words of the kernel's own log.
func (p Packet) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%sIN=%s OUT=%s SRC=%s DST=%s LEN=%d ", p.Prefix, p.In, p.Out, p.Src, p.Dst, p.Length)
	names := map[uint8]string{
		unix.IPPROTO_TCP: "TCP", unix.IPPROTO_UDP: "UDP", unix.IPPROTO_SCTP: "SCTP",
		unix.IPPROTO_ICMP: "ICMP", unix.IPPROTO_ICMPV6: "ICMPv6",
	}
	switch p.Protocol {
	case unix.IPPROTO_TCP, unix.IPPROTO_UDP, unix.IPPROTO_SCTP:
		fmt.Fprintf(&b, "PROTO=%s SPT=%d DPT=%d", names[p.Protocol], p.SrcPort, p.DstPort)
	case unix.IPPROTO_ICMP, unix.IPPROTO_ICMPV6:
		fmt.Fprintf(&b, "PROTO=%s TYPE=%d CODE=%d", names[p.Protocol], p.Type, p.Code)
	default:
		fmt.Fprintf(&b, "PROTO=%d", p.Protocol)
	}
	return b.String()
}
