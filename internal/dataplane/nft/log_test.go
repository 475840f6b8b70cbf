package nft

import (
	"bufio"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/brindle-net/brindle/internal/desired"
	"github.com/brindle-net/brindle/internal/netns"
	"github.com/brindle-net/brindle/internal/testenv"
)

// TestKernelsLog: in a machine's first namespace the Log action writes to the
// kernel's log, with the prefix that is set, for both families.
func TestKernelsLog(t *testing.T) {
	if os.Getenv("BRINDLE_VM") == "" {
		t.Skip("needs a machine's first namespace, which is ours in a virtual machine only")
	}
	testenv.NeedProgram(t, "ip")
	host, err := netns.Current()
	if err != nil {
		t.Fatal(err)
	}
	w := wiresOf(t, host)
	policy := desired.NewPolicy()
	list := &desired.RuleList{Rules: []desired.PolicyRule{
		{Action: desired.Log, IPv4: true, IPv6: true, Protocol: 17},
		{Action: desired.Deny, IPv4: true, IPv6: true, Index: 1},
	}}
	tiers := []desired.Tier{{Name: "default", Policies: []string{"NetworkPolicy default/log"}}}
	policy.Rules[desired.RulesID{Owner: "NetworkPolicy default/log", Direction: desired.Egress}] = list
	for i := 1; i <= 2; i++ {
		policy.Endpoints[cali(i)] = &desired.Endpoint{
			Name: fmt.Sprintf("WorkloadEndpoint default/w%d", i), MAC: fmt.Sprintf("02:00:00:00:00:%02x", i),
			Addrs: []netip.Addr{at4(i), at6(i)}, Egress: tiers,
		}
	}
	for _, compiled := range []bool{false, true} {
		cfg := settings()
		cfg.LogGroup, cfg.LogPrefix, cfg.Compiled = 0, fmt.Sprintf("said-%v", compiled), compiled
		d := openWith(t, w.host, cfg)
		mustSync(t, d, &policy, nil)
		kmsg, err := os.Open("/dev/kmsg")
		if err != nil {
			t.Fatal(err)
		}
		for i, dest := range []netip.Addr{at4(2), at6(2)} {
			p := first(rand.New(rand.NewPCG(1, 1)), 1, 2, uint16(4000+i))
			p.EthSource, p.Source, p.Dest, p.Protocol, p.DestPort = "\x02\x00\x00\x00\x00\x01", []netip.Addr{at4(1), at6(1)}[i], dest, 17, 53
			w.send(1, p)
		}
		if err := kmsg.SetReadDeadline(time.Now().Add(20 * time.Second)); err != nil {
			t.Log("no deadline: ", err) // the run's own ends it
		}
		left := map[string]bool{"SPT=4000": true, "SPT=4001": true}
		for lines := bufio.NewReader(kmsg); len(left) > 0; {
			line, err := lines.ReadString('\n')
			if err != nil {
				t.Fatalf("the kernel's log ends without %v: %v", left, err)
			}
			for end := range left {
				if strings.Contains(line, cfg.LogPrefix) && strings.Contains(line, "IN=cali1 OUT=cali2") && strings.Contains(line, end) {
					delete(left, end)
				}
			}
		}
		if err := kmsg.Close(); err != nil {
			t.Error(err)
		}
	}
	if err := Remove(w.host); err != nil {
		t.Error(err)
	}
}
