// Package cni drives the plugin as container runtimes do, through libcni and
// cnitool, against the real agent on a host of a lab.
package cni

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/containernetworking/cni/libcni"
	"github.com/containernetworking/cni/pkg/types"
	types100 "github.com/containernetworking/cni/pkg/types/100"

	v3 "github.com/brindle-net/brindle/api/v3"
	"github.com/brindle-net/brindle/internal/client"
	"github.com/brindle-net/brindle/internal/cni"
	"github.com/brindle-net/brindle/internal/netns"
	"github.com/brindle-net/brindle/internal/testenv"
)

func TestThePluginIsSmall(t *testing.T) {
	info, err := os.Stat("../../bin/brindle-cni")
	if err != nil {
		t.Fatalf("%v: run `make build` first", err)
	}
	if limit := int64(5_000_000); info.Size() > limit {
		t.Errorf("brindle-cni has %d bytes, more than %d: a runtime starts it for every container", info.Size(), limit)
	}
}

func TestWithARuntime(t *testing.T) {
	testenv.EachFamily(t, func(t *testing.T, family testenv.Family) {
		h := up(t, family)
		for _, version := range cni.SpecVersions[3:] { // those whose results name interfaces
			h.sub("attachment in "+version, func(t *testing.T) { h.attachment(version) })
		}
		h.sub("cnitool", func(t *testing.T) { h.cnitool() })
		h.sub("requested addresses", func(t *testing.T) { h.requested() })
		h.sub("garbage collection", func(t *testing.T) { h.garbage() })
		h.sub("addresses of another plugin", func(t *testing.T) { h.delegated() })
		if family == testenv.V4 { // what the plugin speaks
			h.sub("addresses by DHCP", func(t *testing.T) { h.dhcp() })
		}
		h.sub("addresses only", func(t *testing.T) { h.addressesOnly() })
		h.sub("agent down", func(t *testing.T) { h.agentDown() })
		h.sub("agent killed", func(t *testing.T) { h.agentKilled() })
	})
}

// sub runs a part of the test on the same host.
func (h *host) sub(name string, f func(t *testing.T)) {
	outer := h.t
	outer.Run(name, func(t *testing.T) {
		h.t = t
		defer func() { h.t = outer }()
		f(t)
	})
}

// attachment goes through the life of one container.
func (h *host) attachment(version string) {
	t := h.t
	id := "cid-" + strings.ReplaceAll(version, ".", "")
	ns, rt := h.container(id)
	list := h.config(version, nil)
	runtime := h.runtime()
	r := h.add(list, rt)
	addrs := h.addrsOf(r)
	if len(addrs) != len(h.families()) {
		t.Fatalf("addresses %v", addrs)
	}
	h.checkInside(ns, r)
	h.checkStored(id, r)
	for _, a := range addrs {
		if route := h.inHost("ip", "route", "get", a.String()); !strings.Contains(route, "dev cali"+id) {
			t.Errorf("the host's route to %s is %s", a, route)
		}
	}
	if again := h.addrsOf(h.add(list, rt)); !slices.Equal(again, addrs) {
		t.Errorf("added again it has %v, first %v", again, addrs)
	}
	if version != "0.3.1" { // the version before CHECK
		if err := runtime.CheckNetworkList(t.Context(), list, rt); err != nil {
			t.Errorf("check: %v", err)
		}
		testenv.Run(t, ns, "ip", "link", "set", "eth0", "down")
		if err := runtime.CheckNetworkList(t.Context(), list, rt); err == nil {
			t.Error("check of an interface that is down passed")
		}
	}
	for range 2 {
		if err := runtime.DelNetworkList(t.Context(), list, rt); err != nil {
			t.Errorf("del: %v", err)
		}
	}
	if out, err := testenv.TryRun(t, ns, "ip", "link", "show", "eth0"); err == nil {
		t.Errorf("after DEL there is %s", out)
	}
	if version == "1.1.0" {
		if err := runtime.GetStatusNetworkList(t.Context(), list); err != nil {
			t.Errorf("status: %v", err)
		}
	}
	info, err := runtime.GetVersionInfo(t.Context(), "brindle-cni")
	if err != nil || !slices.Equal(info.SupportedVersions(), cni.SpecVersions) {
		t.Errorf("version: %v, %v", info, err)
	}
	h.wantClean()
}

