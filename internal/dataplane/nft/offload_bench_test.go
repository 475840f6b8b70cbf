package nft

import (
	"fmt"
	"net/netip"
	"runtime"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/brindle-net/brindle/internal/dataplane/rules"
	"github.com/brindle-net/brindle/internal/testenv"
)

// bareSocket is a socket whose calls wait in the kernel, in a namespace, bound
// to an address and a port.
func bareSocket(s *street, ns func(func() error), at netip.AddrPort, peer netip.AddrPort) (fd int) {
	s.t.Helper()
	to := func(a netip.AddrPort) unix.Sockaddr {
		if a.Addr().Is4() {
			return &unix.SockaddrInet4{Port: int(a.Port()), Addr: a.Addr().As4()}
		}
		return &unix.SockaddrInet6{Port: int(a.Port()), Addr: a.Addr().As16()}
	}
	ns(func() (err error) {
		family := unix.AF_INET
		if at.Addr().Is6() {
			family = unix.AF_INET6
		}
		if fd, err = unix.Socket(family, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0); err != nil {
			return err
		}
		limit := unix.Timeval{Sec: 2}
		if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &limit); err != nil {
			return err
		}
		if err := unix.Bind(fd, to(at)); err != nil {
			return err
		}
		return unix.Connect(fd, to(peer))
	})
	return fd
}

// BenchmarkOffload compares round trips of an established connection with bare
// forwarding, without and with rules, and past the rules, one after the other in
// each round. It is for a virtual machine whose kernel has flowtables.
func BenchmarkOffload(b *testing.B) {
	for i := range 2 {
		b.Run(fmt.Sprintf("IPv%d", []int{4, 6}[i]), func(b *testing.B) { benchOffload(b, i) })
	}
}

func benchOffload(b *testing.B, i int) {
	s := newStreet(b)
	near := netip.AddrPortFrom(netip.MustParseAddr([]string{podAddr4, podAddr6}[i]), 6000)
	far := netip.AddrPortFrom(netip.MustParseAddr(places()["a workload there"][i]), 6001)
	server := bareSocket(s, func(f func() error) { testenv.Do(b, s.out, f) }, far, near)
	client := bareSocket(s, func(f func() error) { testenv.Do(b, s.pod, f) }, near, far)
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread()
		buf := make([]byte, 64)
		for {
			n, err := unix.Read(server, buf)
			if err == unix.EAGAIN || err == unix.EINTR || err == unix.ECONNREFUSED {
				continue
			}
			if err != nil || n == 1 {
				return
			}
			_, _ = unix.Write(server, buf[:n])
		}
	}()
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	modes := []string{"bare", "rules", "offloaded", "bare-again"}
	found := map[string][]float64{}
	buf := make([]byte, 64)
	const trips, warm = 800, 100
	for range b.N {
		for _, mode := range modes {
			switch mode {
			case "bare", "bare-again":
				if err := s.driver.Halt(); err != nil {
					b.Fatal(err)
				}
				if err := Remove(s.host); err != nil {
					b.Fatal(err)
				}
				s.driver.Configure(natSettings())
			case "rules":
				s.configure(func(*rules.Config) {})
			case "offloaded":
				s.configure(offloading)
			}
			took := make([]float64, 0, trips)
			for n := range trips + warm {
				began := time.Now()
				if _, err := unix.Write(client, buf[:32]); err != nil {
					b.Fatal(mode, err)
				}
				_, err := unix.Read(client, buf)
				for err == unix.EINTR {
					_, err = unix.Read(client, buf)
				}
				if err != nil {
					b.Fatal(mode, err)
				}
				if n >= warm {
					took = append(took, float64(time.Since(began).Nanoseconds()))
				}
			}
			slices.Sort(took)
			found[mode] = append(found[mode], took[len(took)/2])
		}
	}
	_, _ = unix.Write(client, buf[:1])
	<-done
	for _, mode := range modes[1:] {
		var ratios []float64
		for n, at := range found[mode] {
			ratios = append(ratios, at/found["bare"][n])
		}
		slices.Sort(ratios)
		b.ReportMetric(ratios[len(ratios)/2], mode+"/bare")
		b.ReportMetric(slices.Min(found[mode])/slices.Min(found["bare"]), mode+"/bare-at-best") // a busy machine only adds
	}
	slices.Sort(found["bare"])
	b.ReportMetric(found["bare"][len(found["bare"])/2], "bare-ns")
}
