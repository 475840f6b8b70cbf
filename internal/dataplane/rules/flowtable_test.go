package rules

import (
	"net/netip"
	"testing"
)

// TestOffloadChains: which packets hand their connection over to the flowtable,
// for both families.
func TestOffloadChains(t *testing.T) {
	cfg := Config{Prefixes: []string{"cali", "tap"}, CutMark: 0x10000, Encapsulations: []Encapsulation{{Protocol: 17, Port: 4789, VNI: 4096}, {Protocol: 4}}}
	if c := cfg.OffloadChains(); c != nil {
		t.Fatalf("chains though nobody asked for any: %v", c)
	}
	cfg.Offload = cfg.CutMark
	prog := &Program{Chains: map[string]*Chain{}}
	for _, c := range cfg.OffloadChains() {
		prog.Chains[c.Name] = c
	}
	tests := []struct {
		name string
		in   Packet
		want bool
	}{
		{"TCP from a workload", Packet{In: "cali1", Out: "eth0", Protocol: 6, State: StateEstablished}, true},
		{"UDP to a workload", Packet{In: "eth0", Out: "tap7", Protocol: 17, State: StateEstablished}, true},
		{"between workloads", Packet{In: "cali1", Out: "cali2", Protocol: 6, State: StateEstablished, ConnMark: 0x20000}, true},
		{"not established", Packet{In: "cali1", Out: "eth0", Protocol: 6, State: StateNew}, false},
		{"related only", Packet{In: "cali1", Out: "eth0", Protocol: 6, State: StateRelated}, false},
		{"cut", Packet{In: "cali1", Out: "eth0", Protocol: 6, State: StateEstablished, ConnMark: 0x30000}, false},
		{"of no connection", Packet{In: "cali1", Out: "eth0", Protocol: 6, State: StateUntracked}, false},
		{"another protocol", Packet{In: "cali1", Out: "eth0", Protocol: 132, State: StateEstablished}, false},
		{"no workload", Packet{In: "eth1", Out: "eth0", Protocol: 6, State: StateEstablished}, false},
		{"to the port of VXLAN", Packet{In: "cali1", Out: "eth0", Protocol: 17, DestPort: 4789, State: StateEstablished}, false},
		{"from the port of VXLAN", Packet{In: "eth0", Out: "cali1", Protocol: 17, SourcePort: 4789, State: StateEstablished}, false},
		{"TCP to that port", Packet{In: "cali1", Out: "eth0", Protocol: 6, DestPort: 4789, State: StateEstablished}, true},
	}
	for _, family := range [][2]string{{"10.0.0.1", "10.0.0.2"}, {"fd00::1", "fd00::2"}} {
		for _, tt := range tests {
			p := tt.in
			p.Source, p.Dest = netip.MustParseAddr(family[0]), netip.MustParseAddr(family[1])
			tr, err := prog.Trace(p)
			if err != nil || !tr.Accepted {
				t.Errorf("%s: %v, %v", tt.name, tr, err)
			}
			got := false
			for _, s := range tr.Steps {
				got = got || s.Do == "flow add @offload accept"
			}
			if got != tt.want {
				t.Errorf("%s, from %s: offloaded: %v, want %v\n%v", tt.name, family[0], got, tt.want, tr)
			}
		}
	}
}

// TestProgramIsTheSameWithOffload: what bypasses the rules is no part of them.
func TestProgramIsTheSameWithOffload(t *testing.T) {
	cfg := Config{Prefixes: []string{"cali"}, MarkMask: 0xff0000, CutMark: 0x1000000}
	want := network()
	without := Render(cfg, want).String()
	cfg.Offload, cfg.OffloadDevices = cfg.CutMark, "^eth"
	if Render(cfg, want).String() != without {
		t.Error("the program differs")
	}
}
