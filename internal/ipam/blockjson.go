package ipam

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strconv"
	"strings"
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
	b := &Block{seqs: map[int]uint64{}}
	if err := b.decode(value); err != nil {
		return nil, fmt.Errorf("block %s: %w: %w", b.CIDR, ErrCorrupt, err)
	}
	if n := prefix.SizeCapped(b.CIDR); n == 0 || n > MaxBlockAddrs || int(n) != len(b.slots) {
		return nil, fmt.Errorf("block %s: %w: %d allocations for %d addresses", b.CIDR, ErrCorrupt, len(b.slots), n)
	}
	if top := slices.Max(b.slots); top >= len(b.attrs) {
		return nil, fmt.Errorf("block %s: %w: an allocation has attribute %d of %d", b.CIDR, ErrCorrupt, top, len(b.attrs))
	}
	return b, nil
}

func (b *Block) decode(value []byte) error {
	if !json.Valid(value) {
		var v any
		return json.Unmarshal(value, &v) // says what is wrong where
	}
	var oldHost string
	err := eachField(value, func(name string, value []byte) error {
		var err error
		switch name {
		case fieldCIDR:
			var text string
			if text, err = unquote(value); err == nil {
				b.CIDR, err = prefix.Parse(text)
			}
		case fieldAffinity:
			b.Affinity, err = unquote(value)
		case fieldClaimTime:
			b.ClaimTime, err = parseTime(value)
		case fieldAllocations:
			b.slots, err = parseSlots(value)
		case fieldUnallocated:
			b.queue, err = parseNumbers(value)
		case fieldAttributes:
			b.attrs, err = parseAttributes(value)
		case fieldSequence:
			err = json.Unmarshal(value, &b.Sequence)
		case fieldSequences:
			err = b.parseSequences(value)
		case fieldDeleted:
			err = json.Unmarshal(value, &b.gone)
		case fieldOldAffinity:
			oldHost, err = unquote(value)
		default:
			b.extra = withExtra(b.extra, name, value)
		}
		if err != nil {
			return fmt.Errorf("field %s: %w", name, err)
		}
		return nil
	})
	if b.Affinity == "" && oldHost != "" {
		b.Affinity = HostAffinity(oldHost)
	}
	return err
}

func withExtra(extra map[string]rawJSON, name string, value []byte) map[string]rawJSON {
	if extra == nil {
		extra = map[string]rawJSON{}
	}
	extra[name] = append(rawJSON(nil), value...)
	return extra
}

// decodeBlockAt is DecodeBlock for the value of a key: the two must agree.
func decodeBlockAt(cidr netip.Prefix, value []byte) (*Block, error) {
	b, err := DecodeBlock(value)
	if err == nil && b.CIDR != cidr {
		err = fmt.Errorf("block %s: %w: stored as %s", b.CIDR, ErrCorrupt, cidr)
	}
	return b, err
}

// encode writes the block as it is stored. Of an attribute it remembers how: a
// block is written for every address, and most of it is as it was.
func (b *Block) encode() []byte {
	out := make([]byte, 0, 512+16*len(b.slots)+200*len(b.attrs))
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
	for i := range b.attrs {
		if b.attrs[i].text == nil {
			b.attrs[i].text = b.attrs[i].appendTo(nil)
		}
	}
	out = appendList(out, b.attrs, func(out []byte, a Attribute) []byte { return append(out, a.text...) })
	out = append(out, `,"sequenceNumber":`...)
	out = strconv.AppendUint(out, b.Sequence, 10)
	out = append(out, `,"sequenceNumberForAllocation":{`...)
	ords := slices.SortedFunc(maps.Keys(b.seqs), func(x, y int) int {
		return strings.Compare(strconv.Itoa(x), strconv.Itoa(y)) // the order of their names
	})
	for i, ord := range ords {
		if i > 0 {
			out = append(out, ',')
		}
		out = append(strconv.AppendInt(append(out, '"'), int64(ord), 10), `":`...)
		out = strconv.AppendUint(out, b.seqs[ord], 10)
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

// appendString writes a string as json.Marshal does, most of them by copying:
// a block has hundreds, and is written for every address.
func appendString(out []byte, s string) []byte {
	for i := range len(s) {
		if c := s[i]; c < ' ' || c > '~' || c == '"' || c == '\\' || c == '<' || c == '>' || c == '&' {
			quoted, _ := json.Marshal(s) // a string always marshals
			return append(out, quoted...)
		}
	}
	return append(append(append(out, '"'), s...), '"')
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

// parseAttributes reads the attributes of a block. Fields that we do not know
// are kept.
func parseAttributes(value []byte) (out []Attribute, err error) {
	err = eachItem(value, func(value []byte) error {
		var a Attribute
		err := eachField(value, func(name string, value []byte) error {
			var err error
			switch name {
			case "handle_id":
				a.Handle, err = unquote(value)
			case "secondary":
				a.Owner, err = stringMap(value)
			case "alternate", "alternateOwnerAttrs": // the latter in Kubernetes resources
				a.Alternate, err = stringMap(value)
			case "releasedAt":
				a.ReleasedAt, err = parseTime(value)
			default:
				a.extra = withExtra(a.extra, name, value)
			}
			return err
		})
		out = append(out, a)
		return err
	})
	return out, err
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
			out = append(out, '{')
			for i, key := range slices.Sorted(maps.Keys(m)) {
				if i > 0 {
					out = append(out, ',')
				}
				out = append(appendString(out, key), ':')
				out = appendString(out, m[key])
			}
			out = append(out, '}')
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

// parseTime reads a time; null and "" are none.
func parseTime(value []byte) (t time.Time, err error) {
	if s := string(value); s != "null" && s != `""` {
		err = t.UnmarshalJSON(value)
	}
	return t, err
}

// parseSlots reads the allocations of a block.
func parseSlots(value []byte) (out []int, err error) {
	err = eachItem(value, func(value []byte) error {
		if isNull(value) {
			out = append(out, free)
			return nil
		}
		n, err := number(value)
		if err != nil {
			return fmt.Errorf("%q is neither null nor the index of an attribute", value)
		}
		out = append(out, n)
		return nil
	})
	return out, err
}

func parseNumbers(value []byte) (out []int, err error) {
	err = eachItem(value, func(value []byte) error {
		n, err := number(value)
		out = append(out, n)
		return err
	})
	return out, err
}

func (b *Block) parseSequences(value []byte) error {
	return eachField(value, func(name string, value []byte) error {
		ord, err := strconv.Atoi(name)
		if err != nil || strconv.Itoa(ord) != name {
			return fmt.Errorf("%q is not the number of an address", name)
		}
		b.seqs[ord], err = strconv.ParseUint(string(value), 10, 64)
		return err
	})
}
