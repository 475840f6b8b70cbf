package workload

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/brindle-net/brindle/internal/agentapi"
	"github.com/brindle-net/brindle/internal/cni"
)

// noted is an IPAM plugin that writes down how it was called, and answers with
// what the file "answer" beside it says. It fails where there is "broken".
const noted = `#!/bin/sh
dir=$(dirname "$0")
[ -z "$ETCD_PASSWORD" ] || exit 7
echo "$CNI_COMMAND $CNI_CONTAINERID $CNI_IFNAME $CNI_NETNS $CNI_ARGS" >>"$dir/calls"
cat >"$dir/config.$CNI_COMMAND"
if [ "$CNI_COMMAND" = "$(cat "$dir/broken" 2>/dev/null)" ]; then
	echo '{"cniVersion":"1.0.0","code":111,"msg":"out of leases"}'
	exit 1
fi
case $CNI_COMMAND in
ADD) cat "$dir/answer" ;;
VERSION) echo '{"cniVersion":"1.1.0","supportedVersions":["1.0.0","1.1.0"]}' ;;
esac
`

// ipamPlugin is one in a folder of its own, which is CNI_PATH.
type ipamPlugin struct {
	t   *testing.T
	dir string
}

func newPlugin(t *testing.T, name, answer string) ipamPlugin {
	t.Helper()
	p := ipamPlugin{t, t.TempDir()}
	p.write(name, noted, 0o700)
	p.write("answer", answer, 0o600)
	t.Setenv("ETCD_PASSWORD", "canary") // no plugin may see it
	return p
}

func (p ipamPlugin) write(name, text string, mode os.FileMode) {
	p.t.Helper()
	if err := os.WriteFile(filepath.Join(p.dir, name), []byte(text), mode); err != nil {
		p.t.Fatal(err)
	}
}

func (p ipamPlugin) read(name string) string {
	p.t.Helper()
	data, err := os.ReadFile(filepath.Join(p.dir, name))
	if err != nil {
		p.t.Fatal(err)
	}
	return string(data)
}

// verbs are the calls so far, without VERSION.
func (p ipamPlugin) verbs() string {
	var out []string
	data, _ := os.ReadFile(filepath.Join(p.dir, "calls"))
	for line := range strings.Lines(string(data)) {
		if verb, id, _ := strings.Cut(line, " "); verb != "VERSION" {
			id, _, _ = strings.Cut(id, " ")
			out = append(out, strings.TrimSpace(verb+" "+id))
		}
	}
	return strings.Join(out, ",")
}

func (p ipamPlugin) call(command, container, config string) agentapi.CNIRequest {
	req := cniCall(command, container, config)
	req.Env.Path, req.Env.Args = "relative:/nonexistent:"+p.dir, "A=b"
	return req
}

const (
	hostLocal  = `{"cniVersion":"1.0.0","name":"k8s-pod-network","type":"brindle-cni","ipam":{"type":"host-local","subnet":"10.9.0.0/24"}%s}`
	dualAnswer = `{"cniVersion":"1.0.0","ips":[{"address":"fd09::7/64"},{"address":"10.9.0.7/24","gateway":"10.9.0.1"}],
		"routes":[{"dst":"10.0.0.0/8","gw":"10.9.0.1"},{"dst":"fd00::/8"}],"dns":{"nameservers":["10.9.0.53"]}}`
)

func delegatedConfig(extra string) string { return fmt.Sprintf(hostLocal, extra) }

