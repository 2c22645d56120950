// Package e2e tests Carpool from outside: it builds the binary, starts real processes and talks to them, also with the real
// claude CLI and the official SDKs, which `make test-deps` installs.
package e2e
