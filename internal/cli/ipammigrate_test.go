package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	v3 "github.com/brindle-net/brindle/api/v3"
	"github.com/brindle-net/brindle/internal/client"
	"github.com/brindle-net/brindle/internal/ipam"
	"github.com/brindle-net/brindle/internal/store"
)

// move is a migration between pools of the recording, in one family.
type move struct {
	from, to string
	args     string // of the command
	used     []string
	idle     string // an address of the old pool in a block of its own
	owners   []string
	handles  []string
}

var moves = map[string]move{
	"IPv4": {"ippool-cross-subnet-1", "pool-vxlan", "ippool-cross-subnet-1 10.20.0.0/16", []string{"192.168.40.128"}, "192.168.7.9",
		[]string{"workload default/n1-cni-cid--0001-eth0"}, []string{"cid-0001"}},
	"IPv6": {"pool-v6", "pool-w6", "pool-v6 pool-w6", []string{"fd00:10:20:0:5add:9051:4065:cb40", "fd00:10:20:0:5add:9051:4065:cb41"}, "fd00:10:20::9",
		[]string{"workload default/n1-cni-cid--0001-eth0", "workload default/n1-cni-cid--0002-eth0"}, []string{"cid-0001", "cid-0002"}},
}

// eachMove runs a test for both families, in a world of its own with a clock of
// its own.
func eachMove(t *testing.T, run func(w *world, m move)) {
	for _, family := range []string{"IPv4", "IPv6"} {
		t.Run(family, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				w.loadRecording()
				w.ok("apply", "-f", w.file("pool.yaml", "apiVersion: projectcalico.org/v3\nkind: IPPool\nmetadata: {name: pool-w6}\nspec: {cidr: 'fd00:30::/64'}\n"))
				m := moves[family]
				w.assign(m.idle, "n1", "idle", nil)
				if err := ipam.New(ipam.Config{Driver: w.db}).ReleaseByHandle(t.Context(), "idle"); err != nil {
					t.Fatal(err)
				}
				run(w, m)
			})
		})
	}
}

// table is what the command prints of the addresses that are left.
func (m move) table(remedy string) string {
	t := table{header: []string{"IP", "NODE", "OWNER", "WHAT TO DO"}}
	for i, a := range m.used {
		t.add(a, "n1", m.owners[i], fmt.Sprintf(remedy, m.handles[i]))
	}
	var b bytes.Buffer
	t.print(&b)
	return many(len(m.used), "address", "es") + " left:\n\n" + b.String() + "\n"
}

// forgetWorkloads removes the workloads of the pool, as their hosts do.
func (w *world) forgetWorkloads(m move) {
	w.t.Helper()
	addresses := ipam.New(ipam.Config{Driver: w.db})
	for _, h := range m.handles {
		endpoint := store.ResourceID{Plural: "workloadendpoints", Namespace: "default", Name: "n1-cni-" + strings.ReplaceAll(h, "-", "--") + "-eth0"}
		if err := w.db.Delete(w.t.Context(), endpoint.Key(), ""); err != nil {
			w.t.Fatal(err)
		}
		if err := addresses.ReleaseByHandle(w.t.Context(), "k8s-pod-network."+h); err != nil {
			w.t.Fatal(err)
		}
	}
}

func (w *world) disabled(pool string) bool {
	w.t.Helper()
	p, err := client.Get[v3.IPPool](w.t.Context(), client.New(w.db, client.Config{}), "", pool)
	if err != nil {
		w.t.Fatal(err)
	}
	return p.Spec.Disabled
}

func TestIPAMMigrate(t *testing.T) {
	eachMove(t, func(w *world, m move) {
		before := w.keys("/")
		got := w.run(line("ipam migrate --dry-run " + m.args)...)
		want := "Pool " + m.from + " would be disabled: new addresses would come from " + m.to + ".\n" +
			"1 of 2 blocks would be given up.\n" + m.table("restart container %s on n1")
		if got.status != 2 || got.stderr != "" || got.stdout != want {
			w.t.Errorf("status %d, %q, got\n%s\nwant\n%s", got.status, got.stderr, got.stdout, want)
		}
		if w.disabled(m.from) || !slices.Equal(before, w.keys("/")) {
			w.t.Error("a dry run changed something")
		}
		want = "Pool " + m.from + " is disabled: new addresses come from " + m.to + ".\n" +
			"1 of 2 blocks given up.\n" + m.table("restart container %s on n1") + "When that is done, the same command goes on.\n"
		if got = w.run(line("ipam migrate " + m.args)...); got.status != 2 || got.stderr != "" || got.stdout != want {
			w.t.Errorf("status %d, %q, got\n%s\nwant\n%s", got.status, got.stderr, got.stdout, want)
		}
		if !w.disabled(m.from) {
			w.t.Error("the pool is not disabled")
		}
		for _, a := range m.used {
			if got := w.ok("ipam", "show", "--ip", a); !strings.Contains(got, "is in use") {
				w.t.Errorf("%q", got)
			}
		}
		w.forgetWorkloads(m)
		want = "Pool " + m.from + " is disabled: new addresses come from " + m.to + ".\n1 of 1 block given up.\n" +
			"The pool is empty: `brindle delete ippool " + m.from + "` removes it.\n"
		if got := w.ok(line("ipam migrate " + m.args)...); got != want {
			w.t.Errorf("got\n%s\nwant\n%s", got, want)
		}
		w.ok("delete", "ippool", m.from)
	})
}

