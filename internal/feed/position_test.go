package feed

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/brindle-net/brindle/internal/store"
	"github.com/brindle-net/brindle/internal/store/mem"
)

// TestPosition: a change has arrived when it has come from the datastore, and
// is handed over when the sink has returned from it; one that no host needs,
// and one that came by a listing, no less.
func TestPosition(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d, status, open := mem.New(), &Status{}, make(chan bool)
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		if _, there, err := status.Arrived(d, store.ResourceRoot, "1"); there || err != nil {
			t.Errorf("before the start: %v, %v", there, err)
		}
		go func() {
			done <- Run(ctx, Config{Driver: d, Node: "me", Status: status}, func(Batch) { <-open })
		}()
		synctest.Wait() // the sink holds the first batch
		through := func(p Position) bool {
			short, stop := context.WithTimeout(t.Context(), time.Second)
			defer stop()
			return status.HandedOver(short, p) == nil
		}
		write := func(key, value string) store.Revision {
			t.Helper()
			put(t, d, key, value)
			kv, err := d.Get(t.Context(), key)
			if err != nil {
				t.Fatal(err)
			}
			return kv.Revision
		}
		at := write(store.ResourceID{Plural: "nodes", Name: "n"}.Key(), nodeJSON(1))
		synctest.Wait()
		p, there, err := status.Arrived(d, store.ResourceRoot, at)
		if !there || err != nil {
			t.Fatalf("arrived: %v, %v", there, err)
		}
		if through(p) {
			t.Error("handed over although the sink holds the batch before")
		}
		if _, there, _ := status.Arrived(d, store.ResourceRoot, at+"0"); there {
			t.Error("a change that was not made has arrived")
		}
		if _, _, err := status.Arrived(struct{ store.Driver }{d}, store.ResourceRoot, at); err == nil {
			t.Error("a datastore without an order has one")
		}
		open <- true
		synctest.Wait()
		if through(p) {
			t.Error("handed over although the sink holds it")
		}
		close(open)
		if !through(p) {
			t.Error("not handed over")
		}
		for key, root := range map[string]string{ // neither leads to an event
			store.ResourceRoot + "unknown/x": store.ResourceRoot, store.BlockRoot + "x": store.BlockRoot,
		} {
			at := write(key, "{}")
			synctest.Wait()
			if p, there, err := status.Arrived(d, root, at); !there || err != nil || !through(p) {
				t.Errorf("%s: %v, %v", key, there, err)
			}
		}
		cancel()
		<-done
	})
}
