// Package store is control's SQL: the policy of record, the audit log, and the books of what was used.
//
// The policy is small and rarely changed, so it is read whole (State) and written noun by noun inside Store.Write.
// Entries are many and only added. SQL is written for SQLite and PostgreSQL alike: BIGINT microseconds for times, TEXT for
// hashes and JSON, ON CONFLICT for repeats.
package store
