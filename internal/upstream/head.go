package upstream

import (
	"maps"
	"slices"
	"strings"

	"carpool/internal/wire"
)

// requestHead is what of a client's fields goes to the upstream: everything but the fields of the client's own hop, its
// credentials, and what tells of the way it took. Unknown fields pass. fill is added where absent.
func requestHead(head wire.Head, fill map[string]string) wire.Head {
	hop := head.ConnectionNames()
	out := head.Filter(func(f wire.Field) bool {
		name := strings.ToLower(f.Name)
		return !dropFromRequest(name) && !slices.Contains(hop, name)
	})
	for _, name := range slices.Sorted(maps.Keys(fill)) {
		if !out.Has(name) {
			out.Add(name, fill[name])
		}
	}
	return out
}

func dropFromRequest(name string) bool {
	switch name {
	case "authorization", "x-api-key", "api-key", "proxy-authorization", "cookie", // credentials
		"connection", "keep-alive", "te", "trailer", "transfer-encoding", "upgrade", "expect", "http2-settings",
		"proxy-authenticate", "proxy-connection", "host", "content-length", // this hop
		"forwarded", "via", "x-real-ip": // the way
		return true
	}
	return strings.HasPrefix(name, "x-forwarded-")
}

// ResponseHead is what of an upstream's fields goes to the client: everything but the fields of that hop and those that
// describe the operator's account and deployment, which a developer cannot use and should not see.
func ResponseHead(head wire.Head) wire.Head {
	hop := head.ConnectionNames()
	return head.Filter(func(f wire.Field) bool {
		name := strings.ToLower(f.Name)
		return !dropFromResponse(name) && !slices.Contains(hop, name)
	})
}

func dropFromResponse(name string) bool {
	switch name {
	case "connection", "keep-alive", "te", "trailer", "transfer-encoding", "upgrade", "proxy-authenticate", "proxy-connection",
		"alt-svc", "strict-transport-security", // true of the upstream's address only
		"anthropic-organization-id", "anthropic-workspace-id", "cf-ray", "cf-cache-status", "via", "server", "set-cookie",
		"apim-request-id", "nel", "report-to":
		return true
	}
	for _, prefix := range []string{"anthropic-ratelimit-", "anthropic-priority-", "anthropic-fast-", "x-amzn-", "x-envoy-"} {
		if strings.HasPrefix(name, prefix) {
			return true
		}
	}
	return false
}
