package control

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"carpool/internal/policy"
)

// ClientOptions says where the admin API is. Socket wins over URL.
type ClientOptions struct {
	URL    string       // of the server, like https://carpool.example.com; /admin/v1 is added
	Token  string       // an administrator's token (cpa_…) for URL
	Socket string       // path of the server's Unix socket on this machine
	HTTP   *http.Client // for URL; nil is a client with a time limit
}

// Client speaks to the admin API. It is safe for concurrent use. An answer that is an error is an *APIError; when no
// server answers at all the error says what to do.
type Client struct {
	base   string
	token  string
	socket string
	http   *http.Client
}

// clientTimeout is longer than anything the API waits for.
const clientTimeout = 60 * time.Second

// NewClient returns a client. It does not connect yet.
func NewClient(o ClientOptions) (*Client, error) {
	if o.Socket != "" {
		path := o.Socket
		transport := &http.Transport{
			DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) { return DialSocket(ctx, path) },
		}
		return &Client{base: "http://carpool", socket: path, http: &http.Client{Transport: transport, Timeout: clientTimeout}}, nil
	}
	base, err := url.Parse(o.URL)
	if err != nil || base.Host == "" || (base.Scheme != "http" && base.Scheme != "https") {
		return nil, fmt.Errorf("the server's address must be like http://localhost:8080, not %q", o.URL)
	}
	if base.RawQuery != "" || base.Fragment != "" || base.User != nil {
		return nil, errors.New("the server's address must not have a query, a fragment or credentials")
	}
	if path := strings.TrimRight(base.Path, "/"); strings.HasSuffix(path, "/v1") || strings.HasSuffix(path, "/admin") || strings.Contains(path, "/admin/") {
		return nil, fmt.Errorf("the server's address must not have the path %s; leave it out, the API's own is added", base.Path)
	}
	if o.HTTP == nil {
		o.HTTP = &http.Client{Timeout: clientTimeout}
	}
	return &Client{base: strings.TrimRight(base.String(), "/"), token: o.Token, http: o.HTTP}, nil
}

// Close releases idle connections.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// APIError is an error answer of the admin API.
type APIError struct {
	Status int      // HTTP status
	Title  string   // of the status
	Detail string   // what is wrong
	Errors []string // each with its place in the body or query, when several things are wrong
}

// Error is one line.
func (e *APIError) Error() string {
	text := e.Detail
	if text == "" {
		text = fmt.Sprintf("the server answered %d %s", e.Status, e.Title)
	}
	if len(e.Errors) > 0 {
		text += ": " + strings.Join(e.Errors, "; ")
	}
	return strings.Join(strings.Fields(text), " ")
}

// IsNotFound reports whether err says that the thing asked for does not exist.
func IsNotFound(err error) bool {
	api, ok := errors.AsType[*APIError](err)
	return ok && api.Status == http.StatusNotFound
}

// Teams lists all teams.
func (c *Client) Teams(ctx context.Context) ([]Team, error) {
	return list[Team](ctx, c, "/admin/v1/teams", nil)
}

// CreateTeam makes a team.
func (c *Client) CreateTeam(ctx context.Context, spec policy.TeamSpec) (Team, error) {
	return call[Team](ctx, c, http.MethodPost, "/admin/v1/teams", nil, spec)
}

// Team returns one team.
func (c *Client) Team(ctx context.Context, name string) (Team, error) {
	return call[Team](ctx, c, http.MethodGet, "/admin/v1/teams/"+url.PathEscape(name), nil, nil)
}

// UpdateTeam changes a team.
func (c *Client) UpdateTeam(ctx context.Context, name string, patch TeamPatch) (Team, error) {
	return call[Team](ctx, c, http.MethodPatch, "/admin/v1/teams/"+url.PathEscape(name), nil, patch)
}

// DeleteTeam removes a team without users.
func (c *Client) DeleteTeam(ctx context.Context, name string) error {
	return c.delete(ctx, "/admin/v1/teams/"+url.PathEscape(name))
}