func TestIPAMMigrateJSON(t *testing.T) {
	eachMove(t, func(w *world, m move) {
		got := w.run(line("ipam migrate -o json " + m.args)...)
		var out struct {
			Pool, NewPool    string
			Empty            bool
			Blocks, Released int
			Left             []struct{ IP, Node, Standing, Remedy string }
		}
		if err := json.Unmarshal([]byte(got.stdout), &out); err != nil || got.status != 2 || got.stderr != "" {
			w.t.Fatalf("%v: %+v", err, got)
		}
		if out.Pool != m.from || out.NewPool != m.to || out.Empty || out.Blocks != 2 || out.Released != 1 || len(out.Left) != len(m.used) ||
			out.Left[0].IP != m.used[0] || out.Left[0].Standing != "inUse" || !strings.HasPrefix(out.Left[0].Remedy, "restart container") {
			w.t.Errorf("%+v", out)
		}
	})
}

// start runs a command line in the background, on a terminal.
func (w *world) start(ctx context.Context, args ...string) (done chan outcome, stderr *bytes.Buffer) {
	var stdout bytes.Buffer
	stderr = &bytes.Buffer{}
	e := w.environment(&stdout, stderr)
	e.ErrTerminal = true
	done = make(chan outcome, 1)
	go func() {
		status := Run(ctx, e, args)
		done <- outcome{status, stdout.String(), stderr.String()}
	}()
	return done, stderr
}

// With --wait the command goes on when an address has been released, and ends
// with the last.
func TestIPAMMigrateWaits(t *testing.T) {
	eachMove(t, func(w *world, m move) {
		done, stderr := w.start(w.t.Context(), line("ipam migrate --wait "+m.args)...)
		time.Sleep(hearPool) // of the bubble's clock: it takes no time
		synctest.Wait()
		want := "\r\x1b[Kblock 1 of 2\r\x1b[Kblock 2 of 2\r\x1b[K1 block of 2 given up; waiting for " + many(len(m.used), "address", "es") +
			" (Ctrl-C stops, the same command goes on)"
		if got := stderr.String(); got != want {
			w.t.Errorf("progress %q, want %q", got, want)
		}
		w.forgetWorkloads(m)
		got := <-done
		if got.status != 0 || !strings.Contains(got.stdout, "\n2 of 2 blocks given up.\nThe pool is empty") || !strings.HasSuffix(got.stderr, "\r\x1b[K") {
			w.t.Errorf("%+v", got)
		}
	})
}

// What was not heard of is found all the same; a timeout, or Ctrl-C, ends the
// waiting with what is left.
func TestIPAMMigrateStops(t *testing.T) {
	eachMove(t, func(w *world, m move) {
		began := time.Now()
		got := w.run(line("ipam migrate --wait --timeout 25s " + m.args)...)
		if took := time.Since(began); got.status != 2 || took != hearPool+25*time.Second || !strings.Contains(got.stdout, m.table("restart container %s on n1")) {
			w.t.Errorf("after %s %+v", took, got)
		}
		ctx, cancel := context.WithCancel(w.t.Context())
		done, _ := w.start(ctx, line("ipam migrate --wait "+m.args)...)
		time.Sleep(time.Minute)
		synctest.Wait()
		cancel()
		if got := <-done; got.status != 2 || !strings.Contains(got.stdout, m.table("restart container %s on n1")) {
			w.t.Errorf("%+v", got)
		}
		if got := w.runContext(ctx, line("ipam migrate "+m.args)...); got.status != 1 {
			w.t.Errorf("stopped before it began: %+v", got)
		}
	})
}

