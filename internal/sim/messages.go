package sim

import (
	"log/slog"
	"net/http"
	"strings"

	"github.com/go-json-experiment/json/jsontext"
)

// route answers an authenticated request whose body has been read.
func (x *exchange) route(path string, body []byte) {
	posted := x.r.Method == http.MethodPost
	var f fields
	var bad *apiError
	if posted {
		if f, bad = parseFields(body); bad == nil {
			x.model = f.name("model")
			x.stream = f["stream"].Kind() == 't'
		}
	}
	var denied *apiError
	x.rate, denied = x.s.spend(x.cred, 0, 0, path == "/v1/messages")
	if denied != nil {
		denied.Header = map[string]string{"retry-after": x.rate["retry-after"]}
		x.fail(denied)
		return
	}
	if fault, ok := x.s.pick(x.cred, path, x.model, false); ok {
		x.f, x.faulty = fault, true
		if x.before() != nil {
			return
		}
		if fault.decides() {
			x.sendFault()
			return
		}
	}
	switch {
	case bad != nil:
		x.fail(bad)
	case path == "/v1/models":
		x.listModels()
	case strings.HasPrefix(path, "/v1/models/"):
		x.getModel(strings.TrimPrefix(path, "/v1/models/"))
	default:
		x.inference(f, path == "/v1/messages/count_tokens")
	}
}

// decides reports whether the fault replaces the whole answer.
func (f Fault) decides() bool { return f.Status != 0 && f.Status != http.StatusOK || f.Body != "" }

// inference answers messages and count_tokens.
func (x *exchange) inference(f fields, counting bool) {
	q, bad := parseRequest(f, counting)
	if bad != nil {
		x.fail(bad)
		return
	}
	m, ok := x.s.lookup(q.Model)
	if !ok {
		x.fail(notFound("model: " + q.Model))
		return
	}
	if q.MaxTokens > m.MaxOutput {
		x.fail(invalid("max_tokens: " + string(number(q.MaxTokens)) + " > " + string(number(m.MaxOutput)) +
			", which is the maximum allowed number of output tokens for " + m.ID))
		return
	}
	q.Model = m.ID
	if counting {
		var total int64
		if list := q.segments(); len(list) > 0 {
			total = list[len(list)-1].tokens
		}
		x.sendJSON(http.StatusOK, struct {
			InputTokens int64 `json:"input_tokens"`
		}{total})
		return
	}
	x.answerMessages(q)
}

func (x *exchange) answerMessages(q *request) {
	st, index, scripted := step{}, 0, false
	if c := findScript(q.Messages); c != nil {
		scripted = true
		if c.Err != nil {
			st.Text = "Carpool's simulated Claude cannot read the directive in your message: " + c.Err.Error()
		} else {
			st, index = c.step(), c.Due
			_, aux := auxiliary(q)
			_, missing := st.calls(q)
			if !aux && missing == "" && !x.faulty && x.s.pickScripted(x.cred, x.r.URL.Path, x.model, c) {
				x.f, x.faulty = st.Fault, true
				if x.before() != nil {
					return
				}
				if x.f.decides() {
					x.sendFault()
					return
				}
			}
		}
	}
	x.sendAnswer(q, x.s.answer(x, q, st, scripted, index))
}

// answer composes the message and its bill.
func (s *Server) answer(x *exchange, q *request, st step, scripted bool, index int) *answer {
	list := q.segments()
	s.mu.Lock()
	unique := s.unique
	s.unique++
	prompt := s.cache.bill(list, x.cred.Name+"\x00"+q.Model, s.now())
	s.mu.Unlock()

	seed := append(append([]byte(nil), s.seed[:]...), x.bodySum[:]...)
	seed = append(seed, number(unique)...)
	a := &answer{
		ID: ident("msg_01", 22, seed, "message", 0), Model: q.Model,
		EditsContext: q.EditsContext, HideThinking: q.HideThinking,
	}
	a.Blocks, a.Stop = compose(q, st, scripted, seed, index)
	if scripted {
		a.Events = st.Events
	} else {
		st = step{}
	}
	out := a.limit(q)
	a.account(prompt, out, st)
	x.usage, x.free = value(a.Final), a.Stop == "refusal" && len(a.Blocks) == 0
	x.rate, _ = s.spend(x.cred, prompt.input+prompt.write5m+prompt.write1h, out, false)
	return a
}

// sendAnswer sends a message as the request asked for it.
func (x *exchange) sendAnswer(q *request, a *answer) {
	if !q.Stream {
		x.sendJSON(http.StatusOK, a.message(true))
		return
	}
	x.header("text/event-stream; charset=utf-8")
	x.w.Header().Set("Cache-Control", "no-cache")
	e := x.open(http.StatusOK, true, func() int {
		n := 0
		_ = a.stream(func(string, []byte) error { n++; return nil })
		return n
	})
	x.done = e.finish(a.stream(e.event)) == nil
}

func levelOf(status int) slog.Level {
	if status == 0 || status >= 500 {
		return slog.LevelWarn
	}
	return slog.LevelInfo
}

func attrs(r *Request, gone bool) []slog.Attr {
	return []slog.Attr{
		slog.Int64("seq", r.Seq), slog.String("requestId", r.RequestID), slog.String("method", r.Method),
		slog.String("path", r.Path), slog.String("credential", r.Credential), slog.String("model", r.Model),
		slog.Bool("stream", r.Stream), slog.Int("status", r.Status), slog.Int64("bodyBytes", r.BodyBytes),
		slog.Int64("responseBytes", r.ResponseBytes), slog.Bool("clientGone", gone),
		slog.String("usage", string(jsontext.Value(r.Usage))),
	}
}
