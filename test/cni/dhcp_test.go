package cni

import (
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/brindle-net/brindle/internal/netns"
	"github.com/brindle-net/brindle/internal/testenv"
)

// lan is a network with a DHCP server, and CNI's stock daemon that asks it.
type lan struct {
	t      *testing.T
	dir    string // the daemon takes it for the host's root
	name   string // of the namespace in which eth0 is on that network
	leases string // dnsmasq's file
}

// newLAN starts dnsmasq on one end of a wire, and the daemon of the plugin
// `dhcp`. Which namespace the daemon asks from is what lies under its own root
// at the path of the container's: see from.
func newLAN(t *testing.T) *lan {
	t.Helper()
	l := &lan{t: t, dir: t.TempDir()}
	l.leases = filepath.Join(l.dir, "leases")
	client, name := testenv.NamedNS(t, "brindle-dhcp")
	server, other := testenv.NamedNS(t, "brindle-dhcp-server")
	l.name = name
	testenv.Run(t, client, "ip", "link", "add", "eth0", "type", "veth", "peer", "name", "lan0", "netns", other)
	testenv.Run(t, client, "ip", "link", "set", "eth0", "up")
	testenv.Run(t, server, "ip", "address", "add", "10.98.0.1/24", "dev", "lan0")
	testenv.Run(t, server, "ip", "link", "set", "lan0", "up")
	if err := os.MkdirAll(filepath.Join(l.dir, "run/netns"), 0o700); err != nil {
		t.Fatal(err)
	}
	said := l.start(server, "dnsmasq", "--keep-in-foreground", "--conf-file=/dev/null", "--pid-file=", "--user=root", "--port=0",
		"--interface=lan0", "--bind-interfaces", "--no-ping", "--dhcp-authoritative", "--dhcp-range=10.98.0.100,10.98.0.110,1h",
		"--dhcp-leasefile="+l.leases, "--log-facility=-")
	l.start(client, "dhcp", "daemon", "-hostprefix", l.dir, "-socketpath", "/dhcp.sock", "-timeout", "5s")
	testenv.Until(t, 10*time.Second, func() error {
		if log, err := os.ReadFile(said); err != nil || !strings.Contains(string(log), "IP range") {
			return fmt.Errorf("dnsmasq does not serve yet: %w: %s", err, log)
		}
		_, err := os.Stat(l.socket())
		return err
	})
	return l
}

func (l *lan) socket() string { return filepath.Join(l.dir, "dhcp.sock") }

// start runs a program in a namespace until the test ends, and returns the file
// in which it says what it does.
func (l *lan) start(ns *netns.NS, program string, args ...string) string {
	l.t.Helper()
	out, err := os.Create(filepath.Join(l.dir, program+".log"))
	if err != nil {
		l.t.Fatal(err)
	}
	cmd := exec.Command(testenv.NeedProgram(l.t, program), args...)
	cmd.Stdout, cmd.Stderr = out, out
	if err := netns.Do(ns, cmd.Start); err != nil {
		l.t.Fatal(err)
	}
	l.t.Cleanup(func() {
		_ = cmd.Process.Kill() // it may have ended
		_ = cmd.Wait()         // it was killed
		if log, err := os.ReadFile(out.Name()); err == nil && l.t.Failed() {
			l.t.Logf("%s:\n%s", program, log)
		}
		out.Close()
	})
	return out.Name()
}

// from has the daemon ask from a namespace when it is asked for a container in
// another.
func (l *lan) from(container, namespace string) {
	l.t.Helper()
	if err := os.Symlink("/run/netns/"+namespace, filepath.Join(l.dir, container)); err != nil {
		l.t.Fatal(err)
	}
}

// leased lists the addresses that the server has lent.
func (l *lan) leased() []string {
	l.t.Helper()
	data, err := os.ReadFile(l.leases)
	if err != nil {
		l.t.Fatal(err)
	}
	var out []string
	for line := range strings.Lines(string(data)) {
		if f := strings.Fields(line); len(f) > 2 { // expiry, MAC, address, name, client
			out = append(out, f[2])
		}
	}
	return out
}

// dhcp has Debian's plugin dhcp, its daemon and dnsmasq give an address. The
// plugin speaks DHCP for IPv4 only, so this is of IPv4.
func (h *host) dhcp() {
	t := h.t
	if err := os.Symlink(testenv.NeedProgram(t, "dhcp"), filepath.Join(h.bin, "dhcp")); err != nil {
		t.Fatal(err)
	}
	l := newLAN(t)
	list := h.config("1.0.0", map[string]any{"ipam": map[string]any{"type": "dhcp", "daemonSocketPath": l.socket()}})
	runtime := h.runtime()

	// As it is by itself: the plugin looks for the container's interface, which
	// there is none of before there is an address.
	_, bare := h.container("bare")
	l.from(bare.NetNS, filepath.Base(bare.NetNS))
	if _, err := runtime.AddNetworkList(t.Context(), list, bare); err == nil || !strings.Contains(err.Error(), `"eth0"`) {
		t.Errorf("got %v, want that there is no eth0", err)
	}
	if err := runtime.DelNetworkList(t.Context(), list, bare); err != nil {
		t.Errorf("del: %v", err)
	}
	h.wantClean()

	ns, rt := h.container("lent")
	l.from(rt.NetNS, l.name)
	r := h.add(list, rt)
	got := h.addrsOf(r)
	if len(got) != 1 || !netip.MustParsePrefix("10.98.0.96/28").Contains(got[0]) || !slices.Equal(l.leased(), []string{got[0].String()}) {
		t.Errorf("got %v; the server has lent %v", got, l.leased())
	}
	h.checkInside(ns, r)
	if again := h.addrsOf(h.add(list, rt)); !slices.Equal(again, got) || len(l.leased()) != 1 {
		t.Errorf("added again it has %v; the server has lent %v", again, l.leased())
	}
	if err := runtime.CheckNetworkList(t.Context(), list, rt); err != nil {
		t.Errorf("check: %v", err)
	}
	for range 2 {
		if err := runtime.DelNetworkList(t.Context(), list, rt); err != nil {
			t.Errorf("del: %v", err)
		}
	}
	testenv.Until(t, 5*time.Second, func() error {
		if left := l.leased(); len(left) > 0 {
			return fmt.Errorf("the server has still lent %v", left)
		}
		return nil
	})
	h.wantClean()
}
