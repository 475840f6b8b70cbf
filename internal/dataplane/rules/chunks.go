package rules

import (
	"hash/fnv"
	"slices"

	"github.com/brindle-net/brindle/internal/desired"
)

// A tier of many policies is cut into chunks, a chain each, so that a policy
// that comes or goes changes one of them and not the whole tier. Where a chunk
// ends depends on the policy there, so that all others stay what they are.
type chunking struct {
	from int    // policies of a tier that is cut
	most int    // policies of a chunk
	mean uint32 // policies of a chunk, about
}

// chunkState is a chunk, as one or more tiers have it.
type chunkState struct {
	policies []string
	dir      desired.Direction
	passes   bool // one of the policies passes packets on
	tiers    map[string]struct{}
}

// cut returns the chunks of a tier's policies, none if it has few.
func (c chunking) cut(policies []string) [][]string {
	if len(policies) <= c.from {
		return nil
	}
	var out [][]string
	begin := 0
	for i, p := range policies {
		h := fnv.New32a()
		h.Write([]byte(p))
		if n := i + 1 - begin; h.Sum32()%c.mean == 0 || n == c.most || i == len(policies)-1 {
			out = append(out, policies[begin:i+1])
			begin = i + 1
		}
	}
	return out
}

// holdChunk returns the chain of a chunk of a tier, which it makes if there is
// none.
func (b *Builder) holdChunk(tier string, policies []string, dir desired.Direction) string {
	name := "s-" + hash(append([]string{dir.String()}, policies...)...)
	st := b.chunks[name]
	if st == nil {
		st = &chunkState{policies: slices.Clone(policies), dir: dir, tiers: map[string]struct{}{}}
		b.chunks[name] = st
		for _, p := range policies {
			addUser(b.chunksOf, desired.RulesID{Owner: p, Direction: dir}, name)
		}
		b.dirty.chunks[name] = struct{}{}
	}
	st.tiers[tier] = struct{}{}
	return name
}

func (b *Builder) releaseChunk(tier, name string) {
	st := b.chunks[name]
	if delete(st.tiers, tier); len(st.tiers) > 0 {
		return
	}
	delete(b.chunks, name)
	b.putChain(name, nil)
	for _, p := range st.policies {
		dropUser(b.chunksOf, desired.RulesID{Owner: p, Direction: st.dir}, name)
	}
}

// writeChunks writes the chunks that are dirty, and marks the tiers that have
// to know.
func (b *Builder) writeChunks() {
	for name := range b.dirty.chunks {
		st := b.chunks[name]
		if st == nil {
			continue
		}
		passes := slices.ContainsFunc(st.policies, func(p string) bool { return b.passes(p, st.dir) })
		if passes != st.passes {
			st.passes = passes
			for t := range st.tiers {
				b.dirty.tiers[t] = struct{}{}
			}
		}
		c := &Chain{Name: name, Note: note("policies from " + st.policies[0] + " on, " + st.dir.String())}
		for _, p := range st.policies {
			c.Rules = append(c.Rules, b.jumpTo(p, st.dir))
			if b.passes(p, st.dir) { // the tier clears the bit
				c.Rules = append(c.Rules, when(b.passed()).do(Return{}))
			}
		}
		b.putChain(name, c)
	}
}

// passes reports whether a policy may pass packets on.
func (b *Builder) passes(policy string, dir desired.Direction) bool {
	l := b.lists[desired.RulesID{Owner: policy, Direction: dir}]
	return l != nil && l.passes
}

// passed matches packets that a policy has passed on.
func (b *Builder) passed() Match {
	bit := b.cfg.passBit()
	return Match{Fields: []Field{Mark}, Mask: bit, In: []Range{{markBytes(bit), markBytes(bit)}}}
}

func (b *Builder) jumpTo(policy string, dir desired.Direction) Rule {
	id := desired.RulesID{Owner: policy, Direction: dir}
	if b.lists[id] == nil {
		return Rule{Do: []Statement{Jump{chainMissing}}, Note: note(policy)}
	}
	return Rule{Do: []Statement{Jump{rulesChain(id)}}}
}
