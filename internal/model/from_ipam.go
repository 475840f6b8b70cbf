package model

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"strconv"
	"strings"
)

// storedBlock is what we need of a block as IPAM stores it in etcd.
type storedBlock struct {
	CIDR        string  `json:"cidr"`
	Affinity    *string `json:"affinity"`
	Deleted     bool    `json:"deleted"`
	Allocations []*int  `json:"allocations"`
	Attributes  []struct {
		Handle     *string           `json:"handle_id"`
		Secondary  map[string]string `json:"secondary"`
		ReleasedAt *string           `json:"releasedAt"`
	} `json:"attributes"`
}

// FromBlock reads the block of a CIDR as IPAM stores it. One that is marked
// as deleted is an event without value, as if it were gone.
func FromBlock(cidr netip.Prefix, data []byte) (Event, error) {
	id := BlockID(cidr)
	b, err := fromBlock(cidr, data)
	if err != nil {
		return Invalidate(id, err), fmt.Errorf("%s: %w", id, err)
	}
	if b == nil {
		return Event{ID: id}, nil
	}
	return Event{ID: id, Value: b}, nil
}

func fromBlock(cidr netip.Prefix, data []byte) (*Block, error) {
	var s storedBlock
	if err := json.Unmarshal(data, &s); err != nil {
		return nil, fmt.Errorf("read the stored block: %w", err)
	}
	if s.Deleted {
		return nil, nil
	}
	if p, err := netip.ParsePrefix(s.CIDR); err != nil || p != cidr {
		return nil, wrong("cidr", s.CIDR, "must be that of its key, "+cidr.String())
	}
	b := &Block{CIDR: cidr}
	if s.Affinity != nil && *s.Affinity != "" {
		kind, owner, _ := strings.Cut(*s.Affinity, ":")
		if owner == "" || kind != "host" && kind != "virtual" {
			return nil, wrong("affinity", *s.Affinity, "must be host:NAME or virtual:NAME")
		}
		b.Host, b.Virtual = owner, kind == "virtual"
	}
	if host := cidr.Addr().BitLen() - cidr.Bits(); host > 16 || len(s.Allocations) > 1<<host {
		return nil, wrong("allocations", strconv.Itoa(len(s.Allocations)), "must not be more than the block has addresses")
	}
	addr := cidr.Addr()
	for ordinal, index := range s.Allocations {
		if index != nil {
			if *index < 0 || *index >= len(s.Attributes) {
				return nil, wrong("allocations["+strconv.Itoa(ordinal)+"]", strconv.Itoa(*index),
					"must be an index of attributes")
			}
			if a := s.Attributes[*index]; a.ReleasedAt == nil {
				use := Use{Addr: addr, Node: a.Secondary["node"]}
				if a.Handle != nil {
					use.Handle = *a.Handle
				}
				b.Uses = append(b.Uses, use)
			}
		}
		addr = addr.Next()
	}
	return b, nil
}

// FromAffinity reads a host's claim to a block as IPAM stores it. One that is
// marked as deleted is an event without value, as if it were gone.
func FromAffinity(host string, cidr netip.Prefix, data []byte) (Event, error) {
	id := AffinityID(host, cidr)
	var s struct {
		State   string `json:"state"`
		Deleted bool   `json:"deleted"`
	}
	err := json.Unmarshal(data, &s)
	switch {
	case err != nil:
		err = fmt.Errorf("read the stored affinity: %w", err)
	case s.Deleted:
		return Event{ID: id}, nil
	case s.State != "confirmed" && s.State != "pending" && s.State != "pendingDeletion":
		err = wrong("state", s.State, "must be confirmed, pending or pendingDeletion")
	default:
		return Event{ID: id, Value: &Affinity{Host: host, CIDR: cidr, Confirmed: s.State == "confirmed"}}, nil
	}
	return Invalidate(id, err), fmt.Errorf("%s: %w", id, err)
}
