package ipam

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strconv"
	"time"

	"github.com/brindle-net/brindle/internal/prefix"
)

type rawJSON = json.RawMessage

// Fields of a stored block, in the order in which they are written.
const (
	fieldCIDR        = "cidr"
	fieldAffinity    = "affinity"
	fieldClaimTime   = "affinity_claim_time"
	fieldAllocations = "allocations"
	fieldUnallocated = "unallocated"
	fieldAttributes  = "attributes"
	fieldSequence    = "sequenceNumber"
	fieldSequences   = "sequenceNumberForAllocation"
	fieldDeleted     = "deleted"
	fieldOldAffinity = "hostAffinity" // before affinities had kinds
)

// DecodeBlock reads a stored block. The error wraps ErrCorrupt.
func DecodeBlock(value []byte) (*Block, error) {
	var fields map[string]rawJSON
	if err := json.Unmarshal(value, &fields); err != nil {
		return nil, fmt.Errorf("block: %w: %w", ErrCorrupt, err)
	}
	b := &Block{seqs: map[int]uint64{}}
	var cidr, oldHost string
	for _, f := range []struct {
		name string
		into any
	}{
		{fieldCIDR, &cidr}, {fieldAffinity, &b.Affinity}, {fieldClaimTime, (*jsonTime)(&b.ClaimTime)},
		{fieldAllocations, (*jsonSlots)(&b.slots)}, {fieldUnallocated, &b.queue}, {fieldAttributes, &b.attrs},
		{fieldSequence, &b.Sequence}, {fieldSequences, (*jsonSeqs)(&b.seqs)}, {fieldDeleted, &b.gone},
		{fieldOldAffinity, &oldHost},
	} {
		if err := take(fields, f.name, f.into); err != nil {
			return nil, fmt.Errorf("block %s: %w: field %s: %w", cidr, ErrCorrupt, f.name, err)
		}
	}
	if b.Affinity == "" && oldHost != "" {
		b.Affinity = HostAffinity(oldHost)
	}
	if len(fields) > 0 {
		b.extra = fields
	}
	var err error
	if b.CIDR, err = prefix.Parse(cidr); err != nil {
		return nil, fmt.Errorf("block %q: %w: %w", cidr, ErrCorrupt, err)
	}
	if n := prefix.SizeCapped(b.CIDR); n > MaxBlockAddrs || int(n) != len(b.slots) {
		return nil, fmt.Errorf("block %s: %w: %d allocations for %d addresses", cidr, ErrCorrupt, len(b.slots), n)
	}
	if top := slices.Max(b.slots); top >= len(b.attrs) {
		return nil, fmt.Errorf("block %s: %w: an allocation has attribute %d of %d", cidr, ErrCorrupt, top, len(b.attrs))
	}
	return b, nil
}

// decodeBlockAt is DecodeBlock for the value of a key: the two must agree.
func decodeBlockAt(cidr netip.Prefix, value []byte) (*Block, error) {
	b, err := DecodeBlock(value)
	if err == nil && b.CIDR != cidr {
		err = fmt.Errorf("block %s: %w: stored as %s", b.CIDR, ErrCorrupt, cidr)
	}
	return b, err
}

// take decodes one field, if it is there, and removes it from fields.
func take(fields map[string]rawJSON, name string, into any) error {
	raw, ok := fields[name]
	if !ok {
		return nil
	}
	delete(fields, name)
	return json.Unmarshal(raw, into)
}

// encode writes the block as it is stored.
func (b *Block) encode() []byte {
	out := make([]byte, 0, 512+16*len(b.slots))
	out = append(out, `{"cidr":`...)
	out = appendString(out, b.CIDR.String())
	out = append(out, `,"affinity":`...)
	if b.Affinity == "" {
		out = append(out, "null"...)
	} else {
		out = appendString(out, b.Affinity)
	}
	if !b.ClaimTime.IsZero() {
		out = append(out, `,"affinity_claim_time":`...)
		out = appendTime(out, b.ClaimTime)
	}
	out = append(out, `,"allocations":`...)
	out = appendList(out, b.slots, func(out []byte, i int) []byte {
		if i == free {
			return append(out, "null"...)
		}
		return strconv.AppendInt(out, int64(i), 10)
	})
	out = append(out, `,"unallocated":`...)
	out = appendList(out, b.queue, func(out []byte, i int) []byte { return strconv.AppendInt(out, int64(i), 10) })
	out = append(out, `,"attributes":`...)
	out = appendList(out, b.attrs, func(out []byte, a Attribute) []byte { return a.appendTo(out) })
	out = append(out, `,"sequenceNumber":`...)
	out = strconv.AppendUint(out, b.Sequence, 10)
	out = append(out, `,"sequenceNumberForAllocation":{`...)
	seqs := make(map[string]uint64, len(b.seqs))
	for ord, seq := range b.seqs {
		seqs[strconv.Itoa(ord)] = seq
	}
	for i, ord := range slices.Sorted(maps.Keys(seqs)) {
		if i > 0 {
			out = append(out, ',')
		}
		out = append(appendString(out, ord), ':')
		out = strconv.AppendUint(out, seqs[ord], 10)
	}
	out = append(out, `},"deleted":`...)
	out = strconv.AppendBool(out, b.gone)
	out = appendExtra(out, b.extra)
	return append(out, '}')
}

