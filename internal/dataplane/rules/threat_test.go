package rules

import (
	"slices"
	"strings"
	"testing"
)

// TestThreat33RowsHaveALimit: whose rules need too many rows gets plain rules;
// the rest keep their look-ups, all together have an end, and what is decided
// stays the same.
func TestThreat33RowsHaveALimit(t *testing.T) {
	seeds, steps := 40, 12
	if testing.Short() {
		seeds = 10
	}
	broken, compiled := 0, 0
	for seed := range seeds {
		w := newWorld(uint64(seed))
		cfg := testConfig()
		cfg.Compiled = true
		b := New(cfg, &w.policy)
		c := b.compiler
		c.limits = limits{group: 60, all: 150}
		mirror := Render(cfg, &w.policy)
		for step := range steps {
			patch := w.step(8)
			patch.Play(w.policy)
			if err := mirror.play(b.Update(&w.policy, &patch)); err != nil {
				t.Fatalf("seed %d, step %d: delta: %v", seed, step, err)
			}
			if diff := difference(mirror.String(), b.Program().String()); diff != "" {
				t.Fatalf("seed %d, step %d: deltas (-) against updated (+):\n%s", seed, step, diff)
			}
			if err := b.Program().sound(); err != nil {
				t.Fatalf("seed %d, step %d: %v", seed, step, err)
			}
			all, markers := 0, 0
			for _, g := range c.groups {
				if all += g.count; g.count > c.limits.group {
					t.Fatalf("seed %d, step %d: a group has %d rows", seed, step, g.count)
				}
			}
			s, plain := b.Stats(), 0
			for name, set := range b.Program().Sets {
				switch {
				case name == setPainted:
					markers = len(set.Elements)
				case strings.HasPrefix(name, "row-"):
					for _, e := range set.Elements {
						if e.Number&markPlain != 0 {
							plain++
						}
					}
				}
			}
			if all != c.rows || all > c.limits.all || s.Rows != all-markers || s.PlainRows != plain {
				t.Fatalf("seed %d, step %d: groups have %d elements, %d are counted; %d of them, and %d plain rows: %+v", seed, step, all, c.rows, all-markers, plain, s)
			}
			broken, compiled = broken+s.Broken, compiled+s.Compiled
			for range 20 {
				pkt := w.packet()
				pkt.Mark = 0
				w.check(t, b.Program(), pkt)
			}
		}
	}
	if broken < seeds || compiled < seeds {
		t.Errorf("%d groups were too large, %d were not", broken, compiled)
	}
}

// TestWorkload: what is shown of a workload has everything that its packets
// meet, the counters of look-ups too.
func TestWorkload(t *testing.T) {
	decided := 0
	for seed := range 40 {
		w := newWorld(uint64(seed))
		w.full()
		cfg := testConfig()
		cfg.Compiled = true
		program := Render(cfg, &w.policy)
		shown := map[string]Workload{}
		for iface := range w.policy.Endpoints {
			part, ok := program.Workload(iface)
			if !ok {
				t.Fatalf("seed %d: no rules for %s", seed, iface)
			}
			shown[iface] = part
		}
		for range 100 {
			pkt := w.packet()
			pkt.Mark = 0
			got, err := program.Trace(pkt)
			if err != nil {
				t.Fatal(err)
			}
			text := shown[pkt.In].Text + shown[pkt.Out].Text
			for _, s := range got.Steps {
				if s.Counter == "" || program.Chains[s.Chain].Hook != nil || s.Chain == "careful" || s.Chain == "own-target" || s.Chain == "link-local" {
					continue
				}
				_, in := slices.BinarySearch(shown[pkt.In].Counters, s.Counter)
				_, out := slices.BinarySearch(shown[pkt.Out].Counters, s.Counter)
				if !in && !out || !strings.Contains(text, "chain "+s.Chain) || !strings.Contains(text, s.Counter) {
					t.Fatalf("seed %d: %+v\n%v counts with %s in %s, which is not in\n%s", seed, pkt, got, s.Counter, s.Chain, text)
				}
				if s.Chain == chainDecided {
					decided++
				}
			}
		}
		if _, ok := program.Workload("cali9"); ok {
			t.Error("there are rules for a workload that is not there")
		}
	}
	if decided < 100 {
		t.Errorf("only %d packets were decided by look-ups", decided)
	}
	cfg := testConfig()
	cfg.Compiled = true
	w, _ := Render(cfg, shop()).Workload("cali2")
	golden(t, "workload.txt", w.Text)
}

// TestThreat33ManyClasses: more classes than there are numbers for, and more
// groups, leave everybody to the plain rules, which say the same.
func TestThreat33ManyClasses(t *testing.T) {
	w := newWorld(1)
	cfg := testConfig()
	cfg.Compiled = true
	b := New(cfg, &w.policy)
	full := w.step(20)
	full.Play(w.policy)
	b.Update(&w.policy, &full)
	for _, n := range []*numbers{b.compiler.space.given, b.compiler.given} {
		n.highest = 1 << classBits // as if there had been so many
	}
	for range 20 {
		p := w.step(6)
		p.Play(w.policy)
		b.Update(&w.policy, &p)
		for range 20 {
			pkt := w.packet()
			pkt.Mark = 0
			w.check(t, b.Program(), pkt)
		}
		if s := b.Stats(); s.Compiled > 0 || s.Groups > 0 && s.Broken == 0 {
			t.Fatalf("%+v", s)
		}
	}
}