// checkInside looks at what the container has got.
func (h *host) checkInside(ns *netns.NS, r *types100.Result) {
	t := h.t
	t.Helper()
	var links []struct {
		MAC       string `json:"address"`
		MTU       int    `json:"mtu"`
		Flags     []string
		Addresses []struct {
			Local string `json:"local"`
			Bits  int    `json:"prefixlen"`
			Scope string `json:"scope"`
		} `json:"addr_info"`
	}
	if err := json.Unmarshal([]byte(testenv.Run(t, ns, "ip", "-j", "addr", "show", "dev", "eth0")), &links); err != nil || len(links) != 1 {
		t.Fatal(links, err)
	}
	link := links[0]
	if !slices.Contains(link.Flags, "UP") || link.MTU != 1500 {
		t.Errorf("eth0 is %+v", link)
	}
	if len(r.Interfaces) != 2 || r.Interfaces[0].Sandbox != "" || r.Interfaces[0].Mac != "" || r.Interfaces[1].Name != "eth0" || r.Interfaces[1].Mac != link.MAC {
		t.Errorf("the result's interfaces are %+v; eth0 has %s", r.Interfaces, link.MAC)
	}
	var have []string
	for _, a := range link.Addresses {
		if a.Scope == "global" {
			have = append(have, fmt.Sprintf("%s/%d", a.Local, a.Bits))
		}
	}
	var want []string
	for _, ip := range r.IPs {
		want = append(want, ip.Address.String())
	}
	if !slices.Equal(have, want) {
		t.Errorf("eth0 has %v, the result says %v", have, want)
	}
	for _, family := range h.families() {
		via := map[int]string{4: "default via 169.254.1.1 dev eth0", 6: "default via fe80::ecee:eeff:feee:eeee dev eth0"}[family]
		if out := testenv.Run(t, ns, "ip", fmt.Sprintf("-%d", family), "route"); !strings.Contains(out, via) {
			t.Errorf("no %q in\n%s", via, out)
		}
		self := h.hostAddress(family)
		if out, err := testenv.TryRun(t, ns, "ping", "-c1", "-W2", self); err != nil {
			t.Errorf("the host is out of reach: %v\n%s", err, out)
		}
	}
}

// hostAddress is the lab host's own address of a family.
func (h *host) hostAddress(family int) string {
	h.t.Helper()
	node, err := client.Get[v3.Node](h.t.Context(), h.client, "", "h1")
	if err != nil {
		h.t.Fatal(err)
	}
	text := node.Spec.BGP.IPv4Address
	if family == 6 {
		text = node.Spec.BGP.IPv6Address
	}
	return netip.MustParsePrefix(text).Addr().String()
}

// checkStored looks at what is in the datastore.
func (h *host) checkStored(id string, r *types100.Result) {
	t := h.t
	t.Helper()
	name := "h1-cni-" + strings.ReplaceAll(id, "-", "--") + "-eth0"
	wep, err := client.Get[v3.WorkloadEndpoint](t.Context(), h.client, "default", name)
	if err != nil {
		t.Fatal(err)
	}
	addrs := h.addrsOf(r)
	var nets []string
	for _, a := range addrs {
		nets = append(nets, netip.PrefixFrom(a, a.BitLen()).String())
	}
	want := v3.WorkloadEndpointSpec{
		Orchestrator: "cni", Node: "h1", ContainerID: id, Endpoint: "eth0", InterfaceName: "cali" + id, IPNetworks: nets,
		MAC: r.Interfaces[1].Mac, Profiles: []string{network},
	}
	if fmt.Sprintf("%+v", wep.Spec) != fmt.Sprintf("%+v", want) {
		t.Errorf("the endpoint is %+v, want %+v", wep.Spec, want)
	}
	got, err := h.addresses.IPsByHandle(t.Context(), network+"."+id)
	if err != nil || len(got) != len(addrs) {
		t.Fatalf("the handle has %v, %v", got, err)
	}
	for i, a := range got {
		if a.Addr != addrs[i] {
			t.Errorf("the handle has %v, want %v", got, addrs)
		}
		route := r.Routes[i].Dst
		if route.String() != a.Block.String() {
			t.Errorf("route %d is %v, want the block %v", i, route, a.Block)
		}
	}
}

