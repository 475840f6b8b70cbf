package main

import (
	"math"
	"slices"
	"time"
)

// sample is a set of durations.
type sample []time.Duration

// quantile returns the q-th quantile in milliseconds.
func (s sample) quantile(q float64) float64 {
	if len(s) == 0 {
		return math.NaN()
	}
	sorted := slices.Sorted(slices.Values(s))
	i := int(math.Ceil(q*float64(len(sorted)))) - 1
	return ms(sorted[max(i, 0)])
}

func (s sample) p50() float64 { return s.quantile(0.5) }
func (s sample) p99() float64 { return s.quantile(0.99) }

// ms is a duration in milliseconds.
func ms(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

// twice is one thing measured in turns under two names.
type twice [2]sample

// all returns both together.
func (t twice) all() sample { return slices.Concat(t[0], t[1]) }

// apart is how far f of the one lies from f of the other.
func (t twice) apart(f func(sample) float64) float64 { return apart(f(t[0]), f(t[1])) }

// apart is the distance of two figures, as a part of the smaller one.
func apart(a, b float64) float64 { return math.Abs(a-b) / min(a, b) }

// median of some figures.
func median(list []float64) float64 {
	if len(list) == 0 {
		return math.NaN()
	}
	s := slices.Sorted(slices.Values(list))
	if n := len(s); n%2 == 0 {
		return (s[n/2-1] + s[n/2]) / 2
	}
	return s[len(s)/2]
}

// halves splits figures by turns, as twice does.
func halves(list []float64) (a, b []float64) {
	for i, v := range list {
		if i%2 == 0 {
			a = append(a, v)
		} else {
			b = append(b, v)
		}
	}
	return a, b
}

// medianApart is how far the medians of the two halves lie apart.
func medianApart(list []float64) float64 {
	a, b := halves(list)
	if len(b) == 0 {
		return math.NaN()
	}
	return apart(median(a), median(b))
}

// pick returns full, or quick when only a look is wanted.
func (o options) pick(full, quick int) int {
	if o.quick {
		return quick
	}
	return full
}
