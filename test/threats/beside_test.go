package threats

import (
	"cmp"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/brindle-net/brindle/internal/testenv"
	"github.com/brindle-net/brindle/test/labtest"
)

// neighbours are what other programs put beside our tables.
var neighbours = []struct {
	name  string
	setup []string // commands in the host; $4, $6: the service, $w4, $w6: what it means
	show  []string // a command that prints all of it
	serve bool     // it translates the service
}{
	{
		name: "Docker with iptables-nft",
		setup: []string{
			"iptables-nft -P FORWARD DROP", "iptables-nft -N DOCKER-USER", "iptables-nft -A FORWARD -j DOCKER-USER",
			"iptables-nft -A FORWARD -o docker0 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT",
			"iptables-nft -A FORWARD -i docker0 ! -o docker0 -j ACCEPT",
			"iptables-nft -A DOCKER-USER -i cali+ -j ACCEPT", "iptables-nft -A DOCKER-USER -o cali+ -j ACCEPT",
			"iptables-nft -t nat -A POSTROUTING -s 172.17.0.0/16 ! -o docker0 -j MASQUERADE",
		},
		show: []string{"iptables-nft-save"},
	},
	{
		name: "Docker with iptables-legacy",
		setup: []string{
			"iptables-legacy -P FORWARD DROP", "iptables-legacy -N DOCKER-USER", "iptables-legacy -A FORWARD -j DOCKER-USER",
			"iptables-legacy -A FORWARD -i docker0 ! -o docker0 -j ACCEPT",
			"iptables-legacy -A DOCKER-USER -i cali+ -j ACCEPT", "iptables-legacy -A DOCKER-USER -o cali+ -j ACCEPT",
			"ip6tables-legacy -P FORWARD DROP", "ip6tables-legacy -A FORWARD -i cali+ -j ACCEPT", "ip6tables-legacy -A FORWARD -o cali+ -j ACCEPT",
		},
		show: []string{"iptables-legacy-save"},
	},
	{
		name: "kube-proxy in iptables mode",
		setup: []string{
			"iptables-nft -t nat -N KUBE-SERVICES", "iptables-nft -t nat -N KUBE-MARK-MASQ", "iptables-nft -t nat -N KUBE-POSTROUTING", "iptables-nft -t nat -N KUBE-SEP",
			"iptables-nft -t nat -A PREROUTING -j KUBE-SERVICES", "iptables-nft -t nat -A OUTPUT -j KUBE-SERVICES", "iptables-nft -t nat -A POSTROUTING -j KUBE-POSTROUTING",
			"iptables-nft -t nat -A KUBE-MARK-MASQ -j MARK --or-mark 0x4000",
			"iptables-nft -t nat -A KUBE-SERVICES -d $4 -p udp -j KUBE-SEP",
			"iptables-nft -t nat -A KUBE-SEP -j KUBE-MARK-MASQ", "iptables-nft -t nat -A KUBE-SEP -p udp -j DNAT --to-destination $w4",
			"iptables-nft -t nat -A KUBE-POSTROUTING -m mark ! --mark 0x4000/0x4000 -j RETURN",
			"iptables-nft -t nat -A KUBE-POSTROUTING -j MARK --xor-mark 0x4000", "iptables-nft -t nat -A KUBE-POSTROUTING -j MASQUERADE --random-fully",
			"iptables-nft -N KUBE-FORWARD", "iptables-nft -A FORWARD -j KUBE-FORWARD",
			"iptables-nft -A KUBE-FORWARD -m conntrack --ctstate INVALID -j DROP",
			"iptables-nft -A KUBE-FORWARD -m mark --mark 0x4000/0x4000 -j ACCEPT",
			"iptables-nft -N KUBE-FIREWALL", "iptables-nft -A INPUT -j KUBE-FIREWALL", "iptables-nft -A KUBE-FIREWALL -m mark --mark 0x8000/0x8000 -j DROP",
		},
		show: []string{"iptables-nft-save"}, serve: true,
	},
	{
		name: "kube-proxy in nftables mode",
		setup: []string{`nft -f - <<END
table ip kube-proxy {
	map service-ips { type ipv4_addr . inet_proto . inet_service : verdict; elements = { $4 . udp . 9001 : goto service, $4 . udp . 9002 : goto service } }
	chain nat-prerouting { type nat hook prerouting priority dstnat; policy accept; jump services; }
	chain nat-postrouting { type nat hook postrouting priority srcnat; policy accept; jump masquerading; }
	chain filter-forward { type filter hook forward priority -110; policy accept; ct state new jump endpoints-check; }
	chain endpoints-check { ip daddr 192.0.2.0/24 drop; }
	chain services { ip daddr . meta l4proto . th dport vmap @service-ips; }
	chain service { jump mark-for-masquerade; meta l4proto udp dnat to $w4; }
	chain mark-for-masquerade { meta mark set meta mark or 0x4000; }
	chain masquerading { meta mark and 0x4000 == 0 return; meta mark set meta mark xor 0x4000; masquerade fully-random; }
}
END`},
		show: []string{"nft", "-s", "list", "table", "ip", "kube-proxy"}, serve: true,
	},
	{
		name: "firewalld",
		setup: []string{`nft -f - <<END
table inet firewalld {
	chain mangle_PREROUTING { type filter hook prerouting priority mangle + 10; policy accept; }
	chain filter_PREROUTING { type filter hook prerouting priority filter + 10; policy accept; icmpv6 type { nd-router-advert, nd-neighbor-solicit } accept; meta nfproto ipv6 fib saddr . mark . iif oif missing drop; }
	chain filter_INPUT { type filter hook input priority filter + 10; policy accept; ct state { established, related } accept; iifname "lo" accept; ct state invalid drop; ip protocol icmp accept; meta l4proto ipv6-icmp accept; tcp dport 179 accept; reject with icmpx admin-prohibited; }
	chain filter_FORWARD { type filter hook forward priority filter + 10; policy accept; ct state { established, related } accept; ct status dnat accept; ct state invalid drop; iifname "cali*" accept; oifname "cali*" accept; reject with icmpx admin-prohibited; }
}
END`},
		show: []string{"nft", "-s", "list", "table", "inet", "firewalld"},
	},
}

