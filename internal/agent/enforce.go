package agent

import (
	"cmp"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"reflect"
	"strconv"
	"strings"
	"time"

	"github.com/brindle-net/brindle/internal/agentapi"
	"github.com/brindle-net/brindle/internal/config"
	"github.com/brindle-net/brindle/internal/conntrack"
	"github.com/brindle-net/brindle/internal/dataplane/flows"
	"github.com/brindle-net/brindle/internal/dataplane/nft"
	"github.com/brindle-net/brindle/internal/dataplane/rules"
	"github.com/brindle-net/brindle/internal/desired"
	"github.com/brindle-net/brindle/internal/kernel"
	"github.com/brindle-net/brindle/internal/nflog"
	"github.com/brindle-net/brindle/internal/reconcile"
)

// logGroup is the group that policy's Log action writes to where the kernel
// keeps such lines out of its own log.
const logGroup = 17

// enforcement is all that enforces policy on this host.
type enforcement struct {
	driver *nft.Driver
	table  *conntrack.Table
	doc    *policyDoc
	loop   *reconcile.Whole[policyPatch]
	hits   *hits
	log    *slog.Logger
	group  uint16 // of the Log action; 0: the kernel logs

	links     chan struct{} // capacity 1: interfaces have come
	strangers *strangers
	sampled   bool         // what unknown senders send goes to senderGroup
	rules     rules.Config // that the driver was told, or is about to be; guarded as the core is
}

// policyPatch is a change of policy, of the settings that it is enforced by, or of
// both: they are in force together.
type policyPatch struct {
	desired.PolicyPatch
	rules *rules.Config // nil: as they are
}

// policyAndSettings is the document with the settings that it is enforced by.
type policyAndSettings struct{ *policyDoc }

// Take plays a patch into what is wanted.
func (d policyAndSettings) Take(p policyPatch) {
	if p.rules != nil {
		d.byOthers(p.rules)
	}
	d.policyDoc.Take(p.PolicyPatch)
}

// openEnforcement opens the back end of policy and the table of connections.
func openEnforcement(cfg Config, k *kernel.Kernel) (*enforcement, error) {
	e := &enforcement{log: cfg.Log, links: make(chan struct{}, 1), strangers: newStrangers(cfg.Log)}
	if !nflog.KernelLogs() {
		e.group = logGroup
	}
	err := nflog.Try(nil, senderGroup)
	if e.sampled = err == nil; !e.sampled {
		cfg.Log.Warn("no sample of packets from unknown senders: they are counted, and logged by the kernel", "err", err)
	}
	e.rules = e.ruleConfig(cfg.Settings)
	if e.driver, err = nft.Open(nft.Config{Rules: e.rules, Log: cfg.Log}); err != nil {
		return nil, err
	}
	if e.table, err = conntrack.Open(nil); err != nil {
		return nil, errors.Join(err, e.driver.Close())
	}
	p := cfg.Settings.Policy
	e.doc = newPolicyDoc(e.driver, flowConfig{
		table: e.table, mark: p.FlowMark, keep: p.KeepFlows, host: k.OwnAddresses, route: wayTo(k), barrier: conntrack.Barrier, allows: e.allows,
		halt: e.driver.Halt, resume: e.driver.Resume,
	}, cfg.Log)
	e.doc.others.tell = e.driver.Configure
	e.loop = reconcile.NewWhole(policyAndSettings{e.doc}, reconcile.WholeConfig{
		Name: "policy", Settle: settle, Resync: refreshOf(cfg.Settings), MaxRetry: maxRetry, Log: cfg.Log,
	})
	e.hits = newHits(cfg.Settings.Paths.StateDir+"/policy-hits.json", cfg.Log)
	e.hits.counters, e.hits.listed = e.counters, e.doc.listed
	return e, nil
}

// refreshOf is the most time between two read-backs, where 0 leaves it to events
// alone.
func refreshOf(s config.Agent) time.Duration { return cmp.Or(s.Policy.Refresh, never) }

// ruleConfig is what the settings make of the rules on this host.
func (e *enforcement) ruleConfig(s config.Agent) rules.Config {
	c := ruleConfig(s, e.group)
	if e.sampled {
		c.SenderGroup = senderGroup
	}
	return c
}

// nextRules is that if it is another one than before, which it is no more then;
// nil if it is not.
func (e *enforcement) nextRules(s config.Agent) *rules.Config {
	c := e.ruleConfig(s)
	if reflect.DeepEqual(c, e.rules) {
		return nil
	}
	e.rules = c
	return &c
}

// countStrangers reads what the rules have counted of unknown senders.
func (e *enforcement) countStrangers(ctx context.Context) error {
	few, err := e.driver.Counted(ctx, rules.CounterUnknownIPIP, rules.CounterUnknownVXLAN)
	if err == nil {
		e.strangers.counted(few)
	}
	return err
}

// counters reads the kernel's counters.
func (e *enforcement) counters(ctx context.Context) (map[string]nft.Count, error) {
	all, err := e.driver.Counters(ctx)
	if err == nil {
		e.strangers.counted(all)
	}
	return all, err
}

// Close lets go of the sockets. What is enforced stays.
func (e *enforcement) Close() error { return errors.Join(e.driver.Close(), e.table.Close()) }

