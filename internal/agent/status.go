package agent

import (
	"context"
	"encoding/json"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/brindle-net/brindle/internal/agentapi"
	"github.com/brindle-net/brindle/internal/bgp"
	"github.com/brindle-net/brindle/internal/desired"
)

// status is what the agent says of itself.
func (a *agent) status(ctx context.Context) agentapi.Status {
	st := agentapi.Status{
		Version: agentapi.Version, Build: a.cfg.Build, Node: a.cfg.Node, Started: a.began.UTC().Format(time.RFC3339Nano), MTU: int(a.mtu.Load()),
		Addresses: []string{}, Sessions: []agentapi.Session{}, BGPOff: !a.speaks(),
		Workloads: a.tables.links.Stats().Wanted - a.tables.devices.Stats().Wanted,
	}
	st.Accepts, st.Tunnels = a.tunnels()
	st.Pools, st.HostMTU = a.pools.list(), a.overlay.hostMTU()
	if err := a.policy.countStrangers(ctx); err != nil {
		a.log.WarnContext(ctx, "counters of policy not read", "err", err)
	}
	a.askPrograms()
	st.UnknownSenders = a.policy.strangers.status()
	st.Ready, st.Conditions = a.health.Ready()
	if r := a.registered.Load(); r != nil {
		for _, p := range r.addresses() {
			st.Addresses = append(st.Addresses, p.String())
		}
		st.ASNumber, st.Choices = r.as, a.choices(r)
	}
	if !a.speaks() {
		return st
	}
	sessions, err := a.speaker.Sessions(ctx)
	if err != nil {
		a.log.WarnContext(ctx, "bgp sessions not read", "err", err)
		return st
	}
	for _, s := range sessions {
		st.Sessions = append(st.Sessions, agentapi.Session{
			Peer: s.Key.Addr.String(), Name: s.Name, AS: s.AS, State: s.State, Since: s.Since.UTC().Format(time.RFC3339),
			Mesh: s.Mesh, GracefulRestart: s.GracefulRestart, Capabilities: s.Capabilities,
			EndOfRIB: s.EndOfRIBReceived && s.EndOfRIBSent, Received: s.Received, Accepted: s.Accepted,
			Advertised: s.Advertised, LastError: s.LastError,
		})
	}
	return st
}

// tunnels is what this host has of tunnels, and which forms its Node says it
// accepts.
func (a *agent) tunnels() (said []string, ends []agentapi.Tunnel) {
	now := a.accepts.state()
	addrs := a.addresses.Addresses()
	said, ends = []string{}, []agentapi.Tunnel{}
	if now.said != "" {
		said = strings.Split(now.said, ",")
	}
	for _, e := range tunnelEnds() {
		d, there := now.devices[e.device]
		if !there {
			continue
		}
		t := agentapi.Tunnel{
			Device: e.device, Form: e.form.String(), Family: e.family, Local: d.Local.String(),
			MAC: d.MAC, VNI: d.VNI, Port: d.Port, Carrier: "kernel",
		}
		if byBPF, _ := a.carrier.byPrograms(); byBPF && e.form == desired.IPIP {
			t.Carrier = "programs"
		}
		if addr, ok := addrs[e.kind]; ok {
			t.Address = addr.String()
		}
		var kept time.Time
		if t.MTU, t.Ready, kept = a.overlay.standing(e); !kept.IsZero() {
			t.KeptUntil = kept.UTC().Format(time.RFC3339)
		}
		ends = append(ends, t)
	}
	return said, ends
}

// bgpRoutes lists what every peer sent and is sent.
func (a *agent) bgpRoutes(ctx context.Context) agentapi.Routes {
	out := agentapi.Routes{Learned: []agentapi.BGPRoute{}, Announced: []agentapi.BGPRoute{}}
	if !a.speaks() {
		return out
	}
	sessions, err := a.speaker.Sessions(ctx)
	if err != nil {
		a.log.WarnContext(ctx, "bgp sessions not read", "err", err)
		return out
	}
	for _, s := range sessions {
		in, sent, err := a.speaker.Routes(ctx, s.Key)
		if err != nil {
			a.log.WarnContext(ctx, "bgp routes not read", "peer", s.Name, "err", err)
			continue
		}
		for _, r := range in {
			out.Learned = append(out.Learned, bgpRoute(r, s.Key.Addr.String()))
		}
		for _, r := range sent {
			out.Announced = append(out.Announced, bgpRoute(r, s.Key.Addr.String()))
		}
	}
	return out
}

func bgpRoute(r bgp.Route, peer string) agentapi.BGPRoute {
	b := agentapi.BGPRoute{
		Prefix: r.Prefix.String(), Peer: peer, NextHop: r.NextHop.String(), Stale: r.Stale, Refused: r.Refused,
	}
	for _, f := range strings.Fields(r.ASPath) {
		if n, err := strconv.ParseUint(f, 10, 32); err == nil {
			b.ASPath = append(b.ASPath, uint32(n))
		}
	}
	return b
}

func writeJSON(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(v) // the asker has gone
}

// answer writes v, or an error with a status.
func answer(w http.ResponseWriter, v any, err error, status int) {
	if err == nil {
		writeJSON(w, v)
		return
	}
	code := "internal"
	if status == http.StatusNotFound {
		code = "invalid"
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(agentapi.Error{Code: code, Message: err.Error()}) // the asker has gone
}
