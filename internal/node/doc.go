// Package node assembles a data plane: it takes policy from control over a fleet.Link, serves with a gateway, and ships the
// ledger back. It goes on serving with the policy it has when control does not answer.
package node
