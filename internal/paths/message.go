package paths

import (
	"bytes"
	"encoding/binary"
	"hash/crc32"
)

// A message is a datagram of the probes: a header and, in a question, a
// filling up to the size that is asked about. An answer is the header alone,
// so that it is never larger than the question.
type message struct {
	kind  kind
	nonce uint64 // of the question
	size  uint32 // question: of itself; answer: of the question as it came; bytes
	sum   uint32 // CRC-32C of the filling as it was made
	whole bool   // answer: the filling came as it was made
}

// kind is what a message is for.
type kind uint8

const (
	question kind = iota + 1
	answer
	knock // a question that also asks to be let in by TCP
)

const (
	magic      = "BRNP"
	version    = 1
	headerSize = 32
)

// put writes a question of a size, or an answer, which has that of the header.
func (m message) put(size int) []byte {
	b := make([]byte, max(size, headerSize))
	fill(b[headerSize:], m.nonce)
	copy(b, magic)
	b[4], b[5] = version, byte(m.kind)
	if m.whole {
		b[6] = 1
	}
	binary.BigEndian.PutUint64(b[8:], m.nonce)
	if m.kind != answer {
		m.size, m.sum = uint32(len(b)), sumOf(b[headerSize:])
	}
	binary.BigEndian.PutUint32(b[16:], m.size)
	binary.BigEndian.PutUint32(b[20:], m.sum)
	binary.BigEndian.PutUint32(b[24:], sumOf(b[:24]))
	return b
}

// parse reads a message; false: it is none, or its header was changed.
func parse(b []byte) (message, bool) {
	if len(b) < headerSize || !bytes.Equal(b[:4], []byte(magic)) || b[4] != version || binary.BigEndian.Uint32(b[24:]) != sumOf(b[:24]) {
		return message{}, false
	}
	return message{
		kind: kind(b[5]), whole: b[6] == 1, nonce: binary.BigEndian.Uint64(b[8:]),
		size: binary.BigEndian.Uint32(b[16:]), sum: binary.BigEndian.Uint32(b[20:]),
	}, true
}

// intact reports whether a question came as it was sent.
func (m message) intact(b []byte) bool {
	return int(m.size) == len(b) && sumOf(b[headerSize:]) == m.sum
}

// sumOf is the checksum of the probes' own.
func sumOf(b []byte) uint32 { return crc32.Checksum(b, crc32.MakeTable(crc32.Castagnoli)) }

// fill writes bytes that no two questions share (splitmix64).
func fill(b []byte, seed uint64) {
	for i := range b {
		if i%8 == 0 {
			seed += 0x9e3779b97f4a7c15
		}
		z := seed
		z = (z ^ z>>30) * 0xbf58476d1ce4e5b9
		z = (z ^ z>>27) * 0x94d049bb133111eb
		b[i] = byte((z ^ z>>31) >> (i % 8 * 8))
	}
}
