package sim

// Usage is the reference of the directive syntax, the fault fields and the inspection endpoint, as plain text.
const Usage = `Carpool's simulated Anthropic API

DIRECTIVE: put  [[sim JSON]]  into a user prompt. JSON is one step or an array of steps. One step is one assistant message.
The last user message with a directive counts. Quote it with single quotes in a shell.

  claude -p '[[sim "hello"]]'
  claude -p '[[sim [{"tool":"Bash","input":{"command":"date"}},"It is {{result}}."]]]' --allowedTools Bash

STEP: a string (text to answer) or an object with any of
  "text": "..."              answer text; {{result}} is the text of the latest tool results, {{model}} the model
  "think": "..."             a signed thinking block first
  "tool": "X", "input": {}   call tool X
  "tools": [{"tool":"X","input":{}}, ...]      several tools in parallel, in one message
  "agents": ["prompt", ...]  spawn sub-agents with whichever of Task and Agent the client offers
  "repeat": 3                the step three times (a loop of tools)
  "stop": "refusal"          stop_reason instead of end_turn or tool_use
  "usage": {"input_tokens": 1, "output_tokens": 2, "cache_read_input_tokens": 3, "cache_creation_input_tokens": 4, ...}
                             replaces the counted usage, field by field; unknown fields are sent as they are
  "start_usage": {...}       the same for message_start alone
  "events": 50               number of text deltas (text is made up when there is none)
  "every_ms": 20             pause before each event after message_start
  any field of a fault, see below
Every step but the last calls tools. After its last step a script repeats that step's text without its tools.
A request that does not offer a step's tools, or asks for a certain form, gets a short answer instead of the step.

FAULT: an object with any of
  "status": 529              answer this error (400 401 403 404 413 429 500 502 503 529 ...; 3xx redirects to "location")
  "type", "message"          of the error body; defaults are the API's own
  "body": "html"|"empty"|"garbage"   instead of the JSON error body; with status 200 instead of the message
  "headers": {"retry-after": "5"}    more response headers; "" removes one, the rate-limit and request-id headers included
  "delay_ms": 500            before the response headers
  "hold": "name"             wait until POST /__sim/release?name=name
  "early": true              answer before reading the body (faults of credentials only)
  "cut": "drop"|"drop_reset"         close the connection (FIN or RST) instead of answering
  "cut": "reset"|"abort"|"clean"|"error"|"garbage"|"stall"    break the body at
  "at_event": n              after n events (default 0; beyond the last: at the end; negative: before the last -n), or
  "at_byte": n               after n body bytes
        reset = RST, abort = close without the last chunk, clean = normal end, error = "event: error" and end,
        garbage = bytes that are no event, stall = silence for "stall_ms" or until the hold is released, then on;
        with "ping_ms" a ping event is sent at this pace during a stall
  "every_ms": 20             pause before each event
  "encoding": "gzip"|"br"    compress the body
  "write": 1                 bytes per write (1 splits everything everywhere)
  "split_utf8": true         one write ends inside every multi-byte character
  "crlf": true, "comments": true, "unknown_events": true, "long_line": 1048576    legal oddities of the event stream
  "skip": n, "times": k      leave out the first n selected requests, then apply to k only (default all); a script's requests
                             are counted over all credentials by prompt text and step: put a nonce into the prompt
  "path", "model", "credential"   select requests by exact path, model as sent, credential name

USAGE AND COST REPORTS (x-api-key: ` + DefaultAdminKey + `, over all credentials, in UTC):
  GET  /v1/organizations/usage_report/messages   starting_at, ending_at, bucket_width, limit, page, group_by[]=model|api_key_id
  GET  /v1/organizations/cost_report             the same without bucket_width; group_by[]=description

INSPECTION (no credential):
  GET  /__sim/requests?since=SEQ&limit=N     what was received
  GET  /__sim/counters                       totals
  GET  /__sim/wait?held=3|requests=3|in_flight=3|finished=3&timeout_ms=5000   answer when at least that many; 408 otherwise
  POST /__sim/release?name=NAME&n=1          let held requests go on (default: all)
  POST /__sim/reset                          forget requests, counters, caches and rate windows; release all holds
  GET  /__sim/credentials                    names, limits, faults
  PUT  /__sim/credentials/NAME/faults        JSON array of faults, replaces; [] clears
`