// passing lets w1 reach the open port only; a tier before it passes, which
// uses a bit of the packet's mark.
const passing = `
apiVersion: projectcalico.org/v3
kind: Tier
metadata: {name: beside}
spec: {order: 20}
---
apiVersion: projectcalico.org/v3
kind: GlobalNetworkPolicy
metadata: {name: beside-pass}
spec:
  tier: beside
  selector: name == 'w1'
  types: [Egress]
  egress:
  - {action: Deny, destination: {nets: [192.0.2.0/24]}}
  - {action: Pass}
---
apiVersion: projectcalico.org/v3
kind: GlobalNetworkPolicy
metadata: {name: beside-open}
spec:
  selector: name == 'w1'
  types: [Egress]
  egress:
  - {action: Allow, protocol: UDP, destination: {ports: [9001, 9999]}}
`

// marker is a program that marks packets of w1's ahead of everybody, and one
// that looks at the end what became of the marks.
const marker = `
table inet marker {
	counter right { }
	counter wrong { }
	chain first { type filter hook prerouting priority -310; iifname "$i" meta mark set meta mark or 0x3001; }
	chain last { type filter hook postrouting priority 400; meta mark and 0x3001 == 0x3001 jump look; }
	chain look { meta mark 0x3001 counter name "right" return; counter name "wrong"; }
}
`

// sh runs a line of shell inside a host, for the test itself.
func (r *rig) sh(host, line string) {
	r.T.Helper()
	r.On(host, "sh", "-c", line)
}

