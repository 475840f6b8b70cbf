package paths

import (
	"context"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/brindle-net/brindle/internal/desired"
)

// imagined is a line of which everything is known.
type imagined struct {
	silent  bool // nothing passes
	refuses bool // nobody listens
	noPing  bool
	dead    bool // the host
	mtu     int  // of the network, for packets in the tunnel; 0: any
	tells   int  // what the kernel was told of the path; 0: nothing
	cuts    bool // routers cut outer packets that may be
	badSum  bool // checksums are not filled in
	noTCP   bool
	changes bool
	noCut   bool // pieces are lost
	own     int  // MTU of the tunnel
	asked   int
}

func (l *imagined) ask(_ context.Context, w way, size int) (time.Duration, error) {
	l.asked++
	wide := func(size int) bool { return l.mtu == 0 || size <= l.mtu }
	switch {
	case w == strict && size > l.own:
		return 0, errTooBig
	case w == pieces && size > l.own:
		if l.noCut || !wide(l.own) {
			return 0, errSilent
		}
		size = l.own
	case l.silent, w == echo && l.noPing:
		return 0, errSilent
	case l.refuses && w != echo:
		return 0, errRefused
	case l.changes:
		return 0, errChanged
	case w == summed && l.badSum:
		return 0, errSilent
	}
	if !wide(size) && (!l.cuts || w == outer) {
		return 0, errSilent
	}
	return time.Millisecond, nil
}

func (l *imagined) bulk(context.Context) error {
	if l.badSum || l.noTCP {
		return errSilent
	}
	return nil
}

func (l *imagined) alive(context.Context) bool { return !l.dead }
func (l *imagined) learned() int               { return l.tells }

// imaginedPath is one of a family.
func imaginedPath(form desired.Form, family int) Path {
	local, remote, node := "10.65.1.1", "10.65.2.1", "172.16.2.1"
	if family == 6 {
		local, remote, node = "fd65:1::1", "fd65:2::1", "fd16:2::1"
	}
	p := Path{Device: desired.DeviceVXLAN4, Form: form, Local: netip.MustParseAddr(local), Remote: netip.MustParseAddr(remote),
		Node: netip.MustParseAddr(node), Peer: "h2", MTU: 1500 - desired.Overhead(form, family), Speaks: true}
	switch {
	case form == desired.IPIP:
		p.Device = desired.DeviceIPIP
	case family == 6:
		p.Device = desired.DeviceVXLAN6
	}
	if form == desired.VXLAN {
		p.Outer = Outer{Local: p.Local, VNI: 4096, Port: 4789, LocalMAC: "66:00:00:00:00:01", RemoteMAC: "66:00:00:00:00:02"}
	}
	return p
}

// kindsOfPath are all that there are.
func kindsOfPath() map[string]Path {
	return map[string]Path{
		"ipip": imaginedPath(desired.IPIP, 4), "vxlan 4": imaginedPath(desired.VXLAN, 4), "vxlan 6": imaginedPath(desired.VXLAN, 6),
	}
}