func TestIPAMMigrateRefuses(t *testing.T) {
	w := newWorld(t)
	w.loadRecording()
	for in, want := range map[string]string{
		"ipam migrate pool-v6":                                 "accepts 2 arg(s)",
		"ipam migrate pool-v6 nosuch":                          `there is no pool "nosuch"`,
		"ipam migrate pool-v6 pool-vxlan":                      "different families",
		"ipam migrate pool-v6 fd00:10:20::/64":                 "the same",
		"ipam migrate pool-v6 pool-vxlan -o yaml":              "output format",
		"ipam migrate pool-v6 pool-vxlan --wait --dry-run":     "not both",
		"ipam migrate pool-v6 pool-vxlan --timeout 1s":         "give --wait too",
		"ipam migrate pool-v6 pool-vxlan --wait --timeout=-1s": "must not be negative",
		"ipam split 2": "one of the two",
		"ipam split 2 --name pool-v6 --cidr 10.0.0.0/8":          "one of the two",
		"ipam split x --name pool-v6":                            "must be a power of two",
		"ipam split 2 --name pool-v6":                            "datastore is not locked",
		"ipam migrate ippool-cross-subnet-1 pool-vxlan nonsense": "accepts 2 arg(s)",
	} {
		w.fails(want, line(in)...)
	}
	if w.disabled("pool-v6") {
		t.Error("the pool was disabled")
	}
	// Who may get no address of the new pool is told before anything is done.
	w.ok("apply", "-f", w.file("node.yaml", "apiVersion: projectcalico.org/v3\nkind: Node\nmetadata: {name: n1}\n"))
	w.ok("patch", "ippool", "pool-vxlan", "-p", `{"spec":{"nodeSelector":"rack == 'r1'"}}`)
	got := w.run(line("ipam migrate --dry-run ippool-cross-subnet-1 pool-vxlan")...)
	if got.status != 2 || !strings.Contains(got.stderr, "warning: pool pool-vxlan does not select node n1") {
		t.Errorf("%+v", got)
	}
}

func TestIPAMSplit(t *testing.T) {
	for _, c := range []struct{ flag, pool, first, want string }{
		{"--name", "ippool-cross-subnet-1", "192.168.40.128", `Successfully split pool ippool-cross-subnet-1 into 4:

NAME                            CIDR
split-ippool-cross-subnet-1-0   192.168.0.0/18
split-ippool-cross-subnet-1-1   192.168.64.0/18
split-ippool-cross-subnet-1-2   192.168.128.0/18
split-ippool-cross-subnet-1-3   192.168.192.0/18
`},
		{"--cidr", "fd00:10:20::/64", "fd00:10:20:0:5add:9051:4065:cb40", `Successfully split pool fd00:10:20::/64 into 4:

NAME              CIDR
split-pool-v6-0   fd00:10:20::/66
split-pool-v6-1   fd00:10:20:0:4000::/66
split-pool-v6-2   fd00:10:20:0:8000::/66
split-pool-v6-3   fd00:10:20:0:c000::/66
`},
	} {
		t.Run(c.pool, func(t *testing.T) {
			w := newWorld(t)
			w.loadRecording()
			if got := w.ok(line("datastore migrate lock")...); got != "Datastore locked.\n" {
				t.Errorf("%q", got)
			}
			blocks := w.keys(store.IPAMRoot)
			if got := w.ok("ipam", "split", "4", c.flag, c.pool); got != c.want {
				t.Errorf("got\n%s\nwant\n%s", got, c.want)
			}
			if got := w.ok(line("datastore migrate unlock")...); got != "Datastore unlocked.\n" {
				t.Errorf("%q", got)
			}
			w.fails("is not locked", "ipam", "split", "2", "--name", "pool-vxlan")
			if !slices.Equal(blocks, w.keys(store.IPAMRoot)) {
				t.Error("blocks or affinities have changed")
			}
			if got := w.ok("ipam", "show", "--ip", c.first); !strings.Contains(got, "k8s-pod-network.cid-0001") {
				t.Errorf("%q", got)
			}
		})
	}
}

func TestDatastoreLockNeedsACluster(t *testing.T) {
	newWorld(t).fails("not found", line("datastore migrate lock")...)
}

// Names of pools are offered, none twice.
func TestIPAMMigrateCompletes(t *testing.T) {
	w := newWorld(t)
	w.loadRecording()
	for in, want := range map[string]string{
		"__complete ipam migrate pool-":           "pool-v6\npool-vxlan\n:4\n",
		"__complete ipam migrate pool-v6 pool-":   "pool-vxlan\n:4\n",
		"__complete ipam migrate a b p":           ":4\n",
		"__complete ipam split 2 --name ippool-c": "ippool-cross-subnet-1\n:4\n",
	} {
		if got := w.run(line(in)...).stdout; got != want {
			t.Errorf("%s: %q, want %q", in, got, want)
		}
	}
}
