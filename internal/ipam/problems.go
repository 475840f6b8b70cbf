package ipam

import (
	"fmt"
	"slices"
	"time"
)

// contradictions is problems without those that depend on the time.
func (b *Block) contradictions() []string { return b.problems(time.Unix(1<<40, 0)) }

// problems lists what contradicts itself in a block. None of it can make an
// address have two owners: assignment looks twice.
func (b *Block) problems(now time.Time) []string {
	var out []string
	say := func(format string, args ...any) { out = append(out, fmt.Sprintf(format, args...)) }
	used := make([]bool, len(b.attrs))
	for _, i := range b.slots {
		if i != free {
			used[i] = true
		}
	}
	for i, is := range used {
		if !is {
			say("attribute %d is not used by any address", i)
		}
		if at := b.attrs[i].ReleasedAt; at.After(now.Add(time.Second)) {
			say("attribute %d was released in the future, at %s", i, at.UTC().Format(time.RFC3339))
		}
	}
	count := make([]int, len(b.slots))
	for _, ord := range b.queue {
		if ord < 0 || ord >= len(count) {
			say("free ordinal %d is outside the block", ord)
			continue
		}
		count[ord]++
	}
	for ord, n := range count {
		switch isFree := b.slots[ord] == free; {
		case n > 1:
			say("%s is in the list of free addresses twice or more", b.Addr(ord))
		case n == 1 && !isFree:
			say("%s is both free and assigned", b.Addr(ord))
		case n == 0 && isFree:
			say("%s is neither free nor assigned", b.Addr(ord))
		}
	}
	for ord := range b.seqs {
		if ord < 0 || ord >= len(b.slots) || b.slots[ord] == free {
			say("ordinal %d has a sequence number but is not assigned", ord)
		}
	}
	slices.Sort(out)
	return out
}
