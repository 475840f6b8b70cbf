// Package policytest holds tests of policies: a cluster put together from
// files, assertions on who may talk to whom in it, and reports of what held.
// It has no clock and no I/O; the oracle decides.
package policytest

import (
	"net/netip"
	"path"
	"slices"
	"strconv"
	"strings"

	v3 "github.com/brindle-net/brindle/api/v3"
	"github.com/brindle-net/brindle/internal/model"
)

// APIVersion and Kind say that a document is a PolicyTest.
const (
	APIVersion = "brindle.net/v1"
	Kind       = "PolicyTest"
)

// PolicyTest is a document of assertions, and of workloads to make them of.
type PolicyTest struct {
	v3.TypeMeta   `json:",inline"`
	v3.ObjectMeta `json:"metadata,omitempty"`
	Spec          Spec `json:"spec"`
}

// Spec is what a PolicyTest says.
type Spec struct {
	Workloads  []Workload  `json:"workloads,omitempty"`
	Assertions []Assertion `json:"assertions"`
}

// Workload is a workload in short, for tests: everything that a policy may
// look at. It is an endpoint as a pod of Kubernetes is one. Without Addresses
// it gets one of each family.
type Workload struct {
	Name           string            `json:"name"`
	Namespace      string            `json:"namespace,omitempty"` // default: default
	Labels         map[string]string `json:"labels,omitempty"`
	ServiceAccount string            `json:"serviceAccount,omitempty"`
	Addresses      []string          `json:"addresses,omitempty"`
	Ports          []Port            `json:"ports,omitempty"`
}

// Port is a port that policies may name.
type Port struct {
	Name     string `json:"name"`
	Protocol string `json:"protocol,omitempty"` // TCP, UDP or SCTP; default: TCP
	Port     uint16 `json:"port"`
}

// Assertion is what one connection, or one each between many workloads, must
// meet.
type Assertion struct {
	Name string `json:"name,omitempty"` // for reports; default: what it says
	// From and To name workloads, as namespace/name or, where that is not
	// ambiguous, name, with * and ? as in file names; or they are an address.
	From   string   `json:"from"`
	To     string   `json:"to"`
	Except []string `json:"except,omitempty"` // workloads that From does not mean
	// Port is the destination's, of TCP unless Protocol says otherwise.
	Port     uint16      `json:"port,omitempty"`
	Protocol v3.Protocol `json:"protocol,omitempty"`
	Verdict  string      `json:"verdict"`      // allow or deny
	By       string      `json:"by,omitempty"` // what must have decided, see Result.By
}

// Values of Assertion.Verdict.
const (
	VerdictAllow = "allow"
	VerdictDeny  = "deny"
)

// Check says what is wrong with a test by itself.
func (t *PolicyTest) Check() v3.FieldErrors {
	var wrong v3.FieldErrors
	if len(t.Spec.Assertions) == 0 {
		wrong = append(wrong, v3.FieldError{Path: "spec.assertions", Rule: "must have at least one"})
	}
	for i := range t.Spec.Workloads {
		wrong = append(wrong, t.Spec.Workloads[i].check("spec.workloads["+strconv.Itoa(i)+"]")...)
	}
	for i := range t.Spec.Assertions {
		wrong = append(wrong, t.Spec.Assertions[i].check("spec.assertions["+strconv.Itoa(i)+"]")...)
	}
	return wrong
}

func (w *Workload) check(at string) v3.FieldErrors {
	var wrong v3.FieldErrors
	if w.Name == "" || strings.ContainsAny(w.Name, "/*?[ ") {
		wrong = append(wrong, v3.FieldError{Path: at + ".name", Value: w.Name, Rule: "must be a name"})
	}
	if strings.ContainsAny(w.Namespace, "/*?[ ") {
		wrong = append(wrong, v3.FieldError{Path: at + ".namespace", Value: w.Namespace, Rule: "must be a name"})
	}
	for i, a := range w.Addresses {
		if _, err := netip.ParseAddr(a); err != nil {
			wrong = append(wrong, v3.FieldError{Path: at + ".addresses[" + strconv.Itoa(i) + "]", Value: a, Rule: "must be an address, without a prefix length"})
		}
	}
	for i, p := range w.Ports {
		if p.Name == "" || p.Port == 0 {
			wrong = append(wrong, v3.FieldError{Path: at + ".ports[" + strconv.Itoa(i) + "]", Rule: "must have a name and a port"})
		}
		if !slices.Contains([]string{"", v3.ProtocolTCP, v3.ProtocolUDP, v3.ProtocolSCTP}, p.Protocol) {
			wrong = append(wrong, v3.FieldError{Path: at + ".ports[" + strconv.Itoa(i) + "].protocol", Value: p.Protocol, Rule: "must be TCP, UDP or SCTP"})
		}
	}
	return wrong
}

const ruleProtocol = "must be TCP, UDP, SCTP, ICMP, ICMPv6, UDPLite or a number"

func (a *Assertion) check(at string) v3.FieldErrors {
	var wrong v3.FieldErrors
	add := func(field, value, rule, hint string) {
		wrong = append(wrong, v3.FieldError{Path: at + field, Value: value, Rule: rule, Hint: hint})
	}
	for _, end := range [][2]string{{".from", a.From}, {".to", a.To}} {
		if _, err := path.Match(end[1], ""); end[1] == "" || err != nil {
			add(end[0], end[1], "must be a workload's name, namespace/name, a pattern of these, or an address", "")
		}
	}
	for i, pattern := range a.Except {
		if _, err := path.Match(pattern, ""); pattern == "" || err != nil {
			add(".except["+strconv.Itoa(i)+"]", pattern, "must be a workload's name, namespace/name, or a pattern of these", "")
		}
	}
	switch a.Verdict {
	case VerdictAllow, VerdictDeny:
	default:
		hint := ""
		if low := strings.ToLower(a.Verdict); strings.HasPrefix(low, VerdictAllow) || strings.HasPrefix(low, VerdictDeny) {
			hint = "write it in lower case"
		}
		add(".verdict", a.Verdict, "must be allow or deny", hint)
	}
	protocol, ok := a.protocol()
	switch {
	case !ok:
		add(".protocol", a.Protocol.Name, ruleProtocol, "")
	case protocol == 0:
		add(".port", "", "must be given", "or give protocol: ICMP, or another that has no ports")
	case model.HasPorts(protocol) && a.Port == 0:
		add(".port", "", "must be given for this protocol", "")
	case !model.HasPorts(protocol) && a.Port != 0:
		add(".port", strconv.Itoa(int(a.Port)), "must not be given: "+a.Protocol.String()+" has no ports", "")
	}
	return wrong
}

// protocol is the number of the assertion's protocol, 0 if it says none.
func (a *Assertion) protocol() (uint8, bool) {
	if a.Protocol == (v3.Protocol{}) && a.Port != 0 {
		return model.ProtocolTCP, true
	}
	return a.Protocol.IP()
}