func appendList[T any](out []byte, list []T, item func([]byte, T) []byte) []byte {
	out = append(out, '[')
	for i, v := range list {
		if i > 0 {
			out = append(out, ',')
		}
		out = item(out, v)
	}
	return append(out, ']')
}

func appendString(out []byte, s string) []byte {
	quoted, _ := json.Marshal(s) // a string always marshals
	return append(out, quoted...)
}

func appendTime(out []byte, t time.Time) []byte {
	return appendString(out, t.UTC().Format(time.RFC3339))
}

func appendExtra(out []byte, extra map[string]rawJSON) []byte {
	for _, name := range slices.Sorted(maps.Keys(extra)) {
		out = append(out, ',')
		out = append(appendString(out, name), ':')
		out = append(out, extra[name]...)
	}
	return out
}

// UnmarshalJSON reads a stored attribute. Fields that we do not know are kept.
func (a *Attribute) UnmarshalJSON(value []byte) error {
	var fields map[string]rawJSON
	if err := json.Unmarshal(value, &fields); err != nil {
		return err
	}
	*a = Attribute{}
	for _, f := range []struct {
		name string
		into any
	}{
		{"handle_id", &a.Handle}, {"secondary", &a.Owner},
		{"alternateOwnerAttrs", &a.Alternate}, // as in the Kubernetes resource
		{"alternate", &a.Alternate}, {"releasedAt", (*jsonTime)(&a.ReleasedAt)},
	} {
		if err := take(fields, f.name, f.into); err != nil {
			return fmt.Errorf("%s: %w", f.name, err)
		}
	}
	if len(fields) > 0 {
		a.extra = fields
	}
	return nil
}

func (a Attribute) appendTo(out []byte) []byte {
	start := len(out)
	field := func(name string) {
		out = append(out, ',')
		out = append(appendString(out, name), ':')
	}
	stringMap := func(name string, m map[string]string) {
		if len(m) > 0 {
			field(name)
			raw, _ := json.Marshal(m) // strings always marshal
			out = append(out, raw...)
		}
	}
	if a.Handle != "" {
		field("handle_id")
		out = appendString(out, a.Handle)
	}
	stringMap("secondary", a.Owner)
	stringMap("alternate", a.Alternate)
	if !a.ReleasedAt.IsZero() {
		field("releasedAt")
		out = appendTime(out, a.ReleasedAt)
	}
	out = appendExtra(out, a.extra)
	if len(out) == start {
		return append(out, "{}"...)
	}
	out[start] = '{'
	return append(out, '}')
}

// jsonTime reads a time; null and "" are none.
type jsonTime time.Time

// UnmarshalJSON implements json.Unmarshaler.
func (t *jsonTime) UnmarshalJSON(value []byte) error {
	if s := string(value); s == "null" || s == `""` {
		return nil
	}
	return (*time.Time)(t).UnmarshalJSON(value)
}

// jsonSlots reads the allocations of a block.
type jsonSlots []int

// UnmarshalJSON implements json.Unmarshaler.
func (s *jsonSlots) UnmarshalJSON(value []byte) error {
	value = bytes.TrimSpace(value)
	if string(value) == "null" {
		return nil
	}
	if len(value) < 2 || value[0] != '[' {
		return fmt.Errorf("must be a list of numbers and nulls")
	}
	body := bytes.TrimSpace(value[1 : len(value)-1])
	if len(body) == 0 {
		return nil
	}
	for item := range bytes.SplitSeq(body, []byte{','}) {
		item = bytes.TrimSpace(item)
		if string(item) == "null" {
			*s = append(*s, free)
			continue
		}
		n, err := strconv.Atoi(string(item))
		if err != nil || n < 0 {
			return fmt.Errorf("%q is neither null nor the index of an attribute", item)
		}
		*s = append(*s, n)
	}
	return nil
}

// jsonSeqs reads the sequence numbers of a block's allocations.
type jsonSeqs map[int]uint64

// UnmarshalJSON implements json.Unmarshaler.
func (s *jsonSeqs) UnmarshalJSON(value []byte) error {
	var raw map[string]uint64
	if err := json.Unmarshal(value, &raw); err != nil {
		return err
	}
	for key, seq := range raw {
		ord, err := strconv.Atoi(key)
		if err != nil || strconv.Itoa(ord) != key {
			return fmt.Errorf("%q is not the number of an address", key)
		}
		(*s)[ord] = seq
	}
	return nil
}
