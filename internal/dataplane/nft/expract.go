package nft

import "golang.org/x/sys/unix"

// counter counts packets and bytes in the rule itself.
type counter struct{ packets, bytes uint64 }

func (counter) kind() string { return "counter" }

func (e counter) encode(b *batch) {
	b.u64(unix.NFTA_COUNTER_BYTES, e.bytes)
	b.u64(unix.NFTA_COUNTER_PACKETS, e.packets)
}

func (r *reader) counter(data []byte) expr {
	var e counter
	r.attrs(data, func(kind uint16, v []byte) {
		switch kind {
		case unix.NFTA_COUNTER_BYTES:
			e.bytes = r.u64(v)
		case unix.NFTA_COUNTER_PACKETS:
			e.packets = r.u64(v)
		}
	})
	return e
}

// objref counts in a counter that has a name, or in that which an object map
// holds for a key.
type objref struct {
	object uint32 // NFT_OBJECT_
	name   string
	set    string // instead of object and name
	key    reg
}

func (objref) kind() string { return "objref" }

func (e objref) encode(b *batch) {
	if e.set != "" {
		b.u32(unix.NFTA_OBJREF_SET_SREG, e.key.wire())
		b.text(unix.NFTA_OBJREF_SET_NAME, e.set)
		return
	}
	b.u32(unix.NFTA_OBJREF_IMM_TYPE, e.object)
	b.text(unix.NFTA_OBJREF_IMM_NAME, e.name)
}

func (r *reader) objref(data []byte) expr {
	var e objref
	r.attrs(data, func(kind uint16, v []byte) {
		switch kind {
		case unix.NFTA_OBJREF_IMM_TYPE:
			e.object = r.u32(v)
		case unix.NFTA_OBJREF_IMM_NAME:
			e.name = r.text(v)
		case unix.NFTA_OBJREF_SET_SREG:
			e.key = r.reg(v)
		case unix.NFTA_OBJREF_SET_NAME:
			e.set = r.text(v)
		}
	})
	return e
}

// log writes the packet to the kernel's log, or hands it to who listens to an
// NFLOG group.
type log struct {
	prefix    string
	toGroup   bool
	group     uint16
	snaplen   uint32 // bytes of the packet that the group gets; 0: all
	threshold uint16 // packets that the group gets at once
	level     uint32 // of syslog(3); not for a group
	flags     uint32
}

// logLevel is what the kernel takes a log without a level for: warning.
const logLevel = 4

func (log) kind() string { return "log" }

func (e log) encode(b *batch) {
	if e.prefix != "" {
		b.text(unix.NFTA_LOG_PREFIX, e.prefix)
	}
	if !e.toGroup {
		b.u32(unix.NFTA_LOG_LEVEL, e.level)
		b.u32(unix.NFTA_LOG_FLAGS, e.flags)
		return
	}
	b.u16(unix.NFTA_LOG_GROUP, e.group)
	if e.snaplen != 0 {
		b.u32(unix.NFTA_LOG_SNAPLEN, e.snaplen)
	}
	if e.threshold != 0 {
		b.u16(unix.NFTA_LOG_QTHRESHOLD, e.threshold)
	}
}

func (r *reader) log(data []byte) expr {
	e := log{level: logLevel}
	r.attrs(data, func(kind uint16, v []byte) {
		switch kind {
		case unix.NFTA_LOG_PREFIX:
			e.prefix = r.text(v)
		case unix.NFTA_LOG_GROUP:
			e.toGroup, e.group = true, r.u16(v)
		case unix.NFTA_LOG_SNAPLEN:
			e.snaplen = r.u32(v)
		case unix.NFTA_LOG_QTHRESHOLD:
			e.threshold = r.u16(v)
		case unix.NFTA_LOG_LEVEL:
			e.level = r.u32(v)
		case unix.NFTA_LOG_FLAGS:
			e.flags = r.u32(v)
		}
	})
	if e.toGroup {
		e.level, e.flags = 0, 0
	}
	return e
}

// reject drops the packet and tells the sender.
type reject struct {
	with uint32 // NFT_REJECT_
	icmp uint8
}

func (reject) kind() string { return "reject" }

func (e reject) encode(b *batch) {
	b.u32(unix.NFTA_REJECT_TYPE, e.with)
	if e.with != unix.NFT_REJECT_TCP_RST {
		b.u8(unix.NFTA_REJECT_ICMP_CODE, e.icmp)
	}
}

func (r *reader) reject(data []byte) expr {
	var e reject
	r.attrs(data, func(kind uint16, v []byte) {
		switch kind {
		case unix.NFTA_REJECT_TYPE:
			e.with = r.u32(v)
		case unix.NFTA_REJECT_ICMP_CODE:
			e.icmp = r.u8(v)
		}
	})
	return e
}

// notrack keeps the packet out of connection tracking.
type notrack struct{}

func (notrack) kind() string  { return "notrack" }
func (notrack) encode(*batch) {}
