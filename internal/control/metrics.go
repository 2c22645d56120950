package control

import (
	"fmt"

	"github.com/prometheus/client_golang/prometheus"
)

// metrics are control's own; those about traffic belong to the nodes.
type metrics struct {
	changes prometheus.Counter
	entries prometheus.Counter
	version prometheus.GaugeFunc
}

func newMetrics(c *Control) metrics {
	return metrics{
		changes: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "carpool_control_changes_total", Help: "Changes to the policy, tokens included.",
		}),
		entries: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "carpool_control_entries_total", Help: "Usage entries stored.",
		}),
		version: prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "carpool_control_policy_version", Help: "Version of the policy of record.",
		}, func() float64 {
			if now := c.current.Load(); now != nil {
				return float64(now.state.Version)
			}
			return 0
		}),
	}
}

// register makes the metrics known; nil is nobody.
func (m metrics) register(registerer prometheus.Registerer) error {
	if registerer == nil {
		return nil
	}
	for _, each := range m.all() {
		if err := registerer.Register(each); err != nil {
			return fmt.Errorf("cannot register metrics: %w", err)
		}
	}
	return nil
}

func (m metrics) all() []prometheus.Collector {
	return []prometheus.Collector{m.changes, m.entries, m.version}
}

func (m metrics) unregister(registerer prometheus.Registerer) {
	if registerer == nil {
		return
	}
	for _, each := range m.all() {
		registerer.Unregister(each)
	}
}
