// Package threats tries on whole hosts what has gone wrong in this field
// before: a test for each kind of hole that others had. What lies between two
// moments, where packets pass that should not, is in test/windows.
package threats

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/brindle-net/brindle/internal/conntrack"
	"github.com/brindle-net/brindle/internal/netns"
	"github.com/brindle-net/brindle/internal/testenv"
	"github.com/brindle-net/brindle/test/labtest"
)

// What policy cuts, and what it must leave alone, by port of the server.
const (
	cutPorts  = 7000
	freePorts = 8000
)

// cutBit is the bit of the connection mark that says so.
const cutBit = 0x10000

// service is an address that a host translates to w3's.
var service = map[int]string{4: "10.96.0.10", 6: "fd00:96::10"}

// others is what another program has on h1: a service, a masquerade, and a
// connection mark of its own.
func others(w *labtest.World) string {
	var b strings.Builder
	for family, name := range map[int]string{4: "ip", 6: "ip6"} {
		fmt.Fprintf(&b, `
table %[1]s other {
	chain svc {
		type nat hook prerouting priority dstnat;
		%[1]s daddr %[2]s dnat to %[3]s
	}
	chain masq {
		type nat hook postrouting priority srcnat;
		%[1]s saddr %[4]s th dport { 7400-7499, 8400-8499 } masquerade
	}
	chain bits {
		type filter hook forward priority -10;
		ct mark set ct mark or 0x2000
	}
}
`, name, service[family], w.Addr("w3", family), w.Addr("w1", family))
	}
	return b.String()
}

// conversations opens talks of every kind on both sides of the cut.
func conversations(t *testing.T, w *labtest.World) (cut, free talks) {
	t.Helper()
	ns := map[string]*netns.NS{}
	for _, n := range []string{"w1", "w2", "w3"} {
		ns[n] = w.NS(n)
	}
	for _, family := range []int{4, 6} {
		for path, server := range map[string]string{"remote": "w3", "local": "w2", "service": "w3", "masquerade": "w3"} {
			for _, proto := range []string{"tcp", "udp"} {
				for i, who := range []senders{clientFirst, serverFirst, serverOnly, clientOnly} {
					s := spec{proto: proto, family: family, who: who, from: ns["w1"], at: ns[server], to: w.Addr(server, family)}
					port := 10*family + i
					switch path {
					case "service":
						s.to, port = service[family], port+200
					case "masquerade":
						port += 400
					}
					s.port = cutPorts + port
					cut = append(cut, s.start(t))
					if i == 0 {
						s.port = freePorts + port
						free = append(free, s.start(t))
					}
				}
			}
		}
		ping := spec{proto: "icmp", family: family, from: ns["w1"], to: w.Addr("w3", family), port: cutPorts}
		cut = append(cut, ping.start(t))
	}
	return cut, free
}

// ways are the changes of policy that deny what has ports of the cut.
var ways = []struct {
	name       string
	prepare    string
	deny, back string // documents; back "": take deny away
}{
	{name: "at the client", deny: `
apiVersion: projectcalico.org/v3
kind: GlobalNetworkPolicy
metadata: {name: cut-client}
spec:
  selector: name == 'w1'
  types: [Egress]
  egress:
  - {action: Deny, protocol: TCP, destination: {ports: ["7000:7999"]}}
  - {action: Deny, protocol: UDP, destination: {ports: ["7000:7999"]}}
  - {action: Deny, protocol: ICMP}
  - {action: Deny, protocol: ICMPv6}
  - {action: Allow}
`},
	{name: "at the server", deny: `
apiVersion: projectcalico.org/v3
kind: GlobalNetworkPolicy
metadata: {name: cut-server}
spec:
  selector: name in {'w2', 'w3'}
  types: [Ingress]
  ingress:
  - {action: Allow, protocol: TCP, destination: {ports: ["8000:8999"]}}
  - {action: Allow, protocol: UDP, destination: {ports: ["8000:8999"]}}
`},
	{name: "a set grows", prepare: `
apiVersion: projectcalico.org/v3
kind: GlobalNetworkPolicy
metadata: {name: cut-set}
spec:
  selector: name == 'w1'
  types: [Egress]
  egress:
  - {action: Allow, protocol: TCP, destination: {ports: ["8000:8999"]}}
  - {action: Allow, protocol: UDP, destination: {ports: ["8000:8999"]}}
  - {action: Allow, destination: {notSelector: bad == 'yes'}}
---
` + badSet(""), deny: badSet("10.48.0.0/16, fd00:10:48::/48"), back: badSet("")},
}

