// Package web is the first stop of a request and the life of a server: request id, panic guard, access log, metrics,
// error rendering, listeners, draining.
//
// A Handler returns an error instead of writing one. An *anthropic.Error is what the client may see; any other error is
// logged and becomes a plain 500. The access log has one line per request, with what the handler noted on the way.
package web