// Users lists all users, with the state of their quotas when usage is true.
func (c *Client) Users(ctx context.Context, usage bool) ([]User, error) {
	return list[User](ctx, c, "/admin/v1/users", usageFlag(usage))
}

// User returns one user, with the state of its quota when usage is true.
func (c *Client) User(ctx context.Context, name string, usage bool) (User, error) {
	return call[User](ctx, c, http.MethodGet, "/admin/v1/users/"+url.PathEscape(name), usageFlag(usage), nil)
}

// CreateUser makes a user, and its team when there is none of this name.
func (c *Client) CreateUser(ctx context.Context, spec policy.UserSpec) (User, error) {
	return call[User](ctx, c, http.MethodPost, "/admin/v1/users", nil, spec)
}

// UpdateUser changes a user.
func (c *Client) UpdateUser(ctx context.Context, name string, patch UserPatch) (User, error) {
	return call[User](ctx, c, http.MethodPatch, "/admin/v1/users/"+url.PathEscape(name), nil, patch)
}

// DeleteUser removes a user and its keys. What it used stays in the books.
func (c *Client) DeleteUser(ctx context.Context, name string) error {
	return c.delete(ctx, "/admin/v1/users/"+url.PathEscape(name))
}

// Keys lists the keys of a user, or all when user is empty.
func (c *Client) Keys(ctx context.Context, user string) ([]Key, error) {
	return list[Key](ctx, c, "/admin/v1/keys", query("user", user))
}

// Key returns one key by name or public id.
func (c *Client) Key(ctx context.Context, nameOrID string) (Key, error) {
	return call[Key](ctx, c, http.MethodGet, "/admin/v1/keys/"+url.PathEscape(nameOrID), nil, nil)
}

// CreateKey makes a key. The answer holds the secret, this once; a secret given in spec is answered too.
func (c *Client) CreateKey(ctx context.Context, spec policy.KeySpec) (NewKey, error) {
	return call[NewKey](ctx, c, http.MethodPost, "/admin/v1/keys", nil, spec)
}

// UpdateKey changes a key, named by name or public id.
func (c *Client) UpdateKey(ctx context.Context, nameOrID string, patch KeyPatch) (Key, error) {
	return call[Key](ctx, c, http.MethodPatch, "/admin/v1/keys/"+url.PathEscape(nameOrID), nil, patch)
}

// RotateKey gives a key, named by name or public id, a new secret and public id. The old secret works for grace longer,
// in whole seconds up to 30 days.
func (c *Client) RotateKey(ctx context.Context, nameOrID string, grace time.Duration) (NewKey, error) {
	body := KeyRotation{GraceSeconds: int64(grace / time.Second)}
	return call[NewKey](ctx, c, http.MethodPost, "/admin/v1/keys/"+url.PathEscape(nameOrID)+"/rotate", nil, body)
}

// DeleteKey removes a key, named by name or public id.
func (c *Client) DeleteKey(ctx context.Context, nameOrID string) error {
	return c.delete(ctx, "/admin/v1/keys/"+url.PathEscape(nameOrID))
}

// Upstreams lists all upstreams.
func (c *Client) Upstreams(ctx context.Context) ([]Upstream, error) {
	return list[Upstream](ctx, c, "/admin/v1/upstreams", nil)
}

// Upstream returns one upstream.
func (c *Client) Upstream(ctx context.Context, name string) (Upstream, error) {
	return call[Upstream](ctx, c, http.MethodGet, "/admin/v1/upstreams/"+url.PathEscape(name), nil, nil)
}

// CreateUpstream makes an upstream. The credential must be in spec.APIKey: see policy.Resources.ResolveSecrets.
func (c *Client) CreateUpstream(ctx context.Context, spec policy.UpstreamSpec) (Upstream, error) {
	return call[Upstream](ctx, c, http.MethodPost, "/admin/v1/upstreams", nil, spec)
}

