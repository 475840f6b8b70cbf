package rules_test

import (
	"net"
	"net/netip"
	"testing"

	"github.com/brindle-net/brindle/internal/dataplane/rules"
	"github.com/brindle-net/brindle/internal/desired"
	"github.com/brindle-net/brindle/internal/model"
	"github.com/brindle-net/brindle/internal/oracle"
	"github.com/brindle-net/brindle/internal/randworld"
)

// TestOracle: what the program of a random cluster's policy does with a flow
// is what the oracle says of it, at both ends.
func TestOracle(t *testing.T) {
	clusters := uint64(1000)
	if testing.Short() {
		clusters = 200
	}
	here := model.Settings{Node: randworld.Node}
	cfg := rules.Config{Prefixes: []string{"cali"}, MarkMask: 0xffff0000, CutMark: 0x10000}
	compiled := cfg
	compiled.Compiled = true
	seen := oracle.NewCoverage()
	for seed := range clusters {
		w, s := randworld.New(seed), oracle.Snapshot{}
		for _, e := range w.Events() {
			s.Add(e)
		}
		tables, view := oracle.Desired(s, here).Policy, oracle.NewView(s)
		programs := []*rules.Program{rules.Render(cfg, &tables), rules.Render(compiled, &tables)}
		tracers := []*rules.Tracer{rules.NewTracer(programs[0]), rules.NewTracer(programs[1])}
		for i := range 12 {
			f, program := w.Flow(), programs[i%2]
			pkt := rules.Packet{
				Way: rules.Forwarded, In: "eth0", Out: "eth0", EthSource: "\x02\x00\x00\x00\x00\x01", Source: f.Source, Dest: f.Dest,
				Protocol: f.Protocol, SourcePort: f.SourcePort, DestPort: f.DestPort, ICMPType: f.ICMPType, ICMPCode: f.ICMPCode,
				State: rules.StateNew,
			}
			decide := func(a netip.Addr, d desired.Direction) *oracle.Decision {
				x := view.WorkloadOn(here, a)
				if x == nil {
					return nil
				}
				end := view.Decide(x.ID, d, f)
				seen.Count(end)
				if d == desired.Ingress {
					pkt.Out = x.Interface
				} else {
					pkt.In = x.Interface
				}
				return &end
			}
			out, in := decide(f.Source, desired.Egress), decide(f.Dest, desired.Ingress)
			want := (out == nil || out.Allowed) && (in == nil || in.Allowed)
			if out != nil {
				pkt.EthSource = hardware(t, tables.Endpoints[pkt.In].MAC)
			}
			got, err := program.Trace(pkt)
			if err != nil {
				t.Fatalf("seed %d: %v", seed, err)
			}
			if got.Accepted != want {
				t.Fatalf("seed %d: want %v of %v\n%v\negress %+v\ningress %+v", seed, want, f, got, out, in)
			}
			for _, port := range []uint16{f.SourcePort ^ 1, f.SourcePort} { // what was found for one is not used for the other where it matters
				pkt.SourcePort = port
				brief, err := tracers[i%2].Accepts(pkt)
				if err != nil || port == f.SourcePort && brief != want {
					t.Fatalf("seed %d: want %v of %v, in brief %v, %v", seed, want, f, brief, err)
				}
			}
		}
	}
	t.Logf("%d clusters\n%v", clusters, seen)
}

// hardware is a workload's hardware address as bytes, any if it has none.
func hardware(t *testing.T, mac string) string {
	t.Helper()
	if mac == "" {
		return "\x02\x00\x00\x00\x00\x01"
	}
	hw, err := net.ParseMAC(mac)
	if err != nil {
		t.Fatal(err)
	}
	return string(hw)
}
