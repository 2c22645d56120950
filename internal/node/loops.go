package node

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"carpool/internal/fleet"
	"carpool/internal/quota"
)

const (
	beatInterval   = 10 * time.Second
	retryInterval  = time.Second
	forgetInterval = time.Hour
	shipLinger     = time.Second // gathers entries, until there is a good batch; a question about usage flushes them at once
	lingerStep     = 50 * time.Millisecond
	goodBatch      = 1000
	batchSize      = 2 * goodBatch
)

// pause waits between attempts on a link that fails.
func pause(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C:
	}
}

// followPolicy puts each newer document in force.
func (n *Node) followPolicy(ctx context.Context) {
	have := n.snapshot.Load().Version
	for ctx.Err() == nil {
		doc, err := n.link.Snapshot(ctx, have)
		if err != nil {
			pause(ctx, retryInterval)
			continue
		}
		have = doc.Version
		if err := n.apply(ctx, doc); err != nil {
			n.log.Error("the policy in force stays", slog.String("error", err.Error()))
			continue
		}
		n.log.Info("policy in force", slog.Int64("version", doc.Version))
	}
}

// shipUsage sends entries as they are committed.
func (n *Node) shipUsage(ctx context.Context) {
	for {
		if err := n.shipAll(ctx); err != nil && ctx.Err() == nil {
			n.log.Warn("cannot ship usage; it waits in the ledger", slog.String("error", err.Error()))
			pause(ctx, retryInterval)
			continue
		}
		select {
		case <-ctx.Done():
			return
		case <-n.ledger.Committed():
			n.linger(ctx)
		}
	}
}

// linger waits for more entries to ship: their price falls with their number.
func (n *Node) linger(ctx context.Context) {
	for waited := time.Duration(0); waited < shipLinger && n.ledger.LastSeq()-n.ledger.Acknowledged() < goodBatch && ctx.Err() == nil; waited += lingerStep {
		pause(ctx, lingerStep)
	}
}

// beat tells control at an interval that the node lives.
func (n *Node) beat(ctx context.Context) {
	tick := time.NewTicker(beatInterval)
	defer tick.Stop()
	for {
		n.heartbeat(ctx)
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// forget removes entries from the ledger that control has and whose time is over.
func (n *Node) forget(ctx context.Context) {
	if n.retention <= 0 {
		return
	}
	for ctx.Err() == nil {
		if gone, err := n.ledger.Prune(ctx, n.now().Add(-n.retention)); err != nil && ctx.Err() == nil {
			n.log.Warn("cannot remove old entries from the ledger", slog.String("error", err.Error()))
		} else if gone > 0 {
			n.log.Info("old entries removed from the ledger", slog.Int64("entries", gone))
		}
		pause(ctx, forgetInterval)
	}
}

// obey carries out what control wants.
func (n *Node) obey(ctx context.Context) {
	for ctx.Err() == nil {
		command, err := n.link.Command(ctx)
		if err != nil {
			pause(ctx, retryInterval)
			continue
		}
		answer := fleet.CommandResult{ID: command.ID}
		if result, err := n.carryOut(ctx, command); err != nil {
			answer.Error = err.Error()
		} else if answer.Result, err = json.Marshal(result); err != nil {
			answer.Error = err.Error()
		}
		if err := n.link.Answer(ctx, answer); err != nil && ctx.Err() == nil {
			n.log.Warn("cannot answer a command", slog.String("command", string(command.Kind)), slog.String("error", err.Error()))
		}
	}
}

func (n *Node) carryOut(ctx context.Context, c fleet.Command) (any, error) {
	var args struct {
		fleet.QuotaArgs
		fleet.BudgetArgs
	}
	if len(c.Args) > 0 {
		if err := json.Unmarshal(c.Args, &args); err != nil {
			return nil, fmt.Errorf("cannot read the arguments of %s: %w", c.Kind, err)
		}
	}
	switch c.Kind {
	case fleet.CommandFlush:
		return nil, n.shipAll(ctx)
	case fleet.CommandKeyActivity:
		return n.ledger.KeyActivity(ctx)
	case fleet.CommandQuotaUsage:
		return n.quotaUsage(args.Users), nil
	case fleet.CommandBudgetUsage:
		return n.budgetUsage(args.Budgets), nil
	case fleet.CommandUpstreamHealth:
		return n.upstreamHealth(), nil
	case fleet.CommandQuotaReset:
		windows := make([]quota.Window, 0, len(args.Windows))
		for _, w := range args.Windows {
			windows = append(windows, quota.Window(w))
		}
		return nil, n.ledger.ResetQuota(ctx, args.Users, windows, n.snapshot.Load().Location)
	}
	return nil, fmt.Errorf("this node does not know the command %q", c.Kind)
}

func (n *Node) upstreamHealth() fleet.UpstreamHealth {
	health := fleet.UpstreamHealth{}
	for _, c := range n.pool.Cooling() {
		seconds := int64((c.Left + time.Second - 1) / time.Second)
		health[c.Upstream] = append(health[c.Upstream], fleet.Cooling{Cause: c.Cause, Model: c.Model, Seconds: seconds})
	}
	return health
}

func (n *Node) budgetUsage(names []string) fleet.BudgetsUsage {
	usage := fleet.BudgetsUsage{}
	for _, b := range n.snapshot.Load().Budgets() {
		if len(names) == 0 || slices.Contains(names, b.Name) {
			usage[b.Name] = n.ledger.BudgetUsage(b)
		}
	}
	return usage
}

func (n *Node) quotaUsage(names []string) fleet.QuotaUsage {
	s := n.snapshot.Load()
	users := s.Users()
	if len(names) > 0 {
		users = users[:0]
		for _, name := range names {
			if u := s.User(name); u != nil {
				users = append(users, u)
			}
		}
	}
	usage := make(fleet.QuotaUsage, len(users))
	for _, u := range users {
		usage[u.Name] = n.ledger.QuotaState(u.Name, u.Quota.Daily, u.Quota.Monthly, s.Location)
	}
	return usage
}
