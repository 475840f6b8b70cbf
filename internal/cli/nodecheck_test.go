package cli

import (
	"encoding/json"
	"errors"
	"net"
	"slices"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/brindle-net/brindle/internal/dataplane/nft"
	"github.com/brindle-net/brindle/internal/netns"
	"github.com/brindle-net/brindle/internal/testenv"
)

// machine is a host of files and chains.
func machine(files map[string]string, chains ...nft.Chain) host {
	fsys := fstest.MapFS{"proc/sys/kernel/osrelease": {Data: []byte("6.1.0-test\n")}}
	for name, text := range files {
		fsys[name] = &fstest.MapFile{Data: []byte(text)}
	}
	return host{fsys, func() ([]nft.Chain, error) { return chains, nil }}
}

func TestManagers(t *testing.T) {
	forward := nft.Chain{Family: "ip", Table: "filter", Name: "FORWARD", Hook: "forward", Drops: true}
	accepting := forward
	accepting.Drops = false
	const (
		dockerd  = "proc/7/comm"
		nmConf   = "etc/NetworkManager/conf.d/90-ours.conf"
		ndConf   = "etc/systemd/networkd.conf"
		ndDropIn = "usr/lib/systemd/networkd.conf.d/50-x.conf"
	)
	covered := "[keyfile]\nunmanaged-devices=interface-name:cali*;interface-name:tunl*;interface-name:vxlan*,interface-name:w*\n"
	leaves := "[Network]\nManageForeignRoutes=no\nManageForeignRoutingPolicyRules=false\n"
	tests := []struct {
		name   string
		files  map[string]string
		chains []nft.Chain
		want   []string // "NAME STATE"; a detail or fix is looked for after |
	}{
		{"nobody", nil, nil, []string{"other managers of the network ok"}},
		{"firewalld runs", map[string]string{"proc/5/comm": "firewalld\n"}, nil, []string{"firewalld conflict|--add-source=POOL"}},
		{"firewalld's table", nil, []nft.Chain{{Family: "inet", Table: "firewalld", Name: "filter_FORWARD", Hook: "forward", Drops: true}}, []string{"firewalld conflict"}},
		{"ufw drops", map[string]string{"etc/ufw/ufw.conf": "ENABLED=yes\n", "etc/default/ufw": "DEFAULT_FORWARD_POLICY=\"DROP\"\n"},
			[]nft.Chain{forward}, []string{"ufw conflict|ufw default allow routed"}},
		{"ufw accepts", map[string]string{"etc/ufw/ufw.conf": "ENABLED=yes\n", "etc/default/ufw": "DEFAULT_FORWARD_POLICY=\"ACCEPT\"\n"}, nil, []string{"ufw ok"}},
		{"ufw is off", map[string]string{"etc/ufw/ufw.conf": "ENABLED=no\n"}, nil, []string{"other managers of the network ok"}},
		{"Docker drops", map[string]string{dockerd: "dockerd\n"}, []nft.Chain{forward}, []string{"Docker conflict|DOCKER-USER -i cali+"}},
		{"Docker accepts", map[string]string{dockerd: "dockerd\n"}, []nft.Chain{accepting}, []string{"Docker ok"}},
		{"NetworkManager manages all", map[string]string{"proc/8/comm": "NetworkManager\n"}, nil, []string{"NetworkManager conflict|unmanaged-devices=interface-name:cali*;"}},
		{"NetworkManager manages tunnels", map[string]string{"proc/8/comm": "NetworkManager\n", nmConf: "[keyfile]\nunmanaged-devices=interface-name:cali*\n"}, nil,
			[]string{"NetworkManager conflict|alone: tunl0, vxlan.calico"}},
		{"NetworkManager leaves us alone", map[string]string{"proc/8/comm": "NetworkManager\n", nmConf: covered}, nil, []string{"NetworkManager ok"}},
		{"networkd as it comes", map[string]string{"proc/9/comm": "systemd-network\n"}, nil, []string{"systemd-networkd conflict|ManageForeignRoutes=no"}},
		{"networkd leaves us alone", map[string]string{"proc/9/comm": "systemd-network\n", ndConf: leaves}, nil, []string{"systemd-networkd ok"}},
		{"networkd is told otherwise again", map[string]string{"proc/9/comm": "systemd-network\n", ndConf: leaves, ndDropIn: "[Network]\nManageForeignRoutes=yes\n"}, nil,
			[]string{"systemd-networkd conflict|removes routes"}},
		{"a network of networkd takes all in", map[string]string{"proc/9/comm": "systemd-network\n", ndConf: leaves, "etc/systemd/network/20-all.network": "[Match]\nName=*\n"}, nil,
			[]string{"systemd-networkd conflict|/etc/systemd/network/20-all.network makes it configure"}},
		{"but not us", map[string]string{"proc/9/comm": "systemd-network\n", ndConf: leaves, "etc/systemd/network/20-all.network": "[Match]\nName=*\n",
			"etc/systemd/network/00-brindle.network": "[Match]\nName=cali* tunl0 vxlan.calico vxlan-v6.calico wireguard.cali wg-v6.cali\n[Link]\nUnmanaged=yes\n"}, nil,
			[]string{"systemd-networkd ok"}},
		{"another agent", map[string]string{"proc/9/comm": "calico-node\n"}, nil, []string{"calico-node conflict|as a whole"}},
		{"a filter of somebody's", nil, []nft.Chain{{Family: "inet", Table: "mine", Name: "fwd", Hook: "forward", Drops: true},
			{Family: "inet", Table: "brindle", Name: "forward", Hook: "forward", Drops: true}, {Family: "inet", Table: "mine", Name: "in", Hook: "input", Drops: true}},
			[]string{"chain fwd of table inet mine conflict"}},
		{"the old iptables", map[string]string{"proc/net/ip_tables_names": "nat\nfilter\n"}, nil, []string{"iptables-legacy unknown"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got := managers(machine(tt.files, tt.chains...))
			if len(got) != len(tt.want) {
				t.Fatalf("got %+v", got)
			}
			for i, want := range tt.want {
				head, text, _ := strings.Cut(want, "|")
				if got[i].Name+" "+got[i].State != head || !strings.Contains(got[i].Detail+got[i].Fix, strings.TrimPrefix(text, "alone: ")) {
					t.Errorf("got %+v, want %s", got[i], want)
				}
				if got[i].State == checkConflict && got[i].Fix == "" {
					t.Errorf("%s: what to do?", got[i].Name)
				}
			}
		})
	}
	broken := machine(nil)
	broken.chains = func() ([]nft.Chain, error) { return nil, errors.New("no netlink") }
	if got := managers(broken); len(got) != 1 || got[0].State != checkUnknown {
		t.Errorf("%+v", got)
	}
}

