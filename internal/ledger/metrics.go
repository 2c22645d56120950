package ledger

import (
	"fmt"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// metrics are the ledger's own. They are kept whether or not somebody collects them.
type metrics struct {
	registerer prometheus.Registerer // nil: nobody collects
	registered []prometheus.Collector

	commits    prometheus.Histogram
	operations prometheus.Histogram
	moves      prometheus.Histogram
	unmoved    prometheus.GaugeFunc
	waiting    prometheus.GaugeFunc
	failures   prometheus.Counter
	denials    prometheus.Counter
	warnings   *prometheus.CounterVec
	refusals   *prometheus.CounterVec
	outbox     prometheus.GaugeFunc
}

func newMetrics(l *Ledger, registerer prometheus.Registerer) (*metrics, error) {
	m := &metrics{
		commits: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name:    "carpool_ledger_commit_duration_seconds",
			Help:    "Time of a write to the ledger's journal, for which requests wait.",
			Buckets: prometheus.ExponentialBuckets(0.0001, 4, 8),
		}),
		operations: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name:    "carpool_ledger_commit_operations",
			Help:    "Records that shared a write to the ledger's journal.",
			Buckets: prometheus.ExponentialBuckets(1, 4, 6),
		}),
		moves: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name:    "carpool_ledger_move_duration_seconds",
			Help:    "Time of a transaction that moves entries from the ledger's journal to its database.",
			Buckets: prometheus.ExponentialBuckets(0.001, 4, 7),
		}),
		unmoved: prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "carpool_ledger_unmoved_entries",
			Help: "Entries in the ledger's journal that are not in its database yet.",
		}, func() float64 { return float64(max(l.LastSeq()-l.mover.moved.Load(), 0)) }),
		waiting: prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "carpool_ledger_waiting_entries",
			Help: "Entries in memory that could not be written to the ledger's journal, and are tried again.",
		}, func() float64 { return float64(l.writer.waiting.Load()) }),
		failures: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "carpool_ledger_commit_failures_total",
			Help: "Writes to the ledger's journal or database that failed.",
		}),
		denials: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "carpool_quota_denials_total",
			Help: "Requests that did not fit into their user's quota.",
		}),
		warnings: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "carpool_budget_warnings_total",
			Help: "Thresholds of budgets that were reached, by budget.",
		}, []string{"budget"}),
		refusals: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "carpool_budget_denials_total",
			Help: "Requests that did not fit into a budget, by the budget that they were told of.",
		}, []string{"budget"}),
		outbox: prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "carpool_ledger_outbox_entries",
			Help: "Entries that control has not acknowledged.",
		}, func() float64 { return float64(l.LastSeq() - l.Acknowledged()) }),
	}
	if registerer == nil {
		return m, nil
	}
	m.registerer = registerer
	for _, c := range []prometheus.Collector{m.commits, m.operations, m.moves, m.unmoved, m.waiting, m.failures, m.denials, m.warnings, m.refusals, m.outbox} {
		if err := registerer.Register(c); err != nil {
			m.unregister()
			return nil, fmt.Errorf("cannot register metrics: %w", err)
		}
		m.registered = append(m.registered, c)
	}
	return m, nil
}

// unregister lets a ledger that is opened again register anew.
func (m *metrics) unregister() {
	for _, c := range m.registered {
		m.registerer.Unregister(c)
	}
}

func (m *metrics) committed(operations int, took time.Duration, err error) {
	m.commits.Observe(took.Seconds())
	m.operations.Observe(float64(operations))
	if err != nil {
		m.failures.Inc()
	}
}

func (m *metrics) booked(took time.Duration, err error) {
	m.moves.Observe(took.Seconds())
	if err != nil {
		m.failures.Inc()
	}
}

func (m *metrics) denied(d *Denied) {
	if d.Budget != nil {
		m.refusals.WithLabelValues(d.Budget.Name).Inc()
		return
	}
	m.denials.Inc()
}
