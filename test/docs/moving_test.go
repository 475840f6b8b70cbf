package docs

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/brindle-net/brindle/internal/doctest"
	"github.com/brindle-net/brindle/internal/store"
	"github.com/brindle-net/brindle/internal/store/etcd"
	"github.com/brindle-net/brindle/internal/testenv"
)

// movingPage is run on a machine on which Calico seems to run, over a datastore
// that Calico's own programs have filled.
const movingPage = "docs/guides/from-calico.md"

// calicosMachine is what Calico has left on it: settings, a unit, rules that
// drop what they have never heard of, a network configuration, and a container
// with its interface.
const calicosMachine = `
install -m 755 bin/brindle bin/brindle-cni /usr/local/bin/
mkdir -p /etc/calico /etc/cni/net.d
echo "ETCD_ENDPOINTS=unix://$DATASTORE
NODENAME=n1
IP=172.30.0.11/16
FELIX_DEFAULTENDPOINTTOHOSTACTION=Accept" >/etc/calico/calico.env
echo '[Service]
EnvironmentFile=-/etc/calico/calico.env
ExecStart=sleep infinity' >/etc/systemd/system/calico-node.service
cat >/etc/cni/net.d/10-calico.conflist <<'END'
{"name": "k8s-pod-network", "cniVersion": "0.3.1", "plugins": [{"type": "calico", "etcd_endpoints": "http://127.0.0.1:2379",
 "nodename": "n1", "ipam": {"type": "calico-ipam"}, "policy": {"type": "k8s", "k8s_auth_token": "secret"}}]}
END
ip address add 172.30.0.11/16 dev eth0
iptables-legacy -N cali-FORWARD
iptables-legacy -A FORWARD -j cali-FORWARD
iptables-legacy -A cali-FORWARD -j DROP
iptables-legacy -A FORWARD -s 203.0.113.9 -j DROP
ip netns add c1
ip link add calicid-0001 type veth peer name eth0 netns c1
ip link set calicid-0001 address ee:ee:ee:ee:ee:ee up
ip -n c1 address add 192.168.40.128/32 dev eth0
ip -n c1 link set eth0 address 82:04:ce:d9:e8:56 up
ip -n c1 route add 169.254.1.1 dev eth0
ip -n c1 route add default via 169.254.1.1 dev eth0
ip -n c1 neigh add 169.254.1.1 lladdr ee:ee:ee:ee:ee:ee dev eth0
ip route add 192.168.40.128 dev calicid-0001
start calico-node
export ETCD_ENDPOINTS=unix://$DATASTORE
ping -c1 -W2 192.168.40.128
`

// movedWell is looked at when the host has moved, and back is before it goes.
const movedWell = `
ping -c1 -W2 192.168.40.128
[ -n "$(ip route show 192.168.40.128 dev calicid-0001)" ]
[ -z "$(iptables-legacy-save | grep cali- || true)" ]
iptables-legacy -C FORWARD -s 203.0.113.9 -j DROP
grep -q '"type": "brindle-cni"' /etc/cni/net.d/10-brindle.conflist
[ -z "$(grep secret /etc/cni/net.d/10-brindle.conflist || true)" ]
ip netns add c2
conf='{"cniVersion":"0.3.1","name":"k8s-pod-network","type":"brindle-cni","ipam":{"type":"brindle-ipam"}}'
cni() { CNI_COMMAND=$1 CNI_CONTAINERID=new CNI_NETNS=/run/netns/c2 CNI_IFNAME=eth0 CNI_PATH=/opt/cni/bin /opt/cni/bin/brindle-cni <<<"$conf"; }
[[ "$(cni ADD)" == *'"address":"'* ]]
cni DEL
`

// TestMovingFromCalico runs the page on moving for one host, there and back.
// The recorded containers have addresses of both families; the one that is
// there is asked by IPv4, as what is recorded of the host has no IPv6.
func TestMovingFromCalico(t *testing.T) {
	testenv.NeedRoot(t)
	for _, program := range []string{"iptables-legacy", "nft", "setpriv"} {
		testenv.NeedProgram(t, program)
	}
	src, err := os.ReadFile(filepath.Join(root, movingPage))
	if err != nil {
		t.Fatal(err)
	}
	blocks, err := doctest.Blocks(movingPage, string(src))
	if err != nil {
		t.Fatal(err)
	}
	script := asRoot + machine + calicosMachine
	for _, b := range blocks {
		if b.Test != "test/docs/moving_test.go" {
			continue
		}
		if strings.HasPrefix(b.Commands[0], "sudo brindle cni uninstall") {
			script += movedWell
		}
		script += b.Script()
	}
	script += "ping -c1 -W2 192.168.40.128\n[ -z \"$(nft list tables | grep brindle || true)\" ]\n"
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "unshare", "--mount", "--net", "--ipc", "--uts", "--pid", "--fork", "--kill-child", "--mount-proc",
		"bash", "-Eeuxo", "pipefail", "-c", script)
	cmd.Dir = root
	cmd.Env = append(os.Environ(), "DATASTORE="+calicosDatastore(t))
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Run(); err != nil {
		t.Fatalf("%v\n%s", err, &out)
	}
	t.Logf("%s", &out)
}

// calicosDatastore starts an etcd and fills it with what Calico's programs
// stored, but for the other host, the router and the other container, which are
// not there, and for what the page says cannot move yet.
func calicosDatastore(t *testing.T) (socket string) {
	t.Helper()
	dir, err := os.MkdirTemp("/var/tmp", "moving") // a socket's path is short, and the machine has a /run of its own
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	socket = filepath.Join(dir, "etcd.sock")
	server := exec.Command("bin/brindle", "server", "--data-dir", filepath.Join(dir, "data"), "--socket", socket)
	server.Dir = root
	if err := server.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = server.Process.Kill() // its data goes, too
		_ = server.Wait()
	})
	testenv.Until(t, 20*time.Second, func() error {
		_, err := os.Stat(socket)
		return err
	})
	db, err := etcd.New(etcd.Config{Endpoints: []string{"unix://" + socket}})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	data, err := os.ReadFile(filepath.Join(root, "internal/cli/testdata/etcd.json"))
	if err != nil {
		t.Fatal(err)
	}
	var all map[string]json.RawMessage
	if err := json.Unmarshal(data, &all); err != nil {
		t.Fatal(err)
	}
	for key, value := range all {
		if slices.ContainsFunc([]string{"/n2", "/bgppeers/", "/hostendpoints/", "cid--0002"}, func(s string) bool { return strings.Contains(key, s) }) {
			continue
		}
		_, err := db.Create(t.Context(), key, value)
		if errors.Is(err, store.ErrExists) { // the server has put there what each network needs
			var kv store.KV
			if kv, err = db.Get(t.Context(), key); err == nil {
				kv.Value = value
				_, err = db.Update(t.Context(), kv)
			}
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return socket
}