// cnitool does the same by the tool that administrators use.
func (h *host) cnitool() {
	t := h.t
	tool := filepath.Join(t.TempDir(), "cnitool")
	build := exec.Command("go", "build", "-o", tool, "github.com/containernetworking/cni/cnitool")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build cnitool: %v\n%s", err, out)
	}
	if err := os.WriteFile(filepath.Join(h.dir, "10-brindle.conflist"), h.configBytes("1.1.0", nil), 0o600); err != nil {
		t.Fatal(err)
	}
	before, _ := filepath.Glob("/var/lib/cni/results/*")
	_, nocache := os.Stat("/var/lib/cni")
	t.Cleanup(func() { // what the tool left on the machine
		after, _ := filepath.Glob("/var/lib/cni/results/*")
		if len(after) > len(before) {
			t.Errorf("cnitool left results: %v", after)
		}
		if nocache != nil {
			os.Remove("/var/lib/cni/results")
			os.Remove("/var/lib/cni")
		}
	})
	run := func(verb string, ns string) (string, error) {
		cmd := exec.Command(tool, verb, network, ns)
		cmd.Env = append(os.Environ(), "CNI_PATH="+h.bin, "NETCONFPATH="+h.dir)
		out, err := cmd.CombinedOutput()
		return string(out), err
	}
	// Ids that cnitool makes begin alike: names of interfaces may not clash.
	var paths []string
	for range 3 {
		_, rt := h.container("unused")
		paths = append(paths, rt.NetNS)
	}
	for _, verb := range []string{"add", "check", "status", "del", "add", "gc", "del", "del"} {
		for _, path := range paths {
			if out, err := run(verb, path); err != nil {
				t.Errorf("cnitool %s: %v\n%s", verb, err, out)
			}
		}
		if n := len(h.endpoints()); verb == "add" && n != len(paths) || verb == "gc" && n != 0 {
			t.Errorf("after cnitool %s there are %d endpoints", verb, n)
		}
	}
	h.wantClean()
}

// requested asks for addresses and a hardware address, and for what is taken.
func (h *host) requested() {
	t := h.t
	list := h.config("1.0.0", nil)
	runtime := h.runtime()
	_, first := h.container("first")
	had := h.addrsOf(h.add(list, first))
	var free []string
	for _, a := range had {
		for range 5 {
			a = a.Next()
		}
		free = append(free, a.String())
	}
	ns, second := h.container("second")
	second.CapabilityArgs = map[string]any{"ips": free, "mac": "02:00:00:00:00:09"}
	r := h.add(list, second)
	var got []string
	for _, a := range h.addrsOf(r) {
		got = append(got, a.String())
	}
	if !slices.Equal(got, free) || r.Interfaces[1].Mac != "02:00:00:00:00:09" {
		t.Errorf("got %v and %s, asked for %v", got, r.Interfaces[1].Mac, free)
	}
	h.checkInside(ns, r)
	_, third := h.container("third")
	third.Args = [][2]string{{"IP", had[0].String()}}
	_, err := runtime.AddNetworkList(t.Context(), list, third)
	wantCode(t, err, cni.CodeTryAgain, had[0].String())
	for _, rt := range []*libcni.RuntimeConf{first, second, third} {
		if err := runtime.DelNetworkList(t.Context(), list, rt); err != nil {
			t.Error(err)
		}
	}
	h.wantClean()
}

// wantCode fails the test unless err is a CNI error with code and words.
func wantCode(t *testing.T, err error, code uint, words string) {
	t.Helper()
	var e *types.Error
	if !errors.As(err, &e) || e.Code != code || !strings.Contains(e.Error(), words) {
		t.Errorf("got %v, want code %d with %q", err, code, words)
	}
}