func TestDelegatedAddresses(t *testing.T) {
	w, p := newWorld(t), newPlugin(t, "host-local", dualAnswer)
	m := w.start(nil)
	first := m.CNI(t.Context(), p.call("ADD", "c1", delegatedConfig(`,"include_default_routes":true`)))
	if first.Failed {
		t.Fatalf("%s", first.Output)
	}
	var got struct {
		IPs []struct {
			Address   string `json:"address"`
			Gateway   string `json:"gateway"`
			Interface int    `json:"interface"`
		} `json:"ips"`
		Routes []map[string]any `json:"routes"`
		DNS    struct {
			Nameservers []string `json:"nameservers"`
		} `json:"dns"`
	}
	if err := json.Unmarshal(first.Output, &got); err != nil || len(got.IPs) != 2 || got.IPs[0].Address != "10.9.0.7/32" ||
		got.IPs[1].Address != "fd09::7/128" || got.IPs[0].Gateway != "" || got.IPs[0].Interface != 1 ||
		!reflect.DeepEqual(got.Routes, []map[string]any{{"dst": "10.0.0.0/8"}, {"dst": "fd00::/8"}}) || !slices.Equal(got.DNS.Nameservers, []string{"10.9.0.53"}) {
		t.Errorf("result %s, %v", first.Output, err)
	}
	wep := w.endpoint("default", "n1-cni-c1-eth0")
	if !slices.Equal(wep.Spec.IPNetworks, []string{"10.9.0.7/32", "fd09::7/128"}) {
		t.Errorf("the endpoint has %v", wep.Spec.IPNetworks)
	}
	if r := fmt.Sprint(w.cables.laid["calic1"].Routes); r != "[10.0.0.0/8 fd00::/8 0.0.0.0/0 ::/0]" {
		t.Errorf("inside there are routes to %v", r)
	}
	if s := w.state(); len(s.Addresses) != 0 {
		t.Errorf("addresses were taken from a pool: %v", s.Addresses)
	}
	if line := p.read("calls"); line != "ADD c1 eth0 /run/netns/w1 A=b\n" {
		t.Errorf("the plugin was called as %q", line)
	}
	m = w.start(nil) // another agent
	if again := m.CNI(t.Context(), p.call("ADD", "c1", delegatedConfig(""))); string(again.Output) == "" || again.Failed || p.verbs() != "ADD c1" {
		t.Errorf("again %s, calls %s", again.Output, p.verbs())
	}
	check := p.call("CHECK", "c1", delegatedConfig(`,"prevResult":`+string(first.Output)))
	if resp := m.CNI(t.Context(), check); resp.Failed || p.verbs() != "ADD c1,CHECK c1" {
		t.Errorf("check %s, calls %s", resp.Output, p.verbs())
	}
	// By the time of the removal the network has another IPAM plugin.
	del := cniCall("DEL", "c1", fmt.Sprintf(dualConfig, "1.0.0", ""))
	for range 2 {
		if resp := w.start(nil).CNI(t.Context(), del); resp.Failed {
			t.Errorf("del: %s", resp.Output)
		}
	}
	if v := p.verbs(); v != "ADD c1,CHECK c1,DEL c1" || p.read("config.DEL") != delegatedConfig(`,"include_default_routes":true`) {
		t.Errorf("calls %s, the last with %s", v, p.read("config.DEL"))
	}
	w.wantEmpty("after DEL")
	w.wantNothingDelegated()
}

// wantNothingDelegated fails the test when a note of delegated addresses is left.
func (w *world) wantNothingDelegated() {
	w.t.Helper()
	if files, _ := filepath.Glob(filepath.Join(w.dir, "delegations", "*")); len(files) > 0 {
		w.t.Errorf("left: %v", files)
	}
}

