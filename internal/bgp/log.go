package bgp

import (
	"context"
	"log/slog"
	"sync/atomic"
)

// engineLog hands what the engine logs to our log, one level lower and under
// one message: its words are not ours and tell of every connection. What
// matters of it is told again by the session's state.
type engineLog struct {
	to     slog.Handler
	mute   *atomic.Bool
	isDeaf *atomic.Bool // the engine has stopped listening
	wake   func()       // called then; must not wait
}

// notListening is what the engine says when accepting a connection fails, for
// want of file descriptors for one. It never listens on that socket again, and
// says so nowhere else.
const notListening = "Failed to AcceptTCP"

// Enabled says whether a record of this level would be kept.
func (h *engineLog) Enabled(ctx context.Context, level slog.Level) bool {
	return !h.mute.Load() && (level >= slog.LevelWarn || h.to.Enabled(ctx, lower(level)))
}

// Handle keeps a record.
func (h *engineLog) Handle(ctx context.Context, r slog.Record) error {
	if r.Message == notListening {
		h.isDeaf.Store(true)
		h.wake()
	}
	if !h.to.Enabled(ctx, lower(r.Level)) {
		return nil
	}
	out := slog.NewRecord(r.Time, lower(r.Level), "bgp engine", r.PC)
	out.AddAttrs(slog.String("event", r.Message))
	r.Attrs(func(a slog.Attr) bool {
		out.AddAttrs(a)
		return true
	})
	return h.to.Handle(ctx, out)
}

// WithAttrs adds attributes to all records.
func (h *engineLog) WithAttrs(attrs []slog.Attr) slog.Handler {
	return &engineLog{to: h.to.WithAttrs(attrs), mute: h.mute, isDeaf: h.isDeaf, wake: h.wake}
}

// WithGroup puts all attributes in a group.
func (h *engineLog) WithGroup(name string) slog.Handler {
	return &engineLog{to: h.to.WithGroup(name), mute: h.mute, isDeaf: h.isDeaf, wake: h.wake}
}

// lower makes warnings of errors and keeps warnings; all else is for debugging.
func lower(l slog.Level) slog.Level {
	if l >= slog.LevelWarn {
		return slog.LevelWarn
	}
	return slog.LevelDebug
}