// garbage: the runtime has forgotten all containers but one.
func (h *host) garbage() {
	t := h.t
	list := h.config("1.1.0", nil)
	_, alive := h.container("alive")
	_, dead := h.container("dead")
	h.add(list, alive)
	h.add(list, dead)
	runtime := h.runtime()
	if err := os.RemoveAll(filepath.Join(h.dir, "cache")); err != nil {
		t.Fatal(err)
	}
	args := &libcni.GCArgs{ValidAttachments: []types.GCAttachment{{ContainerID: "alive", IfName: "eth0"}}}
	if err := runtime.GCNetworkList(t.Context(), list, args); err != nil {
		t.Error(err)
	}
	if got := h.endpoints(); !slices.Equal(got, []string{"default/h1-cni-alive-eth0"}) {
		t.Errorf("left %v", got)
	}
	if err := runtime.GCNetworkList(t.Context(), list, &libcni.GCArgs{}); err != nil {
		t.Error(err)
	}
	h.wantClean()
}

// addressesOnly asks brindle-ipam as another main plugin would.
func (h *host) addressesOnly() {
	t := h.t
	list := h.config("1.0.0", map[string]any{"type": "brindle-ipam"})
	_, rt := h.container("foreign")
	runtime := h.runtime()
	r, err := runtime.AddNetworkList(t.Context(), list, rt)
	if err != nil {
		t.Fatal(err)
	}
	res, err := types100.NewResultFromResult(r)
	if err != nil || len(res.IPs) != len(h.families()) || len(res.Interfaces) != 0 || len(h.links()) != 0 {
		t.Errorf("got %+v, %v, links %v", res, err, h.links())
	}
	if err := runtime.CheckNetworkList(t.Context(), list, rt); err != nil {
		t.Errorf("check: %v", err)
	}
	if err := runtime.DelNetworkList(t.Context(), list, rt); err != nil {
		t.Errorf("del: %v", err)
	}
	h.wantClean()
}

// delegated has Debian's host-local give the addresses. By the time of the
// removal the configuration names another IPAM plugin.
func (h *host) delegated() {
	t := h.t
	if err := os.Symlink(testenv.NeedProgram(t, "host-local"), filepath.Join(h.bin, "host-local")); err != nil {
		t.Fatal(err)
	}
	var ranges []any
	for _, family := range h.families() {
		ranges = append(ranges, []any{map[string]string{"subnet": map[int]string{4: "10.99.0.0/24", 6: "fd99::/64"}[family]}})
	}
	notes := filepath.Join(h.dir, "host-local")
	list := h.config("1.0.0", map[string]any{"ipam": map[string]any{"type": "host-local", "ranges": ranges, "dataDir": notes}})
	leases := func() []string {
		found, err := filepath.Glob(filepath.Join(notes, network, "*99*"))
		if err != nil {
			t.Fatal(err)
		}
		return found
	}
	ns, rt := h.container("delegated")
	r := h.add(list, rt)
	if got := h.addrsOf(r); len(got) != len(h.families()) || len(leases()) != len(got) || len(r.Routes) != 0 {
		t.Errorf("got %v, routes %v; host-local has %v", got, r.Routes, leases())
	}
	h.checkInside(ns, r)
	if again := h.addrsOf(h.add(list, rt)); !slices.Equal(again, h.addrsOf(r)) {
		t.Errorf("added again it has %v", again)
	}
	runtime := h.runtime()
	if err := runtime.CheckNetworkList(t.Context(), list, rt); err != nil {
		t.Errorf("check: %v", err)
	}
	for range 2 {
		if err := runtime.DelNetworkList(t.Context(), h.config("1.0.0", nil), rt); err != nil {
			t.Errorf("del: %v", err)
		}
	}
	if left := leases(); len(left) > 0 {
		t.Errorf("host-local still has %v", left)
	}
	h.wantClean()
}

