// Package gateway is the request path: authenticate, read, admit, send, stream, settle. Nothing else happens in it.
//
// It works on the types of package wire and serves from a policy.Snapshot that each request pins once. Whatever happens to
// an exchange that was admitted, it leaves exactly one entry in the ledger.
package gateway
