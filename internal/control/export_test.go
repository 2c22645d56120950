package control

import "slices"

// Ready reports whether a node has the policy in force and waits for commands.
func Ready(c *Control, name string) bool {
	listens := slices.ContainsFunc(c.listening(), func(n *node) bool { return n.name == name })
	version := c.state().Version
	c.mu.Lock()
	defer c.mu.Unlock()
	return listens && c.nodes[name].beat.Applied == version
}