// TestDelegatedAddThatFails: what the plugin gave goes back to it, whatever
// went wrong.
func TestDelegatedAddThatFails(t *testing.T) {
	for _, tt := range []struct{ name, answer, extra, want, calls string }{
		{"the plugin fails", "", "", `"code":111`, "ADD c1,DEL c1"},
		{"no address", `{"cniVersion":"1.0.0","ips":[]}`, "", "no address", "ADD c1,DEL c1"},
		{"no JSON", `hello`, "", "its result", "ADD c1,DEL c1"},
		{"two of a family", `{"cniVersion":"1.0.0","ips":[{"address":"10.9.0.1/24"},{"address":"10.9.0.2/24"}]}`, "", "at most one", "ADD c1,DEL c1"},
		{"loopback", `{"cniVersion":"1.0.0","ips":[{"address":"127.0.0.2/8"}]}`, "", "no workload can have it", "ADD c1,DEL c1"},
		{"link-local", `{"cniVersion":"1.0.0","ips":[{"address":"fe80::2/64"}]}`, "", "no workload can have it", "ADD c1,DEL c1"},
		{"an address of ours", `{"cniVersion":"1.0.0","ips":[{"address":"10.65.0.0/24"}]}`, "", "in the datastore", "ADD c1,DEL c1"},
		{"another container's", `{"cniVersion":"1.0.0","ips":[{"address":"10.9.0.99/24"}]}`, "", "container c0 has", "ADD c1,DEL c1"},
		{"the wire", `{"cniVersion":"1.0.0","ips":[{"address":"10.9.0.7/24"}]}`, `,"mtu":7`, "mtu", "ADD c1,DEL c1"},
		{"podCIDR", "", `,"x":"usePodCidr"`, "podCIDR", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w, p := newWorld(t), newPlugin(t, "host-local", `{"cniVersion":"1.0.0","ips":[{"address":"10.9.0.99/24"}]}`)
			m := w.start(nil)
			other := m.CNI(t.Context(), p.call("ADD", "c0", delegatedConfig("")))
			ours := m.CNI(t.Context(), cniCall("ADD", "ours", `{"cniVersion":"1.0.0","name":"n","ipam":{"type":"calico-ipam"},"runtimeConfig":{"ips":["10.65.0.0"]}}`))
			if other.Failed || ours.Failed {
				t.Fatalf("%s, %s", other.Output, ours.Output)
			}
			before := w.state()
			p.write("calls", "", 0o600)
			p.write("answer", tt.answer, 0o600)
			if tt.name == "the plugin fails" {
				p.write("broken", "ADD", 0o600)
			}
			resp := m.CNI(t.Context(), p.call("ADD", "c1", delegatedConfig(tt.extra)))
			if !resp.Failed || !strings.Contains(string(resp.Output), tt.want) || p.verbs() != tt.calls {
				t.Errorf("%s, calls %s", resp.Output, p.verbs())
			}
			if after := w.state(); !reflect.DeepEqual(after, before) {
				t.Errorf("the world went from %+v to %+v", before, after)
			}
			if files, _ := filepath.Glob(filepath.Join(w.dir, "delegations", "*")); len(files) != 1 {
				t.Errorf("notes: %v", files)
			}
		})
	}
}

// TestDelegationOutlivesACrash: the agent was killed while the plugin was
// asked, or the plugin cannot take the addresses back just now.
func TestDelegationOutlivesACrash(t *testing.T) {
	w, p := newWorld(t), newPlugin(t, "dhcp", `{"cniVersion":"1.0.0","ips":[{"address":"10.9.0.7/24"}]}`)
	config := strings.Replace(delegatedConfig(""), "host-local", "dhcp", 1)
	req := p.call("ADD", "c1", config)
	_, add, err := parseCNI(req)
	if err != nil {
		t.Fatal(err)
	}
	half := delegation{Handle: "k8s-pod-network.c1", Plugin: "dhcp", Ref: refOf(add), Env: req.Env, Config: req.Config}
	if err := w.start(nil).delegations.put(half); err != nil {
		t.Fatal(err)
	}
	if resp := w.start(nil).CNI(t.Context(), req); resp.Failed || p.verbs() != "DEL c1,ADD c1" {
		t.Errorf("%s, calls %s", resp.Output, p.verbs())
	}
	p.write("broken", "DEL", 0o600)
	del := cniCall("DEL", "c1", config)
	if resp := w.start(nil).CNI(t.Context(), del); !resp.Failed || !strings.Contains(string(resp.Output), "out of leases") {
		t.Errorf("%s", resp.Output)
	}
	w.wantEmpty("the wire is gone first")
	p.write("broken", "", 0o600)
	if resp := w.start(nil).CNI(t.Context(), del); resp.Failed {
		t.Errorf("%s", resp.Output)
	}
	w.wantNothingDelegated()
}

