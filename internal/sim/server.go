package sim

import (
	"cmp"
	"crypto/sha256"
	"crypto/subtle"
	"fmt"
	"log/slog"
	"math"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/google/uuid"
)

// DefaultKey is the key of the only credential when Options names none.
const DefaultKey = "sk-ant-sim"

// MaxBody is the size in bytes above which a request body is answered with 413, as the API does.
const MaxBody = 32 << 20

// Options sets up a [Server]. The zero value is usable.
type Options struct {
	Credentials []Credential     // none: one with DefaultKey
	AdminKey    string           // of the Usage and Cost API; DefaultAdminKey by default
	Now         func() time.Time // time.Now by default; pauses and timeouts use the real clock
	Logger      *slog.Logger     // nothing is logged by default
	Keep        int              // how many requests to remember, 4096 by default
}

// Credential is an API key and how the simulator treats its requests.
type Credential struct {
	Name              string // "credential-1" and so on by default
	Key               string
	Organization      string // answered as anthropic-organization-id; a UUID made from the name by default
	RequestsPerMinute int    // answer 429 beyond it; 0 for no limit
	Faults            []Fault
}

// credential is a Credential at work. Everything but its Credential is guarded by Server.mu.
type credential struct {
	Credential
	faults []*armed
	window window
}

// window counts a credential's use within one minute.
type window struct {
	start                   time.Time
	requests, input, output int64
}

// Server is a simulated Anthropic API. It is safe for concurrent use and keeps no goroutines of its own.
type Server struct {
	now         func() time.Time
	log         *slog.Logger
	models      []model
	keep        int
	seed        [32]byte
	credentials []*credential
	adminKey    string
	mux         *http.ServeMux

	mu          sync.Mutex
	seq         int64 // of the latest request
	unique      int64 // counts ids that were handed out; survives a reset
	requests    []*Request
	counters    Counters
	changed     chan struct{} // closed and replaced at every change
	held        map[string][]chan struct{}
	cache       promptCache
	bills       map[billKey]billed
	scripted    map[[32]byte]int // how often a script's fault was selected
	scriptOrder [][32]byte
}

// maxScripted bounds the number of scripts whose faults are counted.
const maxScripted = 10_000

// New returns a simulated API. It fails when two credentials share a name or a key, or a fault is invalid.
func New(o Options) (*Server, error) {
	s := &Server{
		now: o.Now, log: o.Logger, models: catalogue(), keep: o.Keep,
		counters: newCounters(), changed: make(chan struct{}), held: map[string][]chan struct{}{},
		cache: promptCache{until: map[[32]byte]time.Time{}}, scripted: map[[32]byte]int{},
		adminKey: cmp.Or(o.AdminKey, DefaultAdminKey), bills: map[billKey]billed{},
	}
	if s.now == nil {
		s.now = time.Now
	}
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	if s.keep <= 0 {
		s.keep = 4096
	}
	if len(o.Credentials) == 0 {
		o.Credentials = []Credential{{Key: DefaultKey}}
	}
	for i, c := range o.Credentials {
		if err := s.addCredential(i, c); err != nil {
			return nil, err
		}
	}
	s.mux = s.inspection()
	return s, nil
}

func (s *Server) addCredential(i int, c Credential) error {
	if c.Name == "" {
		c.Name = fmt.Sprintf("credential-%d", i+1)
	}
	if c.Key == "" {
		return fmt.Errorf("cannot use credential %q: it has no key", c.Name)
	}
	if c.Organization == "" {
		c.Organization = uuid.NewSHA1(uuid.NameSpaceURL, []byte("carpool-sim:"+c.Name)).String()
	}
	for _, other := range s.credentials {
		if other.Name == c.Name || other.Key == c.Key {
			return fmt.Errorf("cannot use credential %q: its name or key is taken by %q", c.Name, other.Name)
		}
	}
	faults, err := arm(c.Faults)
	if err != nil {
		return fmt.Errorf("cannot use credential %q: fault: %w", c.Name, err)
	}
	s.credentials = append(s.credentials, &credential{Credential: c, faults: faults})
	// The seed makes the ids of two simulators differ when their credentials do.
	s.seed = sha256.Sum256(append(s.seed[:], c.Name+"\x00"+c.Key...))
	return nil
}

