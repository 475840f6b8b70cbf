package agent

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"testing"

	v3 "github.com/brindle-net/brindle/api/v3"
	"github.com/brindle-net/brindle/internal/config"
	"github.com/brindle-net/brindle/internal/conntrack"
	"github.com/brindle-net/brindle/internal/dataplane/nft"
	"github.com/brindle-net/brindle/internal/dataplane/rules"
	"github.com/brindle-net/brindle/internal/desired"
	"github.com/brindle-net/brindle/internal/testenv"
)

// TestOffloadSettingsAreObeyed goes from a field to what leads to the flowtable:
// which packets of a connection do is the same for both families.
func TestOffloadSettingsAreObeyed(t *testing.T) {
	for _, tt := range []struct {
		name string
		in   v3.FelixConfigurationSpec
		want string // where from, bit and devices; "": nothing leads there
	}{
		{"by itself", v3.FelixConfigurationSpec{NFTablesFlowTableDataIfacePattern: "^eth"}, ""},
		{"Disabled", v3.FelixConfigurationSpec{NFTablesFlowTableOffload: new("Disabled")}, ""},
		{"All", v3.FelixConfigurationSpec{NFTablesFlowTableOffload: new("All")}, "offload 0x10000 "},
		{"All, and others", v3.FelixConfigurationSpec{NFTablesFlowTableOffload: new("All"), NFTablesFlowTableDataIfacePattern: "^eth"}, "offload 0x10000 ^eth"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			o := &v3.FelixConfiguration{Spec: tt.in}
			o.Name = v3.DefaultName
			r, err := config.Resolve(config.Sources{Node: "h1", Objects: []*v3.FelixConfiguration{o}})
			if err != nil || len(r.Ignored)+len(r.Warnings) > 0 {
				t.Fatalf("%v, %+v", err, r)
			}
			for _, keep := range []bool{false, true} {
				r.Agent.Policy.KeepFlows = keep
				c := ruleConfig(r.Agent, 0)
				got := ""
				if chains := c.OffloadChains(); chains != nil {
					got = fmt.Sprintf("%s %#x %s", chains[0].Name, c.Offload, c.OffloadDevices)
				}
				if got != tt.want {
					t.Errorf("flows kept %v: got %q, want %q", keep, got, tt.want)
				}
			}
		})
	}
}

// bypass remembers what was done to a table of connections while they bypassed
// the rules, or did not.
type bypass struct {
	*connections
	does []string
}

func (b *bypass) SetMark(entries []conntrack.Entry, value, mask uint32) error {
	if len(entries) > 0 {
		b.does = append(b.does, fmt.Sprintf("mark %d %d", len(entries), value))
	}
	return b.connections.SetMark(entries, value, mask)
}

func (b *bypass) Delete(entries []conntrack.Entry) error {
	if len(entries) > 0 {
		b.does = append(b.does, fmt.Sprintf("forget %d", len(entries)))
	}
	return b.connections.Delete(entries)
}

// TestOffloadedConnectionsEnd: a connection that bypasses the rules is marked
// before all are taken out of the flowtable and forgotten after it; they get back
// when both are done. Where nothing ends, nothing is disturbed.
func TestOffloadedConnectionsEnd(t *testing.T) {
	for _, family := range []struct{ name, own, far, other string }{
		{"v4", "10.0.0.1", "10.9.0.1", "10.0.0.2"}, {"v6", "fd00::1", "fd09::1", "fd00::2"},
	} {
		t.Run(family.name, func(t *testing.T) {
			denied := map[string]bool{}
			d, _, c := document(false, denied, connection(family.far, family.own), connection(family.far, family.other))
			b := &bypass{connections: c}
			d.flows.table = b
			d.flows.halt = func() error { b.does = append(b.does, "halt"); return nil }
			d.flows.resume = func(context.Context) {
				if d.mu.TryLock() {
					t.Error("resumed with the document unlocked")
				}
				b.does = append(b.does, "resume")
			}
			step := func(what string, want ...string) {
				t.Helper()
				if err := d.Sync(t.Context(), false); err != nil {
					t.Fatal(err)
				}
				if _, err := d.lookOnce(t.Context(), nil, true); err != nil {
					t.Fatal(err)
				}
				if !slices.Equal(b.does, want) {
					t.Errorf("%s: %s, want %s", what, strings.Join(b.does, ", "), strings.Join(want, ", "))
				}
				b.does = nil
			}
			d.Take(set("cali1", endpoint("a", family.own)))
			d.Take(set("cali2", endpoint("b", family.other)))
			step("allowed")
			denied[family.own] = true
			d.Take(set("cali1", endpoint("a", family.own)))
			step("denied", "mark 1 1", "halt", "resume")
			denied[family.own] = false
			d.Take(set("cali1", endpoint("a", family.own)))
			step("allowed again", "mark 1 0")
			d.Take(gone("cali1"))
			step("gone", "halt", "forget 1", "resume")
			d.Take(gone("cali2"))
			d.Take(set("cali3", endpoint("c", family.other)))
			step("used again", "halt", "forget 1", "resume")
		})
	}
}

// TestKernelWithoutFlowtable: that a host does without is said, with field and
// value, and only while it is asked for; policy is enforced all the same.
func TestKernelWithoutFlowtable(t *testing.T) {
	tried, err := nft.Try(testenv.NetNS(t))
	if err != nil {
		t.Fatal(err)
	}
	lacks := slices.ContainsFunc(tried, func(f nft.Tried) bool { return f.Name == nft.FeatureFlowtable && f.Err != nil })
	cfg := rules.Config{Prefixes: []string{"cali"}, MarkMask: 0xff0000, CutMark: 0x1000000, Offload: 0x1000000}
	driver, err := nft.Open(nft.Config{NS: testenv.NetNS(t), Rules: cfg, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	defer driver.Close()
	e := &enforcement{driver: driver}
	want := desired.NewPolicy()
	for _, on := range []bool{true, false} {
		if cfg.Offload = 0; on {
			cfg.Offload = cfg.CutMark
		}
		driver.Configure(cfg)
		if err := driver.Sync(t.Context(), &want, nil); err != nil {
			t.Fatal(err)
		}
		got := strings.Join(e.offloads(), "; ")
		if (got != "") != (lacks && on) || got != "" && !strings.Contains(got, `nftablesFlowTableOffload: "All"`) {
			t.Errorf("asked for %v, the kernel lacks it %v: %q", on, lacks, got)
		}
	}
}