// agentDown: without an agent nothing can be added, and everything removed.
func (h *host) agentDown() {
	t := h.t
	list := h.config("1.1.0", nil)
	_, rt := h.container("orphan")
	_, late := h.container("late")
	h.add(list, rt)
	runtime := h.runtime()
	h.brindle("lab", "host", "stop", "h1")
	_, err := runtime.AddNetworkList(t.Context(), list, late)
	wantCode(t, err, cni.CodeTryAgain, "agent is not running")
	wantCode(t, runtime.CheckNetworkList(t.Context(), list, rt), cni.CodeTryAgain, "agent is not running")
	wantCode(t, runtime.GetStatusNetworkList(t.Context(), list), cni.CodeUnavailable, "agent is not running")
	for range 2 {
		if err := runtime.DelNetworkList(t.Context(), list, rt); err != nil {
			t.Errorf("del: %v", err)
		}
	}
	if files, _ := filepath.Glob(h.state() + "/state/queue/*.json"); len(files) == 0 {
		t.Error("nothing was queued")
	}
	if len(h.links()) != 1 || len(h.endpoints()) != 1 {
		t.Errorf("links %v, endpoints %v: want both as they were", h.links(), h.endpoints())
	}
	h.brindle("lab", "host", "start", "h1")
	testenv.Until(t, 20*time.Second, h.leftovers)
}

// agentKilled: SIGKILL in the middle of many adds. The runtime adds them
// again, and nothing is there twice.
func (h *host) agentKilled() {
	t := h.t
	list := h.config("1.0.0", nil)
	runtime := h.runtime()
	var rts []*libcni.RuntimeConf
	for round, failed := 0, 0; failed == 0; round++ {
		if round == 10 {
			t.Fatal("the agent was never killed in the middle of an add")
		}
		var some []*libcni.RuntimeConf
		for i := range 8 {
			_, rt := h.container(fmt.Sprintf("container-%d-%d", round, i))
			some = append(some, rt)
		}
		failed = h.killDuring(list, some)
		h.brindle("lab", "host", "start", "h1")
		rts = append(rts, some...)
	}
	seen := map[netip.Addr]string{}
	for i, rt := range rts {
		if i%3 == 2 {
			continue // this one the runtime gives up
		}
		testenv.Until(t, 20*time.Second, func() error {
			r, err := runtime.AddNetworkList(t.Context(), list, rt)
			if err != nil {
				return err
			}
			res, err := types100.NewResultFromResult(r)
			if err != nil {
				return err
			}
			for _, a := range h.addrsOf(res) {
				if other := seen[a]; other != "" && other != rt.ContainerID {
					t.Errorf("%s and %s both have %s", other, rt.ContainerID, a)
				}
				seen[a] = rt.ContainerID
			}
			return runtime.CheckNetworkList(t.Context(), h.config("1.0.0", nil), rt)
		})
	}
	for _, rt := range rts {
		if err := runtime.DelNetworkList(t.Context(), list, rt); err != nil {
			t.Errorf("del: %v", err)
		}
	}
	h.wantClean()
}

// killDuring adds containers, kills the agent as soon as it is at work, and
// returns how many adds failed.
func (h *host) killDuring(list *libcni.NetworkConfigList, rts []*libcni.RuntimeConf) (failed int) {
	t := h.t
	agent := h.agent()
	before, _ := filepath.Glob(filepath.Join(h.state(), "attachments", "*.json"))
	var wg sync.WaitGroup
	errs := make(chan error, len(rts))
	for _, rt := range rts {
		wg.Go(func() {
			_, err := h.runtime().AddNetworkList(t.Context(), list, rt)
			errs <- err
		})
	}
	testenv.Until(t, 10*time.Second, func() error {
		now, _ := filepath.Glob(filepath.Join(h.state(), "attachments", "*.json"))
		if len(now) <= len(before) {
			return errors.New("no add is under way")
		}
		return nil
	})
	if err := syscall.Kill(agent, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	wg.Wait()
	close(errs)
	for err := range errs {
		if err != nil {
			failed++
		}
	}
	return failed
}
