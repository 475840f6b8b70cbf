package nft

import (
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/brindle-net/brindle/internal/dataplane/rules"
)

// load puts the values of fields into the registers from the first on, each
// at the beginning of a word. mask is for marks; 0 leaves them whole.
func load(fields []rules.Field, mask uint32) ([]expr, error) {
	var list []expr
	at, bytes := reg(0), 0
	for _, f := range fields {
		made, err := loadField(f, at)
		if err != nil {
			return nil, err
		}
		list = append(list, made...)
		if f.Type() == rules.MarkType && mask != 0 && mask != allOnes {
			list = append(list, masked(at, mask, 0))
		}
		at += reg(padded(f.Type().Size()) / 4)
		if bytes += padded(f.Type().Size()); bytes > regBytes {
			return nil, fmt.Errorf("fields of %d bytes: %w", bytes, errNoForm)
		}
	}
	return list, nil
}

// masked computes (at & mask) ^ xor on a mark.
func masked(at reg, mask, xor uint32) expr {
	return bitwise{
		from: at, to: at, size: 4,
		mask: native.AppendUint32(nil, mask), xor: native.AppendUint32(nil, xor),
	}
}

// loadField puts the value of a field into a register.
func loadField(f rules.Field, at reg) ([]expr, error) {
	const (
		link, ip, transport = unix.NFT_PAYLOAD_LL_HEADER, unix.NFT_PAYLOAD_NETWORK_HEADER, unix.NFT_PAYLOAD_TRANSPORT_HEADER
	)
	part := func(base, offset uint32) []expr {
		return []expr{payload{to: at, base: base, offset: offset, size: uint32(f.Type().Size())}}
	}
	known := func(key uint32) []expr { return []expr{meta{key: key, reg: at}} }
	switch f {
	case rules.InInterface:
		return known(unix.NFT_META_IIFNAME), nil
	case rules.OutInterface:
		return known(unix.NFT_META_OIFNAME), nil
	case rules.Family:
		return known(unix.NFT_META_NFPROTO), nil
	case rules.Protocol:
		return known(unix.NFT_META_L4PROTO), nil
	case rules.Mark:
		return known(unix.NFT_META_MARK), nil
	case rules.ConnMark:
		return []expr{ct{key: unix.NFT_CT_MARK, reg: at, dir: -1}}, nil
	case rules.EthSource:
		return part(link, 6), nil
	case rules.Source4:
		return part(ip, 12), nil
	case rules.Destination4:
		return part(ip, 16), nil
	case rules.Source6:
		return part(ip, 8), nil
	case rules.Destination6:
		return part(ip, 24), nil
	case rules.SourcePort, rules.ICMPType:
		return part(transport, 0), nil
	case rules.DestinationPort:
		return part(transport, 2), nil
	case rules.ICMPCode:
		return part(transport, 1), nil
	case rules.NDTarget:
		return part(transport, 8), nil
	case rules.About4: // behind eight bytes of ICMP, at 16 in the header that follows
		return part(transport, 24), nil
	case rules.About6:
		return part(transport, 32), nil
	case rules.VNI: // behind eight bytes of UDP, and flags
		return part(transport, 12), nil
	case rules.SourceIs:
		return []expr{fib{to: at, result: unix.NFT_FIB_RESULT_ADDRTYPE, flags: unix.NFTA_FIB_F_SADDR}}, nil
	case rules.DestinationIs:
		return []expr{fib{to: at, result: unix.NFT_FIB_RESULT_ADDRTYPE, flags: unix.NFTA_FIB_F_DADDR}}, nil
	case rules.SourceBy:
		return []expr{fib{to: at, result: unix.NFT_FIB_RESULT_OIF, flags: unix.NFTA_FIB_F_SADDR | unix.NFTA_FIB_F_IIF}}, nil
	case rules.ARPOp:
		return part(ip, 6), nil
	case rules.ARPMAC:
		return part(ip, 8), nil
	case rules.ARPSource:
		return part(ip, 14), nil
	}
	return nil, fmt.Errorf("field %v here: %w", f, errNoForm)
}

