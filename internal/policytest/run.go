package policytest

import (
	"fmt"
	"net/netip"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"

	v3 "github.com/brindle-net/brindle/api/v3"
	"github.com/brindle-net/brindle/internal/kubepolicy"
	"github.com/brindle-net/brindle/internal/model"
	"github.com/brindle-net/brindle/internal/oracle"
)

// Result is what came of one assertion.
type Result struct {
	Document  v3.Document // that the assertion stands in
	Index     int         // of the assertion in it, from 0
	Assertion Assertion
	Flows     int // how many connections it was about
	// Failures says of each connection that does not meet it why; of an
	// assertion that could not be tried at all there is one, without a flow.
	Failures []Failure
}

// Failure is one connection that does not meet an assertion.
type Failure struct {
	From, To string
	Verdict  oracle.Verdict // zero if there was nothing to judge
	Reason   string
}

// Title names the assertion for reports.
func (r Result) Title() string {
	a := r.Assertion
	if a.Name != "" {
		return a.Name
	}
	return fmt.Sprintf("%s → %s %s: %s", a.From, a.To, a.target(), a.Verdict)
}

// target is the assertion's port and protocol, as "80/tcp".
func (a Assertion) target() string {
	protocol := strings.ToLower(a.Protocol.String())
	if a.Protocol == (v3.Protocol{}) {
		protocol = "tcp"
	}
	if a.Port == 0 {
		return protocol
	}
	return strconv.Itoa(int(a.Port)) + "/" + protocol
}

// Run tries the assertions of all PolicyTests among the documents, on as many
// processors as there are, and returns the results in their order.
func Run(c *Cluster, docs []v3.Document) []Result {
	var out []Result
	for _, d := range docs {
		if test, ok := d.Object.(*PolicyTest); ok {
			for i, a := range test.Spec.Assertions {
				out = append(out, Result{Document: d, Index: i, Assertion: a})
			}
		}
	}
	view := oracle.NewView(c.Snapshot())
	var wg sync.WaitGroup
	workers := runtime.GOMAXPROCS(0)
	for w := range workers {
		wg.Go(func() {
			view := view.Remembering()
			for i := w; i < len(out); i += workers {
				out[i].try(c, view)
			}
		})
	}
	wg.Wait()
	return out
}

// try judges every connection that the assertion is about.
func (r *Result) try(c *Cluster, x *oracle.View) {
	from, err := c.meant(r.Assertion.From, r.Assertion.Except)
	if err == nil {
		var to []End
		if to, err = c.meant(r.Assertion.To, nil); err == nil {
			r.between(x, from, to)
		}
	}
	if err == nil && r.Flows == 0 {
		err = fmt.Errorf("there is no connection from %s to %s in any address family", r.Assertion.From, r.Assertion.To)
	}
	if err != nil {
		r.Failures = append(r.Failures, Failure{From: r.Assertion.From, To: r.Assertion.To, Reason: err.Error()})
	}
}

// meant lists the ends that a name or pattern of an assertion is about.
func (c *Cluster) meant(pattern string, except []string) ([]End, error) {
	if !strings.ContainsAny(pattern, "*?[") {
		return c.Find(pattern)
	}
	ends := c.Match(pattern)
	for _, p := range except {
		left := c.Match(p)
		if len(left) == 0 {
			return nil, fmt.Errorf("except %q: no workload is called that%s", p, c.near(p))
		}
		ends = slices.DeleteFunc(ends, func(e End) bool {
			return slices.ContainsFunc(left, func(l End) bool { return l.Workload == e.Workload })
		})
	}
	if len(ends) == 0 {
		return nil, fmt.Errorf("%q: no workload is called that", pattern)
	}
	return ends, nil
}

func (r *Result) between(x *oracle.View, from, to []End) {
	for _, src := range from {
		for _, dst := range to {
			if src.Name == dst.Name {
				continue
			}
			for _, four := range []bool{true, false} {
				if s, d := src.Addr(four), dst.Addr(four); s.IsValid() && d.IsValid() {
					r.judge(x, src, dst, flowOf(&r.Assertion, s, d))
				}
			}
		}
	}
}

// firstPort is the port that connections come from, where it matters to
// nobody: the first of those that programs are given (RFC 6335).
const firstPort = 49152

// flowOf is the first packet of the connection that an assertion is about.
func flowOf(a *Assertion, src, dst netip.Addr) oracle.Flow {
	protocol, _ := a.protocol() // checked before
	return NewFlow(protocol, src, dst, a.Port)
}