func TestDelegatedGCAndStatus(t *testing.T) {
	w, p := newWorld(t), newPlugin(t, "host-local", `{"cniVersion":"1.0.0","ips":[{"address":"10.9.0.7/24"}]}`)
	m := w.start(nil)
	for i, id := range []string{"alive", "dead", "new"} {
		p.write("answer", fmt.Sprintf(`{"cniVersion":"1.0.0","ips":[{"address":"10.9.0.%d/24"}]}`, i+7), 0o600)
		if resp := m.CNI(t.Context(), p.call("ADD", id, delegatedConfig(""))); resp.Failed {
			t.Fatalf("%s", resp.Output)
		}
	}
	p.write("calls", "", 0o600)
	done := m.records.begin("k8s-pod-network.new") // a call about it is under way
	unlock, err := m.lock(t.Context(), delegationKey("k8s-pod-network.new"))
	if err != nil {
		t.Fatal(err)
	}
	resp := m.CNI(t.Context(), p.call("GC", "", delegatedConfig(`,"cni.dev/valid-attachments":[{"containerID":"alive","ifname":"eth0"}]`)))
	unlock()
	done()
	if v := p.verbs(); resp.Failed || v != "DEL dead,GC" {
		t.Errorf("%s, calls %s", resp.Output, v)
	}
	if s := w.state(); len(s.Endpoints) != 2 {
		t.Errorf("left %v", s.Endpoints)
	}
	if resp := m.CNI(t.Context(), p.call("STATUS", "", delegatedConfig(""))); resp.Failed || !strings.HasSuffix(p.verbs(), "STATUS") {
		t.Errorf("%s, calls %s", resp.Output, p.verbs())
	}
	p.write("broken", "STATUS", 0o600)
	if resp := m.CNI(t.Context(), p.call("STATUS", "", delegatedConfig(""))); !resp.Failed {
		t.Error("the plugin has no leases, and the status is good")
	}
	gone := p.call("STATUS", "", delegatedConfig(""))
	gone.Env.Path = "/nonexistent"
	if resp := m.CNI(t.Context(), gone); !resp.Failed || !strings.Contains(string(resp.Output), fmt.Sprintf(`"code":%d`, cni.CodeUnavailable)) {
		t.Errorf("without the plugin: %s", resp.Output)
	}
}

func TestPluginsThatAreNotStarted(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"calico-ipam", "brindle-ipam"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(noted), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "plain"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"calico-ipam", "brindle-ipam", "plain", "../bin/sh", "/bin/sh", "..", "", "missing"} {
		if path, err := findPlugin(name, "bin:"+dir); err == nil {
			t.Errorf("%q is %s", name, path)
		}
	}
}

// TestRemovalOfWhatWasNeverDelegated: the add was refused, and the removal that
// follows it must not be.
func TestRemovalOfWhatWasNeverDelegated(t *testing.T) {
	w, p := newWorld(t), newPlugin(t, "host-local", "")
	for _, tt := range []struct{ config, calls string }{
		{strings.Replace(delegatedConfig(""), "host-local", "missing", 1), ""},
		{strings.Replace(delegatedConfig(""), "10.9.0.0/24", "usePodCidr", 1), ""},
		{delegatedConfig(""), "DEL c1"}, // of before we came
	} {
		if resp := w.start(nil).CNI(t.Context(), p.call("DEL", "c1", tt.config)); resp.Failed || p.verbs() != tt.calls {
			t.Errorf("%s: %s, calls %s", tt.config, resp.Output, p.verbs())
		}
	}
}

// leasing keeps a note of each container that has its address, and refuses to
// give it twice, as host-local does.
const leasing = `#!/bin/sh
lease=$(dirname "$0")/lease-$CNI_CONTAINERID
case $CNI_COMMAND in
ADD)
	[ ! -e "$lease" ] || { echo '{"code":999,"msg":"duplicate allocation"}'; exit 1; }
	: >"$lease"
	echo '{"cniVersion":"1.0.0","ips":[{"address":"10.9.0.7/24"}]}'
	;;
DEL) rm -f "$lease" ;;
esac
`

// leases are the containers that the plugin believes to have an address.
func (p ipamPlugin) leases() int {
	p.t.Helper()
	found, err := filepath.Glob(filepath.Join(p.dir, "lease-*"))
	if err != nil {
		p.t.Fatal(err)
	}
	return len(found)
}

