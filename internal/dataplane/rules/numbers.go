package rules

// numbers gives out small numbers by name. A name that had one in a program
// before gets the same again, if nothing else has it.
type numbers struct {
	taken    map[uint32]struct{}
	low      uint32 // all below are taken
	highest  uint32 // that was ever given out
	hints    map[string]uint32
	reserved map[uint32]struct{} // those of hints
}

// newNumbers gives out numbers from low on.
func newNumbers(low uint32, hints map[string]uint32) *numbers {
	n := &numbers{taken: map[uint32]struct{}{}, low: low, hints: hints, reserved: make(map[uint32]struct{}, len(hints))}
	for _, h := range hints {
		n.reserved[h] = struct{}{}
	}
	return n
}

// hinted reports whether the name has a number of before that is free.
func (n *numbers) hinted(name string) bool {
	h, ok := n.hints[name]
	_, taken := n.taken[h]
	return ok && !taken
}

func (n *numbers) take(name string) uint32 {
	number := n.low
	if n.hinted(name) {
		number = n.hints[name]
	} else {
		for !n.isFree(number) {
			number++
		}
	}
	n.taken[number] = struct{}{}
	n.highest = max(n.highest, number)
	for ; len(n.taken) > 0; n.low++ {
		if _, taken := n.taken[n.low]; !taken {
			break
		}
	}
	return number
}

func (n *numbers) isFree(number uint32) bool {
	_, taken := n.taken[number]
	_, reserved := n.reserved[number]
	return !taken && !reserved
}

func (n *numbers) release(number uint32) {
	delete(n.taken, number)
	n.low = min(n.low, number)
}

// forgetHints ends the time in which names get their numbers of before.
func (n *numbers) forgetHints() { n.hints, n.reserved = nil, nil }