// badSet is a set of networks with these members.
func badSet(nets string) string {
	return `
apiVersion: projectcalico.org/v3
kind: GlobalNetworkSet
metadata: {name: bad, labels: {bad: "yes"}}
spec: {nets: [` + nets + `]}
`
}

// TestCutEstablished denies connections that are under way, of every kind and
// both families, and allows them again.
func TestCutEstablished(t *testing.T) {
	w := labtest.Up(t, "cut")
	if _, err := w.Try(others(w), "lab", "exec", "h1", "--", "nft", "-f", "-"); err != nil {
		t.Fatal(err)
	}
	cut, free := conversations(t, w)
	cut.goOn(t, 5)
	free.goOn(t, 5)
	for _, way := range ways {
		t.Run(way.name, func(t *testing.T) {
			w := w.With(t)
			if way.prepare != "" {
				w.Apply(way.prepare)
				cut.goOn(t, 20)
				free.goOn(t, 20)
			}
			before, entries := w.Counter("d-cut"), tracked(t, w)
			w.Apply(way.deny)
			free.goOn(t, 100)       // within a second,
			cut.silent(t, free, 50) // both directions of all of them are silent
			if n := w.Counter("d-cut") - before; n < len(cut) {
				t.Errorf("our counter saw %d packets of %d connections", n, len(cut))
			}
			marked(t, entries, tracked(t, w))
			if way.back != "" {
				w.Apply(way.back)
			} else {
				w.Remove(way.deny)
			}
			cut.goOn(t, 20)
			free.goOn(t, 20)
			for p, mark := range tracked(t, w) {
				if mark&cutBit != 0 {
					t.Errorf("%s: %s is marked still: %#x", p.host, p.Tuple, mark)
				}
			}
			if way.prepare != "" {
				w.Remove(way.prepare)
			}
		})
	}
}

// place is a connection and the host that knows it.
type place struct {
	host string
	conntrack.Tuple
}

// tracked reads the marks of the connections that these tests use.
func tracked(t *testing.T, w *labtest.World) map[place]uint32 {
	t.Helper()
	out := map[place]uint32{}
	for _, h := range []string{"h1", "h2"} {
		table, err := conntrack.Open(w.NS(h))
		if err != nil {
			t.Fatal(err)
		}
		defer table.Close()
		list, err := table.List()
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range list {
			if p := e.Orig.DstPort; p >= cutPorts && p < freePorts+1000 || e.Orig.ICMPID == cutPorts {
				out[place{h, e.Orig}] = e.Mark
			}
		}
	}
	return out
}

// marked holds a cut to its promise: no connection is forgotten, only those
// of the cut are marked, others' bits stay.
func marked(t *testing.T, before, after map[place]uint32) {
	t.Helper()
	n := 0
	for p, mark := range before {
		now, ok := after[p]
		if !ok {
			t.Errorf("%s: %s was forgotten", p.host, p.Tuple)
			continue
		}
		if now&^cutBit != mark&^cutBit {
			t.Errorf("%s: %s: the mark was %#x and is %#x", p.host, p.Tuple, mark, now)
		}
		if p.host == "h1" && mark&0x2000 == 0 {
			t.Errorf("%s lacks the mark of the other program: %#x", p.Tuple, mark)
		}
		if now&cutBit != 0 {
			n++
		}
		if p.DstPort >= freePorts && now&cutBit != 0 {
			t.Errorf("%s: %s is marked and should not be", p.host, p.Tuple)
		}
	}
	if n == 0 {
		t.Error("no connection is marked")
	}
}

// behind is a network behind w1, which may send from it.
var behind = map[int]string{4: "198.51.100.7", 6: "2001:db8:7::7"}

