package nft

import (
	"bytes"
	"fmt"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/brindle-net/brindle/internal/dataplane/rules"
)

// Registers of a decision. The key of rows begins with class and group; the far
// address is behind the key.
const (
	decisionWindow, decisionWord = reg(0), reg(1)
	askedWord                    = reg(4)
	keyWindow, keyWord           = reg(8), reg(9)
	farWords                     = reg(12)
)

// decide looks up a decision in registers alone.
func (l *lowered) decide(s rules.Decide) ([]expr, error) {
	if err := l.decides(s); err != nil {
		return nil, err
	}
	list := window(keyWindow, s.Group)
	if s.Classes != "" {
		far, err := loadField(s.Far, farWords)
		if err != nil {
			return nil, err
		}
		list = append(append(list, far...), lookup{set: s.Classes, from: farWords, to: keyWord + 1, load: true})
		list = append(append(list, slide(keyWindow)...), bitwise{
			from: keyWindow, to: keyWindow, size: windowBytes,
			mask: bytes.Repeat([]byte{0xff}, windowBytes), xor: inWindow(s.Group),
		})
	}
	at := keyWord + 1
	for _, f := range s.Fields {
		made, err := loadField(f, at)
		if err != nil {
			return nil, err
		}
		list = append(list, made...)
		at += reg(padded(f.Type().Size()) / 4)
	}
	list = append(append(list, window(decisionWindow, 0)...), meta{key: unix.NFT_META_MARK, reg: decisionWord},
		lookup{set: s.Rows, from: keyWord, to: decisionWord + 1, load: true})
	list = append(list, slide(decisionWindow)...)
	if s.Mask != 0 {
		list = append(list,
			bitwise{from: decisionWord, to: askedWord, size: 4, mask: native.AppendUint32(nil, s.Mask), xor: make([]byte, 4)},
			comparison{op: unix.NFT_CMP_EQ, from: askedWord, value: native.AppendUint32(nil, s.Is)})
	}
	if s.Counted != "" {
		list = append(list, objref{set: s.Counted, key: decisionWord})
	}
	return list, nil
}

// A window is three words, of which slide moves each to the one before. nft(8)
// knows the length of what a register was loaded with, but not of what was
// looked up into one, and comes to grief over a key made of that. It follows
// registers by number only. So what is looked up is moved to where it has seen
// something else: for a decision the mark, of which it then believes that the
// rule asks. What it lists so it can read again, and the driver repairs.
const windowBytes = 12

// window fills a window with zeroes, and the word in the middle with a number.
func window(at reg, number uint32) []expr {
	return []expr{
		immediate{to: at, value: make([]byte, windowBytes)},
		immediate{to: at + 1, value: native.AppendUint32(nil, number)},
	}
}

// inWindow is a number in the middle word.
func inWindow(number uint32) []byte {
	return append(native.AppendUint32(make([]byte, 4), number), make([]byte, 4)...)
}

// slide moves the words of a window.
func slide(at reg) []expr {
	half := bitwise{from: at, to: at, size: windowBytes, op: bitwiseLeft, shift: native.AppendUint32(nil, 16)}
	return []expr{half, half}
}

// decides reports whether the maps are such that a decision can be looked up.
func (l *lowered) decides(s rules.Decide) error {
	row := []rules.Type{rules.MarkType}
	for _, f := range s.Fields {
		row = append(row, f.Type())
	}
	asked := map[string]rules.Set{
		s.Rows: {Key: row, Value: rules.NumberValue},
	}
	if s.Counted != "" {
		asked[s.Counted] = rules.Set{Key: row[:1], Value: rules.CounterValue}
	}
	if s.Classes != "" {
		asked[s.Classes] = rules.Set{Key: []rules.Type{s.Far.Type()}, Value: rules.NumberValue}
	}
	for name, want := range asked {
		have, ok := l.sets(name)
		if !ok || have.Value != want.Value || !slices.Equal(have.Key, want.Key) || have.Interval && number(have.Key[0]) {
			return fmt.Errorf("a decision by %s: %w", name, errNoForm)
		}
	}
	return nil
}
