package cni

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/containernetworking/cni/libcni"
	types100 "github.com/containernetworking/cni/pkg/types/100"

	v3 "github.com/brindle-net/brindle/api/v3"
	"github.com/brindle-net/brindle/internal/client"
	"github.com/brindle-net/brindle/internal/ipam"
	"github.com/brindle-net/brindle/internal/netns"
	"github.com/brindle-net/brindle/internal/store/etcd"
	"github.com/brindle-net/brindle/internal/testenv"
)

// network is the name of the network in every configuration here.
const network = "k8s-pod-network"

// host is a host of a lab with the real agent, and a runtime beside it.
type host struct {
	t         *testing.T
	lab       string
	family    testenv.Family
	dir       string // the runtime's own: configuration, cache
	bin       string // holds brindle-cni and brindle-ipam
	netns     *netns.NS
	client    *client.Client
	addresses *ipam.Manager
}

// up builds a lab of one host without workloads.
func up(t *testing.T, family testenv.Family) *host {
	t.Helper()
	testenv.NeedRoot(t)
	root, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	h := &host{t: t, lab: fmt.Sprintf("cni%d%s", os.Getpid(), family), family: family, dir: t.TempDir(), bin: t.TempDir()}
	for _, name := range []string{"brindle", "brindle-cni"} {
		if _, err := os.Stat(filepath.Join(root, "bin", name)); err != nil {
			t.Fatalf("%v: run `make build` first", err)
		}
		if err := os.Symlink(filepath.Join(root, "bin", name), filepath.Join(h.bin, name)); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink("brindle-cni", filepath.Join(h.bin, "brindle-ipam")); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		h.t = t
		if t.Failed() {
			log, _ := os.ReadFile(filepath.Join(h.state(), "agent.log"))
			t.Logf("the agent's log:\n%s", log[max(0, len(log)-4000):])
		}
		h.brindle("lab", "down")
	})
	h.brindle("lab", "up", "--hosts", "1", "--workloads", "0", "--family", family.String())
	driver, err := etcd.New(etcd.Config{Endpoints: []string{"unix:///run/brindle/lab/" + h.lab + "/etcd.sock"}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { driver.Close() })
	h.client, h.addresses = client.New(driver, client.Config{}), ipam.New(ipam.Config{Driver: driver})
	if h.netns, err = netns.Open("brindle-" + h.lab + "-h1"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { h.netns.Close() })
	return h
}

// state is the folder of the lab's host.
func (h *host) state() string { return "/run/brindle/lab/" + h.lab + "/h1" }

