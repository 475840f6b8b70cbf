package capture

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"time"
)

// The magic numbers of capture files: with times in nanoseconds and in
// microseconds.
const (
	magicNano  = 0xa1b23c4d
	magicMicro = 0xa1b2c3d4
)

// snapLen is the most bytes of a packet that a file holds.
const snapLen = 262144

// A Writer writes a capture file with times in nanoseconds (the format of
// libpcap, version 2.4).
type Writer struct{ w io.Writer }

// NewWriter begins a file of frames of one link.
func NewWriter(w io.Writer, link Link) (*Writer, error) {
	h := make([]byte, 24)
	binary.LittleEndian.PutUint32(h, magicNano)
	binary.LittleEndian.PutUint16(h[4:], 2)
	binary.LittleEndian.PutUint16(h[6:], 4)
	binary.LittleEndian.PutUint32(h[16:], snapLen)
	binary.LittleEndian.PutUint32(h[20:], uint32(link))
	if _, err := w.Write(h); err != nil {
		return nil, fmt.Errorf("begin the capture file: %w", err)
	}
	return &Writer{w}, nil
}

// Write adds a frame, in one write: the file is whole after each.
func (w *Writer) Write(f Frame) error {
	data := f.Data[:min(len(f.Data), snapLen)]
	b := make([]byte, 16, 16+len(data))
	binary.LittleEndian.PutUint32(b, uint32(f.Time.Unix()))
	binary.LittleEndian.PutUint32(b[4:], uint32(f.Time.Nanosecond()))
	binary.LittleEndian.PutUint32(b[8:], uint32(len(data)))
	binary.LittleEndian.PutUint32(b[12:], uint32(max(f.Length, len(data))))
	if _, err := w.w.Write(append(b, data...)); err != nil {
		return fmt.Errorf("write to the capture file: %w", err)
	}
	return nil
}

// A Reader reads a capture file, of either byte order and unit of time.
type Reader struct {
	r     *bufio.Reader
	order binary.ByteOrder
	unit  time.Duration
	link  Link
}

// NewReader reads the head of a capture file.
func NewReader(r io.Reader) (*Reader, error) {
	out := &Reader{r: bufio.NewReader(r)}
	h := make([]byte, 24)
	if _, err := io.ReadFull(out.r, h); err != nil {
		return nil, fmt.Errorf("read the head of the capture file: %w", err)
	}
	for _, order := range []binary.ByteOrder{binary.LittleEndian, binary.BigEndian} {
		switch order.Uint32(h) {
		case magicNano:
			out.order, out.unit = order, time.Nanosecond
		case magicMicro:
			out.order, out.unit = order, time.Microsecond
		}
	}
	if out.order == nil {
		return nil, fmt.Errorf("not a capture file: it begins with % x", h[:4])
	}
	out.link = Link(out.order.Uint32(h[20:]) & 0x0fffffff) // above: length of checksums
	return out, nil
}

// Link is what the file's frames begin with.
func (r *Reader) Link() Link { return r.link }

// Next reads a frame; io.EOF after the last. One that was cut off by the end
// of the file is io.ErrUnexpectedEOF.
func (r *Reader) Next() (Frame, error) {
	h := make([]byte, 16)
	if _, err := io.ReadFull(r.r, h); err != nil {
		if errors.Is(err, io.EOF) {
			return Frame{}, io.EOF
		}
		return Frame{}, fmt.Errorf("read from the capture file: %w", err)
	}
	size := r.order.Uint32(h[8:])
	if size > snapLen {
		return Frame{}, fmt.Errorf("the capture file is damaged: a packet of %d bytes", size)
	}
	f := Frame{
		Time: time.Unix(int64(r.order.Uint32(h)), int64(r.order.Uint32(h[4:]))*int64(r.unit)),
		Data: make([]byte, size), Length: int(r.order.Uint32(h[12:])),
	}
	if _, err := io.ReadFull(r.r, f.Data); err != nil {
		return Frame{}, fmt.Errorf("read from the capture file: %w", io.ErrUnexpectedEOF)
	}
	return f, nil
}
