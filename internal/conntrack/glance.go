package conntrack

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"strconv"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/brindle-net/brindle/internal/kernel/rtnl"
	"github.com/brindle-net/brindle/internal/netns"
)

// glancePath is the table of connections as text (proc(5), CONFIG_NF_CONNTRACK_PROCFS).
// The kernel goes through its buckets for that without their locks.
const glancePath = "/proc/thread-self/net/nf_conntrack"

// mostGlanced is how many connections are read as text: of more, the text
// costs what the locks do.
const mostGlanced = 1 << 12

// A text is the open file of the table as text; nil where the kernel has none
// that is worth reading.
type text struct {
	mu   sync.Mutex // guards everything below: one reader at a time
	file *os.File
	buf  []byte
}

// openText opens the text of ns, nil for the calling thread's namespace.
func openText(ns *netns.NS) *text {
	var u unix.Utsname
	if unix.Uname(&u) != nil || !resumes(unix.ByteSliceToString(u.Release[:])) {
		return nil
	}
	var file *os.File
	open := func() (err error) {
		file, err = os.Open(glancePath)
		return err
	}
	var err error
	if ns == nil {
		err = open()
	} else {
		err = netns.Do(ns, open)
	}
	if err != nil {
		return nil
	}
	return &text{file: file}
}

// resumes reports whether the kernel of a release such as "6.18.1-generic" goes
// on reading at the bucket where it was. Earlier ones begin anew at each page
// and count the entries, so one that goes hides another.
func resumes(release string) bool {
	var major, minor int
	if n, err := fmt.Sscanf(release, "%d.%d", &major, &minor); n != 2 || err != nil {
		return false
	}
	return major > 6 || major == 6 && minor >= 18
}

func (x *text) close() error {
	if x == nil {
		return nil
	}
	return x.file.Close()
}

// Glance is a List that costs a tenth where the kernel can do it and there are
// some thousand connections at most, and is List elsewhere. An entry may be
// missing from it if another one of the same bucket went at that very moment:
// whoever must have all of them asks List later.
func (t *Table) Glance() ([]Entry, error) {
	n, err := t.count()
	if err != nil || n == 0 {
		return nil, err
	}
	if t.text != nil && n <= mostGlanced {
		if out, err := t.text.read(); err == nil {
			return out, nil
		}
	}
	return t.list()
}

// errTooLong says that the table has grown beyond what was meant to be read.
var errTooLong = errors.New("the table of connections has grown")

// read reads all entries.
func (x *text) read() ([]Entry, error) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.buf == nil {
		x.buf = make([]byte, 1<<14) // the kernel gives a page at a time, whole lines only
	}
	var out []Entry
	var at int64
	for kept := 0; ; {
		n, err := x.file.ReadAt(x.buf[kept:], at)
		if err != nil && !errors.Is(err, io.EOF) {
			return nil, fmt.Errorf("read %s: %w", glancePath, err)
		}
		at += int64(n)
		rest, err2 := lines(x.buf[:kept+n], func(line []byte) error {
			e, err := parseLine(line)
			out = append(out, e)
			return err
		})
		switch {
		case err2 != nil:
			return nil, fmt.Errorf("read %s: %w", glancePath, err2)
		case len(out) > 2*mostGlanced || len(rest) == len(x.buf):
			return nil, errTooLong
		case err != nil && len(rest) > 0:
			return nil, fmt.Errorf("read %s: %w", glancePath, rtnl.ErrMalformed)
		case err != nil:
			return out, nil
		}
		kept = copy(x.buf, rest)
	}
}

// lines calls each with the lines that are complete and returns the rest.
func lines(buf []byte, each func([]byte) error) ([]byte, error) {
	for {
		line, rest, found := bytes.Cut(buf, []byte{'\n'})
		if !found {
			return buf, nil
		}
		if err := each(line); err != nil {
			return nil, err
		}
		buf = rest
	}
}

// parseLine reads one connection of the text:
//
//	ipv4 2 udp 17 29 src=A dst=B sport=1 dport=2 [UNREPLIED] src=B dst=A sport=2 dport=1 mark=0 use=1
//
// What there is more in a line is not for us.
func parseLine(line []byte) (Entry, error) {
	var e Entry
	tuples := [...]*Tuple{&e.Orig, &e.Reply}
	seen, protocol := 0, uint8(0)
	field := 0
	for len(line) > 0 {
		var word []byte
		word, line, _ = bytes.Cut(line, []byte{' '})
		if len(word) == 0 {
			continue
		}
		if field++; field == 4 {
			n, err := strconv.ParseUint(string(word), 10, 8)
			if err != nil {
				return e, rtnl.ErrMalformed
			}
			protocol = uint8(n)
		}
		key, value, found := bytes.Cut(word, []byte{'='})
		if !found || field <= 4 {
			continue
		}
		if string(key) == "src" {
			seen++
		}
		if seen == 0 { // what a protocol says of itself
			continue
		}
		if seen > len(tuples) || !e.set(tuples[seen-1], string(key), value) {
			return e, rtnl.ErrMalformed
		}
	}
	e.Orig.Protocol, e.Reply.Protocol = protocol, protocol
	if seen != len(tuples) || !e.Orig.Src.IsValid() || !e.Orig.Dst.IsValid() || !e.Reply.Src.IsValid() || !e.Reply.Dst.IsValid() {
		return e, rtnl.ErrMalformed
	}
	return e, nil
}

// set takes one word of a line, which is about a tuple or the entry, and
// reports whether it could be read.
func (e *Entry) set(t *Tuple, key string, value []byte) bool {
	switch key {
	case "src", "dst":
		a, err := netip.ParseAddr(string(value))
		if key == "src" {
			t.Src = a
		} else {
			t.Dst = a
		}
		return err == nil
	case "sport", "srckey":
		return decimal(value, &t.SrcPort)
	case "dport", "dstkey":
		return decimal(value, &t.DstPort)
	case "id":
		return decimal(value, &t.ICMPID)
	case "type":
		return decimal(value, &t.ICMPType)
	case "code":
		return decimal(value, &t.ICMPCode)
	case "mark":
		return decimal(value, &e.Mark)
	case "zone":
		return decimal(value, &e.Zone)
	case "zone-orig":
		return decimal(value, &e.Orig.Zone)
	case "zone-reply":
		return decimal(value, &e.Reply.Zone)
	}
	return true
}

// decimal reads a number, with 0x in front where the kernel writes that.
func decimal[T uint8 | uint16 | uint32](value []byte, out *T) bool {
	n, err := strconv.ParseUint(string(value), 0, 32)
	*out = T(n)
	return err == nil && uint64(*out) == n
}
