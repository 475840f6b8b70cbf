//go:build linux

// Package smoke shows that the virtual machines of the tests work, and that
// each of their kernels has what Brindle builds on. It runs in them only.
package smoke

import (
	"bytes"
	"encoding/binary"
	"errors"
	"net"
	"os"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// needVM skips a test that is not in a virtual machine: it changes the
// network that it runs in.
func needVM(t *testing.T) string {
	t.Helper()
	series := os.Getenv("BRINDLE_VM")
	if series == "" || os.Getenv("HOME") != "/tmp" {
		t.Skip("runs in a virtual machine only: make vm-test")
	}
	return series
}

func TestKernelIsTheOneAskedFor(t *testing.T) {
	series := needVM(t)
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		t.Fatal(err)
	}
	release := unix.ByteSliceToString(u.Release[:])
	t.Log("kernel", release)
	if !strings.HasPrefix(release, series+".") {
		t.Errorf("got kernel %s, want series %s", release, series)
	}
}

// TestLinks makes each kind of link that the agent uses, or will.
func TestLinks(t *testing.T) {
	needVM(t)
	attrs := func(name string) netlink.LinkAttrs {
		a := netlink.NewLinkAttrs()
		a.Name = name
		return a
	}
	for _, c := range []struct {
		name string
		in   netlink.Link
	}{
		{"veth", &netlink.Veth{LinkAttrs: attrs("t-veth"), PeerName: "t-peer"}},
		{"dummy", &netlink.Dummy{LinkAttrs: attrs("t-dummy")}},
		{"IP in IP", &netlink.Iptun{LinkAttrs: attrs("t-ipip"), Local: net.IPv4(192, 0, 2, 1), Remote: net.IPv4(192, 0, 2, 2)}},
		{"WireGuard", &netlink.Wireguard{LinkAttrs: attrs("t-wg")}},
		{"VXLAN", &netlink.Vxlan{LinkAttrs: attrs("t-vxlan"), VxlanId: 4096, Port: 4789}},
	} {
		t.Run(c.name, func(t *testing.T) { addAndRemove(t, c.in) })
	}
}

func addAndRemove(t *testing.T, link netlink.Link) {
	t.Helper()
	if err := netlink.LinkAdd(link); err != nil {
		t.Fatalf("add: %v", err)
	}
	got, err := netlink.LinkByName(link.Attrs().Name)
	if err != nil {
		t.Fatalf("read back: %v", err)
	}
	if got.Type() != link.Type() {
		t.Errorf("read back: got type %s, want %s", got.Type(), link.Type())
	}
	if err := netlink.LinkSetUp(got); err != nil {
		t.Errorf("set up: %v", err)
	}
	if err := netlink.LinkDel(got); err != nil {
		t.Errorf("remove: %v", err)
	}
}

// TestNetkit shows which kernels can do without the stacks of a veth pair.
func TestNetkit(t *testing.T) {
	series := needVM(t)
	a := netlink.NewLinkAttrs()
	a.Name = "t-netkit"
	link := &netlink.Netkit{LinkAttrs: a, Mode: netlink.NETKIT_MODE_L3, Policy: netlink.NETKIT_POLICY_FORWARD}
	link.SetPeerAttrs(&netlink.LinkAttrs{Name: "t-nkpeer"})
	err := netlink.LinkAdd(link)
	if errors.Is(err, unix.EOPNOTSUPP) && series == "6.1" {
		t.Skip("netkit needs Linux 6.7")
	}
	if err != nil {
		t.Fatal(err)
	}
	if err := netlink.LinkDel(link); err != nil {
		t.Error(err)
	}
}

// TestNftables makes a table in one batch and finds it in a dump.
func TestNftables(t *testing.T) {
	needVM(t)
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_NETFILTER)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	const table = unix.NFNL_SUBSYS_NFTABLES << 8
	name := attribute(unix.NFTA_TABLE_NAME, []byte("brindle\x00"))
	batch := bytes.Join([][]byte{
		message(unix.NFNL_MSG_BATCH_BEGIN, 0, unix.AF_UNSPEC, unix.NFNL_SUBSYS_NFTABLES, nil),
		message(table|unix.NFT_MSG_NEWTABLE, unix.NLM_F_CREATE|unix.NLM_F_ACK, unix.NFPROTO_INET, 0, name),
		message(unix.NFNL_MSG_BATCH_END, 0, unix.AF_UNSPEC, unix.NFNL_SUBSYS_NFTABLES, nil),
	}, nil)
	if kind, body := ask(t, fd, batch); kind != unix.NLMSG_ERROR || binary.NativeEndian.Uint32(body) != 0 {
		t.Fatalf("add a table: got message %d, %x; want an acknowledgement", kind, body)
	}
	kind, body := ask(t, fd, message(table|unix.NFT_MSG_GETTABLE, unix.NLM_F_DUMP, unix.NFPROTO_INET, 0, nil))
	if kind != table|unix.NFT_MSG_NEWTABLE || !bytes.Contains(body, []byte("brindle\x00")) {
		t.Errorf("list tables: got message %d, %x", kind, body)
	}
}

// message is one request to nfnetlink.
func message(kind uint16, flags uint16, family uint8, resource uint16, attrs []byte) []byte {
	b := make([]byte, 20, 20+len(attrs))
	binary.NativeEndian.PutUint32(b, uint32(20+len(attrs)))
	binary.NativeEndian.PutUint16(b[4:], kind)
	binary.NativeEndian.PutUint16(b[6:], flags|unix.NLM_F_REQUEST)
	b[16] = family
	binary.BigEndian.PutUint16(b[18:], resource)
	return append(b, attrs...)
}

// attribute is one attribute, padded to four bytes.
func attribute(kind uint16, value []byte) []byte {
	b := make([]byte, 4, 4+len(value)+3)
	binary.NativeEndian.PutUint16(b, uint16(4+len(value)))
	binary.NativeEndian.PutUint16(b[2:], kind)
	b = append(b, value...)
	return append(b, make([]byte, (4-len(b)%4)%4)...)
}

// ask sends a request and returns kind and body of the first answer.
func ask(t *testing.T, fd int, request []byte) (uint16, []byte) {
	t.Helper()
	if err := unix.Sendto(fd, request, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 32<<10)
	n, _, err := unix.Recvfrom(fd, buf, 0)
	if err != nil {
		t.Fatal(err)
	}
	if n < 20 {
		t.Fatalf("an answer of %d bytes", n)
	}
	length := min(int(binary.NativeEndian.Uint32(buf)), n)
	return binary.NativeEndian.Uint16(buf[4:]), buf[16:length]
}
