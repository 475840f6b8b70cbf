package cli

import (
	"bytes"
	"context"
	"fmt"
	"runtime"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/brindle-net/brindle/internal/store"
	"github.com/brindle-net/brindle/internal/store/mem"
)

// watching carries out a get with --watch while changes are made, and returns
// what it printed when it was interrupted.
func watching(t *testing.T, args string) (got outcome) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.loadRecording()
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan outcome)
		go func() { done <- w.runContext(ctx, line(args)...) }()
		for _, change := range []string{
			"", "label node n1 a=b", "patch node n2 -p {\"spec\":{\"bgp\":{\"asNumber\":65001}}}", "label node n1 rack- a-", "delete node n2",
		} {
			synctest.Wait()
			if change != "" {
				w.ok(line(change)...)
			}
		}
		synctest.Wait()
		cancel()
		got = <-done
	})
	return got
}

func TestWatch(t *testing.T) {
	for _, c := range []struct{ name, in, want string }{
		{"all", "get nodes --watch", "NAME\nn1\nn2\nn1\nn2\nn1\nn2\n"},
		{"names", "get nodes -w -o name", strings.ReplaceAll("n1 n2 n1 n2 n1 n2 ", "n", "node.projectcalico.org/n")},
		{"changes only", "get nodes --watch-only -o custom-columns=NAME,ASN", "NAME   ASN\nn1     64512\nn2     65001\nn1     64512\nn2     65001\n"},
		{"with what happened", "get nodes --watch --output-watch-events", "EVENT      NAME\nADDED      n1\nADDED      n2\nMODIFIED   n1\nMODIFIED   n2\nMODIFIED   n1\nDELETED    n2\n"},
		{"one", "get node n2 -w --output-watch-events", "EVENT      NAME\nADDED      n2\nMODIFIED   n2\nDELETED    n2\n"},
		{"what matches no more is gone", "get nodes -l rack=r1 -w --output-watch-events", "EVENT      NAME\nADDED      n1\nMODIFIED   n1\nDELETED    n1\n"},
		{"template", "get nodes --watch-only -o go-template={{range.}}{{.Name}};{{end}}", "n1;n2;n1;n2;"},
	} {
		t.Run(c.name, func(t *testing.T) {
			want := c.want
			if c.name == "names" {
				want = strings.ReplaceAll(want, " ", "\n")
			}
			if got := watching(t, c.in); got.status != 0 || got.stderr != "" || got.stdout != want {
				t.Errorf("status %d, stderr %q, stdout:\n%swant:\n%s", got.status, got.stderr, got.stdout, want)
			}
		})
	}
	if got := watching(t, "get node n1 -w -o yaml --output-watch-events"); strings.Count(got.stdout, "\n---\n") != 2 || strings.Count(got.stdout, "type: MODIFIED\n") != 2 {
		t.Errorf("%+v", got)
	}
	if got := watching(t, "get nodes -l rack=r1 --watch-only -o json"); strings.Count(got.stdout, "\n}\n") != 2 {
		t.Errorf("%+v", got)
	}
	w := newWorld(t)
	w.loadRecording()
	w.fails("resource does not exist: Node(n9)", line("get node n1 n9 -w")...)
	w.fails("see the ipam commands", line("get ipamblocks -w")...)
	w.fails("--watch cannot be given", line("get -f x.yaml --watch")...)
	w.db = broken{}
	w.fails("connection refused", line("get nodes -w")...)
}

// manyStore is a datastore of so many workload endpoints, made as they are read. It
// counts how many values its reader holds at most by asking the collector.
type manyStore struct {
	store.Driver
	n, page int
	heap    *[]uint64 // in use after each fifth page
}

func (m manyStore) List(context.Context, string) (store.Listing, error) {
	return store.Listing{}, fmt.Errorf("all of %d at once", m.n)
}

func (m manyStore) Pages(_ context.Context, prefix string, page func([]store.KV, store.Revision) error) error {
	for from := 0; from < m.n; from += m.page {
		kvs := make([]store.KV, 0, m.page)
		for i := from; i < from+m.page; i++ {
			name := fmt.Sprintf("%sh1-cni-c%06d-eth0", prefix, i)
			value := fmt.Sprintf(`{"spec":{"node":"h1","orchestrator":"cni","containerID":"c%06d","endpoint":"eth0","interfaceName":"cali%06d","ipNetworks":["10.%d.%d.%d/32"]}}`, i, i, i>>16, i>>8&255, i&255)
			kvs = append(kvs, store.KV{Key: name, Value: []byte(value), Revision: "7"})
		}
		if err := page(kvs, "7"); err != nil {
			return err
		}
		if from/m.page%5 == 0 {
			runtime.GC()
			var s runtime.MemStats
			runtime.ReadMemStats(&s)
			*m.heap = append(*m.heap, s.HeapAlloc)
		}
	}
	return nil
}

