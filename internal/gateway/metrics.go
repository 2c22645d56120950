package gateway

import (
	"cmp"
	"log/slog"
	"sync"

	"github.com/prometheus/client_golang/prometheus"

	"carpool/internal/ledger"
	"carpool/internal/policy"
)

type metrics struct {
	firstByte  *prometheus.HistogramVec
	tokens     *prometheus.CounterVec
	exchanges  *prometheus.CounterVec
	denials    *prometheus.CounterVec
	clients    *prometheus.CounterVec
	streams    prometheus.Gauge
	cost       prometheus.Counter
	unpriced   *prometheus.CounterVec
	unreported *prometheus.CounterVec

	mu     sync.Mutex
	models map[string]bool // labels of unpriced
}

func newMetrics(registry prometheus.Registerer) *metrics {
	m := &metrics{
		models: map[string]bool{},
		firstByte: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "carpool_first_byte_seconds", Help: "Time from a request's header to the first byte of its answer.",
			Buckets: []float64{.01, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600},
		}, []string{"endpoint"}),
		tokens: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "carpool_tokens_total", Help: "Tokens settled, by class.",
		}, []string{"class"}),
		exchanges: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "carpool_exchanges_total", Help: "Exchanges that were admitted, by endpoint and outcome.",
		}, []string{"endpoint", "outcome"}),
		denials: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "carpool_denials_total", Help: "Requests refused by limits, quotas and key scopes, by reason.",
		}, []string{"reason"}),
		clients: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "carpool_client_objections_total", Help: "Requests of programs that the client policy objects to, by reason and by whether they were refused or only warned of.",
		}, []string{"reason", "action"}),
		streams: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "carpool_streams_in_flight", Help: "Streams being relayed.",
		}),
		cost: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "carpool_cost_microdollars_total", Help: "What settled exchanges cost, in millionths of a US dollar.",
		}),
		unpriced: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "carpool_unpriced_exchanges_total", Help: "Exchanges of which something has no price and that were charged by a rule instead, by model; beyond 32 models they are other.",
		}, []string{"model"}),
		unreported: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "carpool_unreported_exchanges_total", Help: "Exchanges whose answer was whole and did not say what it used, and that were charged by an estimate, by upstream.",
		}, []string{"upstream"}),
	}
	registry.MustRegister(m.firstByte, m.tokens, m.exchanges, m.denials, m.clients, m.streams, m.cost, m.unpriced, m.unreported)
	return m
}

// budgetCollector says how much of the budgets in force is used. A team's budget for each member is as full as that of the
// member who has used most.
type budgetCollector struct{ g *Gateway }

// maxBudgetSeries bounds the labels: more budgets are not told of one by one.
const maxBudgetSeries = 500

func budgetRatio() *prometheus.Desc {
	return prometheus.NewDesc("carpool_budget_used_ratio",
		"Used part of a budget in its current window, of the first 500 budgets.", []string{"budget"}, nil)
}

func (c budgetCollector) Describe(to chan<- *prometheus.Desc) { to <- budgetRatio() }

func (c budgetCollector) Collect(to chan<- prometheus.Metric) {
	s := c.g.snapshot.Load()
	if s == nil {
		return
	}
	budgets := s.Budgets()
	for _, b := range budgets[:min(len(budgets), maxBudgetSeries)] {
		most := 0.0
		for _, use := range c.g.ledger.Budget(b) {
			most = max(most, use.Share())
		}
		to <- prometheus.MustNewConstMetric(budgetRatio(), prometheus.GaugeValue, most, b.Name)
	}
}

func (m *metrics) observe(e *ledger.Entry) {
	m.exchanges.WithLabelValues(e.Endpoint, string(e.Outcome)).Inc()
	if e.FirstByte >= 0 {
		m.firstByte.WithLabelValues(e.Endpoint).Observe(float64(e.FirstByte) / 1000)
	}
	for _, t := range [...]struct {
		class string
		n     int64
	}{
		{"input", e.InputTokens},
		{"output", e.OutputTokens},
		{"cache_read", e.CacheReadTokens},
		{"cache_write_5m", e.CacheWrite5mTokens},
		{"cache_write_1h", e.CacheWrite1hTokens},
	} {
		m.tokens.WithLabelValues(t.class).Add(float64(max(t.n, 0)))
	}
	m.cost.Add(float64(e.Cost))
	if e.Unpriced {
		m.unpriced.WithLabelValues(m.label(identifier(cmp.Or(e.ModelServed, e.ModelSent, e.ModelAsked)))).Inc()
	}
}

// label bounds the models that become labels, because anybody can ask for any.
func (m *metrics) label(model string) string {
	const (
		most  = 32
		other = "other"
	)
	m.mu.Lock()
	defer m.mu.Unlock()
	switch {
	case m.models[model]:
	case model == "" || len(m.models) == most:
		return other
	default:
		m.models[model] = true
	}
	return model
}

func logUser(c policy.Caller) []slog.Attr {
	return []slog.Attr{slog.String("user", c.User.Name), slog.String("key", c.Key.Name)}
}

func logEntry(e *ledger.Entry) []slog.Attr {
	return []slog.Attr{
		slog.String("model", e.ModelAsked), slog.String("upstream", e.Upstream), slog.String("outcome", string(e.Outcome)),
		slog.String("upstreamRequestId", e.UpstreamRequestID), slog.String("session", e.SessionID),
		slog.Int64("firstByteMs", e.FirstByte), slog.Int64("input", e.InputTokens), slog.Int64("output", e.OutputTokens),
		slog.Int64("cacheRead", e.CacheReadTokens), slog.Int64("cacheWrite", e.CacheWrite5mTokens+e.CacheWrite1hTokens),
		slog.Int64("costMicroUsd", e.Cost),
	}
}
