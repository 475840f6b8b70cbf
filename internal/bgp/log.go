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
	to   slog.Handler
	mute *atomic.Bool
}

// Enabled says whether a record of this level would be kept.
func (h *engineLog) Enabled(ctx context.Context, level slog.Level) bool {
	return !h.mute.Load() && h.to.Enabled(ctx, lower(level))
}

// Handle keeps a record.
func (h *engineLog) Handle(ctx context.Context, r slog.Record) error {
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
	return &engineLog{to: h.to.WithAttrs(attrs), mute: h.mute}
}

// WithGroup puts all attributes in a group.
func (h *engineLog) WithGroup(name string) slog.Handler {
	return &engineLog{to: h.to.WithGroup(name), mute: h.mute}
}

// lower makes warnings of errors and keeps warnings; all else is for debugging.
func lower(l slog.Level) slog.Level {
	if l >= slog.LevelWarn {
		return slog.LevelWarn
	}
	return slog.LevelDebug
}
