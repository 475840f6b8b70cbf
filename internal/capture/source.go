package capture

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/brindle-net/brindle/internal/netns"
)

// receiveBuffer is what the kernel may keep for a reader that is behind, in
// bytes.
const receiveBuffer = 16 << 20

// A Source reads packets off one interface of a namespace, or off all, as they
// arrive (before anything of the host looks at them) and as they leave (after
// everything has). Its methods are for one caller at a time.
type Source struct {
	file *os.File
	raw  syscall.RawConn
	link Link
	buf  []byte
	oob  []byte
}

// Open begins to read. An empty name is all interfaces, also those that come
// later; ns nil is this process's namespace. It needs CAP_NET_RAW.
func Open(ns *netns.NS, name string) (*Source, error) {
	s := &Source{link: Cooked, buf: make([]byte, snapLen), oob: make([]byte, 128)}
	open := func() error { return s.open(name) }
	var err error
	if ns == nil {
		err = open()
	} else {
		err = netns.Do(ns, open)
	}
	if err != nil {
		return nil, fmt.Errorf("capture packets of %s: %w", described(name), err)
	}
	return s, nil
}

func described(name string) string {
	if name == "" {
		return "all interfaces"
	}
	return name
}

// open makes the socket in the calling thread's namespace.
func (s *Source) open(name string) error {
	kind, index := unix.SOCK_DGRAM, 0
	if name != "" {
		link, err := net.InterfaceByName(name)
		if err != nil {
			return err
		}
		kind, index = unix.SOCK_RAW, link.Index
		if s.link = Ethernet; len(link.HardwareAddr) != 6 && link.Flags&net.FlagLoopback == 0 {
			s.link = RawIP
		}
	}
	// Without a protocol nothing arrives before the socket is bound.
	fd, err := unix.Socket(unix.AF_PACKET, kind|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return err
	}
	s.file = os.NewFile(uintptr(fd), "packets")
	err = errors.Join(
		unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, receiveBuffer),
		unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_TIMESTAMPNS, 1),
		unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: htons(unix.ETH_P_ALL), Ifindex: index}),
	)
	if err == nil {
		s.raw, err = s.file.SyscallConn()
	}
	if err != nil {
		return errors.Join(err, s.file.Close())
	}
	return nil
}

func htons(v uint16) uint16 {
	return binary.NativeEndian.Uint16([]byte{byte(v >> 8), byte(v)})
}

// Link is what frames begin with.
func (s *Source) Link() Link { return s.link }

// Next waits for a packet until ctx ends.
func (s *Source) Next(ctx context.Context) (Frame, error) {
	if err := ctx.Err(); err != nil {
		return Frame{}, err
	}
	woken := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(woken)
		_ = s.file.SetReadDeadline(time.Unix(1, 0)) // closed is as good
	})
	defer func() {
		if !stop() {
			<-woken
			_ = s.file.SetReadDeadline(time.Time{}) // for the next call
		}
	}()
	for {
		f, ok, err := s.receive()
		switch {
		case errors.Is(err, os.ErrDeadlineExceeded) && ctx.Err() != nil:
			return Frame{}, ctx.Err()
		case err != nil:
			return Frame{}, fmt.Errorf("read a packet: %w", err)
		case ok:
			return f, nil
		}
	}
}

// receive reads one packet. ok is false when there was none after all.
func (s *Source) receive() (f Frame, ok bool, err error) {
	var n, oobn int
	var from unix.Sockaddr
	var problem error
	err = s.raw.Read(func(fd uintptr) bool {
		n, oobn, _, from, problem = unix.Recvmsg(int(fd), s.buf, s.oob, unix.MSG_TRUNC)
		return !errors.Is(problem, unix.EAGAIN)
	})
	switch {
	case err != nil:
		return Frame{}, false, err
	case errors.Is(problem, unix.EINTR), errors.Is(problem, unix.ENETDOWN): // an interface went down
		return Frame{}, false, nil
	case problem != nil:
		return Frame{}, false, problem
	}
	f = Frame{Time: stamp(s.oob[:oobn]), Length: n}
	if s.link == Cooked {
		f.Data, f.Length = cookedHead(from), n+cookedLen
	}
	f.Data = append(f.Data, s.buf[:min(n, len(s.buf))]...)
	return f, true, nil
}

// cookedHead is the head that the file format wants, made of what the kernel
// says beside the packet.
func cookedHead(from unix.Sockaddr) []byte {
	h := make([]byte, cookedLen)
	a, ok := from.(*unix.SockaddrLinklayer)
	if !ok {
		return h
	}
	binary.BigEndian.PutUint16(h, htons(a.Protocol))
	binary.BigEndian.PutUint32(h[4:], uint32(a.Ifindex))
	binary.BigEndian.PutUint16(h[8:], a.Hatype)
	h[10], h[11] = a.Pkttype, min(a.Halen, 8)
	copy(h[12:], a.Addr[:min(a.Halen, 8)])
	return h
}

// stamp reads when the kernel took a packet.
func stamp(oob []byte) time.Time {
	list, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return time.Now()
	}
	for _, m := range list {
		if m.Header.Level == unix.SOL_SOCKET && m.Header.Type == unix.SCM_TIMESTAMPNS && len(m.Data) >= 16 {
			return time.Unix(int64(binary.NativeEndian.Uint64(m.Data)), int64(binary.NativeEndian.Uint64(m.Data[8:])))
		}
	}
	return time.Now()
}

// Lost is how many packets the kernel could not keep since it was last asked.
func (s *Source) Lost() (int, error) {
	var stats *unix.TpacketStats
	var problem error
	err := s.raw.Control(func(fd uintptr) {
		stats, problem = unix.GetsockoptTpacketStats(int(fd), unix.SOL_PACKET, unix.PACKET_STATISTICS)
	})
	if err = errors.Join(err, problem); err != nil {
		return 0, fmt.Errorf("count lost packets: %w", err)
	}
	return int(stats.Drops), nil
}

// Close ends the reading.
func (s *Source) Close() error { return s.file.Close() }
