package ledger

import "carpool/internal/fleet"

// ToolCount is how often an answer calls a tool.
type ToolCount = fleet.ToolCount

// How an exchange ended, see fleet.Outcome. They stand here for the request path, which does not know the fleet.
const (
	OutcomeFinished      = fleet.OutcomeFinished
	OutcomeUpstreamError = fleet.OutcomeUpstreamError
	OutcomeFailed        = fleet.OutcomeFailed
	OutcomeCut           = fleet.OutcomeCut
	OutcomeCanceled      = fleet.OutcomeCanceled
)