func TestModulesThatAreNotLoaded(t *testing.T) {
	const dep = "lib/modules/6.1.0-test/modules.dep"
	text := "kernel/net/ipv4/tunnel4.ko.xz:\nkernel/net/ipv4/ipip.ko.xz: kernel/net/ipv4/tunnel4.ko.xz\n"
	for name, tt := range map[string]struct {
		files map[string]string
		want  bool
	}{
		"no modules": {nil, false}, "there": {map[string]string{dep: text}, true},
		"loaded":   {map[string]string{dep: text, "sys/module/ipip/refcnt": "0"}, false},
		"built in": {map[string]string{dep: "kernel/net/ipv4/fou.ko: kernel/net/ipv4/ip_tunnel.ko\n"}, false},
	} {
		if got := machine(tt.files).loadable("ipip"); got != tt.want {
			t.Errorf("%s: %v", name, got)
		}
	}
}

func TestCheckSystemJudges(t *testing.T) {
	testenv.NeedRoot(t)
	missing := func(*netns.NS) error { return errors.New("no such thing") }
	fine := func(*netns.NS) error { return nil }
	for _, tt := range []struct {
		name   string
		trials []trial
		ok     bool
	}{
		{"all is there", []trial{single("a", required, "x", fine)}, true},
		{"something optional is missing", []trial{single("a", required, "x", fine), single("b", "for b", "do b", missing)}, true},
		{"something required is missing", []trial{single("a", required, "do a", missing), single("b", "for b", "x", fine)}, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r, err := checkSystem(machine(nil), tt.trials)
			if err != nil || r.OK != tt.ok || r.Kernel != "6.1.0-test" || len(r.Checks) != len(tt.trials)+1 {
				t.Fatalf("%v: %+v", err, r)
			}
			for _, c := range r.Checks {
				if (c.State == checkFine) != (c.Fix == "") {
					t.Errorf("%+v: a fix belongs to what is missing", c)
				}
			}
		})
	}
}

// links and chains of the calling thread's namespace.
func linksAndChains() (string, error) {
	links, err := net.Interfaces()
	if err != nil {
		return "", err
	}
	chains, err := nft.Chains(nil)
	if err != nil {
		return "", err
	}
	var names []string
	for _, l := range links {
		names = append(names, l.Name)
	}
	for _, c := range chains {
		names = append(names, c.Family+" "+c.Table+" "+c.Name)
	}
	return strings.Join(names, "\n"), nil
}

// The network that it is run in is what it was, whatever was found.
func TestCheckSystem(t *testing.T) {
	ns := testenv.NetNS(t)
	w := newWorld(t)
	var before, after string
	var got, text outcome
	testenv.Do(t, ns, func() (err error) {
		if before, err = linksAndChains(); err != nil {
			return err
		}
		got, text = w.run("node", "checksystem", "-o", "json"), w.run("node", "checksystem", "--kernel-config", "/boot/config")
		after, err = linksAndChains()
		return err
	})
	var r systemReport
	if err := json.Unmarshal([]byte(got.stdout), &r); err != nil || got.status != 0 || got.stderr != "" || !r.OK {
		t.Fatalf("this machine runs our tests, and yet: %v: %+v", err, got)
	}
	for _, name := range []string{"nftables: verdict maps", "virtual cables (veth)", "connection tracking (ctnetlink)", "IP in IP", "WireGuard"} {
		if !slices.ContainsFunc(r.Checks, func(c systemCheck) bool { return c.Name == name }) {
			t.Errorf("%s was not looked at", name)
		}
	}
	wantRows(t, text.stdout, "CHECK STATE NEEDED DETAIL", "virtual cables (veth) ok required", "This host can run the agent.")
	if after != before {
		t.Errorf("links and chains were\n%s\nand are\n%s", before, after)
	}
	w.fails(`output format "yaml"`, "node", "checksystem", "-o", "yaml")
}
