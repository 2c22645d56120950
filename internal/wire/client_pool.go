package wire

import (
	"crypto/tls"
	"fmt"
	"net"
	"net/url"
	"slices"
	"sync"
	"time"
)

// pool keeps connections that are open and idle. The one that was used last is taken first, so that those which are not
// needed grow old and are closed. The zero value with its limits is ready for use.
type pool struct {
	most     int           // idle connections per host
	idleTime time.Duration // 0: no limit

	mu     sync.Mutex
	hosts  map[hostKey]*host
	timer  *time.Timer
	armed  bool // the timer runs
	closed bool
}

type hostKey struct{ scheme, host string }

// host is where connections go. There are as many as upstreams were ever used.
type host struct {
	address string      // to dial
	tls     *tls.Config // nil without TLS
	proxied bool
	idle    []*conn // the oldest first; of the pool's lock
}

// host returns what is known of an address.
func (p *pool) host(u *url.URL, base *tls.Config) (*host, error) {
	key := hostKey{u.Scheme, u.Host}
	p.mu.Lock()
	defer p.mu.Unlock()
	if h, ok := p.hosts[key]; ok {
		return h, nil
	}
	h := &host{}
	port := u.Port()
	switch u.Scheme {
	case "http":
		port = or(port, "80")
	case "https":
		port = or(port, "443")
		h.tls = base.Clone()
		h.tls.ServerName = or(h.tls.ServerName, u.Hostname())
	default:
		return nil, fmt.Errorf("its scheme %q is neither http nor https", u.Scheme)
	}
	if u.Hostname() == "" {
		return nil, fmt.Errorf("the address %s names no host", u.Redacted())
	}
	h.address, h.proxied = net.JoinHostPort(u.Hostname(), port), hasProxy(u)
	if p.hosts == nil {
		p.hosts = make(map[hostKey]*host)
	}
	p.hosts[key] = h
	return h, nil
}

func or(s, otherwise string) string {
	if s == "" {
		return otherwise
	}
	return s
}

// take returns a connection that was kept open and is open still, or nil.
func (p *pool) take(h *host) *conn {
	for {
		p.mu.Lock()
		last := len(h.idle) - 1
		if last < 0 {
			p.mu.Unlock()
			return nil
		}
		c := h.idle[last]
		h.idle[last] = nil
		h.idle = h.idle[:last]
		p.mu.Unlock()
		if c.watcher.silent() {
			c.reused = true
			return c
		}
		c.Close()
	}
}

// put keeps a connection that is at the end of an exchange.
func (p *pool) put(c *conn) {
	p.mu.Lock()
	if p.closed || len(c.host.idle) >= p.most {
		p.mu.Unlock()
		c.Close()
		return
	}
	defer p.mu.Unlock()
	c.idleSince = time.Now()
	c.host.idle = append(c.host.idle, c)
	if p.idleTime > 0 && !p.armed {
		p.armed = true
		if p.timer == nil {
			p.timer = time.AfterFunc(p.idleTime, p.expire)
		} else {
			p.timer.Reset(p.idleTime)
		}
	}
}

// expire closes connections that were idle for too long.
func (p *pool) expire() {
	p.mu.Lock()
	now := time.Now()
	var next time.Time // when the oldest of the others is to be closed
	var over []*conn
	for _, h := range p.hosts {
		n := 0
		for n < len(h.idle) && now.Sub(h.idle[n].idleSince) >= p.idleTime {
			n++
		}
		over = append(over, h.idle[:n]...)
		h.idle = slices.Delete(h.idle, 0, n)
		if len(h.idle) > 0 {
			if end := h.idle[0].idleSince.Add(p.idleTime); next.IsZero() || end.Before(next) {
				next = end
			}
		}
	}
	if p.armed = !next.IsZero(); p.armed {
		p.timer.Reset(next.Sub(now))
	}
	p.mu.Unlock()
	for _, c := range over {
		c.Close()
	}
}

// close closes what is idle and keeps nothing from now on.
func (p *pool) close() {
	p.mu.Lock()
	p.closed = true
	if p.timer != nil {
		p.timer.Stop()
	}
	var over []*conn
	for _, h := range p.hosts {
		over = append(over, h.idle...)
		h.idle = nil
	}
	p.mu.Unlock()
	for _, c := range over {
		c.Close()
	}
}
