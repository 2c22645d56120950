package control

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/google/uuid"

	"carpool/internal/fleet"
	"carpool/internal/policy"
)

// node is what control knows of a node. Control.mu guards it.
type node struct {
	name    string
	waits   int             // Snapshot and Command calls in progress
	listens int             // Command calls in progress
	seen    time.Time       // its last word
	heard   time.Time       // when it last took or answered a command
	beat    fleet.Heartbeat // the last one
	beatAt  time.Time       // zero when there was none
	queue   []fleet.Command // not yet taken
}

// link is the control end of a node's fleet.Link, in process.
type link struct {
	c    *Control
	node *node
}

// Link returns the link of a node in this process. Several links of one name are one node.
func (c *Control) Link(name string) fleet.Link {
	c.mu.Lock()
	defer c.mu.Unlock()
	n, ok := c.nodes[name]
	if !ok {
		n = &node{name: name}
		c.nodes[name] = n
	}
	return &link{c, n}
}

// broadcast wakes everybody who waits. Control.mu must be held.
func (c *Control) broadcast() {
	close(c.wake)
	c.wake = make(chan struct{})
}

// await waits until ready, which is called with Control.mu held, says so. It ends with ctx's error, or errClosed.
func (c *Control) await(ctx context.Context, ready func() bool) error {
	for {
		c.mu.Lock()
		done, closed, wake := ready(), c.closed, c.wake
		c.mu.Unlock()
		switch {
		case done:
			return nil
		case closed:
			return errClosed
		}
		select {
		case <-wake:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// wait is await for a node: while it waits it is connected, and when it gives up it is not.
func (l *link) wait(ctx context.Context, ready func() bool) error {
	l.c.mu.Lock()
	l.node.waits++
	l.c.mu.Unlock()
	err := l.c.await(ctx, ready)
	l.c.mu.Lock()
	defer l.c.mu.Unlock()
	l.node.waits--
	if err != nil {
		l.node.seen, l.node.heard = time.Time{}, time.Time{}
		l.c.broadcast()
		return err
	}
	l.node.seen = l.c.options.Now()
	return nil
}

func (l *link) Snapshot(ctx context.Context, have int64) (*policy.Document, error) {
	if have > l.c.current.Load().document.Version {
		l.c.options.Log.WarnContext(ctx, "node has a newer policy than the store; was the store restored?",
			slog.String("node", l.node.name), slog.Int64("have", have))
		if err := l.c.leap(ctx, have); err != nil {
			return nil, err
		}
	}
	var newest *policy.Document
	err := l.wait(ctx, func() bool {
		newest = l.c.current.Load().document
		return newest.Version > have
	})
	if err != nil {
		return nil, err
	}
	return newest, nil
}

func (l *link) Ship(ctx context.Context, batch fleet.UsageBatch) (int64, error) {
	if batch.Node != l.node.name {
		return 0, fmt.Errorf("cannot take a batch of node %q from node %q", batch.Node, l.node.name)
	}
	for i := range batch.Entries {
		if e := &batch.Entries[i]; e.Node != l.node.name || e.Seq < 1 {
			return 0, fmt.Errorf("cannot take entry %d of node %q from node %q", e.Seq, e.Node, l.node.name)
		}
	}
	if stretch := batch.From != 0 || batch.To != 0; stretch && (batch.From < 1 || batch.To < batch.From) {
		return 0, fmt.Errorf("cannot take a batch of node %q for the entries %d to %d", batch.Node, batch.From, batch.To)
	}
	taken, err := l.c.store.Ingest(ctx, batch)
	if err != nil {
		return 0, err
	}
	l.c.metrics.entries.Add(float64(taken.Added))
	if n := len(batch.Entries); n > 0 && batch.Entries[n-1].Seq > taken.Contiguous {
		l.c.options.Log.WarnContext(ctx, "entries are missing before those delivered",
			slog.String("node", l.node.name), slog.Int64("completeTo", taken.Contiguous), slog.Int64("deliveredTo", batch.Entries[n-1].Seq))
	}
	if taken.Gone > 0 {
		l.c.options.Log.WarnContext(ctx, "the node does not have all entries any more that are missing here; was the store restored?",
			slog.String("node", l.node.name), slog.Int64("gone", taken.Gone), slog.Int64("from", batch.From), slog.Int64("to", batch.To))
	}
	l.c.mu.Lock()
	l.node.seen = l.c.options.Now()
	l.c.mu.Unlock()
	return taken.Contiguous, nil
}

func (l *link) Command(ctx context.Context) (command fleet.Command, err error) {
	l.listen(1)
	defer l.listen(-1)
	err = l.wait(ctx, func() bool {
		if len(l.node.queue) == 0 || ctx.Err() != nil {
			return false
		}
		command, l.node.queue = l.node.queue[0], l.node.queue[1:]
		l.node.heard = l.c.options.Now()
		return true
	})
	return command, err
}

func (l *link) listen(by int) {
	l.c.mu.Lock()
	defer l.c.mu.Unlock()
	l.node.listens += by
}

// Answer delivers a result to whoever asked; nobody waits any more for one that comes too late.
func (l *link) Answer(_ context.Context, result fleet.CommandResult) error {
	l.c.mu.Lock()
	defer l.c.mu.Unlock()
	l.node.seen = l.c.options.Now()
	l.node.heard = l.node.seen
	if asked, ok := l.c.pending[result.ID]; ok {
		delete(l.c.pending, result.ID)
		asked <- result // it has room for one
	}
	return nil
}

func (l *link) Heartbeat(_ context.Context, beat fleet.Heartbeat) error {
	l.c.mu.Lock()
	defer l.c.mu.Unlock()
	now := l.c.options.Now().UTC()
	l.node.beat, l.node.beatAt, l.node.seen = beat, now, now
	l.c.broadcast()
	return nil
}

// connected reports whether a node is there. Control.mu must be held.
func (c *Control) connected(n *node) bool {
	return n.waits > 0 || (!n.seen.IsZero() && c.options.Now().Sub(n.seen) < presence)
}

// listening returns the nodes that wait for a command, or took one a moment ago.
func (c *Control) listening() []*node {
	c.mu.Lock()
	defer c.mu.Unlock()
	var nodes []*node
	for _, n := range c.nodes {
		if n.listens > 0 || (!n.heard.IsZero() && c.options.Now().Sub(n.heard) < presence) {
			nodes = append(nodes, n)
		}
	}
	slices.SortFunc(nodes, func(a, b *node) int { return strings.Compare(a.name, b.name) })
	return nodes
}

// waitApplied waits until every connected node has the version in force or has refused it, but not long: a node that is
// slow gets it later.
func (c *Control) waitApplied(ctx context.Context, version int64) {
	ctx, cancel := context.WithTimeout(ctx, applyWait)
	defer cancel()
	err := c.await(ctx, func() bool {
		for _, n := range c.nodes {
			if c.connected(n) && n.beat.Applied < version && n.beat.Refused < version {
				return false
			}
		}
		return true
	})
	if err != nil {
		c.options.Log.WarnContext(ctx, "a change is stored but not yet in force on all nodes", slog.Int64("version", version))
	}
}

// ask puts a command to a node and waits for its answer.
func (c *Control) ask(ctx context.Context, n *node, kind fleet.CommandKind, args any) (json.RawMessage, error) {
	command := fleet.Command{Kind: kind}
	id, err := uuid.NewRandomFromReader(c.options.Random)
	if err != nil {
		return nil, fmt.Errorf("cannot make an id: %w", err)
	}
	command.ID = id.String()
	if args != nil {
		if command.Args, err = json.Marshal(args); err != nil {
			return nil, fmt.Errorf("cannot encode the arguments: %w", err)
		}
	}
	answer := make(chan fleet.CommandResult, 1)
	c.mu.Lock()
	c.pending[command.ID] = answer
	n.queue = append(n.queue, command)
	c.broadcast()
	c.mu.Unlock()
	select {
	case result := <-answer:
		if result.Error != "" {
			return nil, errors.New(result.Error)
		}
		return result.Result, nil
	case <-ctx.Done():
		c.mu.Lock()
		defer c.mu.Unlock()
		delete(c.pending, command.ID)
		n.queue = slices.DeleteFunc(n.queue, func(q fleet.Command) bool { return q.ID == command.ID })
		return nil, fmt.Errorf("no answer: %w", ctx.Err())
	}
}

// askAll puts a command to all listening nodes at once and returns the answers of those that gave one within the limit,
// and what went wrong with the others.
func (c *Control) askAll(ctx context.Context, limit time.Duration, kind fleet.CommandKind, args any) (answers []json.RawMessage, asked int, err error) {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	nodes := c.listening()
	results, failures := make([]json.RawMessage, len(nodes)), make([]error, len(nodes))
	var group sync.WaitGroup
	for i, n := range nodes {
		group.Go(func() {
			if results[i], failures[i] = c.ask(ctx, n, kind, args); failures[i] != nil {
				failures[i] = fmt.Errorf("node %s: %w", n.name, failures[i])
			}
		})
	}
	group.Wait()
	for i, result := range results {
		if failures[i] == nil {
			answers = append(answers, result)
		}
	}
	return answers, len(nodes), errors.Join(failures...)
}
