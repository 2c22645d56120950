package upstream

import (
	"bytes"
	"slices"
	"strings"

	"carpool/internal/wire"
)

// requestHead is what of a client's fields goes to the upstream: everything but the fields of the client's own hop, its
// credentials, and what tells of the way it took. Unknown fields pass. fill is added where absent.
func requestHead(head wire.Head, fill map[string]string) wire.Head {
	out := without(head, dropFromRequest)
	var absent []string
	for name := range fill {
		if !out.Has(name) {
			absent = append(absent, name)
		}
	}
	slices.Sort(absent)
	for _, name := range absent {
		out.Add(name, fill[name])
	}
	return out
}

// without returns a head without the fields that drop says of, by their lower-case names, and without those that its
// Connection fields name.
func without(head wire.Head, drop func(name []byte) bool) wire.Head {
	hop := head.ConnectionNames()
	buffer := make([]byte, 0, 64)
	return head.Filter(func(f wire.Field) bool {
		buffer = buffer[:0]
		for i := range len(f.Name) {
			c := f.Name[i]
			if 'A' <= c && c <= 'Z' {
				c += 'a' - 'A'
			}
			buffer = append(buffer, c)
		}
		return !drop(buffer) && !slices.ContainsFunc(hop, func(name string) bool { return name == string(buffer) })
	})
}

func dropFromRequest(name []byte) bool {
	switch string(name) {
	case "authorization", "x-api-key", "api-key", "proxy-authorization", "cookie", // credentials
		"connection", "keep-alive", "te", "trailer", "transfer-encoding", "upgrade", "expect", "http2-settings",
		"proxy-authenticate", "proxy-connection", "host", "content-length", // this hop
		"forwarded", "via", "x-real-ip": // the way
		return true
	}
	return bytes.HasPrefix(name, []byte("x-forwarded-"))
}

// ResponseHead is what of an upstream's fields goes to the client: everything but the fields of that hop and those that
// describe the operator's account and deployment, which a developer cannot use and should not see.
func ResponseHead(head wire.Head) wire.Head { return without(head, dropFromResponse) }

func dropFromResponse(name []byte) bool {
	switch string(name) {
	case "connection", "keep-alive", "te", "trailer", "transfer-encoding", "upgrade", "proxy-authenticate", "proxy-connection",
		"alt-svc", "strict-transport-security", // true of the upstream's address only
		"anthropic-organization-id", "anthropic-workspace-id", "cf-ray", "cf-cache-status", "via", "server", "set-cookie",
		"apim-request-id", "nel", "report-to":
		return true
	}
	for _, prefix := range []string{"anthropic-ratelimit-", "anthropic-priority-", "anthropic-fast-", "x-amzn-", "x-envoy-"} {
		if strings.HasPrefix(string(name), prefix) {
			return true
		}
	}
	return false
}
