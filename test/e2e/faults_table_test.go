package e2e

// fault is a way in which an upstream fails, and what comes of it: "what the client gets | what the entry says | what becomes
// of the upstream", alone on its route and with a second upstream beside it.
type fault struct {
	name       string
	fault      map[string]any // as the simulator takes it
	streamOnly bool
	padding    int    // bytes that make the request longer
	long       bool   // the answer has more than 100 000 bytes
	patience   string // seconds, as the client says in X-Stainless-Timeout

	one, two           string
	onePlain, twoPlain string // of requests without a stream, where they differ
}

type object = map[string]any

// faults is the truth of docs/behaviour.md.
func faults() []*fault {
	exhausted := object{
		"retry-after": "", "anthropic-ratelimit-requests-limit": "50", "anthropic-ratelimit-requests-remaining": "0",
		"anthropic-ratelimit-requests-reset": "2099-01-01T00:00:00Z",
	}
	page := func(status int) object { return object{"status": status, "body": "html"} }
	empty := func(status int) object { return object{"status": status, "body": "empty"} }
	return []*fault{
		{
			name: "400", fault: object{"status": 400},
			one: "400 invalid_request_error from first | upstream_error 400, 1 first | in use, next first",
			two: "400 invalid_request_error from first | upstream_error 400, 1 first | in use, next first",
		},
		{
			name: "400, spend limit of its account", fault: object{"status": 400, "message": "You have reached your specified API usage limits. You will regain access on 2099-01-01 at 00:00 UTC."},
			one: "429 billing_error from Carpool, not to be repeated | failed 429, 1 first | left alone: spend, next 429 billing_error, not to be repeated",
			two: "200 whole from second | finished 200, 2 second | left alone: spend, next second",
		},
		{
			name: "401", fault: object{"status": 401},
			one: "502 api_error from Carpool, not to be repeated | failed 502, 1 first | left alone: credential, next 502 api_error, not to be repeated",
			two: "200 whole from second | finished 200, 2 second | left alone: credential, next second",
		},
		{
			name: "402", fault: object{"status": 402, "type": "billing_error"},
			one: "402 billing_error from first | upstream_error 402, 1 first | left alone: payment, next 502 api_error, not to be repeated",
			two: "200 whole from second | finished 200, 2 second | left alone: payment, next second",
		},
		{
			name: "403", fault: object{"status": 403},
			one: "502 api_error from Carpool, not to be repeated | failed 502, 1 first | left alone: credential, next 502 api_error, not to be repeated",
			two: "200 whole from second | finished 200, 2 second | left alone: credential, next second",
		},
		{
			name: "403, a page of HTML", fault: page(403),
			one: "502 api_error from Carpool, not to be repeated | failed 502, 1 first | left alone: credential, next 502 api_error, not to be repeated",
			two: "200 whole from second | finished 200, 2 second | left alone: credential, next second",
		},
		{
			name: "404", fault: object{"status": 404},
			one: "404 not_found_error from first | upstream_error 404, 1 first | left alone: model, next first",
			two: "200 whole from second | finished 200, 2 second | left alone: model, next second",
		},
		{
			name: "408", fault: object{"status": 408},
			one: "408 invalid_request_error from first | upstream_error 408, 1 first | in use, next first",
			two: "200 whole from second | finished 200, 2 second | in use, next first",
		},
		{
			name: "413", fault: object{"status": 413},
			one: "413 request_too_large from first | upstream_error 413, 1 first | in use, next first",
			two: "413 request_too_large from first | upstream_error 413, 1 first | in use, next first",
		},
		{
			name: "413, a page of HTML", fault: page(413),
			one: "413 request_too_large from Carpool | failed 413, 1 first | in use, next first",
			two: "413 request_too_large from Carpool | failed 413, 1 first | in use, next first",
		},
		{
			name: "422", fault: object{"status": 422, "type": "invalid_request_error"},
			one: "422 invalid_request_error from first | upstream_error 422, 1 first | in use, next first",
			two: "422 invalid_request_error from first | upstream_error 422, 1 first | in use, next first",
		},
		{
			name: "429, `retry-after: 30`", fault: object{"status": 429, "headers": object{"retry-after": "30"}},
			one: "429 rate_limit_error from first, retry-after 30 | upstream_error 429, 1 first | left alone: rate, next 429 rate_limit_error",
			two: "200 whole from second | finished 200, 2 second | left alone: rate, next second",
		},
		{
			name: "429, `retry-after: 3600`", fault: object{"status": 429, "headers": object{"retry-after": "3600"}},
			one: "429 rate_limit_error from first, retry-after 3600 | upstream_error 429, 1 first | left alone: rate, next 429 rate_limit_error",
			two: "200 whole from second | finished 200, 2 second | left alone: rate, next second",
		},
		{
			name: "429, only rate-limit headers", fault: object{"status": 429, "headers": exhausted},
			one: "429 rate_limit_error from first | upstream_error 429, 1 first | left alone: rate, next 429 rate_limit_error",
			two: "200 whole from second | finished 200, 2 second | left alone: rate, next second",
		},
		{
			name: "429, says nothing", fault: object{"status": 429},
			one: "429 rate_limit_error from first | upstream_error 429, 1 first | left alone: rate, next first",
			two: "200 whole from second | finished 200, 2 second | left alone: rate, next second",
		},
		{
			name: "429, spend limit of its tier", fault: object{"status": 429, "message": "enforced_spend_limit_reached"},
			one: "429 billing_error from Carpool, not to be repeated | failed 429, 1 first | left alone: spend, next 429 billing_error, not to be repeated",
			two: "200 whole from second | finished 200, 2 second | left alone: spend, next second",
		},
		{
			name: "500", fault: object{"status": 500},
			one: "500 api_error from first | upstream_error 500, 1 first | in use, next first",
			two: "200 whole from second | finished 200, 2 second | in use, next first",
		},
		{
			name: "500, `x-should-retry: false`", fault: object{"status": 500, "headers": object{"x-should-retry": "false"}},
			one: "500 api_error from first, not to be repeated | upstream_error 500, 1 first | in use, next first",
			two: "200 whole from second | finished 200, 2 second | in use, next first",
		},
		{
			name: "501", fault: object{"status": 501, "type": "not_supported"},
			one: "501 not_supported from first | upstream_error 501, 1 first | in use, next first",
			two: "200 whole from second | finished 200, 2 second | in use, next first",
		},
		{
			name: "502", fault: object{"status": 502},
			one: "502 api_error from first | upstream_error 502, 1 first | in use, next first",
			two: "200 whole from second | finished 200, 2 second | in use, next first",
		},
		{
			name: "502, a page of HTML", fault: page(502),
			one: "502 api_error from Carpool | failed 502, 1 first | in use, next first",
			two: "200 whole from second | finished 200, 2 second | in use, next first",
		},
		{
			name: "503", fault: object{"status": 503},
			one: "503 api_error from first | upstream_error 503, 1 first | in use, next first",
			two: "200 whole from second | finished 200, 2 second | in use, next first",
		},
		{
			name: "503, empty", fault: empty(503),
			one: "503 api_error from Carpool | failed 503, 1 first | in use, next first",
			two: "200 whole from second | finished 200, 2 second | in use, next first",
		},
		{
			name: "504", fault: object{"status": 504},
			one: "504 timeout_error from first | upstream_error 504, 1 first | in use, next first",
			two: "200 whole from second | finished 200, 2 second | in use, next first",
		},
		{
			name: "529", fault: object{"status": 529},
			one: "529 overloaded_error from first | upstream_error 529, 1 first | left alone: overloaded, next first",
			two: "200 whole from second | finished 200, 2 second | left alone: overloaded, next second",
		},
		{
			name: "529, empty", fault: empty(529),
			one: "529 overloaded_error from Carpool | failed 529, 1 first | left alone: overloaded, next first",
			two: "200 whole from second | finished 200, 2 second | left alone: overloaded, next second",
		},
		{
			name: "529, garbage", fault: object{"status": 529, "body": "garbage"},
			one: "529 overloaded_error from Carpool | failed 529, 1 first | left alone: overloaded, next first",
			two: "200 whole from second | finished 200, 2 second | left alone: overloaded, next second",
		},
		{
			name: "529, cut off amid its body", fault: object{"status": 529, "cut": "abort", "at_byte": 20},
			one: "529 overloaded_error from Carpool | failed 529, 1 first | left alone: overloaded, next first",
			two: "200 whole from second | finished 200, 2 second | left alone: overloaded, next second",
		},
		{
			name: "529, gzip", fault: object{"status": 529, "encoding": "gzip"},
			one: "529 overloaded_error from first | upstream_error 529, 1 first | left alone: overloaded, next first",
			two: "200 whole from second | finished 200, 2 second | left alone: overloaded, next second",
		},
		{
			name: "307 to elsewhere", fault: object{"status": 307, "location": "/v1/elsewhere"},
			one: "502 api_error from Carpool | failed 502, 1 first | in use, next first",
			two: "200 whole from second | finished 200, 2 second | in use, next first",
		},
		{
			name: "closes the connection before the header", fault: object{"cut": "drop"},
			one: "502 api_error from Carpool | failed 502, 1 first | in use, next first",
			two: "200 whole from second | finished 200, 2 second | in use, next first",
		},
		{
			name: "resets the connection before the header", fault: object{"cut": "drop_reset"},
			one: "502 api_error from Carpool | failed 502, 1 first | in use, next first",
			two: "200 whole from second | finished 200, 2 second | in use, next first",
		},
		{
			name: "529 before it has read the request", fault: object{"status": 529, "early": true}, padding: 1 << 20,
			one: "529 overloaded_error from first | upstream_error 529, 1 first | left alone: overloaded, next first",
			two: "200 whole from second | finished 200, 2 second | left alone: overloaded, next second",
		},
		{
			name: "413 before it has read the request", fault: object{"status": 413, "early": true}, padding: 1 << 20,
			one: "413 request_too_large from first | upstream_error 413, 1 first | in use, next first",
			two: "413 request_too_large from first | upstream_error 413, 1 first | in use, next first",
		},
		{
			name: "answers before it has read the request", fault: object{"early": true}, padding: 1 << 20, streamOnly: true,
			one: "200 whole from first | finished 200, 1 first | in use, next first",
			two: "200 whole from first | finished 200, 1 first | in use, next first",
		},
		{
			name: "200, empty", fault: empty(200),
			one: "502 api_error from Carpool | failed 502, 1 first | in use, next first",
			two: "200 whole from second | finished 200, 2 second | in use, next first",
		},
		{
			name: "200, a page of HTML", fault: page(200),
			one: "502 api_error from Carpool | failed 502, 1 first | in use, next first",
			two: "200 whole from second | finished 200, 2 second | in use, next first",
		},
		{
			name: "200, garbage", fault: object{"status": 200, "body": "garbage"},
			one: "502 api_error from Carpool | failed 502, 1 first | in use, next first",
			two: "200 whole from second | finished 200, 2 second | in use, next first",
		},
		{
			name: "200, reset before the first byte", fault: object{"cut": "reset"},
			one: "502 api_error from Carpool | failed 502, 1 first | in use, next first",
			two: "200 whole from second | finished 200, 2 second | in use, next first",
		},
		{
			name: "200, cut off before the first byte", fault: object{"cut": "abort"},
			one: "502 api_error from Carpool | failed 502, 1 first | in use, next first",
			two: "200 whole from second | finished 200, 2 second | in use, next first",
		},
		{
			name: "200, ended before the first byte", fault: object{"cut": "clean"},
			one: "502 api_error from Carpool | failed 502, 1 first | in use, next first",
			two: "200 whole from second | finished 200, 2 second | in use, next first",
		},
		{
			name: "200, reset after 1 byte", fault: object{"cut": "reset", "at_byte": 1, "write": 1, "every_ms": 1},
			one: "502 api_error from Carpool | failed 502, 1 first | in use, next first",
			two: "200 whole from second | finished 200, 2 second | in use, next first",
		},
		{
			name: "200, cut off after 300 bytes", fault: object{"cut": "abort", "at_byte": 300},
			one:      "200 that breaks off, from first | cut 200, 1 first, estimated | in use, next first",
			two:      "200 that breaks off, from first | cut 200, 1 first, estimated | in use, next first",
			onePlain: "502 api_error from Carpool | failed 502, 1 first | in use, next first",
			twoPlain: "200 whole from second | finished 200, 2 second | in use, next first",
		},
		{
			name: "200, ended after 300 bytes", fault: object{"cut": "clean", "at_byte": 300},
			one:      "200 that breaks off, from first | cut 200, 1 first, estimated | in use, next first",
			two:      "200 that breaks off, from first | cut 200, 1 first, estimated | in use, next first",
			onePlain: "502 api_error from Carpool | failed 502, 1 first | in use, next first",
			twoPlain: "200 whole from second | finished 200, 2 second | in use, next first",
		},
		{
			name: "200, cut off after 100,000 bytes of a longer answer", fault: object{"cut": "abort", "at_byte": 100_000}, long: true,
			one: "200 that breaks off, from first | cut 200, 1 first, estimated | in use, next first",
			two: "200 that breaks off, from first | cut 200, 1 first, estimated | in use, next first",
		},
		{
			name: "200, reset mid-stream", fault: object{"cut": "reset", "at_event": 8}, streamOnly: true,
			one: "200 that breaks off, from first | cut 200, 1 first, estimated | in use, next first",
			two: "200 that breaks off, from first | cut 200, 1 first, estimated | in use, next first",
		},
		{
			name: "200, cut off mid-stream", fault: object{"cut": "abort", "at_event": 8}, streamOnly: true,
			one: "200 that breaks off, from first | cut 200, 1 first, estimated | in use, next first",
			two: "200 that breaks off, from first | cut 200, 1 first, estimated | in use, next first",
		},
		{
			name: "200, ended mid-stream", fault: object{"cut": "clean", "at_event": 8}, streamOnly: true,
			one: "200 that breaks off, from first | cut 200, 1 first, estimated | in use, next first",
			two: "200 that breaks off, from first | cut 200, 1 first, estimated | in use, next first",
		},
		{
			name: "200, ended without `message_stop`", fault: object{"cut": "clean", "at_event": -1}, streamOnly: true,
			one: "200 without `message_stop`, as it came from first | finished 200, 1 first | in use, next first",
			two: "200 without `message_stop`, as it came from first | finished 200, 1 first | in use, next first",
		},
		{
			name: "200, whole without the last chunk", fault: object{"cut": "abort", "at_event": 1000},
			one: "200 whole from first | finished 200, 1 first | in use, next first",
			two: "200 whole from first | finished 200, 1 first | in use, next first",
		},
		{
			name: "200, garbage mid-stream", fault: object{"cut": "garbage", "at_event": 8}, streamOnly: true,
			one: "200 that breaks off, from first | cut 200, 1 first, estimated | in use, next first",
			two: "200 that breaks off, from first | cut 200, 1 first, estimated | in use, next first",
		},
		{
			name: "200, begins with `event: error`", fault: object{"cut": "error"}, streamOnly: true,
			one: "529 overloaded_error from Carpool | upstream_error 529, 1 first | left alone: overloaded, next first",
			two: "200 whole from second | finished 200, 2 second | left alone: overloaded, next second",
		},
		{
			name: "200, begins with `event: error`, bad request", fault: object{"cut": "error", "type": "invalid_request_error", "message": "no"}, streamOnly: true,
			one: "400 invalid_request_error from Carpool | upstream_error 400, 1 first | in use, next first",
			two: "400 invalid_request_error from Carpool | upstream_error 400, 1 first | in use, next first",
		},
		{
			name: "200, `event: error` mid-stream", fault: object{"cut": "error", "at_event": 8}, streamOnly: true,
			one: "200 that ends with the event overloaded_error, from first | upstream_error 200, 1 first, estimated | in use, next first",
			two: "200 that ends with the event overloaded_error, from first | upstream_error 200, 1 first, estimated | in use, next first",
		},
		{
			name: "200, gzip", fault: object{"encoding": "gzip"},
			one: "200 whole from first | finished 200, 1 first | in use, next first",
			two: "200 whole from first | finished 200, 1 first | in use, next first",
		},
		{
			name: "200, gzip, cut off after 100 bytes", fault: object{"encoding": "gzip", "cut": "abort", "at_byte": 100},
			one:      "200 that breaks off, from first | cut 200, 1 first, estimated | in use, next first",
			two:      "200 that breaks off, from first | cut 200, 1 first, estimated | in use, next first",
			onePlain: "502 api_error from Carpool | failed 502, 1 first | in use, next first",
			twoPlain: "200 whole from second | finished 200, 2 second | in use, next first",
		},
		{
			name: "200, gzip, ended after 100 bytes", fault: object{"encoding": "gzip", "cut": "clean", "at_byte": 100},
			one:      "200 that breaks off, from first | cut 200, 1 first, estimated | in use, next first",
			two:      "200 that breaks off, from first | cut 200, 1 first, estimated | in use, next first",
			onePlain: "502 api_error from Carpool | failed 502, 1 first | in use, next first",
			twoPlain: "200 whole from second | finished 200, 2 second | in use, next first",
		},
		{
			name: "200, gzip, cut off mid-stream", fault: object{"encoding": "gzip", "cut": "abort", "at_event": 8}, streamOnly: true,
			one: "200 that breaks off, from first | cut 200, 1 first, estimated | in use, next first",
			two: "200 that breaks off, from first | cut 200, 1 first, estimated | in use, next first",
		},
		{
			name: "200, gzip, ended mid-stream", fault: object{"encoding": "gzip", "cut": "clean", "at_event": 8}, streamOnly: true,
			one: "200 that breaks off, from first | cut 200, 1 first, estimated | in use, next first",
			two: "200 that breaks off, from first | cut 200, 1 first, estimated | in use, next first",
		},
		{
			name: "header after 1.5 s", fault: object{"delay_ms": 1500},
			one: "200 whole from first | finished 200, 1 first | in use, next first",
			two: "200 whole from first | finished 200, 1 first | in use, next first",
		},
		{
			name: "header after 3 s, for a client that waits 2 s", fault: object{"delay_ms": 3000}, patience: "2", streamOnly: true,
			one: "200 whole, after an early header and a ping | finished 200, 1 first | in use, next first",
			two: "200 whole, after an early header and a ping | finished 200, 1 first | in use, next first",
		},
		{
			name: "529 after 3 s, for a client that waits 2 s", fault: object{"delay_ms": 3000, "status": 529}, patience: "2", streamOnly: true,
			one: "200 that ends with the event overloaded_error, from Carpool | upstream_error 529, 1 first | left alone: overloaded, next first",
			two: "200 whole, after an early header and a ping | finished 200, 2 second | left alone: overloaded, next second",
		},
		{
			name: "401 after 3 s, for a client that waits 2 s", fault: object{"delay_ms": 3000, "status": 401}, patience: "2", streamOnly: true,
			one: "200 that ends with the event api_error, from Carpool | failed 502, 1 first | left alone: credential, next 502 api_error, not to be repeated",
			two: "200 whole, after an early header and a ping | finished 200, 2 second | left alone: credential, next second",
		},
		{
			name: "silent for 16 s mid-stream", fault: object{"cut": "stall", "at_event": 8, "stall_ms": 16000}, streamOnly: true,
			one: "200 whole with a ping added, from first | finished 200, 1 first | in use, next first",
			two: "200 whole with a ping added, from first | finished 200, 1 first | in use, next first",
		},
		{
			name: "silent for 2 s before the first byte", fault: object{"cut": "stall", "stall_ms": 2000},
			one: "200 whole from first | finished 200, 1 first | in use, next first",
			two: "200 whole from first | finished 200, 1 first | in use, next first",
		},
	}
}