func TestMeasure(t *testing.T) {
	for _, c := range []struct {
		name    string
		line    imagined
		mute    bool // the peer's agent is none of ours
		want    Outcome
		fits    int
		message string // part of it
	}{
		{name: "fine", want: Fine, fits: -1},
		{name: "no agent", line: imagined{refuses: true}, want: NoAnswer, fits: -1, message: "pathProbePort"},
		{name: "a Calico host", line: imagined{refuses: true}, mute: true, want: NoAnswer, fits: -1, message: "none that answers"},
		{name: "no agent and no echo", line: imagined{refuses: true, noPing: true}, want: NoAnswer},
		{name: "no agent on a narrow path", line: imagined{refuses: true, mtu: 1300}, want: Narrow, fits: 1300, message: "1300 pass"},
		{name: "nothing passes", line: imagined{silent: true}, want: Blocked, message: "in both directions"},
		{name: "the host is gone", line: imagined{silent: true, dead: true}, want: Blocked, message: "it is down, or cut off"},
		{name: "a Calico host whose rules drop probes", line: imagined{silent: true}, mute: true, want: NoAnswer, message: "not known"},
		{name: "a Calico host that is gone", line: imagined{silent: true, dead: true}, mute: true, want: Blocked},
		{name: "black hole", line: imagined{mtu: 1357}, want: Narrow, fits: 1357, message: "are lost, and no sender is told; 1357 pass. Set "},
		{name: "narrow and told of", line: imagined{tells: 1400}, want: Narrow, fits: 1400, message: "senders are told"},
		{name: "narrow, lost and told of", line: imagined{mtu: 1400, tells: 1400}, want: Narrow, fits: 1400, message: "senders are told"},
		{name: "narrower than told of", line: imagined{mtu: 1300, tells: 1400}, want: Narrow, fits: 1300, message: "no sender is told"},
		{name: "sums not filled in", line: imagined{badSum: true}, want: Checksum, fits: -1, message: "ethtool -K"},
		{name: "black hole and sums not filled in", line: imagined{mtu: 1357, badSum: true}, want: Narrow, fits: 1357},
		{name: "no TCP", line: imagined{noTCP: true}, want: NoTCP, fits: -1, message: "TCP does not"},
		{name: "changed", line: imagined{changes: true}, want: Corrupt},
		{name: "pieces lost", line: imagined{noCut: true}, want: Narrow, fits: -1, message: "drops fragments"},
	} {
		for kind, p := range kindsOfPath() {
			l := c.line
			p.Speaks, l.own = !c.mute, p.MTU
			fits := c.fits
			if fits == -1 {
				fits = p.MTU
			}
			r := measure(t.Context(), p, &l)
			if r.Outcome != c.want || r.Fits != fits || !strings.Contains(r.Message, c.message) || (r.Message == "") != (c.want == Fine) {
				t.Errorf("%s, %s:\n got %s, fits %d, %q\nwant %s, fits %d, … %q …", c.name, kind, r.Outcome, r.Fits, r.Message, c.want, fits, c.message)
			}
			if r.Outcome.Bad() == (c.want == Fine || c.want == NoAnswer) {
				t.Errorf("%s, %s: Bad is wrong", c.name, kind)
			}
			if l.asked > 30 {
				t.Errorf("%s, %s: %d packets", c.name, kind, l.asked)
			}
		}
	}
}

// TestCutOnTheWay: a device of VXLAN lets routers cut its packets; that the
// path is narrow shows by those that may not be. IP in IP passes on whether
// the inner packet may be cut.
func TestCutOnTheWay(t *testing.T) {
	for _, family := range []int{4, 6} {
		p := imaginedPath(desired.VXLAN, family)
		r := measure(t.Context(), p, &imagined{mtu: 1300, cuts: true, own: p.MTU})
		if r.Outcome != Narrow || r.Fits != 1300 || r.Full != Passed || r.Whole != Lost || !strings.Contains(r.Message, "only in pieces") {
			t.Errorf("IPv%d: %+v", family, r)
		}
	}
}

func TestJudge(t *testing.T) {
	of := func(o Outcome, peer string) Result {
		return Result{Path: Path{Device: "d", Peer: peer}, Outcome: o, Message: peer + " is " + string(o)}
	}
	var many []Result
	for _, n := range []string{"a", "b", "c", "d", "e", "f", "g"} {
		many = append(many, of(Narrow, n))
	}
	for _, c := range []struct {
		name    string
		in      []Result
		choices []Choice
		want    Verdict
	}{
		{name: "nothing", want: Verdict{OK: true, Reason: "NoTunnels"}},
		{name: "fine", in: []Result{of(Fine, "a"), of(NoAnswer, "b")}, want: Verdict{true, "Fine", "1 path fine; 1 without an answer"}},
		{name: "not yet", in: []Result{of(Fine, "a"), of(Fine, "c"), of(Measuring, "b")}, want: Verdict{true, "Measuring", "2 paths fine; 1 being measured"}},
		{name: "the worst gives the reason", in: []Result{of(NoTCP, "a"), of(Narrow, "b"), of(Blocked, "c")},
			want: Verdict{false, "PathBlocked", "c is blocked; b is narrow; a is tcp"}},
		{name: "this host cannot send", in: []Result{of(Fine, "a"), of(NotSent, "b")}, want: Verdict{false, "PathNotSent", "b is not-sent"}},
		{name: "many", in: many, want: Verdict{false, "PathMTU",
			"a is narrow; b is narrow; c is narrow; and 4 more: brindle node paths"}},
		{name: "chosen", in: []Result{of(Fine, "a")}, choices: []Choice{{"d", false, "why"}, {"e", true, ""}},
			want: Verdict{true, "Fine", "1 path fine; checksum offload of d is off: why"}},
	} {
		if got := Judge(c.in, c.choices); got != c.want {
			t.Errorf("%s:\n got %+v\nwant %+v", c.name, got, c.want)
		}
	}
}
