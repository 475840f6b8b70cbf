package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"time"

	v3 "github.com/brindle-net/brindle/api/v3"
	"github.com/brindle-net/brindle/internal/agentclient"
	"github.com/brindle-net/brindle/internal/client"
	"github.com/brindle-net/brindle/internal/kernel"
	"github.com/brindle-net/brindle/internal/netns"
	"github.com/brindle-net/brindle/internal/store/etcd"
)

// world is a datastore and some hosts, all real programs: etcd by `brindle
// server` with its data on the disk and fsync on, hosts as nameless network
// namespaces on one switch. Nothing of it outlives this process.
type world struct {
	o      options
	dir    string
	server *process
	store  *etcd.Driver
	sw     *kernel.Site
	hosts  []*host
}

// host is one host with its agent.
type host struct {
	name  string
	ns    *netns.NS
	dir   string
	run   string   // what /run/brindle is on a host: a reboot empties it
	env   []string // settings of its agent
	agent *process
}

// poolCIDR is the one pool: room for 10,000 blocks of 64 addresses.
var poolCIDR = netip.MustParsePrefix("10.64.0.0/10")

// newWorld starts the datastore.
func newWorld(ctx context.Context, o options) (_ *world, err error) {
	dir, err := os.MkdirTemp(o.dir, "w")
	if err != nil {
		return nil, err
	}
	w := &world{o: o, dir: dir}
	defer func() {
		if err != nil {
			w.close()
		}
	}()
	socket := filepath.Join(dir, "etcd.sock")
	w.server, err = start(nil, filepath.Join(dir, "server.log"),
		filepath.Join(o.bin, "brindle"), "server", "--data-dir", filepath.Join(dir, "etcd"), "--socket", socket, "--log-level", "warn")
	if err != nil {
		return nil, err
	}
	if w.store, err = w.dial(); err != nil {
		return nil, err
	}
	err = w.server.waitUntil(ctx, 30*time.Second, func() error {
		if _, err := os.Stat(socket); err != nil {
			return err
		}
		_, err := w.store.List(ctx, "/")
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("start the datastore: %w", err)
	}
	pool := &v3.IPPool{}
	pool.Name, pool.Spec.CIDR = "bench", poolCIDR.String()
	if _, err := client.Create(ctx, client.New(w.store, client.Config{}), pool); err != nil {
		return nil, fmt.Errorf("create the pool: %w", err)
	}
	return w, nil
}

// endpoint is where the datastore listens.
func (w *world) endpoint() string { return "unix://" + filepath.Join(w.dir, "etcd.sock") }

// dial opens one more client of the datastore.
func (w *world) dial() (*etcd.Driver, error) {
	return etcd.New(etcd.Config{Endpoints: []string{w.endpoint()}})
}

// addHost makes one more host and starts its agent.
func (w *world) addHost(ctx context.Context) (*host, error) {
	if err := w.buildSwitch(); err != nil {
		return nil, err
	}
	n := len(w.hosts) + 1
	ns, err := netns.New()
	if err != nil {
		return nil, err
	}
	h := &host{name: fmt.Sprintf("h%d", n), ns: ns, dir: filepath.Join(w.dir, fmt.Sprintf("h%d", n))}
	w.hosts = append(w.hosts, h)
	if h.run, err = os.MkdirTemp(memory(w.dir), "brindle-bench-run-"); err != nil {
		return nil, err
	}
	if err := w.plug(h, n); err != nil {
		return nil, err
	}
	if err := os.Mkdir(h.dir, 0o700); err != nil {
		return nil, err
	}
	return h, w.startAgent(ctx, h)
}

// buildSwitch makes the switch, once.
func (w *world) buildSwitch() error {
	if w.sw != nil {
		return nil
	}
	site, err := newSite()
	if err != nil {
		return err
	}
	w.sw = site
	return site.AddBridge("br0")
}

// newSite is a nameless namespace to build in.
func newSite() (*kernel.Site, error) {
	ns, err := netns.New()
	if err != nil {
		return nil, err
	}
	site, err := kernel.OpenSite(ns)
	if err != nil {
		return nil, errors.Join(err, ns.Close())
	}
	return site, nil
}

// plug connects the n-th host to the switch and numbers it.
func (w *world) plug(h *host, n int) error {
	ns, err := netns.OpenPath(h.ns.Path())
	if err != nil {
		return err
	}
	site, err := kernel.OpenSite(ns)
	if err != nil {
		return errors.Join(err, ns.Close())
	}
	defer site.Close()
	if err := w.sw.Cable(h.name, site, "eth0"); err != nil {
		return err
	}
	return errors.Join(
		w.sw.Join(h.name, "br0"), site.Up("lo"),
		site.AddAddress("eth0", netip.PrefixFrom(netip.AddrFrom4([4]byte{172, 30, 0, byte(n)}), 24)),
	)
}

// startAgent starts the agent of a host and waits until it takes workloads.
func (w *world) startAgent(ctx context.Context, h *host) (err error) {
	h.agent, err = start(h.ns, filepath.Join(h.dir, "agent.log"), append(append([]string{"env"}, h.env...),
		filepath.Join(w.o.bin, "brindle"), "agent", "--node", h.name, "--datastore-type", "etcdv3",
		"--etcd-endpoints", w.endpoint(), "--socket", h.socket(), "--state-dir", filepath.Join(h.dir, "state"),
		"--no-default-pools", "--ip", "autodetect", "--ip6", "none", "--config-file", "", "--log-level", "Warning")...)
	if err != nil {
		return err
	}
	err = h.agent.waitUntil(ctx, time.Minute, func() error {
		st, err := agentclient.New(h.socket()).Status(ctx)
		if err != nil {
			return err
		}
		if len(st.Conditions) == 0 {
			return errors.New("no condition holds yet")
		}
		for _, c := range st.Conditions {
			if !c.Status && !c.Advisory && c.Type != "Routing" { // sessions need the other hosts
				return fmt.Errorf("%s: %s: %s", c.Type, c.Reason, c.Message)
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("host %s is not ready: %w", h.name, err)
	}
	return nil
}

// socket is where the agent of a host listens.
func (h *host) socket() string { return filepath.Join(h.run, "agent.sock") }

// memory is a folder in memory, as /run is on a host, or the other one where
// there is none.
func memory(other string) string {
	const shared = "/dev/shm"
	if onMemory(shared) {
		return shared
	}
	return other
}

// close ends everything.
func (w *world) close() {
	for _, h := range w.hosts {
		if h.agent != nil {
			h.agent.stop()
		}
		_ = os.RemoveAll(h.run) // of a few files
		_ = h.ns.Close()        // goes with this process at the latest
	}
	if w.sw != nil {
		w.sw.Close()
	}
	if w.store != nil {
		_ = w.store.Close()
	}
	if w.server != nil {
		w.server.stop()
	}
	_ = os.RemoveAll(w.dir) // the folder above it goes in any case
}