// TestBesideOthers has other programs' tables on a host: they stay as they
// are, their marks are kept, and what policy says holds. The services are of
// IPv4, as the tables are; the flows are of both.
func TestBesideOthers(t *testing.T) {
	testenv.NeedProgram(t, "iptables-nft")
	testenv.NeedProgram(t, "iptables-legacy")
	w := labtest.Up(t, "beside")
	w.Apply(passing)
	w.T = t
	r := rigOf(t, w)
	fillIn := strings.NewReplacer("$4", service[4], "$w4", r.Addr("w3", 4), "$i", r.Work["w1"].HostInterface)
	if _, err := r.Try(fillIn.Replace(marker), "lab", "exec", "h1", "--", "nft", "-f", "-"); err != nil {
		t.Fatal(err)
	}
	for _, n := range neighbours {
		t.Run(n.name, func(t *testing.T) {
			r := rigOf(t, w.With(t))
			for _, line := range n.setup {
				r.sh("h1", fillIn.Replace(line))
			}
			ours, theirs := r.ruleset("h1"), r.theirs(n.show)
			targets := map[string][2]string{"IPv4": {r.Addr("w3", 4), r.Addr("w2", 4)}, "IPv6": {r.Addr("w3", 6), r.Addr("w2", 6)}}
			if n.serve {
				targets["service"] = [2]string{service[4], service[4]}
			}
			for name, to := range targets {
				for i, dst := range to {
					ear, where := "w3", "remote"
					if i == 1 && name != "service" {
						ear, where = "w2", "local"
					}
					r.reach(name+" "+where, ear, dst)
				}
			}
			// A change of policy, both ways.
			r.Remove(passing)
			r.Apply(passing)
			testenv.Until(t, labtest.Patience, func() error {
				if now := r.ruleset("h1"); now != ours {
					return fmt.Errorf("our rules are\n%s\nand were\n%s", now, ours)
				}
				return nil
			})
			if now := r.theirs(n.show); now != theirs {
				t.Errorf("their rules have changed:\n%s\nbefore:\n%s", now, theirs)
			}
			right, wrong := r.mark("right"), r.mark("wrong")
			if right == 0 || wrong > 0 {
				t.Errorf("%d packets with their marks as they were, %d with others", right, wrong)
			}
			// Others may go without leaving traces in what is ours.
			r.sh("h1", "nft list tables | grep -v brindle | grep -v marker | sed 's/^/delete /' | nft -f -; for p in iptables-legacy ip6tables-legacy; do $p -P FORWARD ACCEPT; $p -F; $p -X; done")
			if now := r.ruleset("h1"); now != ours {
				t.Errorf("our rules are\n%s\nand were\n%s", now, ours)
			}
		})
	}
}

// theirs is what another program sees of its rules, without counts.
func (r *rig) theirs(show []string) string {
	r.T.Helper()
	var keep []string
	for line := range strings.Lines(r.On("h1", show...)) {
		line, _, _ = strings.Cut(line, " [")
		if !strings.HasPrefix(line, "#") {
			keep = append(keep, strings.TrimSpace(line))
		}
	}
	return strings.Join(keep, "\n")
}

// mark reads a counter of the marker.
func (r *rig) mark(name string) int {
	r.T.Helper()
	var n int
	out := r.On("h1", "nft", "list", "counter", "inet", "marker", name)
	_, out, _ = strings.Cut(out, "packets ")
	if _, err := fmt.Sscan(out, &n); err != nil {
		r.T.Fatal(err)
	}
	return n
}

// reach sends to the closed and the open port: only one of them arrives. To
// an address that is translated on the way, a real socket sends.
func (r *rig) reach(name, ear, dst string) {
	r.T.Helper()
	family := 4
	if addr(dst).Is6() {
		family = 6
	}
	closed, open := cookie(), cookie()
	to := addr(dst)
	send := func(port int, mark []byte) {
		p := packet{src: r.ip("w1", family), dst: to, proto: protoUDP, payload: udp(port, port, mark)}
		r.throw(r.out(p.bytes()))
	}
	send(closedPort, closed)
	testenv.Until(r.T, labtest.Patience, func() error {
		send(openPort, open)
		if r.ears[ear].count(open) == 0 {
			return fmt.Errorf("%s: the open port of %s is out of reach", name, dst)
		}
		return nil
	})
	if r.ears[ear].count(closed) > 0 {
		r.T.Errorf("%s: the closed port of %s is in reach", name, dst)
	}
}

// ruleset is our tables of a host without counts, handles and the order of
// elements.
func (r *rig) ruleset(host string) string {
	r.T.Helper()
	var list struct {
		NFTables []map[string]map[string]any `json:"nftables"`
	}
	data := r.On(host, "nft", "-j", "list", "ruleset")
	if err := json.Unmarshal([]byte(data), &list); err != nil {
		return fmt.Sprintf("%v: %q", err, data) // it changes while it is listed
	}
	var lines []string
	for _, object := range list.NFTables {
		for kind, o := range object {
			if o["table"] != "brindle" && !(kind == "table" && o["name"] == "brindle") {
				continue
			}
			for _, k := range []string{"handle", "packets", "bytes"} {
				delete(o, k)
			}
			if elements, ok := o["elem"].([]any); ok {
				slices.SortFunc(elements, func(a, b any) int { return cmp.Compare(text(a), text(b)) })
			}
			if set, ok := o["name"].(string); ok && kind == "set" && strings.HasPrefix(set, "__set") {
				delete(o, "name")
			}
			lines = append(lines, kind+" "+text(o))
		}
	}
	// Rules keep their order within their chain.
	slices.SortStableFunc(lines, func(a, b string) int {
		ka, _, _ := strings.Cut(a, `"expr"`)
		kb, _, _ := strings.Cut(b, `"expr"`)
		return cmp.Compare(ka, kb)
	})
	return strings.Join(lines, "\n")
}

