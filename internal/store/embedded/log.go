package embedded

import (
	"context"
	"log/slog"
	"maps"
	"slices"
	"sync/atomic"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
)

// harmless are messages that etcd logs as warnings or errors in the course of
// a normal start or stop.
var harmless = map[string]bool{
	"Failed to detect schema version":                                                                    true, // of data that is seconds old
	"failed to update storage version":                                                                   true, // tried again each 4 s
	"cannot detect storage schema version":                                                               true,
	"Running http and grpc server on single port. This is not recommended for production.":               true,
	"simple token is not cryptographically signed":                                                       true,
	"scheme is http or unix while --client-cert-auth is enabled; ignoring client cert auth for this URL": true, // the socket: guard.go knows who calls
	"scheme is http or unix while key and cert files are present; ignoring key and cert files":           true, // the socket needs none
	"failed to detect default host":                                                                      true,
	"serving client traffic insecurely; this is strongly discouraged!":                                   true, // on a socket of mode 0600
}

// logCore passes etcd's log on to slog, as debug unless a human may want to
// know: etcd tells much that is of interest to its authors only.
type logCore struct {
	log     *slog.Logger
	fields  []zapcore.Field
	closing *atomic.Bool // connections break, and that is no news
}

func newLogCore(log *slog.Logger) *logCore {
	return &logCore{log: log, closing: new(atomic.Bool)}
}

func (c *logCore) logger() *zap.Logger { return zap.New(c) }

// close makes everything from now on debug.
func (c *logCore) close() { c.closing.Store(true) }

// level translates a level; the message decides for a few.
func (c *logCore) level(e zapcore.Entry) slog.Level {
	switch {
	case e.Level > zapcore.ErrorLevel:
		return slog.LevelError
	case c.closing.Load() || harmless[e.Message] || e.Level < zapcore.WarnLevel:
		return slog.LevelDebug
	case e.Level == zapcore.WarnLevel:
		return slog.LevelWarn
	}
	return slog.LevelError
}

// Enabled implements zapcore.Core.
func (c *logCore) Enabled(l zapcore.Level) bool {
	return l >= zapcore.WarnLevel || c.log.Enabled(context.Background(), slog.LevelDebug)
}

// With implements zapcore.Core.
func (c *logCore) With(fields []zapcore.Field) zapcore.Core {
	return &logCore{log: c.log, fields: slices.Concat(c.fields, fields), closing: c.closing}
}

// Check implements zapcore.Core.
func (c *logCore) Check(e zapcore.Entry, ce *zapcore.CheckedEntry) *zapcore.CheckedEntry {
	if c.Enabled(e.Level) {
		return ce.AddCore(e, c)
	}
	return ce
}

// Write implements zapcore.Core.
func (c *logCore) Write(e zapcore.Entry, fields []zapcore.Field) error {
	enc := zapcore.NewMapObjectEncoder()
	for _, f := range slices.Concat(c.fields, fields) {
		f.AddTo(enc)
	}
	attrs := []slog.Attr{slog.String("message", e.Message)}
	for _, key := range slices.Sorted(maps.Keys(enc.Fields)) {
		attrs = append(attrs, slog.Any(key, enc.Fields[key]))
	}
	c.log.LogAttrs(context.Background(), c.level(e), "etcd says", attrs...)
	return nil
}

// Sync implements zapcore.Core.
func (c *logCore) Sync() error { return nil }
