package control

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"

	"carpool/internal/control/store"
)

const (
	maxBody      = 1 << 20
	maxApplyBody = 16 << 20
	bodyTimeout  = 30 * time.Second
	tokenTouch   = time.Minute // a token's last use is stored no more often
)

// Handler serves /admin/v1/… and /admin/reset-quota to holders of an administrator's token, sent as
// `Authorization: Bearer cpa_…` or `x-api-key: cpa_…`. Everybody else gets 401, whatever they ask for.
func (c *Control) Handler() http.Handler {
	routes := c.routes()
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		name, ok := c.administrator(r)
		if !ok {
			w.Header().Set("WWW-Authenticate", `Bearer realm="carpool admin"`)
			writeProblem(w, http.StatusUnauthorized, "an administrator's token (cpa_…) is required, as Authorization: Bearer or x-api-key")
			return
		}
		c.touchToken(r.Context(), name)
		routes.ServeHTTP(w, r.WithContext(as(r.Context(), name)))
	})
}

// SocketHandler serves the same to a caller that is trusted because it reached the server's Unix socket.
func (c *Control) SocketHandler() http.Handler {
	routes := c.routes()
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		routes.ServeHTTP(w, r.WithContext(as(r.Context(), "socket")))
	})
}

// administrator returns the name of the token that a request brings. A request may bring a stranger's credential in one
// of the two headers.
func (c *Control) administrator(r *http.Request) (string, bool) {
	candidates := r.Header.Values("X-Api-Key")
	for _, value := range r.Header.Values("Authorization") {
		if scheme, token, ok := strings.Cut(value, " "); ok && strings.EqualFold(scheme, "bearer") {
			candidates = append(candidates, strings.TrimSpace(token))
		}
	}
	for _, token := range candidates {
		if token == "" {
			continue
		}
		// The look-up is by keyed hash, so that its time says nothing about the tokens there are.
		hash := c.hasher.Hash(token)
		if name, ok := c.current.Load().tokens[hash]; ok {
			return name, true
		}
		if !c.options.BootstrapToken.IsZero() && hash == c.bootstrap {
			return bootstrapName, true
		}
	}
	return "", false
}

const bootstrapName = "bootstrap"

// touchToken stores that a token was used, now and then.
func (c *Control) touchToken(ctx context.Context, name string) {
	if name == bootstrapName {
		return
	}
	now := c.options.Now().UTC()
	c.mu.Lock()
	recent := now.Sub(c.touched[name]) < tokenTouch
	if !recent {
		c.touched[name] = now
	}
	c.mu.Unlock()
	if recent {
		return
	}
	err := c.store.Write(ctx, func(ctx context.Context, tx *store.Tx) error { return tx.TouchToken(ctx, name, now) })
	if err != nil {
		c.options.Log.WarnContext(ctx, "cannot note the use of a token", slog.String("token", name), slog.Any("error", err))
	}
}

func writeProblem(w http.ResponseWriter, status int, detail string) {
	w.Header().Set("Content-Type", "application/problem+json")
	w.WriteHeader(status)
	// An error means that the client has gone.
	_ = json.NewEncoder(w).Encode(huma.ErrorModel{Title: http.StatusText(status), Status: status, Detail: detail})
}

// api is the admin API in the making.
type api struct {
	huma.API
	c *Control
}

// routes returns the admin API without authorisation.
func (c *Control) routes() http.Handler {
	mux := http.NewServeMux()
	config := huma.DefaultConfig("Carpool admin API", c.options.Version)
	config.Info.Description = "Administration of a Carpool gateway: users, keys, upstreams, routes, quotas and usage."
	config.OpenAPIPath = "/admin/v1/openapi"
	config.DocsPath, config.SchemasPath = "", "" // the library's pages load scripts from elsewhere
	config.CreateHooks = nil                     // no $schema in bodies
	config.RejectUnknownQueryParameters = true
	config.Transformers = []huma.Transformer{withoutValues}
	config.Components.SecuritySchemes = map[string]*huma.SecurityScheme{
		"token":  {Type: "http", Scheme: "bearer", Description: "An administrator's token (cpa_…)"},
		"apiKey": {Type: "apiKey", In: "header", Name: "x-api-key", Description: "The same token in another header"},
	}
	config.Security = []map[string][]string{{"token": {}}, {"apiKey": {}}}
	a := &api{humago.New(mux, config), c}
	a.addTeams()
	a.addBudgets()
	a.addUsers()
	a.addKeys()
	a.addUpstreams()
	a.addRoutes()
	a.addAliases()
	a.addTokens()
	a.addQuotas()
	a.addApply()
	a.addUsage()
	a.addReprice()
	a.addSessions()
	a.addStatus()
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		writeProblem(w, http.StatusNotFound, fmt.Sprintf("there is no %s %s in the admin API; /admin/v1/openapi.json describes what there is", r.Method, r.URL.Path))
	})
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Cache-Control", "no-store") // answers may hold a new key
		w.Header().Set("X-Content-Type-Options", "nosniff")
		if strings.HasPrefix(r.Header.Get("Content-Type"), "application/x-www-form-urlencoded") {
			r.Header.Set("Content-Type", "application/json") // what curl -d says of any body
		}
		mux.ServeHTTP(w, r)
	})
}

