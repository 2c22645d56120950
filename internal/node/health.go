package node

import (
	"encoding/json"
	"strconv"
	"time"

	"carpool/internal/anthropic"
	"carpool/internal/web"
	"carpool/internal/wire"
)

// healthAnswer is the body of /health, /live and /ready.
type healthAnswer struct {
	Status    string `json:"status"` // healthy, draining, unhealthy
	Service   string `json:"service"`
	Timestamp string `json:"timestamp"`
	Uptime    int64  `json:"uptime"` // seconds
	NodeID    string `json:"node_id"`
	Connected bool   `json:"connected"` // to control
	Version   string `json:"version"`
	Problem   string `json:"problem,omitempty"`
}

// health answers probes. /live says that the process runs, /ready and /health that it may be sent requests.
func (n *Node) health(w wire.Writer, r *web.Request) error {
	r.Route, r.Quiet = r.Path, true
	if r.Method != "GET" && r.Method != "HEAD" {
		return anthropic.ErrNotFound("Use GET " + r.Path + ".")
	}
	now := n.now()
	answer := healthAnswer{
		Status: "healthy", Service: "carpool", Timestamp: now.UTC().Format("2006-01-02T15:04:05.000Z"),
		Uptime: int64(now.Sub(n.started) / time.Second), NodeID: n.name, Connected: n.connected.Load(), Version: n.version,
	}
	if warning := n.warning.Load(); warning != nil {
		answer.Problem = *warning
	}
	if err := n.ledger.Ready(); err != nil {
		answer.Status, answer.Problem = "unhealthy", "the ledger cannot write; see the log"
	} else if n.draining.Load() {
		answer.Status = "draining"
	}
	status := 200
	if answer.Status != "healthy" && r.Path != "/live" {
		status = 503
	}
	body, err := json.Marshal(answer)
	if err != nil {
		return anthropic.ErrInternal(err)
	}
	body = append(body, '\n') // people look at it in a terminal
	head := wire.Head{
		{Name: "Content-Type", Value: "application/json"},
		{Name: "Request-Id", Value: r.ID},
		{Name: "Cache-Control", Value: "no-store"},
		{Name: "Content-Length", Value: strconv.Itoa(len(body))},
	}
	if err := w.Begin(status, head); err != nil || r.Method == "HEAD" {
		return err
	}
	_, err = w.Write(body)
	return err
}
