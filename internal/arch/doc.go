// Package arch holds the architecture by test: which package may import which, what every package must say of itself, and a few
// habits that no linter knows. It has no code of its own; docs/ARCHITECTURE.md is the page it guards.
package arch
