package ipam

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"hash/fnv"
	"math/rand"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	v3 "github.com/brindle-net/brindle/api/v3"
	"github.com/brindle-net/brindle/internal/selector"
	"github.com/brindle-net/brindle/internal/store"
)

// further assigns what the host's known blocks did not give: from its blocks
// as the datastore has them, from new ones, from those of others. One request
// per host and family does so at a time, so that a burst claims one block and
// not one each.
func (r *request) further(ctx context.Context, w *want) error {
	unlock, err := r.m.claims.lock(ctx, r.args.Host+" "+w.family.String())
	if err != nil {
		return err
	}
	defer unlock()
	mine := HostAffinity(r.args.Host)
	own := r.m.ownBlocks(r.args.Host, w.family)
	if err := r.takeFrom(ctx, w, own, mine); err != nil || w.need == 0 {
		return err
	}
	own, unfinished, err := r.refresh(ctx, w)
	if err != nil {
		return err
	}
	if err := r.takeFrom(ctx, w, own, mine); err != nil || w.need == 0 {
		return err
	}
	conf := r.settings.Configuration
	if !conf.AutoAllocateBlocks {
		return r.short(w, fmt.Errorf("%w: host %s has %s and autoAllocateBlocks is false", ErrExhausted, r.args.Host, blocksText(len(own))))
	}
	full, err := r.claimMore(ctx, w, len(own), unfinished)
	if err != nil || w.need == 0 {
		return err
	}
	if conf.StrictAffinity {
		return r.short(w, fmt.Errorf("%w, and strictAffinity forbids to borrow", full))
	}
	if err := r.borrow(ctx, w); err != nil {
		return err
	}
	return r.short(w, full)
}

// claimMore claims blocks and assigns from them, until all is assigned or
// nothing is left to claim; full says why.
func (r *request) claimMore(ctx context.Context, w *want, have int, unfinished []netip.Prefix) (full, err error) {
	limit := r.settings.Configuration.maxBlocks(r.args.MaxBlocks)
	search := &blockSearch{r: r, w: w, unfinished: unfinished}
	for ; w.need > 0; have++ {
		if have >= limit {
			return fmt.Errorf("%w: host %s has %s of at most %d; raise maxBlocksPerHost or release some",
				ErrBlockLimit, r.args.Host, blocksText(have), limit), nil
		}
		cidr, err := search.claim(ctx)
		if errors.Is(err, errTaken) {
			return fmt.Errorf("%w: every block of %s is somebody's", ErrExhausted, poolNames(w.pools)), nil
		}
		if err != nil {
			return nil, err
		}
		if err := r.takeNew(ctx, w, cidr, HostAffinity(r.args.Host)); err != nil {
			return nil, err
		}
	}
	return nil, nil
}

// short is the error of a family that did not get all it wanted.
func (r *request) short(w *want, why error) error {
	if w.need == 0 {
		return nil
	}
	return fmt.Errorf("%d of %d %s addresses: %w", len(w.got), len(w.got)+w.need, w.family, why)
}

func blocksText(n int) string {
	if n == 1 {
		return "1 block"
	}
	return strconv.Itoa(n) + " blocks"
}

func poolNames(pools []Pool) string {
	var names []string
	for _, p := range pools {
		names = append(names, fmt.Sprintf("pool %s (%s)", p.Name, p.CIDR))
	}
	return strings.Join(names, ", ")
}

// takeFrom assigns from those of these blocks that are in the wanted pools.
func (r *request) takeFrom(ctx context.Context, w *want, cidrs []netip.Prefix, affinity string) error {
	for _, cidr := range cidrs {
		if w.need == 0 {
			return nil
		}
		if !inPools(w.pools, cidr) {
			continue
		}
		if err := r.takeNew(ctx, w, cidr, affinity); err != nil {
			return err
		}
	}
	return nil
}

// refresh reads which blocks the host has. Empty ones in pools that no longer
// select the host are given up. Unfinished are those in the wanted pools whose
// claim or release was interrupted.
func (r *request) refresh(ctx context.Context, w *want) (own, unfinished []netip.Prefix, err error) {
	list, err := r.m.listAffinities(ctx, r.args.Host, w.family)
	if err != nil {
		return nil, nil, err
	}
	for _, a := range list {
		wanted := inPools(w.pools, a.id.CIDR)
		pool, known := r.settings.pool(a.id.CIDR)
		if !wanted && (!known || !pool.selects(r.args.HostLabels)) {
			err := r.m.releaseAffinity(ctx, a.id, true)
			if err == nil {
				continue
			}
			if !errors.Is(err, errInUse) && !errors.Is(err, store.ErrConflict) {
				return nil, nil, err
			}
		}
		if a.state == Confirmed {
			own = append(own, a.id.CIDR)
		} else if wanted {
			unfinished = append(unfinished, a.id.CIDR)
		}
	}
	for _, cidr := range own {
		r.m.forgetFull(cidr, r.settings)
	}
	r.m.mu.Lock()
	r.m.owned[hostFamily{r.args.Host, w.family}] = slices.Clone(own)
	r.m.mu.Unlock()
	return own, unfinished, nil
}

