package etcd_test

import (
	"log/slog"
	"os"
	"path/filepath"
	"testing"

	"github.com/brindle-net/brindle/internal/store/embedded"
	"github.com/brindle-net/brindle/internal/store/etcd"
	"github.com/brindle-net/brindle/internal/store/storetest"
)

// startServer runs an etcd for one test. The folder is short because the path
// of a unix socket must be.
func startServer(t *testing.T) *embedded.Server {
	t.Helper()
	dir, err := os.MkdirTemp("", "be")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	s, err := embedded.Start(t.Context(), embedded.Config{
		Dir: filepath.Join(dir, "d"), UnsafeNoFsync: true, History: -1,
		Log: slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelInfo})),
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

func connect(t *testing.T, cfg etcd.Config) *etcd.Driver {
	t.Helper()
	d, err := etcd.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := d.Close(); err != nil {
			t.Error(err)
		}
	})
	return d
}

func TestConformance(t *testing.T) {
	tests := []struct {
		name string
		cfg  etcd.Config
	}{
		{"plain", etcd.Config{}},
		{"small pages below a prefix", etcd.Config{PageSize: 7, Prefix: "/network-a"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			storetest.Run(t, func(t *testing.T) storetest.Fixture {
				s := startServer(t)
				tt.cfg.Endpoints = []string{s.Endpoint()}
				compact := func() {
					if err := s.Compact(t.Context()); err != nil {
						t.Error(err)
					}
				}
				return storetest.Fixture{Driver: connect(t, tt.cfg), Compact: compact}
			})
		})
	}
}