func newLeasing(t *testing.T) ipamPlugin {
	t.Helper()
	p := newPlugin(t, "host-local", "")
	p.write("host-local", leasing, 0o700)
	return p
}

// TestEveryStepOfADelegatedAdd breaks each in turn: a failure leaves nothing,
// and what a crash leaves is taken over by the next add and removed by DEL.
func TestEveryStepOfADelegatedAdd(t *testing.T) {
	for name, crash := range map[string]bool{"fails": false, "crashes": true} {
		t.Run(name, func(t *testing.T) {
			everyFault(t, crash, func(t *testing.T, broken *faults) bool {
				w, p := newWorld(t), newLeasing(t)
				add, del := p.call("ADD", "c1", delegatedConfig("")), cniCall("DEL", "c1", fmt.Sprintf(dualConfig, "1.0.0", ""))
				if resp := w.start(broken).CNI(t.Context(), add); !resp.Failed {
					return false
				}
				if s := w.state(); !crash && (p.leases() != 0 || len(s.Endpoints)+len(s.Wires)+len(s.Records) != 0) {
					t.Errorf("after a failure there are %d leases and %+v", p.leases(), s)
				}
				if resp := w.start(nil).CNI(t.Context(), add); resp.Failed || p.leases() != 1 || len(w.state().Endpoints) != 1 {
					t.Errorf("added again: %s, %d leases, %+v", resp.Output, p.leases(), w.state())
				}
				if resp := w.start(nil).CNI(t.Context(), del); resp.Failed || p.leases() != 0 {
					t.Errorf("del: %s, %d leases", resp.Output, p.leases())
				}
				w.wantEmpty("after DEL")
				w.wantNothingDelegated()
				return true
			})
		})
	}
}

// TestEveryStepOfADelegatedRemoval breaks each in turn: as long as the wire is
// there the plugin has its lease, and asked again everything goes.
func TestEveryStepOfADelegatedRemoval(t *testing.T) {
	everyFault(t, true, func(t *testing.T, broken *faults) bool {
		w, p := newWorld(t), newLeasing(t)
		if resp := w.start(nil).CNI(t.Context(), p.call("ADD", "c1", delegatedConfig(""))); resp.Failed {
			t.Fatalf("%s", resp.Output)
		}
		del := cniCall("DEL", "c1", fmt.Sprintf(dualConfig, "1.0.0", ""))
		if resp := w.start(broken).CNI(t.Context(), del); !resp.Failed {
			return false
		}
		if s := w.state(); len(s.Wires) > 0 && p.leases() != 1 {
			t.Errorf("the address was given back while there was %v", s.Wires)
		}
		// Meanwhile no agent runs: the plugin queues the removal.
		body, err := json.Marshal(del)
		if err != nil {
			t.Fatal(err)
		}
		if err := cni.Enqueue(filepath.Join(w.dir, "queue"), body); err != nil {
			t.Fatal(err)
		}
		if err := w.start(nil).DrainQueue(t.Context()); err != nil || p.leases() != 0 {
			t.Errorf("queued: %v, %d leases", err, p.leases())
		}
		w.wantEmpty("after DEL")
		w.wantNothingDelegated()
		return true
	})
}

