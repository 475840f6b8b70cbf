package paths

import (
	"fmt"
	"strings"

	"github.com/brindle-net/brindle/internal/desired"
)

// who names the other end.
func (p Path) who() string {
	if p.Node.IsValid() {
		return fmt.Sprintf("%s (%v, tunnel address %v)", p.Peer, p.Node, p.Remote)
	}
	return fmt.Sprintf("%s (tunnel address %v)", p.Peer, p.Remote)
}

// setting is the parameter that sets the MTU of a tunnel.
func (p Path) setting() string {
	switch {
	case p.Form == desired.IPIP:
		return "ipipMTU"
	case p.family() == 6:
		return "vxlanMTUV6"
	}
	return "vxlanMTU"
}

// carried is what the network must let through.
func (p Path) carried() string {
	if p.Form == desired.IPIP {
		return "IP protocol 4"
	}
	if p.Outer.Port != 0 {
		return fmt.Sprintf("UDP port %d", p.Outer.Port)
	}
	return "VXLAN"
}

// narrow is what to say when large packets do not pass whole.
func (r Result) narrow() string {
	what := "are lost, and no sender is told"
	switch {
	case r.Full == Told || r.Full == Passed && r.Whole == Told && r.family() == 6:
		what = "are too large for the way: senders are told, and lose the first ones"
	case r.Full == Passed:
		what = "pass only in pieces, which is slow and lost where pieces are dropped"
	}
	return fmt.Sprintf("%s to %s: packets of %d bytes %s; %d pass. Set %s to %d in FelixConfiguration, or widen the network between the hosts to %d",
		r.Device, r.who(), r.MTU, what, r.Fits, r.setting(), r.Fits, r.MTU+desired.Overhead(r.Form, r.family()))
}

// uncut is what to say when pieces of packets do not pass.
func (r Result) uncut() string {
	return fmt.Sprintf("%s to %s: packets larger than %d bytes, which pass in pieces, are lost: something on the way drops fragments",
		r.Device, r.who(), r.MTU)
}

// checksum is what to say when packets with a checksum are lost.
func (r Result) checksum() string {
	return fmt.Sprintf("%s to %s: packets pass without a checksum, and are lost with one that the hardware is to fill in. "+
		"Look at the driver of the interface below, or switch its offload off: ethtool -K INTERFACE tx off", r.Device, r.who())
}

// corrupt is what to say when packets arrive changed.
func (r Result) corrupt() string {
	return fmt.Sprintf("%s to %s: packets arrive changed: look for a faulty card, driver or memory on the way", r.Device, r.who())
}

// noTCP is what to say when TCP alone does not pass.
func (r Result) noTCP() string {
	return fmt.Sprintf("%s to %s: datagrams pass, TCP does not. Look at the offloads of the interfaces of both hosts (ethtool -k), "+
		"and at firewalls that keep the TCP port of probes shut (pathProbePort)", r.Device, r.who())
}

// blocked is what to say when nothing passes.
func (r Result) blocked(alive bool) string {
	if alive {
		return fmt.Sprintf("%s to %s: nothing passes, and the host is up: let %s through between the hosts, in both directions",
			r.Device, r.who(), r.carried())
	}
	return fmt.Sprintf("%s to %s: nothing passes, and the host does not answer outside of the tunnel either: it is down, or cut off",
		r.Device, r.who())
}

// unanswered is what to say when nobody answers for an agent.
func (r Result) unanswered() string {
	if !r.Speaks {
		return fmt.Sprintf("%s to %s: not measured: its agent is none that answers", r.Device, r.who())
	}
	return fmt.Sprintf("%s to %s: not measured: its agent does not answer: it is older, is not running, has pathProbePort at another value, or a firewall keeps the port shut",
		r.Device, r.who())
}

// A Verdict is what the paths of a host come to.
type Verdict struct {
	OK      bool
	Reason  string // CamelCase, for machines
	Message string // for people
}

// How many paths are told of one by one.
const toldOf = 3

// Judge says what results come to: the worst of them gives the reason.
func Judge(results []Result, choices []Choice) Verdict {
	reasons := []struct {
		outcome Outcome
		reason  string
	}{
		{NotSent, "PathNotSent"}, {Blocked, "PathBlocked"}, {Corrupt, "PathCorrupt"}, {Narrow, "PathMTU"}, {Checksum, "PathChecksum"}, {NoTCP, "PathTCP"},
	}
	v, said, n := Verdict{OK: true, Reason: "Fine"}, []string{}, map[Outcome]int{}
	for _, r := range results {
		n[r.Outcome]++
	}
	for _, x := range reasons {
		for _, r := range results {
			if r.Outcome != x.outcome {
				continue
			}
			if v.OK {
				v = Verdict{Reason: x.reason}
			}
			said = append(said, r.Message)
		}
	}
	if more := len(said) - toldOf; more > 0 {
		said = append(said[:toldOf], fmt.Sprintf("and %d more: brindle node paths", more))
	}
	switch {
	case !v.OK:
	case len(results) == 0:
		v.Reason = "NoTunnels"
	case n[Measuring] > 0:
		v.Reason = "Measuring"
	}
	if v.OK && len(results) > 0 {
		said = counted(n)
	}
	for _, c := range choices {
		if c.Why != "" {
			said = append(said, fmt.Sprintf("checksum offload of %s is off: %s", c.Device, c.Why))
		}
	}
	v.Message = strings.Join(said, "; ")
	return v
}

// counted says how many paths are how.
func counted(n map[Outcome]int) []string {
	var out []string
	for _, x := range []struct {
		outcome Outcome
		word    string
	}{{Fine, "fine"}, {Measuring, "being measured"}, {NoAnswer, "without an answer"}} {
		if n[x.outcome] > 0 {
			out = append(out, fmt.Sprintf("%d %s", n[x.outcome], x.word))
		}
	}
	if len(out) > 0 {
		word := " paths "
		if strings.HasPrefix(out[0], "1 ") {
			word = " path "
		}
		out[0] = strings.Replace(out[0], " ", word, 1)
	}
	return out
}
