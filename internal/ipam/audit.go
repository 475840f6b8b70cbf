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
	a := &Audit{}
	for _, b := range inv.blocks {
		pool, _ := s.pool(b.CIDR)
		for _, u := range b.Uses() {
			v := judge(b, u, us, agents)
			one := Audited{
				Addr: u.Addr, Block: b.CIDR, Pool: pool.Name, Handle: cleanHandle(u.Attribute.Handle), Sequence: u.Sequence,
				Node: u.Attribute.Owner[AttrNode], Standing: v.standing, Owner: v.owner, Reason: v.why,
			}
			one.Borrowed = one.Node != "" && one.Node != b.Host()
			if v.standing == Leaked || v.standing == Unproven {
				age, known := u.age(m.now())
				if one.Leak = !known || age >= grace || age < 0; one.Leak {
					a.Leaks++
				} else {
					one.Reason += fmt.Sprintf("; it is %s old and may be being set up", age.Truncate(time.Second))
				}
			}
			a.Addresses = append(a.Addresses, one)
		}
	}
	slices.SortFunc(a.Addresses, func(x, y Audited) int { return x.Addr.Compare(y.Addr) })
	return a, nil
}

// age says how long ago an address was assigned, if that is stored.
func (u Use) age(now time.Time) (time.Duration, bool) {
	at, err := time.Parse(timestampFormat, u.Attribute.Owner[AttrTimestamp])
	if err != nil {
		return 0, false
	}
	return now.Sub(at), true
}
