package ipam

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"time"
)

// Audit is every address with its owner.
type Audit struct {
	Addresses []Audited `json:"addresses"` // sorted
	Leaks     int       `json:"leaks"`     // how many are Leaked or Unproven beyond the grace period
}

// Audited is one address with what is known about its owner.
type Audited struct {
	Addr     netip.Addr   `json:"ip"`
	Block    netip.Prefix `json:"block"`
	Pool     string       `json:"pool,omitempty"`
	Handle   string       `json:"handle,omitempty"`
	Sequence uint64       `json:"sequenceNumber,omitempty"`
	Node     string       `json:"node,omitempty"`
	Borrowed bool         `json:"borrowed,omitempty"`
	Standing Standing     `json:"standing"`
	Leak     bool         `json:"leak"`
	Owner    string       `json:"owner,omitempty"`
	Reason   string       `json:"reason,omitempty"`
}

// Audit judges every assigned address. Agents holds what the agents that were
// asked have attached, by host; nil if none was. An address without owner
// that is younger than the grace period (0: DefaultGrace) may be being set up
// and is no leak yet.
func (m *Manager) Audit(ctx context.Context, agents map[string]Attachments, grace time.Duration) (*Audit, error) {
	if grace <= 0 {
		grace = DefaultGrace
	}
	s, inv, us, err := m.survey(ctx)
	if err != nil {
		return nil, err
	}
	by := auditor{settings: s, users: us, agents: agents, grace: grace, now: m.now()}
	a := &Audit{}
	for _, b := range inv.blocks {
		for _, u := range b.Uses() {
			one := by.audit(b, u)
			if one.Leak {
				a.Leaks++
			}
			a.Addresses = append(a.Addresses, one)
		}
	}
	slices.SortFunc(a.Addresses, func(x, y Audited) int { return x.Addr.Compare(y.Addr) })
	return a, nil
}

// auditor judges addresses by what was read at one moment.
type auditor struct {
	settings *Settings
	users    *users
	agents   map[string]Attachments // those that answered
	grace    time.Duration
	now      time.Time
}

func (by auditor) audit(b *Block, u Use) Audited {
	v := judge(b, u, by.users, by.agents)
	pool, _ := by.settings.pool(b.CIDR)
	one := Audited{
		Addr: u.Addr, Block: b.CIDR, Pool: pool.Name, Handle: cleanHandle(u.Attribute.Handle), Sequence: u.Sequence,
		Node: u.Attribute.Owner[AttrNode], Standing: v.standing, Owner: v.owner, Reason: v.why,
	}
	one.Borrowed = one.Node != "" && one.Node != b.Host()
	if v.standing == Leaked || v.standing == Unproven {
		age, known := u.age(by.now)
		if one.Leak = !known || age >= by.grace || age < 0; !one.Leak {
			one.Reason += fmt.Sprintf("; it is %s old and may be being set up", age.Truncate(time.Second))
		}
	}
	return one
}

// age says how long ago an address was assigned, if that is stored.
func (u Use) age(now time.Time) (time.Duration, bool) {
	at, err := time.Parse(timestampFormat, u.Attribute.Owner[AttrTimestamp])
	if err != nil {
		return 0, false
	}
	return now.Sub(at), true
}
