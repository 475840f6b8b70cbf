package nft

import (
	"errors"
	"fmt"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/brindle-net/brindle/internal/dataplane/rules"
)

// errNoForm says that a rule program asks for what nf_tables has no form for.
var errNoForm = errors.New("cannot be said in nftables")

// Types by which nft(8) knows how to show a value; the kernel ignores them.
// A key of several fields has their types one after the other, 6 bits each.
const (
	typeInteger   = 4
	typeAddr4     = 7
	typeAddr6     = 8
	typeMAC       = 9
	typeARPOp     = 11
	typeProtocol  = 12
	typePort      = 13
	typeMark      = 19
	typeICMP      = 14
	typeICMPv6    = 29
	typeICMPCode  = 32
	typeFIB       = 38
	typeICMP6Code = 33
	typeInterface = 41
	typeBits      = 6
)

const (
	maxKey    = 64 // bytes of a key
	allOnes   = ^uint32(0)
	etherType = 1 // ARPHRD_ETHER
)

// nftType returns nft(8)'s number for a type.
func nftType(t rules.Type) uint32 {
	switch t {
	case rules.InterfaceType:
		return typeInterface
	case rules.MACType:
		return typeMAC
	case rules.Addr4Type:
		return typeAddr4
	case rules.Addr6Type:
		return typeAddr6
	case rules.ProtocolType:
		return typeProtocol
	case rules.PortType:
		return typePort
	case rules.MarkType:
		return typeMark
	case rules.ShortType:
		return typeARPOp
	case rules.RouteType:
		return typeFIB
	}
	return typeInteger
}

// hostOrder reports whether the kernel has values of the type in the machine's
// byte order. (To nft(8) a name is also such a value.)
func hostOrder(t rules.Type) bool { return number(t) || t == rules.InterfaceType }

// number reports whether values of the type are numbers in a register.
func number(t rules.Type) bool { return t == rules.MarkType || t == rules.RouteType }

// inRegister turns a value in network order into what a register holds.
func inRegister(t rules.Type, v string) string {
	if !number(t) || len(v) != 4 {
		return v
	}
	return string(native.AppendUint32(nil, network.Uint32([]byte(v))))
}

func padded(n int) int { return (n + 3) &^ 3 }

// key turns values of several types, one after the other, into a key: each
// field fills whole words if there are several.
func key(types []rules.Type, v string) (string, error) {
	if len(types) == 1 && len(v) == types[0].Size() {
		return inRegister(types[0], v), nil
	}
	var b strings.Builder
	for _, t := range types {
		n := t.Size()
		if len(v) < n {
			return "", fmt.Errorf("a key is shorter than its fields: %w", errNoForm)
		}
		b.WriteString(inRegister(t, v[:n]))
		if len(types) > 1 {
			b.WriteString(strings.Repeat("\x00", padded(n)-n))
		}
		v = v[n:]
	}
	if v != "" {
		return "", fmt.Errorf("a key is longer than its fields: %w", errNoForm)
	}
	return b.String(), nil
}

// lowerShape translates the definition of a set.
func lowerShape(s *rules.Set) (*set, error) {
	if len(s.Key) == 0 {
		return nil, fmt.Errorf("set %s has no key: %w", s.Name, errNoForm)
	}
	made := &set{keyOrder: orderNetwork}
	for _, t := range s.Key {
		made.keyType = made.keyType<<typeBits | nftType(t)
		made.keyLen += uint32(padded(t.Size()))
	}
	if len(s.Key) == 1 {
		made.keyLen = uint32(s.Key[0].Size())
		if hostOrder(s.Key[0]) && !s.Interval {
			made.keyOrder = orderHost
		}
	}
	if made.keyLen > maxKey {
		return nil, fmt.Errorf("set %s: a key of %d bytes: %w", s.Name, made.keyLen, errNoForm)
	}
	if s.Interval {
		made.flags |= unix.NFT_SET_INTERVAL
		if len(s.Key) > 1 {
			made.flags |= flagConcat
			for _, t := range s.Key {
				made.fields += string([]byte{byte(padded(t.Size()))})
			}
		}
	}
	switch s.Value {
	case rules.ChainValue:
		made.flags |= unix.NFT_SET_MAP
		made.dataType = verdictType
	case rules.NumberValue:
		made.flags |= unix.NFT_SET_MAP
		made.dataType, made.dataLen, made.dataOrder = typeMark, 4, orderHost
	case rules.CounterValue:
		made.flags |= unix.NFT_SET_OBJECT
		made.object = unix.NFT_OBJECT_COUNTER
	}
	return made, nil
}

// lowerElem appends what the kernel holds of one element, one or two, to a
// list.
func lowerElem(to []member, s *rules.Set, e rules.Element) ([]member, error) {
	lo, err := key(s.Key, e.Lo)
	if err != nil {
		return nil, fmt.Errorf("set %s: %w", s.Name, err)
	}
	var made elem
	switch s.Value {
	case rules.ChainValue:
		made.judges, made.verdict = true, verdict{goTo, e.Name}
	case rules.NumberValue:
		made.data = string(native.AppendUint32(nil, e.Number))
	case rules.CounterValue:
		made.object = e.Name
	}
	if !s.Interval {
		return append(to, member{elemID{key: lo}, made}), nil
	}
	hi, err := key(s.Key, e.Hi)
	if err != nil {
		return nil, fmt.Errorf("set %s: %w", s.Name, err)
	}
	if len(s.Key) > 1 {
		if err := onlyMarks(s, e); err != nil {
			return nil, err
		}
		made.last = hi
		return append(to, member{elemID{key: lo}, made}), nil
	}
	// A mark's interval is compared in network order, as it is in the program.
	to = append(to, member{elemID{key: e.Lo}, made})
	if next, ok := after(e.Hi); ok {
		to = append(to, member{id: elemID{key: next, end: true}})
	}
	return to, nil
}

// onlyMarks refuses a range of marks inside of a key of several fields, which
// the kernel would compare in the machine's byte order.
func onlyMarks(s *rules.Set, e rules.Element) error {
	at := 0
	for _, t := range s.Key {
		n := at + t.Size()
		if number(t) && e.Lo[at:n] != e.Hi[at:n] {
			return fmt.Errorf("set %s: a range of marks beside other fields: %w", s.Name, errNoForm)
		}
		at = n
	}
	return nil
}

// after returns the value that follows v; not ok if v is the last.
func after(v string) (string, bool) {
	b := []byte(v)
	for i := len(b) - 1; i >= 0; i-- {
		if b[i]++; b[i] != 0 {
			return string(b), true
		}
	}
	return "", false
}
