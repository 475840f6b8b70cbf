package threats

import (
	"fmt"
	"strings"
	"testing"

	"github.com/brindle-net/brindle/internal/testenv"
	"github.com/brindle-net/brindle/test/labtest"
)

// TestLogAction has policy log packets: in a namespace that is not the
// machine's first, the agent writes the lines to its own log.
func TestLogAction(t *testing.T) {
	r := newRig(t)
	r.with(`
apiVersion: projectcalico.org/v3
kind: GlobalNetworkPolicy
metadata: {name: threats-log}
spec:
  selector: name == 'w2'
  types: [Ingress]
  ingress:
  - {action: Allow, protocol: UDP, destination: {ports: [9999]}}
  - {action: Log, protocol: UDP, destination: {ports: [9002]}}
  - {action: Log, protocol: TCP}
  - {action: Deny}
`)
	for _, family := range families {
		udpMark := cookie()
		datagram := packet{src: r.ip("w1", family), dst: r.ip("w2", family), proto: protoUDP, payload: udp(4000, closedPort, udpMark)}
		segment := packet{src: r.ip("w1", family), dst: r.ip("w2", family), proto: protoTCP, payload: tcp(4001, closedPort, flagSYN, 1, 0, nil)}
		other := packet{src: r.ip("w1", family), dst: r.ip("w2", family), proto: protoUDP, payload: udp(4002, closedPort+1, nil)}
		line := fmt.Sprintf("calico-packet: IN=%s OUT=%s SRC=%s DST=%s ", r.Work["w1"].HostInterface, r.Work["w2"].HostInterface, r.ip("w1", family), r.ip("w2", family))
		testenv.Until(t, labtest.Patience, func() error {
			r.throw(r.out(other.bytes()), r.out(datagram.bytes()), r.out(segment.bytes()))
			r.flush()
			log := r.LogOf("h1")
			for _, end := range []string{"PROTO=UDP SPT=4000 DPT=9002", "PROTO=TCP SPT=4001 DPT=9002"} {
				found := false
				for l := range strings.Lines(log) {
					found = found || strings.Contains(l, line) && strings.Contains(l, end)
				}
				if !found {
					return fmt.Errorf("IPv%d: the agent's log has no line %q … %q", family, line, end)
				}
			}
			return nil
		})
	}
	if log := r.LogOf("h1"); strings.Contains(log, "SPT=4002") {
		t.Error("a packet is logged that the rule does not match")
	}
}