// withoutValues removes from validation errors what the client sent: it may be a credential.
func withoutValues(_ huma.Context, _ string, answer any) (any, error) {
	if problem, ok := answer.(*huma.ErrorModel); ok {
		for _, part := range problem.Errors {
			part.Value = nil
		}
	}
	return answer, nil
}

type output[T any] struct{ Body T }

// operation adds an operation that answers with a body.
func operation[I, T any](a *api, op huma.Operation, handle func(context.Context, *I) (T, error)) {
	complete(&op, http.StatusOK)
	huma.Register(a.API, op, func(ctx context.Context, in *I) (*output[T], error) {
		answer, err := handle(ctx, in)
		if err != nil {
			return nil, a.c.present(ctx, err)
		}
		return &output[T]{answer}, nil
	})
}

// removal adds an operation that answers with nothing.
func removal[I any](a *api, op huma.Operation, handle func(context.Context, *I) error) {
	complete(&op, http.StatusNoContent)
	huma.Register(a.API, op, func(ctx context.Context, in *I) (*struct{}, error) {
		return nil, a.c.present(ctx, handle(ctx, in))
	})
}

func complete(op *huma.Operation, status int) {
	if op.DefaultStatus == 0 {
		op.DefaultStatus = status
	}
	if op.MaxBodyBytes == 0 {
		op.MaxBodyBytes = maxBody
	}
	op.BodyReadTimeout = bodyTimeout
	op.Errors = append(op.Errors, http.StatusUnauthorized, http.StatusUnprocessableEntity)
	switch op.Method {
	case http.MethodPost, http.MethodPatch, http.MethodDelete:
		op.Errors = append(op.Errors, http.StatusConflict)
	}
	if strings.Contains(op.Path, "{") {
		op.Errors = append(op.Errors, http.StatusNotFound)
	}
}

// refuse is an error that the caller sees as it is.
func refuse(status int, format string, args ...any) error {
	return huma.NewError(status, fmt.Sprintf(format, args...))
}

func notFound(kind, name string) error {
	return refuse(http.StatusNotFound, "there is no %s %q", kind, name)
}

func exists(kind, name string) error {
	return refuse(http.StatusConflict, "there is a %s %q already", kind, name)
}

// invalid is the refusal of something that is wrong by itself; nil stays nil.
func invalid(err error) error {
	if err == nil {
		return nil
	}
	return refuse(http.StatusUnprocessableEntity, "%s", err.Error())
}

// present returns what the caller may see of an error; the cause of any other goes to the log.
func (c *Control) present(ctx context.Context, err error) error {
	if err == nil {
		return nil
	}
	if _, ok := errors.AsType[huma.StatusError](err); ok {
		return err
	}
	if ctx.Err() != nil {
		return refuse(http.StatusServiceUnavailable, "the request was given up")
	}
	c.options.Log.ErrorContext(ctx, "admin request failed", slog.Any("error", err))
	return refuse(http.StatusInternalServerError, "the server could not do this; its log says why")
}

// byName is the input of operations on one noun.
type byName struct {
	Name string `path:"name" maxLength:"200"`
}

// withBody is the input of operations that take a body. A body that is a pointer may be absent.
type withBody[T any] struct{ Body T }

// byNameWithBody is the input of operations on one noun that take a body.
type byNameWithBody[T any] struct {
	Name string `path:"name" maxLength:"200"`
	Body T
}

func (c *Control) state() *store.State { return c.current.Load().state }

func (c *Control) location() *time.Location { return c.current.Load().snapshot.Location }
