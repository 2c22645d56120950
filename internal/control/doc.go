// Package control is the control plane: the admin API, the policy of record, and the books of what was used.
//
// A change runs one way: admin API (or Apply) → one SQL transaction of the change, its audit row and version+1 → compile →
// wake the nodes' links → wait a moment until the connected nodes report the new version in force. A usage entry runs the
// other way: a node ships it over its fleet.Link, control stores it once, whatever is sent again.
//
// What control stores holds no secret in clear: keys and tokens are stored as keyed hashes, upstream credentials sealed
// with a key derived from the master key file.
package control