// UpdateUpstream changes an upstream.
func (c *Client) UpdateUpstream(ctx context.Context, name string, patch UpstreamPatch) (Upstream, error) {
	return call[Upstream](ctx, c, http.MethodPatch, "/admin/v1/upstreams/"+url.PathEscape(name), nil, patch)
}

// DeleteUpstream removes an upstream that no route names.
func (c *Client) DeleteUpstream(ctx context.Context, name string) error {
	return c.delete(ctx, "/admin/v1/upstreams/"+url.PathEscape(name))
}

// Routes lists all routes.
func (c *Client) Routes(ctx context.Context) ([]policy.RouteSpec, error) {
	return list[policy.RouteSpec](ctx, c, "/admin/v1/routes", nil)
}

// Route returns one route.
func (c *Client) Route(ctx context.Context, name string) (policy.RouteSpec, error) {
	return call[policy.RouteSpec](ctx, c, http.MethodGet, "/admin/v1/routes/"+url.PathEscape(name), nil, nil)
}

// CreateRoute makes a route.
func (c *Client) CreateRoute(ctx context.Context, spec policy.RouteSpec) (policy.RouteSpec, error) {
	return call[policy.RouteSpec](ctx, c, http.MethodPost, "/admin/v1/routes", nil, spec)
}

// UpdateRoute changes a route.
func (c *Client) UpdateRoute(ctx context.Context, name string, patch RoutePatch) (policy.RouteSpec, error) {
	return call[policy.RouteSpec](ctx, c, http.MethodPatch, "/admin/v1/routes/"+url.PathEscape(name), nil, patch)
}

// DeleteRoute removes a route.
func (c *Client) DeleteRoute(ctx context.Context, name string) error {
	return c.delete(ctx, "/admin/v1/routes/"+url.PathEscape(name))
}

// Aliases lists all model aliases.
func (c *Client) Aliases(ctx context.Context) ([]policy.AliasSpec, error) {
	return list[policy.AliasSpec](ctx, c, "/admin/v1/aliases", nil)
}

// SetAlias makes or changes a model alias.
func (c *Client) SetAlias(ctx context.Context, name, model string) (policy.AliasSpec, error) {
	return call[policy.AliasSpec](ctx, c, http.MethodPut, "/admin/v1/aliases/"+url.PathEscape(name), nil, AliasTarget{model})
}

// DeleteAlias removes a model alias.
func (c *Client) DeleteAlias(ctx context.Context, name string) error {
	return c.delete(ctx, "/admin/v1/aliases/"+url.PathEscape(name))
}

// Budgets lists all budgets, with what is used of them.
func (c *Client) Budgets(ctx context.Context) ([]Budget, error) {
	return list[Budget](ctx, c, "/admin/v1/budgets", nil)
}

// Budget returns one budget, with what is used of it.
func (c *Client) Budget(ctx context.Context, name string) (Budget, error) {
	return call[Budget](ctx, c, http.MethodGet, "/admin/v1/budgets/"+url.PathEscape(name), nil, nil)
}

// CreateBudget makes a budget.
func (c *Client) CreateBudget(ctx context.Context, spec policy.BudgetSpec) (Budget, error) {
	return call[Budget](ctx, c, http.MethodPost, "/admin/v1/budgets", nil, spec)
}

// UpdateBudget changes a budget.
func (c *Client) UpdateBudget(ctx context.Context, name string, patch BudgetPatch) (Budget, error) {
	return call[Budget](ctx, c, http.MethodPatch, "/admin/v1/budgets/"+url.PathEscape(name), nil, patch)
}

// DeleteBudget removes a budget.
func (c *Client) DeleteBudget(ctx context.Context, name string) error {
	return c.delete(ctx, "/admin/v1/budgets/"+url.PathEscape(name))
}

// Tokens lists the administrators' tokens.
func (c *Client) Tokens(ctx context.Context) ([]Token, error) {
	return list[Token](ctx, c, "/admin/v1/tokens", nil)
}

