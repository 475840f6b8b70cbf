package windows

import (
	"fmt"
	"net"
	"strconv"
	"strings"
	"testing"

	"github.com/brindle-net/brindle/internal/testenv"
	"github.com/brindle-net/brindle/test/labtest"
)

// A mode is how a pool is encapsulated, and how its packets then travel.
type mode struct {
	name, ipip, vxlan string
	near, far         string // within a subnet, and to another
}

// modes are all that pools of a family can have, that without first.
func modes(family int) []mode {
	none := mode{"none", "Never", "Never", "direct", "direct"}
	always, across := mode{"VXLAN", "Never", "Always", "vxlan", "vxlan"}, mode{"VXLAN across subnets", "Never", "CrossSubnet", "direct", "vxlan"}
	if family == 6 {
		return []mode{none, always, across}
	}
	return []mode{
		none, {"IP in IP", "Always", "Never", "ipip", "ipip"}, {"IP in IP across subnets", "CrossSubnet", "Never", "direct", "ipip"},
		always, across,
	}
}

// lane is one way that packets go: from a workload of one host to one of
// another, both with addresses of one pool.
type lane struct {
	name, from, to string
	family         int
}

func (l lane) target(w *world, port int) string {
	return net.JoinHostPort(w.Addr(l.to, l.family), strconv.Itoa(port))
}

// addresses are those of the n-th pair of workloads, on h1 and on h2, in pools
// of the i-th IPv4 mode and the k-th IPv6 mode. Each is in a block of its own.
func addresses(pair, i, k int) (one, two [2]string) {
	one = [2]string{fmt.Sprintf("10.%d.%d.1", 60+i, pair), fmt.Sprintf("fd00:60:%d::%d:1", k+1, 2*pair+1)}
	two = [2]string{fmt.Sprintf("10.%d.%d.129", 60+i, pair), fmt.Sprintf("fd00:60:%d::%d:1", k+1, 2*pair+2)}
	return one, two
}

// pools are the documents of a pool of each mode.
func pools() string {
	var out []string
	for _, family := range []int{4, 6} {
		for i, m := range modes(family) {
			cidr := fmt.Sprintf("10.%d.0.0/16", 60+i)
			if family == 6 {
				cidr = fmt.Sprintf("fd00:60:%d::/48", i+1)
			}
			out = append(out, fmt.Sprintf(`
apiVersion: projectcalico.org/v3
kind: IPPool
metadata: {name: v%d-%d}
spec: {cidr: %q, ipipMode: %s, vxlanMode: %s}
`, family, i, cidr, m.ipip, m.vxlan))
		}
	}
	return strings.Join(out, "---")
}

// upModes builds a lab of two hosts in two subnets, with pools of all modes
// side by side, and a pair of workloads in each.
func upModes(t *testing.T, name string) *world {
	w := &world{World: labtest.Up(t, name, "subnets", "--workloads", "0", "--vxlan", "Never")}
	w.Run("delete", "ippool", "lab-v4", "lab-v6")
	w.Apply(pools())
	six := modes(6)
	for i, m := range modes(4) {
		k := i % len(six)
		one, two := addresses(i, i, k)
		from, to := fmt.Sprintf("from%d", i), fmt.Sprintf("to%d", i)
		w.add(from, "h1", one)
		w.add(to, "h2", two)
		w.lanes = append(w.lanes, lane{m.name + ", IPv4", from, to, 4})
		if i < len(six) {
			w.lanes = append(w.lanes, lane{six[k].name + ", IPv6", from, to, 6})
		}
		w.guide(one, two)
	}
	w.Learn()
	w.settled()
	testenv.Until(t, labtest.Patience, w.travel)
	return w
}

// add adds a workload with addresses.
func (w *world) add(name, host string, addresses [2]string, more ...string) {
	w.T.Helper()
	w.Run(append([]string{"lab", "workload", "add", name, "--host", host, "--ip", addresses[0], "--ip", addresses[1]}, more...)...)
}

// guide tells the router between the hosts the way to the addresses of a pair:
// without encapsulation, a network must know.
func (w *world) guide(one, two [2]string) {
	w.T.Helper()
	for i, v := range []string{"-4", "-6"} {
		w.On("r1", "ip", v, "route", "replace", one[i], "via", []string{"172.30.1.11", "fd00:172:30:1::b"}[i])
		w.On("r1", "ip", v, "route", "replace", two[i], "via", []string{"172.30.2.12", "fd00:172:30:2::c"}[i])
	}
}

// travel sees that packets of each pool travel as its mode says.
func (w *world) travel() error {
	paths, err := w.Paths()
	if err != nil {
		return err
	}
	want := map[string]string{}
	for _, family := range []int{4, 6} {
		for i, m := range modes(family) {
			want[fmt.Sprintf("v%d-%d", family, i)] = m.far
		}
	}
	seen := 0
	for _, p := range paths {
		if p.Form != want[p.Pool] {
			return fmt.Errorf("packets to %s in %s travel %s, want %s", p.To, p.Pool, p.Form, want[p.Pool])
		}
		seen++
	}
	if seen != 2*len(want) {
		return fmt.Errorf("%d ways, want %d", seen, 2*len(want))
	}
	return nil
}

// exposed takes the enforcement of policy from a host: its agent and our
// tables. What it has of routes and tunnels stays.
func (w *world) exposed(host string) {
	w.T.Helper()
	w.Run("lab", "host", "kill", host)
	w.On(host, "nft", "delete", "table", "inet", "brindle")
}