// TestCutBehindAWorkload: w1 stands for a network. What it has under way for
// that network falls under its policy, and ends when it may no longer send
// from there; all else goes on. The server alone sends, so that not only the
// check of sources is seen.
func TestCutBehindAWorkload(t *testing.T) {
	t.Setenv("BRINDLE_WORKLOADSOURCESPOOFING", "Any") // the agents inherit it
	w := labtest.Up(t, "behind", "--hosts", "1")
	var id struct {
		Items []struct {
			Metadata struct{ Name, Namespace string }
		}
	}
	if err := json.Unmarshal([]byte(w.Run("get", "workloadendpoints", "-A", "-o", "json")), &id); err != nil {
		t.Fatal(err)
	}
	at := slices.IndexFunc(id.Items, func(i struct {
		Metadata struct{ Name, Namespace string }
	}) bool {
		return strings.Contains(i.Metadata.Name, "w1")
	})
	if at < 0 {
		t.Fatalf("no endpoint of w1: %+v", id)
	}
	may := func(prefixes string) {
		w.Run("patch", "workloadendpoint", id.Items[at].Metadata.Name, "-n", id.Items[at].Metadata.Namespace,
			"-p", `{"spec":{"allowSpoofedSourcePrefixes":[`+prefixes+`]}}`)
	}
	may(`"198.51.100.0/24","2001:db8:7::/64"`)
	link := w.Work["w1"].HostInterface
	var cut, free talks
	for _, family := range []int{4, 6} {
		option := fmt.Sprint("-", family)
		w.On("w1", "ip", option, "address", "add", behind[family], "dev", "lo")
		w.On("h1", "ip", option, "route", "add", behind[family], "via", w.Addr("w1", family), "dev", link)
		for _, proto := range []string{"tcp", "udp"} {
			s := spec{proto: proto, family: family, from: w.NS("w1"), at: w.NS("w2"), to: w.Addr("w2", family), port: freePorts + family}
			free = append(free, s.start(t))
			s.source, s.who = behind[family], serverOnly
			for i, port := range []int{cutPorts, freePorts + 100} {
				s.port = port + family
				testenv.Until(t, labtest.Patience, func() error {
					_, err := w.Try("", "lab", "exec", "w1", "--", "ping", option, "-c1", "-W1", "-I", behind[family], s.to)
					return err
				})
				if k := s.start(t); i == 0 {
					cut = append(cut, k)
				} else {
					free = append(free, k)
				}
			}
		}
	}
	free.goOn(t, 5)
	cut.goOn(t, 5)
	w.Apply(ways[0].deny)
	free.goOn(t, 100)
	cut.silent(t, free, 50)
	w.Remove(ways[0].deny)
	cut.goOn(t, 20)

	may("")
	ended, going := talks{}, talks{}
	for _, k := range append(cut, free...) {
		if k.source != "" {
			ended = append(ended, k)
		} else {
			going = append(going, k)
		}
	}
	going.goOn(t, 100)
	ended.silent(t, going, 50)
	may(`"198.51.100.0/24","2001:db8:7::/64"`)
	ended.goOn(t, 20)
	going.goOn(t, 20)
}

// TestKeepEstablished runs with onPolicyChange Keep: what is under way goes
// on, and what is new is denied.
func TestKeepEstablished(t *testing.T) {
	t.Setenv("BRINDLE_ONPOLICYCHANGE", "Keep") // the agents inherit it
	w := labtest.Up(t, "keep")
	if _, err := w.Try(others(w), "lab", "exec", "h1", "--", "nft", "-f", "-"); err != nil {
		t.Fatal(err)
	}
	cut, free := conversations(t, w)
	// A datagram that nothing ever answered is of no established connection.
	cut = slices.DeleteFunc(cut, func(k *talk) bool { return k.proto == "udp" && k.who == clientOnly })
	cut.goOn(t, 5)
	w.Apply(ways[0].deny)
	for _, family := range []int{4, 6} {
		testenv.Until(t, labtest.Patience, func() error {
			if _, err := w.Try("", "lab", "probe", "w1", w.Addr("w3", family), "7999/tcp", "--timeout", "300ms"); err == nil {
				return fmt.Errorf("IPv%d: a new connection is allowed", family)
			}
			return nil
		})
	}
	cut.goOn(t, 100)
	free.goOn(t, 10)
	for p, mark := range tracked(t, w) {
		if mark&cutBit != 0 {
			t.Errorf("%s: %s is marked", p.host, p.Tuple)
		}
	}
}