// CreateToken makes an administrator's token. The answer holds the secret, this once.
func (c *Client) CreateToken(ctx context.Context, name string) (NewToken, error) {
	return call[NewToken](ctx, c, http.MethodPost, "/admin/v1/tokens", nil, TokenSpec{name})
}

// DeleteToken removes an administrator's token.
func (c *Client) DeleteToken(ctx context.Context, name string) error {
	return c.delete(ctx, "/admin/v1/tokens/"+url.PathEscape(name))
}

// Quotas returns the state of all users' quotas.
func (c *Client) Quotas(ctx context.Context) ([]QuotaState, error) {
	return list[QuotaState](ctx, c, "/admin/v1/quotas", nil)
}

// Quota returns the state of a user's quota.
func (c *Client) Quota(ctx context.Context, user string) (QuotaState, error) {
	return call[QuotaState](ctx, c, http.MethodGet, "/admin/v1/quotas/"+url.PathEscape(user), nil, nil)
}

// ResetQuotas sets the windows of all users to nothing used. The window is daily, monthly or all; empty is all.
func (c *Client) ResetQuotas(ctx context.Context, window string) (QuotaResetResult, error) {
	return call[QuotaResetResult](ctx, c, http.MethodPost, "/admin/reset-quota", nil, QuotaReset{Window: window})
}

// ResetQuota sets the windows of one user to nothing used. The window is daily, monthly or all; empty is all.
func (c *Client) ResetQuota(ctx context.Context, user, window string) (QuotaResetResult, error) {
	if user == "" {
		return QuotaResetResult{}, errors.New("whose quota? the user's name is empty")
	}
	return call[QuotaResetResult](ctx, c, http.MethodPost, "/admin/v1/quotas/"+url.PathEscape(user)+"/reset", nil, QuotaWindow{window})
}

// Apply makes the resources so. Credentials must be resolved: see policy.Resources.ResolveSecrets.
func (c *Client) Apply(ctx context.Context, r policy.Resources, dryRun bool) (ApplyResult, error) {
	return call[ApplyResult](ctx, c, http.MethodPost, "/admin/v1/apply", nil, ApplyRequest{Resources: r, DryRun: dryRun})
}

// Status returns how control and its nodes are.
func (c *Client) Status(ctx context.Context) (Status, error) {
	return call[Status](ctx, c, http.MethodGet, "/admin/v1/status", nil, nil)
}

// Audit returns recent changes, newest first; limit 0 is the server's default.
func (c *Client) Audit(ctx context.Context, limit int) ([]AuditRow, error) {
	values := url.Values{}
	if limit != 0 {
		values.Set("limit", strconv.Itoa(limit))
	}
	return list[AuditRow](ctx, c, "/admin/v1/audit", values)
}

func usageFlag(usage bool) url.Values {
	if usage {
		return url.Values{"usage": {"true"}}
	}
	return nil
}

// query builds a query from names and values, without those that are empty.
func query(pairs ...string) url.Values {
	values := url.Values{}
	for i := 0; i < len(pairs); i += 2 {
		if pairs[i+1] != "" {
			values.Set(pairs[i], pairs[i+1])
		}
	}
	return values
}

func list[T any](ctx context.Context, c *Client, path string, values url.Values) ([]T, error) {
	answer, err := call[List[T]](ctx, c, http.MethodGet, path, values, nil)
	return answer.Items, err
}

func (c *Client) delete(ctx context.Context, path string) error {
	_, err := c.do(ctx, http.MethodDelete, path, nil, nil)
	return err
}

func call[T any](ctx context.Context, c *Client, method, path string, values url.Values, body any) (answer T, err error) {
	data, err := c.do(ctx, method, path, values, body)
	if err != nil {
		return answer, err
	}
	if err := json.Unmarshal(data, &answer); err != nil {
		return answer, fmt.Errorf("cannot understand the server's answer to %s %s (is it a Carpool server of this version?): %w", method, path, err)
	}
	return answer, nil
}

