package agent

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"time"

	v3 "github.com/brindle-net/brindle/api/v3"
	"github.com/brindle-net/brindle/internal/client"
	"github.com/brindle-net/brindle/internal/config"
	"github.com/brindle-net/brindle/internal/feed"
	"github.com/brindle-net/brindle/internal/ipam"
	"github.com/brindle-net/brindle/internal/model"
	"github.com/brindle-net/brindle/internal/store"
	"github.com/brindle-net/brindle/internal/tunnel"
)

// Foresight is what Foresee comes to.
type Foresight struct {
	Settings map[string]model.Settings // of the cores, by host
	Warnings []string                  // for people: what a host will lack
}

// Foresee does to a datastore what the agents of all its hosts do there by and
// by: it takes and gives back the addresses of tunnels, and says which forms
// hosts accept whose agents say so. Tunnels that no pool asks for any more are
// taken to be gone already, and every device that is asked for to be there.
// flags are parameters that every agent was given on its host, by name. The
// datastore must be a copy that nobody else uses. Errors: those of the
// datastore, and settings with which an agent would not start.
func Foresee(ctx context.Context, d store.Driver, flags map[string]string) (Foresight, error) {
	f := foresight{driver: d, client: client.New(d, client.Config{}), flags: flags}
	f.out.Settings = map[string]model.Settings{}
	all, err := feed.Read(ctx, d)
	if err != nil {
		return f.out, err
	}
	for _, e := range all {
		if e.ID.Kind == model.KindPool {
			f.pools = append(f.pools, e)
		}
	}
	if f.settings, err = ipam.ReadSettings(ctx, d); err != nil {
		return f.out, err
	}
	if f.objects, err = client.List[v3.FelixConfiguration](ctx, f.client, ""); err != nil && !errors.Is(err, client.ErrUnreadable) {
		return f.out, err
	}
	nodes, err := client.List[v3.Node](ctx, f.client, "")
	if err != nil && !errors.Is(err, client.ErrUnreadable) {
		return f.out, err
	}
	for _, n := range nodes {
		if err := f.host(ctx, n); err != nil {
			return f.out, fmt.Errorf("host %s: %w", n.Name, err)
		}
	}
	return f.out, nil
}

// foresight is one run of Foresee.
type foresight struct {
	driver  store.Driver
	client  *client.Client
	flags   map[string]string
	pools   []model.Event
	objects []*v3.FelixConfiguration
	out     Foresight

	settings *ipam.Settings // which do not change
}

// host does what the agent of one host does.
func (f *foresight) host(ctx context.Context, n *v3.Node) error {
	res, err := config.Resolve(config.Sources{Node: n.Name, Labels: n.Labels, Objects: f.objects, Flags: f.flags})
	if err != nil {
		return err
	}
	f.out.Settings[n.Name] = coreSettings(Config{Node: n.Name, Settings: res.Agent})
	o := newOverlay(res.Agent)
	var begin time.Time // it was asked for nothing before, so nothing is to be kept
	o.note(f.pools, begin)
	for _, e := range tunnelEnds() {
		o.setReady(e.device, true)
	}
	settings := func(context.Context) (*ipam.Settings, error) { return f.settings, nil }
	k := tunnel.New(tunnel.Config{
		Node: n.Name, Client: f.client, IPAM: ipam.New(ipam.Config{Driver: f.driver, Settings: settings}), Log: slog.New(slog.DiscardHandler),
		Settings: settings,
	})
	k.Want(o.wishes(begin))
	if err := k.Look(ctx); ctx.Err() != nil {
		return err
	} else if err != nil {
		f.out.Warnings = append(f.out.Warnings, fmt.Sprintf("host %s: %s", n.Name, strings.ReplaceAll(err.Error(), "\n", "; ")))
	}
	if _, speaks := n.Annotations[model.AnnotationAccepts]; !speaks {
		return nil
	}
	_, err = client.Modify(ctx, f.client, "", n.Name, func(n *v3.Node) error {
		n.Annotations[model.AnnotationAccepts] = o.accepted(begin).String()
		return nil
	})
	return err
}