// NewFlow is the first packet of a connection: from a port of no meaning or,
// of ICMP in either spelling, an echo request of the addresses' family.
func NewFlow(protocol uint8, src, dst netip.Addr, port uint16) oracle.Flow {
	f := oracle.Flow{Protocol: protocol, Source: src, Dest: dst}
	switch {
	case model.HasPorts(protocol):
		f.SourcePort, f.DestPort = firstPort, port
	case protocol != model.ProtocolICMP && protocol != model.ProtocolICMPv6:
	case src.Is4():
		f.Protocol, f.ICMPType = model.ProtocolICMP, 8
	default:
		f.Protocol, f.ICMPType = model.ProtocolICMPv6, 128
	}
	return f
}

// judge asks what becomes of a connection; the reasons only if it is not what
// it should be.
func (r *Result) judge(x *oracle.View, src, dst End, f oracle.Flow) {
	v := x.Outcome(f)
	r.Flows++
	a := r.Assertion
	wrong := v.Allowed != (a.Verdict == VerdictAllow)
	if !wrong && (a.By == "" || slices.Contains(By(v), a.By)) {
		return
	}
	v = x.Verdict(f)
	reason := "is " + word(v.Allowed) + ": " + Why(v)
	if !wrong {
		reason += "; not by " + a.By
	}
	if n := len(r.Failures); n > 0 && r.Failures[n-1].like(src, dst, v) {
		return // told already, of the other family
	}
	r.Failures = append(r.Failures, Failure{From: src.Name, To: dst.Name, Verdict: v, Reason: reason})
}

// like reports whether the failure is of the same ends and for the same reason.
func (f Failure) like(src, dst End, v oracle.Verdict) bool {
	return f.From == src.Name && f.To == dst.Name && f.Verdict.Allowed == v.Allowed && slices.Equal(By(f.Verdict), By(v))
}

func word(allowed bool) string {
	if allowed {
		return "allowed"
	}
	return "denied"
}

// Decisive lists the decisions that made a verdict: of a denial those that
// deny, of an allowance all.
func Decisive(v oracle.Verdict) []*oracle.Decision {
	var out []*oracle.Decision
	for _, d := range []*oracle.Decision{v.Egress, v.Ingress} {
		if d != nil && d.Allowed == v.Allowed {
			out = append(out, d)
		}
	}
	return out
}

// Why says what made the verdict, and what came nearest to allowing it.
func Why(v oracle.Verdict) string {
	var parts []string
	for _, d := range Decisive(v) {
		text := d.Direction.String() + ": " + d.Reason
		if d.Nearest != nil {
			text += " (nearest is " + d.Nearest.Rule.String(d.Direction) + ": " + d.Nearest.Reason + ")"
		}
		parts = append(parts, text)
	}
	if len(parts) == 0 {
		return strings.Join(v.Notes, "; ")
	}
	return strings.Join(parts, "; ")
}

// ownName takes out of a title what conversion puts before the names of
// Kubernetes' policies.
var ownName = strings.NewReplacer(kubepolicy.NetworkPrefix, "", kubepolicy.ClusterPrefix, "")

// By lists the ways to name, in an assertion, what made a verdict: the rule
// ("NetworkPolicy shop/db ingress[0]"), its policy or profile, with or without
// the kind ("NetworkPolicy shop/db", "shop/db"), the end of a tier ("tier
// default") and that of all profiles ("profiles"). What a host does not take
// from its own workload, though policy would let it, is by
// "defaultEndpointToHostAction".
func By(v oracle.Verdict) []string {
	var out []string
	if !v.Allowed && len(Decisive(v)) == 0 {
		out = append(out, "defaultEndpointToHostAction")
	}
	for _, d := range Decisive(v) {
		switch {
		case d.Exempt:
		case d.By.Index < 0 && d.By.Tier != "":
			out = append(out, "tier "+d.By.Tier)
		case d.By.Index < 0:
			out = append(out, "profiles")
		default:
			rule := fmt.Sprintf(" %v[%d]", d.Direction, d.By.Index)
			// A policy of Kubernetes has its own name too.
			for _, owner := range []string{d.By.Owner, ownName.Replace(d.By.Owner)} {
				_, name, _ := strings.Cut(owner, " ")
				out = append(out, owner, owner+rule, name, name+rule)
			}
		}
	}
	return out
}