// start starts what keeps policy enforced.
func (e *enforcement) start(ctx context.Context, g *group) {
	g.start("policy", func() error { return e.loop.Run(ctx) })
	g.start("policy watch", func() error { return e.driver.Watch(ctx, e.loop.Drift) })
	g.start("connections", func() error { return e.doc.look(ctx) })
	g.start("flowtable", func() error { return e.followLinks(ctx) })
	g.start("policy hits", func() error { return e.hits.run(ctx) })
	if e.sampled {
		g.start("unknown senders", func() error { return e.hearSenders(ctx) })
	}
	if e.group != 0 {
		g.start("packet log", func() error { return e.hear(ctx) })
	}
}

// followLinks has established connections bypass the rules by interfaces that
// come after the policy for them.
func (e *enforcement) followLinks(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-e.links:
			e.doc.mu.Lock()
			e.doc.rejoin(ctx)
			e.doc.mu.Unlock()
		}
	}
}

// offloads says what nftablesFlowTableOffload asks for and this kernel does not do.
// A nil one does nothing.
func (e *enforcement) offloads() (wrong []string) {
	if e == nil {
		return nil
	}
	if err := e.driver.Offloads(); err != nil {
		wrong = append(wrong, fmt.Sprintf("nftablesFlowTableOffload: \"All\": %v; established connections go by the rules, as with Disabled: set that, or use a kernel with CONFIG_NF_FLOW_TABLE_INET and CONFIG_NFT_FLOW_OFFLOAD", err))
	}
	return wrong
}

// hear writes what the Log action logs to the agent's log.
func (e *enforcement) hear(ctx context.Context) error {
	return nflog.Listen(ctx, nil, e.group, func(p nflog.Packet) {
		e.log.InfoContext(ctx, "policy logs a packet", "packet", p.String())
	}, func() { e.log.WarnContext(ctx, "packets to log came too fast: some are not logged") })
}

// ruleConfig is what the settings make of the rules.
func ruleConfig(s config.Agent, group uint16) rules.Config {
	p, nat := s.Policy, s.Overlay.NAT
	c := rules.Config{
		Prefixes: s.Interfaces.Prefixes, MarkMask: p.MarkMask, CutMark: p.FlowMark,
		Reject: p.Deny == "Reject", AllowInvalid: p.AllowInvalid, Spoofing: p.Spoofing,
		LogPrefix: p.LogPrefix, LogGroup: group,
		Compiled: true, CompileFrom: rules.WorthCompiling,
		VXLAN: rules.VXLAN{Port: uint16(p.VXLANPort), VNI: uint32(s.Overlay.VNI)},
		NAT: rules.NAT{
			Address: nat.Address, Ports: desired.PortRange{Min: nat.FirstPort, Max: nat.LastPort},
			KeepToHosts: nat.KeepToHosts, Interface: nat.Interface,
		},
		ToHost: map[string]rules.Fate{"Drop": rules.FateDrop, "Reject": rules.FateReject}[p.EndpointToHost],
	}
	if p.EndpointToHost == "Return" || p.EndpointToHost == "Accept" {
		c.ToHost = rules.FateAccept
	}
	if p.KeepFlows {
		c.CutMark = 0
	}
	if p.Offload {
		c.Offload, c.OffloadDevices = p.FlowMark, p.OffloadDevices
	}
	if !p.AllowVXLAN {
		c.Encapsulations = append(c.Encapsulations, rules.Encapsulation{Protocol: 17, Port: c.VXLAN.Port, VNI: c.VXLAN.VNI})
	}
	if !p.AllowIPIP {
		c.Encapsulations = append(c.Encapsulations, rules.Encapsulation{Protocol: 4})
	}
	if n, unit, ok := strings.Cut(p.LogRate, "/"); ok {
		rate, err := strconv.ParseUint(n, 10, 32)
		if err == nil {
			c.LogLimit = rules.Limit{Rate: uint32(rate), Burst: uint32(p.LogBurst),
				Seconds: map[string]uint32{"second": 1, "minute": 60, "hour": 3600, "day": 86400}[unit]}
		}
	}
	return c
}

// allows asks the rules in force for the first packet of a connection. What
// cannot be judged is denied. The caller holds the document's lock.
func (e *enforcement) allows(p flows.Packet) bool {
	pkt := rules.Packet{
		In: p.From, Out: p.To, Source: p.Src, Dest: p.Dst, Protocol: p.Protocol,
		SourcePort: p.SrcPort, DestPort: p.DstPort, ICMPType: p.ICMPType, ICMPCode: p.ICMPCode,
		State: rules.StateNew,
	}
	switch {
	case p.FromHost:
		pkt.Way = rules.FromHost
	case p.ToHost:
		pkt.Way = rules.ToHost
	}
	if from := e.doc.want.Endpoints[p.From]; from != nil && from.MAC != "" {
		mac, err := hex.DecodeString(strings.ReplaceAll(from.MAC, ":", ""))
		if err != nil {
			return false
		}
		pkt.EthSource = string(mac)
	}
	accepted, err := e.driver.Accepts(pkt)
	if err != nil {
		e.log.Error("connection not judged, and so cut", "packet", fmt.Sprintf("%+v", p), "err", err)
		return false
	}
	return accepted
}

// rulesOf is what the kernel was told to do with packets of one workload.
func (e *enforcement) rulesOf(ctx context.Context, iface string) (agentapi.PolicyRules, error) {
	w, ok := e.driver.Workload(iface)
	if !ok {
		return agentapi.PolicyRules{}, fmt.Errorf("no policy is in force for an interface %q of this host", iface)
	}
	if err := e.hits.read(ctx); err != nil {
		return agentapi.PolicyRules{}, err
	}
	return agentapi.PolicyRules{Interface: iface, Text: w.Text, Counters: e.hits.of(w.Counters)}, nil
}
