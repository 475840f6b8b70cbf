package paths

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// sendOuter sends a question as the tunnel's device would, but with an outer
// packet that must not be cut: the device itself lets routers cut it, so that
// a path that is too narrow looks fine until something drops the pieces.
func (w *wire) sendOuter(b []byte) error {
	frame, err := w.frame(b)
	if err != nil {
		return err
	}
	o := w.path.Outer
	return within(w.ns, func() error {
		d := net.Dialer{LocalAddr: &net.UDPAddr{IP: o.Local.AsSlice()}, Control: func(_, _ string, c syscall.RawConn) error {
			return control(c, func(fd int) error { return setDiscover(fd, o.Local, unix.IP_PMTUDISC_PROBE) })
		}}
		c, err := d.Dial("udp", netip.AddrPortFrom(w.path.Node, o.Port).String())
		if err != nil {
			return err
		}
		_, err = c.Write(frame)
		return errors.Join(err, c.Close())
	})
}

// frame is a question in VXLAN: header (RFC 7348), Ethernet, IP, UDP.
func (w *wire) frame(payload []byte) ([]byte, error) {
	p := w.path
	to, err := net.ParseMAC(p.Outer.RemoteMAC)
	if err != nil {
		return nil, fmt.Errorf("hardware address of %s: %w", p.Peer, err)
	}
	from, err := net.ParseMAC(p.Outer.LocalMAC)
	if err != nil {
		return nil, fmt.Errorf("hardware address of %s: %w", p.Device, err)
	}
	b := make([]byte, 8, 8+14+40+udpHeader+len(payload))
	b[0] = 0x08 // the identifier is valid
	binary.BigEndian.PutUint32(b[4:], p.Outer.VNI<<8)
	b = append(append(b, to...), from...)
	udp := make([]byte, udpHeader, udpHeader+len(payload))
	binary.BigEndian.PutUint16(udp[0:], uint16(w.udp.LocalAddr().(*net.UDPAddr).Port))
	binary.BigEndian.PutUint16(udp[2:], w.port)
	binary.BigEndian.PutUint16(udp[4:], uint16(udpHeader+len(payload)))
	udp = append(udp, payload...)
	src, dst := p.Local.AsSlice(), p.Remote.AsSlice()
	if p.Local.Is4() {
		ip := []byte{0x45, 0, 0, 0, 0, 0, 0x40, 0, 64, unix.IPPROTO_UDP, 0, 0}
		ip = append(append(ip, src...), dst...)
		binary.BigEndian.PutUint16(ip[2:], uint16(len(ip)+len(udp)))
		binary.BigEndian.PutUint16(ip[10:], ^fold(ip))
		b = append(append(b, 0x08, 0x00), ip...)
		return append(b, udp...), nil
	}
	ip := []byte{0x60, 0, 0, 0, byte(len(udp) >> 8), byte(len(udp)), unix.IPPROTO_UDP, 64}
	pseudo := append(append(append([]byte{}, src...), dst...), 0, 0, ip[4], ip[5], 0, 0, 0, unix.IPPROTO_UDP)
	sum := ^fold(append(pseudo, udp...))
	if sum == 0 {
		sum = 0xffff
	}
	binary.BigEndian.PutUint16(udp[6:], sum)
	b = append(append(b, 0x86, 0xdd), ip...)
	b = append(append(b, src...), dst...)
	return append(b, udp...), nil
}

// fold is the sum of the Internet's checksum (RFC 1071).
func fold(b []byte) uint16 {
	var sum uint32
	for i := 0; i+1 < len(b); i += 2 {
		sum += uint32(binary.BigEndian.Uint16(b[i:]))
	}
	if len(b)%2 == 1 {
		sum += uint32(b[len(b)-1]) << 8
	}
	for sum > 0xffff {
		sum = sum&0xffff + sum>>16
	}
	return uint16(sum)
}

// Types of ICMP messages (RFC 792, 4443).
const (
	echo4, echo6           = 8, 128
	echoReply4, echoReply6 = 0, 129
)

// ping sends one ICMP echo of a size and waits for the same to come back: any
// host answers it.
func (w *wire) ping(size int, wait time.Duration) (time.Duration, error) {
	m := message{kind: question, nonce: uint64(time.Now().UnixNano())}
	b := make([]byte, 8, size)
	own, four := w.path.Local, w.path.Local.Is4()
	b = append(b, m.put(size-ipHeader(own)-len(b))...)
	network, reply := "ip6:ipv6-icmp", byte(echoReply6)
	if b[0] = echo6; four { // whose sum the kernel makes
		network, reply, b[0] = "ip4:icmp", echoReply4, echo4
		binary.BigEndian.PutUint16(b[2:], ^fold(b))
	}
	var c net.Conn
	err := within(w.ns, func() (err error) {
		d := net.Dialer{LocalAddr: &net.IPAddr{IP: own.AsSlice()}, Control: func(_, _ string, raw syscall.RawConn) error {
			return control(raw, func(fd int) error {
				return errors.Join(unix.BindToDevice(fd, w.path.Device), setDiscover(fd, own, unix.IP_PMTUDISC_PROBE))
			})
		}}
		c, err = d.Dial(network, w.path.Remote.String())
		return err
	})
	if err != nil {
		return 0, meaning(err)
	}
	defer c.Close()
	start := time.Now()
	if _, err := c.Write(b); err != nil {
		return 0, meaning(err)
	}
	if err := c.SetReadDeadline(start.Add(wait)); err != nil {
		return 0, err
	}
	buf := make([]byte, 1<<16)
	for {
		n, err := c.Read(buf)
		if err != nil {
			if errors.Is(err, os.ErrDeadlineExceeded) {
				return 0, errSilent
			}
			return 0, meaning(err)
		}
		got := buf[:n]
		if four && n > 20 && got[0]>>4 == 4 {
			got = got[int(got[0]&15)*4:]
		}
		if len(got) != len(b) || got[0] != reply {
			continue
		}
		if x, ok := parse(got[8:]); ok && x.nonce == m.nonce {
			if !x.intact(got[8:]) {
				return 0, errChanged
			}
			return time.Since(start), nil
		}
	}
}
