package web

import (
	"net/netip"
	"testing"

	"carpool/internal/wire"
)

func networks(texts ...string) []netip.Prefix {
	var list []netip.Prefix
	for _, t := range texts {
		list = append(list, netip.MustParsePrefix(t))
	}
	return list
}

func TestClientAddress(t *testing.T) {
	t.Parallel()
	trusted := networks("10.0.0.0/8", "2001:db8:aaaa::/48")
	for name, c := range map[string]struct {
		peer      string
		forwarded []string
		want      string
	}{
		"no proxy":                       {"192.0.2.1:5000", nil, "192.0.2.1:5000"},
		"a stranger's claim":             {"192.0.2.1:5000", []string{"203.0.113.9"}, "192.0.2.1:5000"},
		"a proxy that says nothing":      {"10.0.0.1:5000", nil, "10.0.0.1:5000"},
		"one proxy":                      {"10.0.0.1:5000", []string{"203.0.113.9"}, "203.0.113.9:0"},
		"the client's own claim is left": {"10.0.0.1:5000", []string{"1.1.1.1, 203.0.113.9"}, "203.0.113.9:0"},
		"two proxies":                    {"10.0.0.1:5000", []string{"1.1.1.1,203.0.113.9 , 10.2.3.4"}, "203.0.113.9:0"},
		"several lines":                  {"10.0.0.1:5000", []string{"1.1.1.1", "203.0.113.9", "10.2.3.4"}, "203.0.113.9:0"},
		"proxies only":                   {"10.0.0.1:5000", []string{"10.9.9.9, 10.2.3.4"}, "10.9.9.9:0"},
		"IPv6":                           {"[2001:db8:aaaa::1]:5000", []string{"2001:db8:1::5"}, "[2001:db8:1::5]:0"},
		"IPv6 with a port":               {"10.0.0.1:5000", []string{"[2001:db8:1::5]:443"}, "[2001:db8:1::5]:0"},
		"IPv6 in brackets":               {"10.0.0.1:5000", []string{"[2001:db8:1::5]"}, "[2001:db8:1::5]:0"},
		"IPv4 with a port":               {"10.0.0.1:5000", []string{"203.0.113.9:1234"}, "203.0.113.9:0"},
		"IPv4 in IPv6":                   {"[::ffff:10.0.0.1]:5000", []string{"::ffff:203.0.113.9"}, "203.0.113.9:0"},
		"no address":                     {"10.0.0.1:5000", []string{"unknown"}, "10.0.0.1:5000"},
		"no address behind a proxy":      {"10.0.0.1:5000", []string{"203.0.113.9, unknown, 10.2.3.4"}, "10.2.3.4:0"},
		"an empty item is no address":    {"10.0.0.1:5000", []string{"203.0.113.9,"}, "10.0.0.1:5000"},
		"an empty line":                  {"10.0.0.1:5000", []string{"203.0.113.9", ""}, "203.0.113.9:0"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			head := wire.Head{{Name: "Accept", Value: "1.2.3.4"}}
			for i, value := range c.forwarded {
				head.Add([]string{"X-Forwarded-For", "x-forwarded-for"}[i%2], value)
			}
			if got := clientAddress(netip.MustParseAddrPort(c.peer), head, trusted); got.String() != c.want {
				t.Errorf("%v, want %v", got, c.want)
			}
		})
	}
}

func FuzzClientAddress(f *testing.F) {
	f.Add("203.0.113.9, 10.0.0.2")
	f.Add("[::1]:80,,,")
	f.Add("fe80::1%eth0")
	trusted := networks("10.0.0.0/8")
	f.Fuzz(func(t *testing.T, value string) {
		peer := netip.MustParseAddrPort("10.0.0.1:5000")
		got := clientAddress(peer, wire.Head{{Name: "X-Forwarded-For", Value: value}}, trusted)
		if !got.Addr().IsValid() {
			t.Errorf("%q: %v", value, got)
		}
		stranger := netip.MustParseAddrPort("192.0.2.1:5000")
		if got := clientAddress(stranger, wire.Head{{Name: "X-Forwarded-For", Value: value}}, trusted); got != stranger {
			t.Errorf("%q: a stranger is taken for %v", value, got)
		}
	})
}
