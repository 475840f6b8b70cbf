package desired

import (
	"fmt"
	"net/netip"
)

// The readiness conditions that notices belong to.
const (
	ConditionDatastore = "Datastore"
	ConditionKernel    = "Kernel"
	ConditionPolicy    = "Policy"
	ConditionRouting   = "Routing"
	ConditionSettings  = "Settings" // advisory
)

// Notices is a table of notices with the wording of each kind, so that
// whoever finds the fact says it in the same words.
type Notices map[NoticeKey]Notice

func (n Notices) add(condition, object, reason, message string, blocking bool) {
	n[NoticeKey{condition, object}] = Notice{Reason: reason, Message: message, Blocking: blocking}
}

// also is add for what may be said beside something else of the same object:
// the first reason stays, the messages add up.
func (n Notices) also(condition, object, reason, message string, blocking bool) {
	if old, ok := n[NoticeKey{condition, object}]; ok {
		reason, message, blocking = old.Reason, old.Message+"; "+message, old.Blocking || blocking
	}
	n.add(condition, object, reason, message, blocking)
}

// PolicyNotEnforced says that a policy selects host endpoints here and is not
// enforced on them. Blocking. It comes after InvalidPolicy of the same policy
// and adds to it.
func (n Notices) PolicyNotEnforced(policy string, endpoints int) {
	n.also(ConditionPolicy, policy, "PolicyNotEnforced",
		fmt.Sprintf("selects %d host endpoint(s) of this host and is not enforced on them by this version", endpoints), true)
}

// HTTPNotEnforced says that a rule has HTTP criteria, which nothing looks at.
// It is said of policies in force here, in a direction that applies, for
// each such rule in order, ingress first, and adds to what is said already.
func (n Notices) HTTPNotEnforced(policy string, d Direction, index int, name string) {
	rule := fmt.Sprintf("%v rule %d", d, index)
	if name != "" {
		rule += fmt.Sprintf(" (%q)", name)
	}
	n.also(ConditionPolicy, policy, "HTTPNotEnforced",
		rule+" has HTTP criteria, which nothing here enforces: what it would allow is denied", false)
}

// HostEndpointNotEnforced says that a host endpoint asks for protection that
// is not there. Blocking.
func (n Notices) HostEndpointNotEnforced(endpoint string) {
	n.add(ConditionPolicy, endpoint, "PolicyNotEnforced",
		"protects an interface of this host and is not enforced by this version", true)
}

// InvalidPolicy says that a policy cannot be read, so nobody knows what it
// forbids. Blocking.
func (n Notices) InvalidPolicy(policy, why string) {
	n.add(ConditionPolicy, policy, "InvalidPolicy", why, true)
}

// InvalidTier says that a tier cannot be read, or not whole, so nobody knows
// what its policies come before. why says what holds meanwhile. Blocking.
func (n Notices) InvalidTier(tier, why string) {
	n.add(ConditionPolicy, tier, "InvalidTier", why, true)
}

// InvalidObject says that a stored object breaks the rules and is ignored.
func (n Notices) InvalidObject(object, why string) {
	n.add(ConditionDatastore, object, "InvalidObject", why, false)
}

// InvalidSettings says that an object with settings breaks the rules. why says
// what holds meanwhile. Blocking.
func (n Notices) InvalidSettings(object, why string) {
	n.add(ConditionSettings, object, "InvalidSettings", why, true)
}

// DatastoreNotReady says that the datastore is locked for a migration.
// Blocking.
func (n Notices) DatastoreNotReady(object string) {
	n.add(ConditionDatastore, object, "DatastoreNotReady",
		"datastoreReady is false: the datastore is being migrated", true)
}

// NoBGPAddress says that this host takes no part in routing. Blocking.
func (n Notices) NoBGPAddress(node string) {
	n.add(ConditionRouting, node, "NoBGPAddress",
		"this host has no BGP address: no session, nothing announced", true)
}

// DuplicateNodeAddress says that a node claims the address of another, which
// is first by name. Blocking where it is this host's own.
func (n Notices) DuplicateNodeAddress(node, first string, addr netip.Addr, own bool) {
	key := NoticeKey{ConditionRouting, node}
	message := fmt.Sprintf("has the BGP address %v of %s", addr, first)
	if old, ok := n[key]; ok && old.Reason == "DuplicateNodeAddress" {
		message, own = old.Message+"; "+message, own || old.Blocking
	}
	n.add(ConditionRouting, node, "DuplicateNodeAddress", message, own)
}

// SessionWithheld says that a BGP session is not made because something that
// was asked for it cannot be honoured. Blocking.
func (n Notices) SessionWithheld(object, reason, message string) {
	n.add(ConditionRouting, object, reason, message+": its sessions are not made", true)
}

// ServicesNotAnnounced says that service addresses are asked to be announced
// and are not.
func (n Notices) ServicesNotAnnounced(object string) {
	n.add(ConditionRouting, object, "ServicesNotAnnounced",
		"asks for service addresses to be announced, which this version does not do", false)
}

// DuplicateInterface says that a workload is not wired because another one,
// first by name, has its host interface.
func (n Notices) DuplicateInterface(workload, first, iface string) {
	n.add(ConditionRouting, workload, "DuplicateInterface",
		fmt.Sprintf("its interface %s belongs to %s: nothing is routed to it", iface, first), false)
}

// ForeignInterface says that a workload is not wired because the interface
// that it names is none of a workload's.
func (n Notices) ForeignInterface(workload, iface string) {
	n.add(ConditionRouting, workload, "ForeignInterface",
		fmt.Sprintf("its interface %s begins with no prefix of workload interfaces: nothing is routed to it", iface), false)
}

// HostAddress says that an address of a workload is not routed to it because a
// host has it.
func (n Notices) HostAddress(workload, node string, addr netip.Addr) {
	n.clash(workload, "HostAddress", fmt.Sprintf("its address %v is that of host %s: it is not routed to it", addr, node))
}

// clash adds to what is said of a workload's addresses.
func (n Notices) clash(workload, reason, message string) {
	if old, ok := n[NoticeKey{ConditionRouting, workload}]; ok && (old.Reason == "DuplicateAddress" || old.Reason == "HostAddress") {
		reason, message = old.Reason, old.Message+"; "+message
	}
	n.add(ConditionRouting, workload, reason, message, false)
}

// DuplicateAddress says that an address of a workload is not routed to it
// because another local one, first by name, has it.
func (n Notices) DuplicateAddress(workload, first string, addr netip.Addr) {
	n.clash(workload, "DuplicateAddress", fmt.Sprintf("its address %v is routed to %s", addr, first))
}
