package upstream

import (
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"carpool/internal/wire"
)

type metrics struct {
	requests *prometheus.CounterVec
	header   *prometheus.HistogramVec
}

func newMetrics(registry prometheus.Registerer) *metrics {
	m := &metrics{
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "carpool_upstream_requests_total", Help: "Requests sent to upstreams, by upstream and status (0: no answer).",
		}, []string{"upstream", "status"}),
		header: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "carpool_upstream_header_seconds", Help: "Time from sending a request to the header of the upstream's answer.",
			Buckets: []float64{.01, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600},
		}, []string{"upstream"}),
	}
	registry.MustRegister(m.requests, m.header)
	return m
}

func (m *metrics) observe(upstream string, r *wire.Response, err error, took time.Duration) {
	status := 0
	if err == nil {
		status = r.Status
		m.header.WithLabelValues(upstream).Observe(took.Seconds())
	}
	m.requests.WithLabelValues(upstream, strconv.Itoa(status)).Inc()
}

// coolingCollector tells which upstreams are left alone. It looks when it is asked: a cooldown ends without anybody noticing.
type coolingCollector struct{ pool *Pool }

func (c *coolingCollector) desc() *prometheus.Desc {
	return prometheus.NewDesc("carpool_upstream_cooling", "1 while an upstream, or a model of it, is left alone, by cause.", []string{"upstream", "cause"}, nil)
}

// Describe implements prometheus.Collector.
func (c *coolingCollector) Describe(out chan<- *prometheus.Desc) { out <- c.desc() }

// Collect implements prometheus.Collector.
func (c *coolingCollector) Collect(out chan<- prometheus.Metric) {
	seen := map[[2]string]bool{} // several models of an upstream can be left alone for one cause
	for _, one := range c.pool.Cooling() {
		if labels := [2]string{one.Upstream, one.Cause}; !seen[labels] {
			seen[labels] = true
			out <- prometheus.MustNewConstMetric(c.desc(), prometheus.GaugeValue, 1, labels[:]...)
		}
	}
}