// statement translates what a rule does.
func (l *lowered) statement(s rules.Statement) ([]expr, error) {
	ends := func(v verdict) []expr { return []expr{immediate{verdict: &v}} }
	switch s := s.(type) {
	case rules.Count:
		return []expr{objref{object: unix.NFT_OBJECT_COUNTER, name: s.Counter}}, nil
	case rules.Limit:
		return []expr{limit{rate: uint64(s.Rate), unit: uint64(s.Seconds), burst: s.Burst}}, nil
	case rules.Log:
		if s.Group == 0 {
			return []expr{log{prefix: s.Prefix, level: logLevel}}, nil
		}
		return []expr{log{prefix: s.Prefix, toGroup: true, group: s.Group}}, nil
	case rules.SetMark:
		return []expr{
			meta{key: unix.NFT_META_MARK}, masked(0, ^s.Mask, s.Value&s.Mask), meta{key: unix.NFT_META_MARK, set: true},
		}, nil
	case rules.Jump:
		return ends(verdict{jump, s.Chain}), nil
	case rules.Goto:
		return ends(verdict{goTo, s.Chain}), nil
	case rules.Dispatch:
		return l.byMap(s.Fields, s.Map, rules.ChainValue, lookup{set: s.Map, verdict: true})
	case rules.MarkBy:
		return l.byMap(s.Fields, s.Map, rules.NumberValue, lookup{set: s.Map, load: true}, meta{key: unix.NFT_META_MARK, set: true})
	case rules.CountBy:
		return l.byMap(s.Fields, s.Map, rules.CounterValue, objref{set: s.Map})
	case rules.Decide:
		return l.decide(s)
	case rules.SourceNAT:
		return newSource(s)
	case rules.Untrack:
		return []expr{notrack{}}, nil
	case rules.Offload:
		return []expr{flowAdd{s.Flowtable}}, nil
	case rules.Return:
		return ends(verdict{code: goReturn}), nil
	case rules.Accept:
		return ends(verdict{code: accept}), nil
	case rules.Drop:
		return ends(verdict{code: drop}), nil
	case rules.Reject:
		const adminProhibited = unix.NFT_REJECT_ICMPX_ADMIN_PROHIBITED
		return []expr{reject{with: unix.NFT_REJECT_ICMPX_UNREACH, icmp: adminProhibited}}, nil
	}
	return nil, fmt.Errorf("statement %v: %w", s, errNoForm)
}

func (l *lowered) byMap(fields []rules.Field, set string, v rules.Value, then ...expr) ([]expr, error) {
	list, err := l.loadKey(rules.Match{Fields: fields, Set: set}, v)
	return append(list, then...), err
}

// loadKey puts the key to look up in a set into the registers. v is what the
// set's elements must have beside their key: a kernel before 6.2 takes no map
// for a set.
func (l *lowered) loadKey(m rules.Match, v rules.Value) ([]expr, error) {
	list, err := load(m.Fields, m.Mask)
	if err != nil {
		return nil, err
	}
	s, ok := l.sets(m.Set)
	switch {
	case !ok:
		return nil, fmt.Errorf("no set %s: %w", m.Set, errNoForm)
	case s.Value != v && v == rules.NoValue:
		return nil, fmt.Errorf("%s is a map, asked for a member: %w", m.Set, errNoForm)
	case s.Value != v:
		return nil, fmt.Errorf("%s is no such map: %w", m.Set, errNoForm)
	case len(m.Fields) != len(s.Key):
		return nil, fmt.Errorf("set %s is asked for %d fields, not %d: %w", m.Set, len(m.Fields), len(s.Key), errNoForm)
	}
	for i, f := range m.Fields {
		if f.Type() != s.Key[i] || f == rules.Family {
			return nil, fmt.Errorf("set %s is asked for %v: %w", m.Set, f, errNoForm)
		}
	}
	if s.Interval && len(s.Key) == 1 && number(s.Key[0]) {
		list = append(list, toNetwork)
	}
	return list, nil
}
