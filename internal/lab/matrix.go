package lab

import (
	"context"
	"errors"
	"net/netip"
	"sync"
	"time"
)

// Cell is what one probe of a matrix found.
type Cell uint8

// The findings.
const (
	Self       Cell = iota // no probe: from and to are the same
	Reached                // answered
	Silent                 // not answered
	Unmeasured             // could not be measured
)

// Matrix is who reaches whom: Cells[i][j] is from Members[i] to Members[j].
type Matrix struct {
	Members []Member
	Cells   [][]Cell
}

// parallelProbes bounds how many probes are under way at once.
const parallelProbes = 16

// Measure sends one probe from every member to every other, by real packets.
// Members without an address of the family are left out.
func Measure(ctx context.Context, members []Member, family string, p Probe) (Matrix, error) {
	var m Matrix
	var to []netip.Addr
	for _, member := range members {
		for _, a := range member.Addresses {
			if a.Is4() == (family == V4) {
				m.Members, to = append(m.Members, member), append(to, a)
				break
			}
		}
	}
	p.Count = 1
	if p.Timeout == 0 {
		p.Timeout = 2 * time.Second
	}
	var wg sync.WaitGroup
	slots := make(chan struct{}, parallelProbes)
	m.Cells = make([][]Cell, len(m.Members))
	for i := range m.Members {
		m.Cells[i] = make([]Cell, len(m.Members))
		for j := range m.Members {
			if i == j {
				continue
			}
			probe := p
			probe.From, probe.To = m.Members[i], to[j]
			wg.Add(1)
			go func() {
				defer wg.Done()
				slots <- struct{}{}
				defer func() { <-slots }()
				m.Cells[i][j] = found(probe.Send(ctx))
			}()
		}
	}
	wg.Wait()
	return m, ctx.Err()
}

func found(out Outcome, err error) Cell {
	switch {
	case errors.Is(err, ErrNotMeasured):
		return Unmeasured
	case out.Answered > 0:
		return Reached
	}
	return Silent
}

// Complete reports whether everybody reaches everybody.
func (m Matrix) Complete() bool {
	for i, row := range m.Cells {
		for j, c := range row {
			if i != j && c != Reached {
				return false
			}
		}
	}
	return true
}