// credential returns the credential with that key, or nil.
func (s *Server) credential(key string) *credential {
	for _, c := range s.credentials {
		if subtle.ConstantTimeCompare([]byte(c.Key), []byte(key)) == 1 {
			return c
		}
	}
	return nil
}

// ServeHTTP answers one request.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.URL.Path == "/__sim" || strings.HasPrefix(r.URL.Path, "/__sim/") {
		s.mux.ServeHTTP(w, r)
		return
	}
	if strings.HasPrefix(r.URL.Path, "/v1/organizations/") {
		s.organization(w, r)
		return
	}
	x := s.exchange(w, r)
	defer x.close()
	x.serve()
}

// spend counts a request against its credential's window and returns the headers that tell the limits. denied is the answer when
// the limit is exceeded.
func (s *Server) spend(c *credential, input, output int64, count bool) (header map[string]string, denied *apiError) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.now()
	if now.Sub(c.window.start) >= time.Minute {
		c.window = window{start: now}
	}
	limit := int64(c.RequestsPerMinute)
	if limit == 0 {
		limit = 4000
	}
	if count {
		if c.RequestsPerMinute > 0 && c.window.requests >= limit {
			denied = &apiError{
				Status: http.StatusTooManyRequests, Type: "rate_limit_error",
				Message: fmt.Sprintf("This request would exceed your organization's rate limit of %d requests per minute (org: %s). "+
					"For details, refer to: https://docs.claude.com/en/api/rate-limits.", limit, c.Organization),
			}
		} else {
			c.window.requests++
		}
	}
	c.window.input += input
	c.window.output += output
	return c.window.header(limit, now), denied
}

// header is the rate-limit family; a limit that nobody set is a roomy one. Token numbers are rounded to thousands.
func (w window) header(limit int64, now time.Time) map[string]string {
	const inputLimit, outputLimit = 2_000_000, 400_000
	reset := w.start.Add(time.Minute)
	h := map[string]string{}
	set := func(family string, limit, used int64, rounded bool) {
		remaining := max(0, limit-used)
		if rounded {
			remaining = int64(math.Round(float64(remaining)/1000)) * 1000
		}
		h["anthropic-ratelimit-"+family+"-limit"] = strconv.FormatInt(limit, 10)
		h["anthropic-ratelimit-"+family+"-remaining"] = strconv.FormatInt(remaining, 10)
		h["anthropic-ratelimit-"+family+"-reset"] = reset.UTC().Format(time.RFC3339)
	}
	set("requests", limit, w.requests, false)
	set("input-tokens", inputLimit, w.input, true)
	set("output-tokens", outputLimit, w.output, true)
	set("tokens", inputLimit+outputLimit, w.input+w.output, true)
	h["retry-after"] = strconv.Itoa(max(1, int(math.Ceil(reset.Sub(now).Seconds()))))
	return h
}

// pick returns the fault that applies to a request, if any: the credential's first that is due, early or not as asked.
func (s *Server) pick(c *credential, path, model string, early bool) (Fault, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, f := range c.faults {
		if f.Early != early || !f.selects(path, model, c.Name) {
			continue
		}
		n := f.seen
		f.seen++
		if f.due(n) {
			return f.Fault, true
		}
	}
	return Fault{}, false
}

// pickScripted reports whether the fault of a script's step applies to this request.
func (s *Server) pickScripted(c *credential, path, model string, script *script) bool {
	f := script.step().Fault
	if !f.selects(path, model, c.Name) {
		return false
	}
	if f.Skip == 0 && f.Times == 0 {
		return true
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	n, known := s.scripted[script.Key]
	if !known {
		s.scriptOrder = append(s.scriptOrder, script.Key)
		if len(s.scriptOrder) > maxScripted {
			delete(s.scripted, s.scriptOrder[0])
			s.scriptOrder = s.scriptOrder[1:]
		}
	}
	s.scripted[script.Key] = n + 1
	return f.due(n)
}
