// Package sim is a simulated Anthropic API: an http.Handler that the real claude CLI and the official SDKs cannot tell from the
// real one in use, and whose answers a prompt can dictate.
//
// It serves POST /v1/messages (JSON and server-sent events), POST /v1/messages/count_tokens, GET /v1/models, GET /v1/models/{id},
// HEAD / and HEAD /api/hello, checks requests as the API does and answers its documented errors with its wording, headers and
// request ids. It shares no code with the rest of Carpool, so that it can judge it.
//
// # Scripts
//
// A prompt steers the answer with a directive, written as [[sim JSON]] anywhere in the text of a user message; the last user
// message that holds one counts. [Usage] is the reference, also served at GET /__sim/. The simulator keeps no conversation state:
// which step of a script is due follows from the tool_use ids in the assistant messages after the directive, so a script works
// through any gateway, across upstreams and with a client that repeats, retries or resumes. Requests that merely quote the prompt
// (title generation, topic checks, path extraction, summaries, requests without the tools that the step calls) get a short answer
// in the form they ask for.
//
// # Tokens
//
// One token is four bytes, rounded up per block: a text counts its own bytes, any other block or tool definition the bytes of its
// compact JSON without cache_control. The attribution block that the CLI puts first in system is not counted. The prompt up to
// the last cache_control is written to a simulated cache per credential and model on first sight (5 minutes, or 1 hour with that
// ttl) and read from it afterwards; there is no minimum length. A step's "usage" replaces any of these numbers.
//
// # Faults
//
// A [Fault] makes an answer slow, broken or wrong. It comes from the credential ([Credential.Faults], changed at run time by
// [Server.SetFaults] or PUT /__sim/credentials/{name}/faults) or from a script's step. Nothing is random: a fault applies to the
// requests it selects, counted from the first.
//
// # Usage and cost
//
// The simulator answers Anthropic's Usage and Cost API (/v1/organizations/…) with an Admin key, from the usage of the messages it
// has sent, at the published prices of late 2026: whoever keeps books beside it can compare.
//
// # Inspection
//
// The simulator records what it received, with hashes of both bodies, in bounded memory; [Server.Requests], [Server.Counters] and
// the same under /__sim/ show it. That path takes no credential: bind the simulator to loopback only.
package sim
