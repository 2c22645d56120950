// Package anthropic speaks the Messages dialect: it peeks at a request, reads usage over the shoulder of a response, and renders errors
// the way the Anthropic API does.
//
// The package is pure. It does no I/O, starts no goroutine, reads no clock and holds no state outside the values it returns, so
// everything in it can be tested with bytes alone.
//
//   - [Peek] scans a request body once and keeps a handful of small values and offsets. The body itself is never re-serialised: what
//     must change is changed by [Request.Splice], which leaves every other byte as it was. Prompt caches and preserved thinking depend
//     on the exact bytes of a request.
//   - [Meter] is written every byte of a response as it is relayed. It cannot fail and keeps a bounded amount of memory; a response that
//     it does not understand costs precision, never the relay.
//   - [Error] is an error that a client sees, with the headers that decide how the Claude Code client reacts to it.
package anthropic
