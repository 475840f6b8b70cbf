package health

import (
	"maps"
	"net/http"
	"slices"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// Sample is one value of one metric at this moment.
type Sample struct {
	Name    string // brindle_<what>_<unit>
	Help    string
	Labels  map[string]string
	Value   float64
	Counter bool // it only ever grows; else it is a gauge
}

// metrics serves the program's samples, the conditions, and, unless left out,
// what the Go runtime and the kernel know of the process.
func (h *Health) metrics() http.Handler {
	reg := prometheus.NewRegistry()
	reg.MustRegister(collector{h})
	reg.MustRegister(optional{collectors.NewGoCollector(), h.cfg.OmitGo},
		optional{collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}), h.cfg.OmitProcess})
	return promhttp.HandlerFor(reg, promhttp.HandlerOpts{})
}

// optional is a collector that may be left out of a scrape.
type optional struct {
	of   prometheus.Collector
	omit func() bool // nil: never
}

// Describe sends nothing: what there is is known only at a scrape.
func (o optional) Describe(chan<- *prometheus.Desc) {}

// Collect sends what the collector has, unless it is left out now.
func (o optional) Collect(out chan<- prometheus.Metric) {
	if o.omit == nil || !o.omit() {
		o.of.Collect(out)
	}
}

// collector turns samples into Prometheus metrics at each scrape.
type collector struct{ h *Health }

// Describe sends nothing: which samples there are is known only at a scrape.
func (c collector) Describe(chan<- *prometheus.Desc) {}

// Collect sends one metric per condition and per sample.
func (c collector) Collect(out chan<- prometheus.Metric) {
	ready := 1.0
	for _, cond := range c.h.Conditions() {
		v := 1.0
		if !cond.Status {
			v = 0
			if !cond.Advisory {
				ready = 0
			}
		}
		send(out, Sample{Name: "brindle_condition", Help: "1 when the condition holds.",
			Labels: map[string]string{"condition": cond.Type, "reason": cond.Reason}, Value: v})
	}
	send(out, Sample{Name: "brindle_ready", Help: "1 when every condition holds that is more than advice.", Value: ready})
	if c.h.cfg.Samples == nil {
		return
	}
	for _, s := range c.h.cfg.Samples() {
		send(out, s)
	}
}

func send(out chan<- prometheus.Metric, s Sample) {
	names := slices.Sorted(maps.Keys(s.Labels))
	values := make([]string, len(names))
	for i, n := range names {
		values[i] = s.Labels[n]
	}
	kind := prometheus.GaugeValue
	if s.Counter {
		kind = prometheus.CounterValue
	}
	m, err := prometheus.NewConstMetric(prometheus.NewDesc(s.Name, s.Help, names, nil), kind, s.Value, values...)
	if err != nil {
		m = prometheus.NewInvalidMetric(prometheus.NewDesc(s.Name, s.Help, nil, nil), err)
	}
	out <- m
}