// brindle runs a command about the lab and ends the test if it fails.
func (h *host) brindle(args ...string) string {
	h.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, filepath.Join(h.bin, "brindle"), append(args, "--name", h.lab)...)
	// Containers may not talk to their host by default; here it is what they
	// are tested against.
	cmd.Env = append(os.Environ(), "FELIX_DEFAULTENDPOINTTOHOSTACTION=Accept")
	out, err := cmd.CombinedOutput()
	if err != nil {
		h.t.Errorf("brindle %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return string(out)
}

// agent is the process of the host's agent.
func (h *host) agent() int {
	h.t.Helper()
	var st struct {
		Hosts []struct{ PID int }
	}
	if err := json.Unmarshal([]byte(h.brindle("lab", "status", "-o", "json")), &st); err != nil || len(st.Hosts) != 1 || st.Hosts[0].PID <= 1 {
		h.t.Fatalf("lab status: %+v, %v", st, err)
	}
	return st.Hosts[0].PID
}

// config is a network configuration list for the host's agent.
func (h *host) config(version string, more map[string]any) *libcni.NetworkConfigList {
	h.t.Helper()
	list, err := libcni.ConfListFromBytes(h.configBytes(version, more))
	if err != nil {
		h.t.Fatal(err)
	}
	return list
}

func (h *host) configBytes(version string, more map[string]any) []byte {
	h.t.Helper()
	plugin := map[string]any{
		"type": "brindle-cni", "socket": h.state() + "/agent.sock", "queue": h.state() + "/state/queue",
		"capabilities": map[string]bool{"ips": true, "mac": true},
		"ipam":         map[string]any{"type": "brindle-ipam", "assign_ipv4": fmt.Sprint(h.family.HasV4()), "assign_ipv6": fmt.Sprint(h.family.HasV6())},
	}
	for k, v := range more {
		plugin[k] = v
	}
	data, err := json.Marshal(map[string]any{"cniVersion": version, "name": network, "plugins": []any{plugin}})
	if err != nil {
		h.t.Fatal(err)
	}
	return data
}

// runtime is libcni as a container runtime uses it.
func (h *host) runtime() *libcni.CNIConfig {
	return libcni.NewCNIConfigWithCacheDir([]string{h.bin}, filepath.Join(h.dir, "cache"), nil)
}

// container is a fresh namespace as a runtime would have it.
func (h *host) container(id string) (*netns.NS, *libcni.RuntimeConf) {
	h.t.Helper()
	ns, name := testenv.NamedNS(h.t, "brindle-cni-test")
	return ns, &libcni.RuntimeConf{ContainerID: id, NetNS: "/run/netns/" + name, IfName: "eth0"}
}

// add does ADD and reads the result in the newest form.
func (h *host) add(list *libcni.NetworkConfigList, rt *libcni.RuntimeConf) *types100.Result {
	h.t.Helper()
	r, err := h.runtime().AddNetworkList(h.t.Context(), list, rt)
	if err != nil {
		h.t.Fatal(err)
	}
	if v := r.Version(); v != list.CNIVersion {
		h.t.Errorf("the result is of version %s, want %s", v, list.CNIVersion)
	}
	res, err := types100.NewResultFromResult(r)
	if err != nil {
		h.t.Fatal(err)
	}
	return res
}

// endpoints lists the names of the host's endpoints.
func (h *host) endpoints() []string {
	h.t.Helper()
	weps, err := client.List[v3.WorkloadEndpoint](context.Background(), h.client, "")
	if err != nil {
		h.t.Fatal(err)
	}
	var out []string
	for _, w := range weps {
		out = append(out, w.Namespace+"/"+w.Name)
	}
	return out
}

// leftovers says what attachments have left on the host and in the datastore.
func (h *host) leftovers() error {
	var errs []error
	if weps := h.endpoints(); len(weps) > 0 {
		errs = append(errs, fmt.Errorf("endpoints: %v", weps))
	}
	audit, err := h.addresses.Audit(context.Background(), nil, time.Nanosecond)
	if err != nil {
		return err
	}
	for _, a := range audit.Addresses {
		if a.Standing != ipam.CoolingDown {
			errs = append(errs, fmt.Errorf("address %s of handle %s: %s", a.Addr, a.Handle, a.Standing))
		}
	}
	if links := h.links(); len(links) > 0 {
		errs = append(errs, fmt.Errorf("interfaces: %v", links))
	}
	for _, glob := range []string{"attachments/*", "state/queue/*", "state/delegations/*"} {
		files, _ := filepath.Glob(filepath.Join(h.state(), glob))
		if len(files) > 0 {
			errs = append(errs, fmt.Errorf("files: %v", files))
		}
	}
	for _, family := range []string{"-4", "-6"} {
		for _, line := range strings.Split(h.inHost("ip", family, "route"), "\n") {
			if strings.Contains(line, "cali") {
				errs = append(errs, fmt.Errorf("route: %s", line))
			}
		}
	}
	return errors.Join(errs...)
}

// links lists the host's ends of workloads' wires.
func (h *host) links() []string {
	h.t.Helper()
	var list []struct {
		Name string `json:"ifname"`
	}
	if err := json.Unmarshal([]byte(h.inHost("ip", "-j", "link")), &list); err != nil {
		h.t.Fatal(err)
	}
	var out []string
	for _, l := range list {
		if strings.HasPrefix(l.Name, "cali") {
			out = append(out, l.Name)
		}
	}
	slices.Sort(out)
	return out
}

// inHost runs a program that only looks, in the host's namespace.
func (h *host) inHost(argv ...string) string {
	h.t.Helper()
	path := testenv.NeedProgram(h.t, argv[0])
	cmd := exec.Command(path, argv[1:]...)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	err := netns.Do(h.netns, cmd.Start)
	if err == nil {
		err = cmd.Wait()
	}
	if err != nil {
		h.t.Fatalf("%s: %v\n%s", strings.Join(argv, " "), err, errs.String())
	}
	return out.String()
}

// wantClean waits until nothing is left: routes go a moment after their links.
func (h *host) wantClean() {
	h.t.Helper()
	testenv.Until(h.t, 5*time.Second, h.leftovers)
}

// expectations are what a result must say, in the order of the addresses.
func (h *host) families() []int {
	var out []int
	if h.family.HasV4() {
		out = append(out, 4)
	}
	if h.family.HasV6() {
		out = append(out, 6)
	}
	return out
}

// addrsOf reads the addresses of a result and checks that they are alone.
func (h *host) addrsOf(r *types100.Result) []netip.Addr {
	h.t.Helper()
	var out []netip.Addr
	for i, ip := range r.IPs {
		a, _ := netip.AddrFromSlice(ip.Address.IP)
		a = a.Unmap()
		if bits, _ := ip.Address.Mask.Size(); bits != a.BitLen() || ip.Interface == nil || *ip.Interface != 1 || ip.Gateway != nil {
			h.t.Errorf("address %d is %+v, want a single one of interface 1 without gateway", i, ip)
		}
		out = append(out, a)
	}
	return out
}
