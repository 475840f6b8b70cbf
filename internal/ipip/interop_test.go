package ipip

import (
	"fmt"
	"os"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/brindle-net/brindle/internal/testenv"
)

// needDevice skips a test on a kernel that has no device for IP in IP. The
// kernels of `make vm-test` all have it.
func needDevice(t *testing.T) {
	t.Helper()
	var err error
	inside(t, testenv.NetNS(t), func(h *netlink.Handle) error {
		if err = h.LinkAdd(&netlink.Iptun{LinkAttrs: attrs("tunl0")}); os.IsExist(err) {
			err = nil
		}
		return nil
	})
	if err != nil && os.Getenv("BRINDLE_VM") != "" {
		t.Fatal(err)
	}
	if err != nil {
		t.Skipf("the kernel has no device for IP in IP (%v): make vm-test has kernels with one", err)
	}
}

// TestWithKernelDevice has each carrier talk to the other.
func TestWithKernelDevice(t *testing.T) {
	needDevice(t)
	for _, c := range []struct {
		name string
		a, b kind
	}{
		{"to the kernel's", carried, ofKernel},
		{"from the kernel's", ofKernel, carried},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t, c.a, c.b)
			echo(t, w.b.pod, 7)
			echo(t, w.b.ns, 7)
			for _, size := range []int{1, tunnelMTU - 28, 20000} {
				if err := ask(t, w.a.pod, w.b.workload, 7, size); err != nil {
					t.Errorf("pod to pod, %d bytes: %v", size, err)
				}
				if err := ask(t, w.a.ns, w.b.tunnel, 7, size); err != nil {
					t.Errorf("host to host, %d bytes: %v", size, err)
				}
			}
			transfer(t, w.a.pod, w.b.pod, w.b.workload, amount(8<<20))
			transfer(t, w.b.pod, w.a.pod, w.a.workload, amount(8<<20))
		})
	}
}

// TestFragmentsFromKernelDevice has the kernel's device send packets that are
// cut on the way.
func TestFragmentsFromKernelDevice(t *testing.T) {
	needDevice(t)
	for _, to := range []kind{carried, ofKernel} {
		w := newWorld(t, ofKernel, to)
		setMTU(t, w.router, "r2", 1300)
		end := listen(t, w.b.pod, "eth0")
		p := packet{ttl: 64, proto: unix.IPPROTO_UDP, id: 5, from: w.a.workload, to: w.b.workload, data: datagram(9, make([]byte, 1400))}
		sendRaw(t, w.a.pod, p.bytes())
		got := end.next("packet in one piece", toPort(9))
		p.ttl -= 2
		compare(t, "arrived", got, p)
	}
}

// TestLikeKernelDevice sends the same packets through both carriers and
// compares what is on the wire, and what the carriers make of what they get.
func TestLikeKernelDevice(t *testing.T) {
	needDevice(t)
	ours, kernels := newWorld(t, carried, carried), newWorld(t, ofKernel, ofKernel)
	for _, w := range []*world{ours, kernels} {
		setMTU(t, w.a.pod, "eth0", 1500)
	}
	port := uint16(1000)
	for _, ttl := range []uint8{2, 64, 255} {
		for _, flags := range []uint16{0, dontFragment, moreFragments, 185} {
			for _, tos := range []uint8{0, 1, 2, 3, 0xb8, 0xbb} {
				port++
				name := fmt.Sprintf("ttl %d, flags %#x, tos %#x", ttl, flags, tos)
				var got [2]packet
				for i, w := range []*world{ours, kernels} {
					wire := listen(t, w.a.ns, "eth0")
					in := packet{tos: tos, ttl: ttl, proto: unix.IPPROTO_UDP, id: 77, flags: flags, from: w.a.workload, to: w.b.workload, data: datagram(port, make([]byte, 64))}
					sendRaw(t, w.a.pod, in.bytes())
					got[i] = wire.next(name, carrying(port))
					unix.Close(wire.fd)
				}
				got[0].id = got[1].id // each counts for itself
				compare(t, name, got[0], got[1])
			}
		}
	}
}

// TestDecapsulatesLikeKernelDevice sends outer packets of each kind to both
// carriers and compares what comes out.
func TestDecapsulatesLikeKernelDevice(t *testing.T) {
	needDevice(t)
	ours, kernels := newWorld(t, carried, carried), newWorld(t, ofKernel, ofKernel)
	last := uint16(999)
	port := uint16(1000)
	for outer := range uint8(4) {
		for inner := range uint8(4) {
			port++
			name := fmt.Sprintf("outer ECN %d, inner %d", outer, inner)
			var got [2][]packet
			for i, w := range []*world{ours, kernels} {
				end := listen(t, w.b.pod, "eth0")
				send := func(p, outer uint16, in uint8) {
					inside := packet{tos: 0xb8 | in, ttl: 9, proto: unix.IPPROTO_UDP, id: 3, from: w.a.workload, to: w.b.workload, data: datagram(p, nil)}
					out := packet{tos: 0x48 | uint8(outer), ttl: 5, proto: unix.IPPROTO_IPIP, from: w.a.node, to: w.b.node, data: inside.bytes()}
					sendRaw(t, w.router, out.bytes())
				}
				send(port, uint16(outer), inner)
				send(last, 0, 0)
				end.next(name, func(p packet) bool {
					if p.proto == unix.IPPROTO_UDP { // not what the pod answers
						got[i] = append(got[i], p)
					}
					return toPort(last)(p)
				})
				unix.Close(end.fd)
			}
			if len(got[0]) != len(got[1]) {
				t.Errorf("%s: got %v, want %v", name, got[0], got[1])
				continue
			}
			for i := range got[0] {
				compare(t, name, got[0][i], got[1][i])
			}
		}
	}
}