// forgetFull forgets a block that is remembered as full: somebody else may
// have released addresses of it.
func (m *Manager) forgetFull(cidr netip.Prefix, s *Settings) {
	if m.peek(cidr, s) == 0 {
		m.forget(cidr)
	}
}

// namedAffinity is a stored affinity with its key.
type namedAffinity struct {
	id    store.AffinityID
	state State
	rev   store.Revision
}

// listAffinities lists a host's affinities of one family, sorted.
func (m *Manager) listAffinities(ctx context.Context, host string, f Family) ([]namedAffinity, error) {
	root := store.AffinityPrefix(false, host) + strings.ToLower(f.String()) + "/"
	list, err := m.db.List(ctx, root)
	if err != nil {
		return nil, fmt.Errorf("list blocks of host %s: %w", host, err)
	}
	return decodeAffinities(list.KVs)
}

func decodeAffinities(kvs []store.KV) ([]namedAffinity, error) {
	var out []namedAffinity
	for _, kv := range kvs {
		id, ok := store.ParseAffinityKey(kv.Key)
		if !ok {
			continue
		}
		a, err := decodeAffinity(kv.Value)
		if err != nil {
			return nil, fmt.Errorf("affinity %s: %w", kv.Key, err)
		}
		if !a.gone {
			out = append(out, namedAffinity{id, a.state, kv.Revision})
		}
	}
	slices.SortFunc(out, func(a, b namedAffinity) int { return a.id.CIDR.Compare(b.id.CIDR) })
	return out, nil
}

// borrow assigns from blocks of others, in an order of this host's own.
func (r *request) borrow(ctx context.Context, w *want) error {
	blocks, err := r.m.listBlocks(ctx, w.family)
	if err != nil {
		return err
	}
	rnd := hostRand(r.args.Host)
	rnd.Shuffle(len(blocks), func(i, j int) { blocks[i], blocks[j] = blocks[j], blocks[i] })
	now, coolDown := r.m.now(), r.coolDown()
	for _, b := range blocks {
		if w.need == 0 {
			return nil
		}
		free := b.available(r.settings.Reserved) + len(b.cooled(now, coolDown))
		if free == 0 || b.Virtual() != "" || !inPools(w.pools, b.CIDR) {
			continue
		}
		r.m.forgetFull(b.CIDR, r.settings)
		if err := r.takeNew(ctx, w, b.CIDR, ""); err != nil {
			return err
		}
	}
	return nil
}

// listBlocks reads all blocks of a family, sorted. One that cannot be read is
// left out: it is nobody's to change.
func (m *Manager) listBlocks(ctx context.Context, f Family) ([]*Block, error) {
	list, err := m.db.List(ctx, f.blocks())
	if err != nil {
		return nil, fmt.Errorf("list %s blocks: %w", f, err)
	}
	var blocks []*Block
	for _, kv := range list.KVs {
		cidr, ok := store.ParseBlockKey(kv.Key)
		if !ok {
			continue
		}
		if b, err := decodeBlockAt(cidr, kv.Value); err == nil && !b.gone {
			blocks = append(blocks, b)
		}
	}
	slices.SortFunc(blocks, func(a, b *Block) int { return a.CIDR.Compare(b.CIDR) })
	return blocks, nil
}

// hostRand is random, but the same for a host every time.
func hostRand(host string) *rand.Rand {
	h := fnv.New32()
	h.Write([]byte(host)) // never fails
	return rand.New(rand.NewSource(int64(h.Sum32())))
}

// needHostLabels reports whether any pool chooses among hosts.
func (s *Settings) needHostLabels() bool {
	return slices.ContainsFunc(s.Pools, func(p Pool) bool { return !p.NodeSelector.Equal(selector.Selector{}) })
}

// hostLabels reads the labels of a Node.
func (m *Manager) hostLabels(ctx context.Context, host string) (map[string]string, error) {
	kv, err := m.db.Get(ctx, store.ResourceID{Plural: pluralNodes, Name: host}.Key())
	if err != nil {
		return nil, fmt.Errorf("read node %s, whose labels pools ask for: %w", host, err)
	}
	var node v3.Node
	if err := json.Unmarshal(kv.Value, &node); err != nil {
		return nil, fmt.Errorf("node %s: %w: %w", host, ErrCorrupt, err)
	}
	if node.Labels == nil {
		return map[string]string{}, nil
	}
	return node.Labels, nil
}
