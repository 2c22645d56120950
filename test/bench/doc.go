// Bench measures what a proxy costs between Claude Code and the Messages API: processor time and memory of its processes,
// and what it adds to the time until the first byte. It starts everything itself on loopback: an upstream that costs as little
// as it can, Carpool with everything on, and beside it the plainest reverse proxy of Go's standard library, nginx and HAProxy.
// Every request is compared byte for byte where it arrives at the upstream, and every answer where it arrives at the client.
//
// Each measurement has a freshly started proxy to itself; targets take turns (A B C A B C), so that what disturbs the machine
// disturbs all of them. Processor time is user and system time of the proxy's processes as the kernel counts it, in steps of
// 10 ms. On loopback the kernel's part of receiving is charged to whoever sends; that is the same for every target. Ratios stand more disturbance
// than figures do; where other work has half of the processors, a proxy that would keep up may not, and only a quieter run tells.
//
//	go run ./test/bench [-scenarios S1,S2] [-rounds 3] [-targets direct,reverseproxy,carpool] [-carpool NAME=PATH]… [-out FILE] [-quick]
//
// It needs Linux, for /proc, and nginx and haproxy where they are among the targets (scripts/bench-deps installs them).
package main