func (c *Client) do(ctx context.Context, method, path string, values url.Values, body any) ([]byte, error) {
	var reader io.Reader
	if body != nil {
		data, err := json.Marshal(body)
		if err != nil {
			return nil, fmt.Errorf("cannot encode the request: %w", err)
		}
		reader = bytes.NewReader(data)
	}
	address := c.base + path
	if len(values) > 0 {
		address += "?" + values.Encode()
	}
	req, err := http.NewRequestWithContext(ctx, method, address, reader)
	if err != nil {
		return nil, fmt.Errorf("cannot build the request: %w", err)
	}
	req.Header.Set("Accept", "application/json")
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	if c.token != "" {
		req.Header.Set("Authorization", "Bearer "+c.token)
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, c.explain(ctx, err)
	}
	defer resp.Body.Close() //nolint:errcheck // the body was read
	data, err := io.ReadAll(resp.Body)
	if err != nil {
		return nil, fmt.Errorf("cannot read the server's answer: %w", err)
	}
	if resp.StatusCode >= 300 {
		return nil, c.problem(resp, data)
	}
	return data, nil
}

// explain turns a failure to reach the server into what to do about it.
func (c *Client) explain(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if c.socket != "" {
		folder := filepath.Dir(c.socket)
		switch {
		case errors.Is(err, syscall.ENOENT), errors.Is(err, syscall.ECONNREFUSED), errors.Is(err, syscall.ENOTDIR):
			return fmt.Errorf("no server is running with data folder %s: start it with carpool serve --data %s", folder, folder)
		case errors.Is(err, syscall.EACCES), errors.Is(err, syscall.EPERM):
			return fmt.Errorf("cannot use %s: permission denied; run this as the user that runs the server, or set CARPOOL_URL and CARPOOL_TOKEN", c.socket)
		}
		return fmt.Errorf("cannot reach the server through %s: %w", c.socket, cause(err))
	}
	if errors.Is(err, syscall.ECONNREFUSED) {
		return fmt.Errorf("no server answers at %s: start it with carpool serve, or correct CARPOOL_URL", c.base)
	}
	return fmt.Errorf("cannot reach the server at %s: %w", c.base, cause(err))
}

// cause strips the method and address that net/http puts before an error.
func cause(err error) error {
	if wrapped, ok := errors.AsType[*url.Error](err); ok {
		return wrapped.Err
	}
	return err
}

// problem reads an error answer: problem+json (RFC 9457), or whatever came instead.
func (c *Client) problem(resp *http.Response, data []byte) error {
	e := &APIError{Status: resp.StatusCode, Title: http.StatusText(resp.StatusCode)}
	var body struct {
		Title  string `json:"title"`
		Detail string `json:"detail"`
		Errors []struct {
			Message  string `json:"message"`
			Location string `json:"location"`
		} `json:"errors"`
	}
	if json.Unmarshal(data, &body) != nil || body.Title+body.Detail == "" {
		if resp.StatusCode < http.StatusInternalServerError && c.socket == "" { // from 500 on it is more likely a proxy's word on a server that is down
			e.Detail = fmt.Sprintf("%s does not look like a Carpool server that can be administered (it answered %d %s): correct CARPOOL_URL",
				c.base, e.Status, e.Title)
		}
		return e
	}
	e.Title, e.Detail = body.Title, body.Detail
	if resp.StatusCode == http.StatusUnauthorized {
		e.Detail += "; set CARPOOL_TOKEN"
		if c.token != "" {
			e.Detail = "the server does not accept the token in CARPOOL_TOKEN; on the server's machine, carpool admin token add NAME makes one"
		}
	}
	for _, part := range body.Errors {
		text := part.Message
		if part.Location != "" {
			text = part.Location + ": " + text
		}
		e.Errors = append(e.Errors, text)
	}
	return e
}