// counter counts lines and keeps nothing.
type counter struct{ lines int }

func (c *counter) Write(b []byte) (int, error) {
	c.lines += bytes.Count(b, []byte{'\n'})
	return len(b), nil
}

// 50,000 endpoints are printed page by page: memory does not grow with them.
func TestGetOfManyIsFlat(t *testing.T) {
	for _, c := range []struct {
		format string
		n      int
	}{{"", 50_000}, {"json", 5_000}, {"yaml", 5_000}} {
		t.Run("format "+c.format, func(t *testing.T) {
			var heap []uint64
			w := newWorld(t)
			w.db = manyStore{mem.New(), c.n, 500, &heap}
			out := &counter{}
			if status := w.runTo(out, "get", "wep", "-o", c.format); status != 0 {
				t.Fatalf("exit status %d", status)
			}
			if out.lines < c.n {
				t.Errorf("%d lines", out.lines)
			}
			// A page is some 300 kB of values; 5,000 objects would be 8 MB.
			if first, last := heap[0], heap[len(heap)-1]; len(heap) != c.n/2500 || last > first+2<<20 {
				t.Errorf("the heap grew from %d to %d bytes: %d", first, last, heap)
			}
		})
	}
}

// A listing that ends in the middle says so.
func TestGetForgottenMeanwhile(t *testing.T) {
	w := newWorld(t)
	w.db = forgetful{mem.New()}
	got := w.run("get", "wep")
	if got.status != 1 || !strings.HasPrefix(got.stdout, "WORKLOAD ") || !strings.Contains(got.stderr, "what was printed is not all") {
		t.Errorf("%+v", got)
	}
}

// So does one whose datastore dies: no format ends as if all were there.
func TestGetFromADatastoreThatDies(t *testing.T) {
	for _, c := range []struct{ in, begins, ends string }{
		{"get wep", "WORKLOAD ", ""},
		{"get wep -o wide", "NAME ", ""},
		{"get wep -o name", "workloadendpoint.projectcalico.org/", ""},
		{"get wep -o custom-columns=NAME", "NAME", ""},
		{"get wep -o json", "{", "}\n"},
		{"get wep -o yaml", "apiVersion: ", "metadata: {}\n"},
		{"get wep -o go-template={{range.}}x{{end}}", "", ""},
	} {
		w := newWorld(t)
		w.db = dying{manyStore{mem.New(), 500, 500, new([]uint64)}}
		got := w.run(line(c.in)...)
		if got.status != 1 || !strings.HasPrefix(got.stdout, c.begins) || c.begins == "" && got.stdout != "" || c.ends != "" && strings.HasSuffix(got.stdout, "\n"+c.ends) {
			t.Errorf("%s: status %d, %.100q … %.100q", c.in, got.status, got.stdout, got.stdout[max(0, len(got.stdout)-100):])
		}
		if !strings.Contains(got.stderr, errBroken.Error()) || !strings.Contains(got.stderr, "what was printed is not all") {
			t.Errorf("%s: %s", c.in, got.stderr)
		}
	}
	w := newWorld(t)
	w.db = dying{manyStore{mem.New(), 500, 500, new([]uint64)}}
	if got := w.run(line("delete wep nosuch")...); got.status != 1 {
		t.Errorf("%+v", got)
	}
}

// dying hands over a page, and is not there for the next.
type dying struct{ manyStore }

func (d dying) Pages(ctx context.Context, prefix string, page func([]store.KV, store.Revision) error) error {
	if err := d.manyStore.Pages(ctx, prefix, page); err != nil {
		return err
	}
	return fmt.Errorf("list %s: %w", prefix, errBroken)
}

type forgetful struct{ store.Driver }

func (f forgetful) Pages(ctx context.Context, prefix string, page func([]store.KV, store.Revision) error) error {
	if err := page(nil, "7"); err != nil {
		return err
	}
	return store.ErrCompacted
}
