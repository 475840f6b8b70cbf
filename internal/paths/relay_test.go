package paths

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"os"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/brindle-net/brindle/internal/netns"
	"github.com/brindle-net/brindle/internal/testenv"
)

// relay carries frames between two interfaces as a card would that leaves
// checksums inside of tunnels as they are: what the kernel left to be filled
// in never is. It does fill in those of UDP around tunnels, as cards do.
func relay(t testing.TB, ns *netns.NS, one, two string) {
	t.Helper()
	files := map[string]*os.File{}
	for _, name := range []string{one, two} {
		testenv.Do(t, ns, func() error {
			f, err := rawSocket(name)
			files[name] = f
			return err
		})
	}
	var done sync.WaitGroup
	carry := func(from, to *os.File) {
		buf := make([]byte, 1<<16)
		for {
			n, err := from.Read(buf)
			if errors.Is(err, os.ErrClosed) {
				return
			}
			if err != nil || n == 0 {
				continue
			}
			sumOuter(buf[:n])
			if _, err := to.Write(buf[:n]); errors.Is(err, os.ErrClosed) {
				return
			}
		}
	}
	done.Go(func() { carry(files[one], files[two]) })
	done.Go(func() { carry(files[two], files[one]) })
	t.Cleanup(func() {
		files[one].Close()
		files[two].Close()
		done.Wait()
	})
}

// rawSocket hears all frames that arrive at an interface, and sends from it.
func rawSocket(name string) (*os.File, error) {
	all := uint16(unix.ETH_P_ALL<<8 | unix.ETH_P_ALL>>8)
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, int(all))
	if err != nil {
		return nil, err
	}
	i, err := net.InterfaceByName(name)
	if err == nil {
		err = errors.Join(unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: all, Ifindex: i.Index}),
			unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_IGNORE_OUTGOING, 1))
	}
	return os.NewFile(uintptr(fd), name), err
}

// sumOuter fills in the checksum of TCP, and of UDP around tunnels.
func sumOuter(f []byte) {
	const ip = 14
	at, addrs, protocol, size := 0, []byte{}, byte(0), 0 // of the transport
	switch {
	case len(f) >= ip+20 && binary.BigEndian.Uint16(f[12:]) == unix.ETH_P_IP && f[ip] == 0x45 && binary.BigEndian.Uint16(f[ip+6:])&0x3fff == 0:
		at, addrs, protocol = ip+20, f[ip+12:ip+20], f[ip+9]
		size = int(binary.BigEndian.Uint16(f[ip+2:])) - 20
	case len(f) >= ip+40 && binary.BigEndian.Uint16(f[12:]) == unix.ETH_P_IPV6:
		at, addrs, protocol = ip+40, f[ip+8:ip+40], f[ip+6]
		size = int(binary.BigEndian.Uint16(f[ip+4:]))
	}
	sum := 16 // where it is in TCP
	if protocol == unix.IPPROTO_UDP {
		sum = 6
	}
	if len(f) < at+size || size < sum+2 ||
		protocol != unix.IPPROTO_TCP && (protocol != unix.IPPROTO_UDP || binary.BigEndian.Uint16(f[at+2:]) != 4789) {
		return
	}
	f[at+sum], f[at+sum+1] = 0, 0
	pseudo := append(append([]byte{}, addrs...), 0, protocol, byte(size>>8), byte(size))
	binary.BigEndian.PutUint16(f[at+sum:], ^fold(append(pseudo, f[at:at+size]...)))
}

// TestKernelChecksums: behind a card that does not fill in checksums, the
// offload is switched off where the tunnel's device has one, once and for all;
// where programs carry, the one below is said to be at fault.
func TestKernelChecksums(t *testing.T) {
	t.Parallel()
	eachKind(t, func(t *testing.T, k tunnelKind) {
		w := newBrokenWorld(t, k)
		w.a.run(nil)
		w.b.run(nil)
		if w.a.programs {
			testenv.Until(t, 30*time.Second, func() error { return outcomeIs(w.a, Checksum) })
			return
		}
		off := func() error {
			c := w.a.monitor.Choices()
			if len(c) != 1 || c[0].On || c[0].Why == "" {
				return fmt.Errorf("chosen: %+v", c)
			}
			on, err := w.a.kernel.TxChecksum(k.device)
			if on {
				err = errors.New("still on")
			}
			return err
		}
		for _, h := range []*host{w.a, w.b} { // what comes to a passes the card too
			testenv.Until(t, 30*time.Second, func() error { return outcomeIs(h, Fine) })
		}
		if err := off(); err != nil {
			t.Error(err)
		}
		if r := w.a.result(); r.Outcome != Fine || r.TCP != Passed {
			t.Errorf("%+v", r)
		}
		if err := w.a.kernel.SetTxChecksum(k.device, true); err != nil {
			t.Fatal(err)
		}
		w.a.monitor.Drift()
		testenv.Until(t, 10*time.Second, off)

		// A restart finds it off, and leaves it so.
		w.a.stop()
		w.a.run(nil)
		testenv.Until(t, 10*time.Second, func() error { return outcomeIs(w.a, Fine) })
		if c := w.a.monitor.Choices(); len(c) != 1 || c[0].On || c[0].Why != "" {
			t.Errorf("after a restart: %+v", c)
		}
	})
}

// TestKernelOffloadForced: where it is known to be broken it is off without
// being measured, for VXLAN alone.
func TestKernelOffloadForced(t *testing.T) {
	t.Parallel()
	eachKind(t, func(t *testing.T, k tunnelKind) {
		w := newWorld(t, k)
		if w.a.programs {
			return // which have no offload of their own
		}
		w.a.run(func(c *Config) { c.OffloadOff = "because" })
		forced := k.form == formVXLAN
		testenv.Until(t, 10*time.Second, func() error {
			c := w.a.monitor.Choices()
			if len(c) != 1 || c[0].On == forced || (c[0].Why == "because") != forced {
				return fmt.Errorf("chosen: %+v", c)
			}
			return nil
		})
	})
}
