package web

import (
	"net/netip"
	"slices"
	"strings"

	"carpool/internal/wire"
)

// TrustProxies says whose word on the client's address counts, for requests that begin from now on; nobody's until then.
// Of a request that comes from one of these networks, the right-most address in X-Forwarded-For that is not itself in one
// of them is the client's: each proxy appends the address it saw, and everything further left is the client's own claim.
// That address takes the place of Request.Remote, with the port 0.
func (f *Front) TrustProxies(networks []netip.Prefix) {
	networks = slices.Clone(networks)
	f.proxies.Store(&networks)
}

func (f *Front) clientAddress(r *wire.Request) netip.AddrPort {
	networks := f.proxies.Load()
	if networks == nil || len(*networks) == 0 {
		return r.Remote
	}
	return clientAddress(r.Remote, r.Head, *networks)
}

func clientAddress(peer netip.AddrPort, head wire.Head, trusted []netip.Prefix) netip.AddrPort {
	isTrusted := func(a netip.Addr) bool {
		a = a.Unmap().WithZone("")
		return slices.ContainsFunc(trusted, func(p netip.Prefix) bool { return p.Contains(a) })
	}
	if !isTrusted(peer.Addr()) {
		return peer
	}
	client := peer
	for i := range slices.Backward(head) {
		if !strings.EqualFold(head[i].Name, "X-Forwarded-For") {
			continue
		}
		for list := head[i].Value; list != ""; {
			var last string
			if comma := strings.LastIndexByte(list, ','); comma >= 0 {
				list, last = list[:comma], list[comma+1:]
			} else {
				list, last = "", list
			}
			address, ok := forwardedAddress(last)
			if !ok { // whoever wrote this does not know whom it forwards for
				return client
			}
			client = netip.AddrPortFrom(address, 0)
			if !isTrusted(address) {
				return client
			}
		}
	}
	return client
}

// forwardedAddress reads one item of X-Forwarded-For, which some proxies write with a port.
func forwardedAddress(item string) (netip.Addr, bool) {
	item = strings.TrimSpace(item)
	if withPort, err := netip.ParseAddrPort(item); err == nil {
		return withPort.Addr().Unmap(), true
	}
	item = strings.TrimSuffix(strings.TrimPrefix(item, "["), "]")
	address, err := netip.ParseAddr(item)
	return address.Unmap(), err == nil
}
