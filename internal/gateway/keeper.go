package gateway

import (
	"runtime"
	"sync"
	"time"

	"carpool/internal/anthropic"
	"carpool/internal/wire"
)

// pingInterval is after how long a silence the gateway says something itself: clients give up after five minutes without an
// event, proxies in between after one.
const pingInterval = 15 * time.Second

// haste is within what time pieces follow each other of a stream that comes at full speed.
const haste = time.Millisecond

// keeper writes to a client and keeps it patient: a ping event when the upstream has been silent for a while, and the
// header of a stream before there is an answer, for clients that wait only a minute for it. All writing goes through it,
// since its timer writes, too.
type keeper struct {
	interval time.Duration
	now      func() time.Time

	mu    sync.Mutex
	w     wire.Writer
	timer *time.Timer
	last  time.Time   // when something was last sent
	hasty bool        // and that it was soon after what was sent before
	may   func() bool // whether a ping may stand here; nil: no pings
	head  wire.Head   // to be committed early; nil once begun or when that is not wanted
	over  bool
	err   error // of a write that the timer made
}

func (g *Gateway) newKeeper(w wire.Writer) *keeper {
	return &keeper{interval: g.pingInterval, now: g.now, w: w}
}

// commitAfter sends head with status 200 after a time, unless the answer has begun by then.
func (k *keeper) commitAfter(d time.Duration, head wire.Head) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.head = head
	k.timer = time.AfterFunc(d, k.wake)
}

// begin sends status and fields unless they were committed early, and starts pinging if may is given.
func (k *keeper) begin(status int, head wire.Head, may func() bool) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.err == nil && !k.w.Begun() {
		k.err = k.w.Begin(status, head)
	}
	k.head, k.may, k.last = nil, may, k.now()
	if may != nil {
		k.arm(k.interval)
	}
	return k.err
}

func (k *keeper) arm(d time.Duration) {
	if k.timer == nil {
		k.timer = time.AfterFunc(d, k.wake)
		return
	}
	k.timer.Reset(d)
}

// send lets first see p, writes it, and flushes if asked to.
func (k *keeper) send(p []byte, first func([]byte), flush bool) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.err != nil {
		return k.err
	}
	first(p)
	now := k.now()
	k.hasty, k.last = now.Sub(k.last) < haste, now
	if _, k.err = k.w.Write(p); k.err != nil {
		return k.err
	}
	if flush {
		k.err = k.w.Flush()
	}
	return k.err
}

// yield lets others go on first when pieces come in haste. What comes meanwhile then goes in one piece; a piece that has come
// is never kept waiting.
func (k *keeper) yield() {
	k.mu.Lock()
	hasty := k.hasty
	k.mu.Unlock()
	if hasty {
		runtime.Gosched()
	}
}

// flush sends what is held back.
func (k *keeper) flush() error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.err == nil {
		k.err = k.w.Flush()
	}
	return k.err
}

// committed ends the wait for an early header and tells whether it was sent.
func (k *keeper) committed() bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.head = nil
	return k.w.Begun()
}

// stop ends the keeper's own writing. It must be called before the request is over.
func (k *keeper) stop() {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.over = true
	if k.timer != nil {
		k.timer.Stop()
	}
}

// wake is the timer's: it commits the header that is due, or pings when the silence has lasted long enough.
func (k *keeper) wake() {
	k.mu.Lock()
	defer k.mu.Unlock()
	switch {
	case k.over || k.err != nil:
		return
	case k.head != nil:
		k.err = k.w.Begin(200, k.head)
		k.head, k.may = nil, func() bool { return true }
	case k.may == nil:
		return
	default:
		if left := k.interval - k.now().Sub(k.last); left > 0 {
			k.arm(left)
			return
		}
	}
	if k.err == nil && k.may() {
		if _, k.err = k.w.Write([]byte(anthropic.PingEvent)); k.err == nil {
			k.err = k.w.Flush()
		}
		k.last = k.now()
	}
	k.arm(k.interval)
}
