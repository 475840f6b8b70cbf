package lab

import (
	"context"
	"fmt"
	"log/slog"

	"github.com/brindle-net/brindle/internal/server"
	"github.com/brindle-net/brindle/internal/store/etcd"
)

// AuditDir is where a lab keeps its audit log, as long as it lives.
func AuditDir(lab string) string { return server.AuditDir(dir(lab)) }

// startAudit keeps the audit log of a lab until stop is called.
func startAudit(ctx context.Context, lab string, log *slog.Logger) (stop func(), err error) {
	d, err := etcd.New(etcd.Config{Endpoints: []string{Endpoints(lab)}})
	if err != nil {
		return nil, fmt.Errorf("keep the audit log: %w", err)
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx)) // it ends with the datastore
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := server.KeepAudit(ctx, d, server.AuditConfig{Dir: AuditDir(lab), Log: log}); ctx.Err() == nil {
			log.ErrorContext(ctx, "audit log not kept", "err", err)
		}
	}()
	return func() {
		cancel()
		<-done
		_ = d.Close() // nothing is under way
	}, nil
}
