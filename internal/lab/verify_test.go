package lab

import (
	"net/netip"
	"slices"
	"testing"
)

func TestFlows(t *testing.T) {
	state := State{Workloads: []Workload{
		{Name: "a", Addresses: []string{"10.0.0.1", "fd00::1"}},
		{Name: "b", Addresses: []string{"10.0.0.2"}},
		{Name: "c", Addresses: []string{"fd00::3"}},
	}}
	var got []string
	for _, f := range Flows(state.WorkloadMembers()) {
		if f.Source.Is4() != f.Dest.Is4() {
			t.Errorf("%v: families are mixed", f)
		}
		got = append(got, f.String())
	}
	var want []string
	for _, pair := range []string{"a → b (10.0.0.2)", "a → c (fd00::3)", "b → a (10.0.0.1)", "c → a (fd00::1)"} {
		for _, target := range []string{"icmp", "80/tcp", "443/tcp", "5432/tcp", "8080/tcp", "80/udp", "443/udp", "5432/udp", "8080/udp"} {
			want = append(want, pair+" "+target)
		}
	}
	if !slices.Equal(got, want) {
		t.Errorf("got %q", got)
	}
}

func TestAt(t *testing.T) {
	for _, c := range []struct{ name, in, want string }{
		{"a lab's", Endpoints("shop"), "shop"},
		{"another's folder", "unix:///run/other/lab/shop/etcd.sock", ""},
		{"a server", "https://etcd:2379", ""},
		{"of the host", "unix:///run/brindle/etcd.sock", ""},
		{"several", Endpoints("a") + "," + Endpoints("b"), ""},
		{"none", "", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got, ok := At(c.in); ok != (c.want != "") || ok && got != c.want {
				t.Errorf("got %q, %v", got, ok)
			}
		})
	}
}

// TestSilenceNeedsControls: what is silent counts only if both ends answered
// their own hosts.
func TestSilenceNeedsControls(t *testing.T) {
	f := Flow{From: Member{Name: "a"}, To: Member{Name: "b"}, Protocol: "udp", Port: 80,
		Source: netip.MustParseAddr("10.0.0.1"), Dest: netip.MustParseAddr("10.0.0.2")}
	for _, c := range []struct {
		name         string
		source, dest bool
		in, want     Cell
	}{
		{"both", true, true, Silent, Silent},
		{"the sender is cut off", false, true, Silent, Unmeasured},
		{"nobody listens", true, false, Silent, Unmeasured},
		{"an answer needs none", false, false, Reached, Reached},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := proofs{passed: map[proof]bool{f.atSource(): c.source, f.atDest(): c.dest}}
			if got := p.believe(f, c.in); got != c.want {
				t.Errorf("got %v, want %v", got, c.want)
			}
		})
	}
}
