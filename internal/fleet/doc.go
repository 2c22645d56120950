// Package fleet holds what nodes and control say to each other: the Link between them and the versioned types that cross it.
//
// A node is always the active side. In standalone the link is a function call; the types are the same.
//
// Protocol history:
//
//	1 (2026-11-23) snapshots, usage batches and what is gone of them, commands, heartbeats
//	2 (2026-11-25) entries say what they cost and by which prices; the state of budgets
package fleet
