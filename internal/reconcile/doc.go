// Package reconcile compares the books with what others say about the same requests: Anthropic's Usage and Cost report, by
// UTC day and model, and the telemetry of Claude Code, request by request.
//
// It reads both from files or, the report, from the Admin API, and knows nothing of where the books are.
package reconcile
