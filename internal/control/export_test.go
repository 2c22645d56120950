package control

import (
	"context"
	"slices"
	"time"
)

// Ready reports whether a node has the policy in force and waits for commands.
func Ready(c *Control, name string) bool {
	listens := slices.ContainsFunc(c.listening(), func(n *node) bool { return n.name == name })
	version := c.state().Version
	c.mu.Lock()
	defer c.mu.Unlock()
	return listens && c.nodes[name].beat.Applied == version
}

// Forget rolls up what is older than a retention now, as the loop of this name does every hour.
func Forget(ctx context.Context, c *Control, retention time.Duration) (int64, error) {
	return c.forget(ctx, retention)
}

// ForgetSome does one transaction of it.
func ForgetSome(ctx context.Context, c *Control, before time.Time, limit int) (int64, error) {
	return c.store.RollUp(ctx, before, grain(c.location(), before), limit)
}