func text(v any) string {
	b, _ := json.Marshal(v) // came from JSON
	return string(b)
}

// TestForeignHands lets another program damage our tables in every way.
func TestForeignHands(t *testing.T) {
	r := newRig(t)
	r.with(onlyOpen + "---" + passing)
	r.enforced()
	want := r.settledRuleset("h1")
	healed := func(t *testing.T) {
		t.Helper()
		testenv.Until(t, labtest.Patience, func() error {
			if now := r.ruleset("h1"); now != want {
				return fmt.Errorf("our rules are\n%s\nand were\n%s", now, want)
			}
			return nil
		})
	}
	first := func(filter string) string {
		return `nft -a list table inet brindle | awk '/^\tchain/{c=$2} ` + filter + `{print "delete rule inet brindle " c " handle " $NF; exit}' | nft -f -`
	}
	link := r.Work["w1"].HostInterface
	for _, c := range []struct{ name, line string }{
		{"all tables flushed", "nft flush ruleset"},
		{"our table deleted", "nft delete table inet brindle"},
		{"our ARP table deleted", "nft delete table arp brindle"},
		{"our table emptied", "nft flush table inet brindle"},
		{"a base chain emptied", "nft flush chain inet brindle forward-from"},
		{"the drop of unknown workloads deleted", first(`/d-unknown-to.*drop/`)},
		{"the cut rule deleted", first(`/counter name "d-cut"/`)},
		{"a policy's rule deleted", first(`/counter name "c-/`)},
		{"a strange rule first", "nft insert rule inet brindle forward-to accept"},
		{"a strange rule last", "nft add rule inet brindle spoof accept"},
		{"a strange chain", "nft add chain inet brindle stranger '{ type filter hook forward priority -5; policy drop; }'"},
		{"a strange set", "nft add set inet brindle strange '{ type ipv4_addr; }'"},
		{"a base chain that drops", "nft chain inet brindle forward-to '{ policy drop; }'"},
		{"an element deleted", "nft delete element inet brindle workloads '{ " + link + " }'"},
		{"an element of a map deleted", "nft delete element inet brindle to '{ " + link + " }'"},
		{"a strange element", "nft add element inet brindle sources4 '{ " + link + " . 198.51.100.1 }'"},
		{"a set emptied", "nft flush set inet brindle sources-mac4"},
		{"an element of the ARP table deleted", "nft delete element arp brindle arp-own '{ " + link + " . " + r.Addr("w1", 4) + " }'"},
		{"a strange rule in the ARP table", "nft insert rule arp brindle arp-in accept"},
		{"a strange base chain first", "nft add chain inet brindle early '{ type filter hook prerouting priority -500; policy accept; }'"},
		{"a counter deleted with its rules", "nft 'flush chain inet brindle link-local; flush chain inet brindle own-target; flush chain inet brindle spoof; delete counter inet brindle d-spoof'"},
		{"a counter without rules deleted", "nft 'flush chain inet brindle input-host; delete counter inet brindle d-to-host'"},
		{"a strange counter", "nft add counter inet brindle strange"},
		{"our table empty and dormant", "nft 'delete table inet brindle; add table inet brindle { flags dormant; }'"},
		{"our table dormant", "nft add table inet brindle '{ flags dormant; }'"},
	} {
		t.Run(c.name, func(t *testing.T) {
			r.T = t
			r.sh("h1", c.line)
			healed(t)
		})
	}
	r.T = t
	// Another program does it again and again, for its own reasons.
	for range 5 {
		r.sh("h1", "nft flush ruleset")
		healed(t)
	}
	r.enforced()
	r.reach("after all", "w3", r.Addr("w3", 4))
}

// settledRuleset is our tables once nothing is under way.
func (r *rig) settledRuleset(host string) string {
	r.T.Helper()
	last := ""
	same := 0
	testenv.Until(r.T, labtest.Patience, func() error {
		now := r.ruleset(host)
		if now != last {
			last, same = now, 0
		}
		if same++; same < 10 {
			return fmt.Errorf("our rules keep changing")
		}
		return nil
	})
	return last
}
