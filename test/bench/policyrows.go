package main

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"runtime"
	"time"

	"golang.org/x/sys/unix"

	"github.com/brindle-net/brindle/internal/dataplane/nft"
	"github.com/brindle-net/brindle/internal/dataplane/rules"
	"github.com/brindle-net/brindle/internal/desired"
	"github.com/brindle-net/brindle/internal/netns"
)

// measurePolicyRows measures what the kernel takes for one more rule when
// there are 250,000 rows in its tables already: members of sets, of which 25
// have 10,000 each.
func measurePolicyRows(ctx context.Context, o options) ([]row, error) {
	ns, err := netns.New()
	if err != nil {
		return nil, err
	}
	defer ns.Close()
	d, err := nft.Open(nft.Config{NS: ns, Rules: rules.Config{Prefixes: []string{"cali"}, MarkMask: 0xffff0000}, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		return nil, err
	}
	defer d.Close()
	sets, members := o.pick(25, 2), o.pick(10_000, 100)
	want := crowded(sets, members)
	if err := d.Sync(ctx, want, nil); err != nil {
		return nil, err
	}
	runtime.GC()
	var user, kernel, wall sample
	id := desired.RulesID{Owner: "NetworkPolicy default/p0", Direction: desired.Ingress}
	for i := range o.pick(200, 4) {
		l := *want.Rules[id]
		l.Rules = l.Rules[:1]
		if i%2 == 0 {
			l.Rules = append(l.Rules[:1:1], portRule(1, uint16(1000+i)))
		}
		patch := desired.PolicyPatch{}
		patch.Rules.Set = map[desired.RulesID]*desired.RuleList{id: &l}
		patch.Play(*want)
		begin, before := time.Now(), usage()
		if err := d.Sync(ctx, want, &patch); err != nil {
			return nil, err
		}
		after := usage()
		if i%2 == 0 {
			wall = append(wall, time.Since(begin))
			kernel = append(kernel, after.system-before.system)
			user = append(user, after.user-before.user)
		}
	}
	what := fmt.Sprintf("one rule more with %d rows in the kernel", sets*members)
	return []row{
		{what: what + ": CPU in the kernel, mean", value: kernel.mean(), unit: "ms", aim: 1, spread: meanApart(kernel)},
		{what: "– CPU outside of it, mean", value: user.mean(), unit: "ms", spread: meanApart(user)},
		{what: "– p50 of the whole", value: wall.p50(), unit: "ms", spread: wall.apart()},
	}, nil
}

// crowded is a host with one workload under a policy for each of some sets.
func crowded(sets, members int) *desired.Policy {
	p := desired.NewPolicy()
	var owners []string
	for i := range sets {
		set := &desired.Set{Kind: desired.AddressSet, Members: map[desired.Member]struct{}{}}
		for j := range members {
			a := netip.AddrFrom4([4]byte{20, byte(i), byte(j >> 8), byte(j)})
			set.Members[desired.Member{Prefix: netip.PrefixFrom(a, 32)}] = struct{}{}
		}
		id := desired.SetID(fmt.Sprint("s:", i))
		p.Sets[id] = set
		owner := fmt.Sprint("NetworkPolicy default/p", i)
		r := portRule(0, uint16(80+i))
		r.Source.Sets = []desired.SetID{id}
		p.Rules[desired.RulesID{Owner: owner, Direction: desired.Ingress}] = &desired.RuleList{Rules: []desired.PolicyRule{r}}
		owners = append(owners, owner)
	}
	p.Endpoints["cali0"] = &desired.Endpoint{
		Name: "WorkloadEndpoint default/a", Ingress: []desired.Tier{{Name: "default", Policies: owners}},
		Addrs: []netip.Addr{netip.AddrFrom4([4]byte{10, 1, 0, 1})},
	}
	return &p
}

func portRule(index int, port uint16) desired.PolicyRule {
	return desired.PolicyRule{
		Index: index, Action: desired.Allow, IPv4: true, Protocol: 6,
		Destination: desired.Side{Ports: []desired.PortRange{{Min: port, Max: port}}},
	}
}

// used is CPU time of this process.
type used struct{ user, system time.Duration }

func usage() used {
	var u unix.Rusage
	_ = unix.Getrusage(unix.RUSAGE_SELF, &u) // cannot fail
	return used{time.Duration(u.Utime.Nano()), time.Duration(u.Stime.Nano())}
}

// mean in milliseconds; of what the kernel counts more coarsely than it is.
func (s sample) mean() float64 {
	sum := time.Duration(0)
	for _, d := range s {
		sum += d
	}
	return ms(sum) / float64(len(s))
}

// meanApart is how far the means of every other figure lie from the others'.
func meanApart(s sample) float64 {
	var h [2]sample
	for i, d := range s {
		h[i%2] = append(h[i%2], d)
	}
	return apart(h[0].mean(), h[1].mean())
}
