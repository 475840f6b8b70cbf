package lab

import (
	"context"
	"net"
	"net/http"
	"path/filepath"
	"testing"
)

func TestControlWaitsForOrdersUnderWay(t *testing.T) {
	l, err := net.Listen("unix", filepath.Join(t.TempDir(), "c.sock"))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	began, left := make(chan struct{}), false
	c := &control{cancel: cancel, srv: &http.Server{
		BaseContext: func(net.Listener) context.Context { return ctx },
		Handler: http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
			close(began)
			<-r.Context().Done()
			left = true // it has taken back what it made
		}),
	}}
	go func() { _ = c.srv.Serve(l) }()
	go func() {
		hc := http.Client{Transport: &http.Transport{DialContext: func(context.Context, string, string) (net.Conn, error) {
			return net.Dial("unix", l.Addr().String())
		}}}
		if resp, err := hc.Get("http://lab/"); err == nil {
			resp.Body.Close()
		}
	}()
	<-began
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	if !left {
		t.Error("closed while an order was under way")
	}
}
