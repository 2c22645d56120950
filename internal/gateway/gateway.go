package gateway

import (
	"cmp"
	"context"
	"log/slog"
	"strings"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"carpool/internal/anthropic"
	"carpool/internal/ledger"
	"carpool/internal/policy"
	"carpool/internal/upstream"
	"carpool/internal/web"
	"carpool/internal/wire"
)

// Options configure a Gateway.
type Options struct {
	Snapshot     *atomic.Pointer[policy.Snapshot] // the policy in force; never nil inside once serving
	Hasher       policy.Hasher
	Ledger       *ledger.Ledger
	Pool         *upstream.Pool
	Log          *slog.Logger
	Registerer   prometheus.Registerer
	Now          func() time.Time
	Bodies       BodyLimits
	PingInterval time.Duration // silence of an upstream after which a stream gets a ping; 0: 15 seconds
}

// Gateway serves developers' requests. It is safe for concurrent use.
type Gateway struct {
	snapshot      *atomic.Pointer[policy.Snapshot]
	hasher        policy.Hasher
	ledger        *ledger.Ledger
	pool          *upstream.Pool
	log           *slog.Logger
	metrics       *metrics
	now           func() time.Time
	bodies        bodies
	pingInterval  time.Duration
	limits        *limits
	habits        *habits
	exchanges     atomic.Int64
	streamBuffers bufferPool
	plainBuffers  bufferPool
}

// New returns a Gateway.
func New(o Options) *Gateway {
	g := &Gateway{
		snapshot: o.Snapshot, hasher: o.Hasher, ledger: o.Ledger, pool: o.Pool, log: o.Log, metrics: newMetrics(o.Registerer),
		now: o.Now, pingInterval: cmp.Or(o.PingInterval, pingInterval), limits: newLimits(), habits: newHabits(),
		streamBuffers: bufferPool{size: streamBuffer}, plainBuffers: bufferPool{size: plainBuffer},
	}
	g.SetBodyLimits(o.Bodies)
	o.Registerer.MustRegister(budgetCollector{g})
	return g
}

// InFlight returns the number of exchanges being served.
func (g *Gateway) InFlight() int64 { return g.exchanges.Load() }

// Handle answers everything that developers' programs send. It is a web.Handler.
func (g *Gateway) Handle(ctx context.Context, w wire.Writer, r *web.Request) error {
	path := "/" + strings.TrimLeft(r.Path, "/")
	if rest, doubled := strings.CutPrefix(path, "/v1/v1/"); doubled { // a base URL that ends in /v1
		path = "/v1/" + rest
	}
	switch id, isModel := strings.CutPrefix(path, "/v1/models/"); {
	case path == pathMessages || path == pathCountTokens:
		r.Route = path
		return on("POST", r, func() error { return g.exchange(ctx, w, r, path) })
	case path == "/v1/models":
		r.Route = path
		return on("GET", r, func() error { return g.listModels(ctx, w, r) })
	case isModel && id != "":
		r.Route = "/v1/models/{id}"
		return on("GET", r, func() error { return g.showModel(ctx, w, r, id) })
	case path == "/v1/user":
		r.Route = path
		return on("GET", r, func() error { return g.showUser(w, r) })
	case path == "/v1/usage":
		r.Route = path
		return on("GET", r, func() error { return g.showUsage(ctx, w, r) })
	case path == "/" || path == "/api/hello":
		r.Route = path
		return g.hello(w, r)
	case path == "/api/event_logging/batch":
		r.Route = path
		return g.swallow(w, r)
	}
	if ofAPI(path) {
		return anthropic.ErrNotFound("This gateway does not serve " + shorten(path) + " of the API: it serves /v1/messages, /v1/messages/count_tokens and /v1/models.")
	}
	return anthropic.ErrNotFound("There is no " + shorten(path) + " here. Claude Code needs the address of this gateway in ANTHROPIC_BASE_URL, without a path.")
}

// ofAPI reports whether a path is one of the API's that is not served here.
func ofAPI(path string) bool {
	for _, known := range [...]string{"/v1/messages/batches", "/v1/files", "/v1/skills", "/v1/organizations", "/v1/complete"} {
		if rest, ok := strings.CutPrefix(path, known); ok && (rest == "" || rest[0] == '/') {
			return true
		}
	}
	return false
}

// on lets a request with another method fail as the API does.
func on(method string, r *web.Request, serve func() error) error {
	if r.Method != method && (method != "GET" || r.Method != "HEAD") {
		e := anthropic.ErrInvalidRequest("Method Not Allowed: use " + method + ".")
		e.Status, e.Header = 405, append(e.Header, anthropic.HeaderField{Name: "allow", Value: method})
		return e
	}
	return serve()
}

// hello answers the probe with which the CLI warms up a connection.
func (g *Gateway) hello(w wire.Writer, r *web.Request) error {
	if r.Method != "HEAD" && r.Method != "GET" {
		return anthropic.ErrNotFound("There is nothing to " + r.Method + " here.")
	}
	r.Quiet = true
	return w.Begin(200, wire.Head{{Name: "Request-Id", Value: r.ID}, {Name: "Content-Length", Value: "0"}})
}

// swallow takes the product telemetry that one generation of the CLI sends to its base URL, and forgets it.
func (g *Gateway) swallow(w wire.Writer, r *web.Request) error {
	if r.Method != "POST" {
		return anthropic.ErrNotFound("There is nothing to " + r.Method + " here.")
	}
	r.Quiet = true
	if err := g.discardBody(r); err != nil {
		return err
	}
	return w.Begin(204, wire.Head{{Name: "Request-Id", Value: r.ID}})
}

func shorten(s string) string {
	const most = 100
	if len(s) > most {
		return s[:most] + "…"
	}
	return s
}