// TestRemovalWithoutThePlugin: who gave the addresses is not there any more.
// The container ends all the same; what it takes to give them back is kept until
// the plugin is there again, here or in another folder.
func TestRemovalWithoutThePlugin(t *testing.T) {
	w, p := newWorld(t), newLeasing(t)
	m := w.start(nil)
	for _, id := range []string{"c1", "c2"} {
		resp := m.CNI(t.Context(), p.call("ADD", id, delegatedConfig("")))
		if resp.Failed {
			t.Fatalf("%s", resp.Output)
		}
		if err := os.Rename(filepath.Join(p.dir, "host-local"), filepath.Join(p.dir, "elsewhere")); err != nil {
			t.Fatal(err)
		}
		for range 2 { // a runtime may ask again
			if resp := m.CNI(t.Context(), p.call("DEL", id, delegatedConfig(""))); resp.Failed {
				t.Errorf("%s", resp.Output)
			}
		}
		w.wantEmpty("after DEL")
		if p.leases() != 1 || len(m.delegations.list()) != 1 {
			t.Errorf("%d leases, delegations %v", p.leases(), m.delegations.list())
		}
		again := p
		if id == "c2" {
			again.dir = t.TempDir()
		}
		again.write("host-local", strings.ReplaceAll(leasing, `$(dirname "$0")`, p.dir), 0o700)
		m = w.start(nil)
		gc := again.call("GC", "", delegatedConfig(`,"cni.dev/valid-attachments":[]`))
		if resp := m.CNI(t.Context(), gc); p.leases() != 0 {
			t.Errorf("after GC %d leases: %s", p.leases(), resp.Output)
		}
		w.wantNothingDelegated()
	}
}

// TestPluginsThatSayTooMuch end, and are said to.
func TestPluginsThatSayTooMuch(t *testing.T) {
	p := newPlugin(t, "endless", "")
	call := func() ([]byte, error) {
		return callPlugin(t.Context(), "ADD", "endless", agentapi.CNIEnv{Path: p.dir}, nil)
	}
	p.write("endless", "#!/bin/sh\nexec cat /dev/zero\n", 0o700)
	if out, err := call(); err == nil || !strings.Contains(err.Error(), "more than 1048576 bytes") {
		t.Errorf("%d bytes, %v", len(out), err)
	}
	p.write("endless", "#!/bin/sh\nhead -c 3000000 /dev/zero >&2\necho said\n", 0o700)
	if out, err := call(); err != nil || string(out) != "said\n" {
		t.Errorf("%q, %v", out, err)
	}
}

// TestQueueWhoseFirstRemovalHangs holds up nobody else: another container is set
// up meanwhile, and the queue goes on when the plugin answers.
func TestQueueWhoseFirstRemovalHangs(t *testing.T) {
	w, p := newWorld(t), newLeasing(t)
	m := w.start(nil)
	if resp := m.CNI(t.Context(), p.call("ADD", "hangs", delegatedConfig(""))); resp.Failed {
		t.Fatalf("%s", resp.Output)
	}
	if err := unix.Mkfifo(filepath.Join(p.dir, "gate"), 0o600); err != nil {
		t.Fatal(err)
	}
	p.write("host-local", strings.Replace(leasing, "DEL)", `DEL) read x <"$(dirname "$0")/gate";`, 1), 0o700)
	for _, req := range []agentapi.CNIRequest{p.call("DEL", "hangs", delegatedConfig("")), cniCall("DEL", "other", fmt.Sprintf(dualConfig, "1.0.0", ""))} {
		body, err := json.Marshal(req)
		if err != nil {
			t.Fatal(err)
		}
		if err := cni.Enqueue(filepath.Join(w.dir, "queue"), body); err != nil {
			t.Fatal(err)
		}
	}
	drained := make(chan error, 1)
	go func() { drained <- m.DrainQueue(t.Context()) }()
	gate, err := os.OpenFile(filepath.Join(p.dir, "gate"), os.O_WRONLY, 0) // returns when the plugin waits at it
	if err != nil {
		t.Fatal(err)
	}
	if resp := m.CNI(t.Context(), cniCall("ADD", "new", fmt.Sprintf(dualConfig, "1.0.0", ""))); resp.Failed {
		t.Errorf("another container: %s", resp.Output)
	}
	if s := w.state(); len(s.Endpoints) != 1 || p.leases() != 1 {
		t.Errorf("endpoints %v, %d leases", s.Endpoints, p.leases())
	}
	if _, err := gate.WriteString("go\n"); err != nil {
		t.Error(err)
	}
	if err := errors.Join(gate.Close(), <-drained); err != nil || p.leases() != 0 {
		t.Errorf("%v, %d leases", err, p.leases())
	}
	if left, err := os.ReadDir(filepath.Join(w.dir, "queue")); err != nil || len(left) != 0 {
		t.Errorf("left in the queue: %v, %v", left, err)
	}
}
