package main

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"sync"
	"time"

	"carpool/internal/control"
	"carpool/internal/fleet"
	"carpool/internal/policy"
	"carpool/internal/quota"
)

const testAdminToken = "cpa_a-token-from-the-configuration"

// testServer is a control plane on its socket and on the network, with a node that spends nothing but has books.
type testServer struct {
	control *control.Control
	url     string
	node    *testNode
	stop    func() error
}

// startServer serves the data folder dir until stop is called.
func startServer(dir string) (*testServer, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	master, err := control.LoadMasterKey(filepath.Join(dir, "master.key"), rand.Reader)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(context.Background())
	c, err := control.Open(ctx, control.Options{
		StorePath: filepath.Join(dir, "control.db"), MasterKey: master,
		Settings:       policy.Settings{Organization: "example", TimeZone: "UTC", Formula: policy.DefaultFormula(), DefaultLimits: policy.LimitsSpec{InFlight: 64}},
		DefaultQuota:   policy.Quota{Daily: 1_000_000, Monthly: policy.Unlimited},
		BootstrapToken: policy.NewSecret(testAdminToken),
		Now:            time.Now, Random: rand.Reader, Log: slog.New(slog.DiscardHandler), Version: "test",
	})
	if err != nil {
		cancel()
		return nil, err
	}
	listener, err := control.ListenSocket(ctx, filepath.Join(dir, socketName))
	if err != nil {
		cancel()
		return nil, errors.Join(err, c.Close())
	}
	local := &http.Server{Handler: c.SocketHandler(), ReadHeaderTimeout: time.Minute}
	remote := httptest.NewServer(c.Handler())
	s := &testServer{control: c, url: remote.URL, node: &testNode{link: c.Link("test")}}
	var running sync.WaitGroup
	running.Go(func() { serveUntilClosed(local, listener) })
	running.Go(func() { s.node.follow(ctx) })
	running.Go(func() { s.node.obey(ctx) })
	s.stop = func() error {
		err := local.Close()
		remote.Close()
		cancel()
		running.Wait()
		return errors.Join(err, c.Close())
	}
	return s, nil
}

func serveUntilClosed(s *http.Server, l net.Listener) { _ = s.Serve(l) }

// testNode answers control as a node does.
type testNode struct {
	link fleet.Link

	mu      sync.Mutex
	seq     int64
	users   []string
	budgets []policy.BudgetSpec
	used    map[string]int64
}

// follow takes each document and says that it is in force.
func (n *testNode) follow(ctx context.Context) {
	for have := int64(0); ; {
		doc, err := n.link.Snapshot(ctx, have)
		if err != nil {
			return
		}
		have = doc.Version
		n.mu.Lock()
		n.users, n.budgets = nil, doc.Budgets
		for _, u := range doc.Users {
			n.users = append(n.users, u.Name)
		}
		n.mu.Unlock()
		if n.link.Heartbeat(ctx, fleet.Heartbeat{Protocol: fleet.Protocol, Time: time.Now(), Applied: have}) != nil {
			return
		}
	}
}

// obey answers commands.
func (n *testNode) obey(ctx context.Context) {
	for {
		command, err := n.link.Command(ctx)
		if err != nil {
			return
		}
		result, err := json.Marshal(n.answer(command))
		if err != nil || n.link.Answer(ctx, fleet.CommandResult{ID: command.ID, Result: result}) != nil {
			return
		}
	}
}

func (n *testNode) answer(command fleet.Command) any {
	n.mu.Lock()
	defer n.mu.Unlock()
	switch command.Kind {
	case fleet.CommandQuotaUsage:
		usage := fleet.QuotaUsage{}
		reset := time.Now().Add(90 * time.Minute)
		for _, name := range n.users {
			used := n.used[name]
			usage[name] = fleet.UserQuota{
				Daily:   fleet.WindowUsage{Limit: 1_000_000, Used: used, Remaining: 1_000_000 - used, ResetsAt: reset},
				Monthly: fleet.WindowUsage{Limit: policy.Unlimited, Used: used, Remaining: policy.Unlimited, ResetsAt: reset},
			}
		}
		return usage
	case fleet.CommandQuotaReset:
		n.used = nil
	case fleet.CommandBudgetUsage:
		usage := fleet.BudgetsUsage{}
		for _, b := range n.budgets {
			part := fleet.BudgetUsage{Subject: b.Scope, ResetsAt: time.Now().Add(90 * time.Minute)}
			if b.PerMember {
				part = fleet.BudgetUsage{Subject: "user/alice", Used: 100_000, Reserved: 50_000, ResetsAt: quota.Never()}
			}
			usage[b.Name] = []fleet.BudgetUsage{part}
		}
		return usage
	case fleet.CommandKeyActivity:
		return map[string]time.Time{}
	case fleet.CommandUpstreamHealth:
		return fleet.UpstreamHealth{"proxy": {{Cause: "rate", Seconds: 12}, {Cause: "overloaded", Model: "claude-opus-4-1", Seconds: 5}}}
	case fleet.CommandFlush:
	}
	return nil
}

// ship delivers exchanges as if the node had served them.
func (n *testNode) ship(ctx context.Context, entries []fleet.Entry) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.used == nil {
		n.used = map[string]int64{}
	}
	for i := range entries {
		n.seq++
		entries[i].Node, entries[i].Seq = "test", n.seq
		n.used[entries[i].User] += entries[i].QuotaTokens
	}
	_, err := n.link.Ship(ctx, fleet.UsageBatch{Node: "test", Entries: entries})
	return err
}
