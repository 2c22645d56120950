package web

import (
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Metrics counts requests. The labels are bounded: path is the route, not what was sent.
type Metrics struct {
	requests *prometheus.CounterVec
	duration *prometheus.HistogramVec
	inFlight prometheus.Gauge
	panics   prometheus.Counter
	slow     *prometheus.CounterVec
}

// NewMetrics registers the metrics of the HTTP front.
func NewMetrics(registry prometheus.Registerer) *Metrics {
	m := &Metrics{
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "http_requests_total", Help: "Requests answered, by method, route and status (0: the client left before).",
		}, []string{"method", "path", "status"}),
		duration: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "http_request_duration_seconds", Help: "Time from a request's header to the end of its answer.",
			Buckets: []float64{.001, .005, .025, .1, .25, .5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600},
		}, []string{"method", "path"}),
		inFlight: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "http_requests_in_flight", Help: "Requests being served, streams included.",
		}),
		panics: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "http_panics_total", Help: "Requests that ended in a panic.",
		}),
		slow: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "http_slow_clients_total", Help: "Connections given up because the client took nothing of its answer, by server.",
		}, []string{"server"}),
	}
	registry.MustRegister(m.requests, m.duration, m.inFlight, m.panics, m.slow)
	return m
}

// SlowClient returns what counts the connections that a server gives up.
func (m *Metrics) SlowClient(server string) func() { return m.slow.WithLabelValues(server).Inc }

func (m *Metrics) observe(r *Request, status int, took time.Duration) {
	method := r.Method
	switch method {
	case "GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS":
	default:
		method = "other"
	}
	m.requests.WithLabelValues(method, r.Route, strconv.Itoa(status)).Inc()
	m.duration.WithLabelValues(method, r.Route).Observe(took.Seconds())
}
