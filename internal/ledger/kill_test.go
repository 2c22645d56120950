package ledger_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	mathrand "math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"carpool/internal/fleet"
	"carpool/internal/ledger"
	"carpool/internal/policy"
)

// hurriedVariable makes the test binary a victim that moves, rotates, checkpoints, ships and resets all the time.
const hurriedVariable = "CARPOOL_LEDGER_HURRIED_VICTIM"

// hurriedVictim writes to a ledger until it is killed, and prints what it was told is safe: "opened ID 0", "settled ID 0",
// and "shipped ID SEQ" for what it has read from the outbox.
func hurriedVictim(path string) {
	ctx := context.Background()
	die := func(err error) {
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	}
	say := func(what, id string, seq int64) {
		_, err := fmt.Fprintln(os.Stdout, what, id, seq)
		die(err)
	}
	o := ledger.Options{Node: "n1", Now: noon().Now}
	o.Hurry()
	claims := []ledger.Claim{
		claim(policy.BudgetSpec{Scope: "user/alice", Amount: "1000000 USD", Window: "day"}, 10),
		claim(policy.BudgetSpec{Scope: "organization", Amount: "99999999999 tokens", Window: "hour", Rolling: true}, 10),
	}
	l, err := ledger.Open(ctx, path, o)
	die(err)
	for range 6 {
		go func() {
			for i := 0; ; i++ {
				o := ask(rand(), 100, policy.Unlimited, policy.Unlimited)
				o.Entry.Cost, o.Claims = 3, claims
				x, err := l.Reserve(ctx, o)
				die(err)
				say("opened", o.Entry.ID, 0)
				if i%3 == 0 {
					x.Checkpoint(ledger.Entry{Status: 200, InputTokens: 9, Cost: 4})
				}
				if i%16 == 15 {
					continue // stays open
				}
				die(x.Settle(ledger.Entry{Outcome: fleet.OutcomeFinished, InputTokens: 7, Cost: 5}))
				say("settled", o.Entry.ID, 0)
				if i%40 == 39 {
					die(l.ResetQuota(ctx, nil, nil, nil))
				}
			}
		}()
	}
	for range l.Committed() {
		entries, err := l.Outbox(ctx, l.Acknowledged(), 50)
		die(err)
		for _, e := range entries {
			say("shipped", e.ID, e.Seq)
		}
		if len(entries) > 0 {
			die(l.Acknowledge(ctx, entries[len(entries)-1].Seq))
		}
	}
}

// promises are what victims said.
type promises struct {
	opened, settled map[string]bool
	shipped         map[string]int64
}

// TestKillAtRandomMoments kills one process after the other, each of which recovers what the one before left.
func TestKillAtRandomMoments(t *testing.T) {
	t.Parallel()
	path := file(t)
	p := promises{map[string]bool{}, map[string]bool{}, map[string]int64{}}
	const cycles, least = 300, 20
	begin := time.Now()
	done := 0
	for done < cycles && (done < least || time.Since(begin) < 20*time.Second) {
		p.kill(t, path, max(mathrand.IntN(400)-80, 0), time.Duration(mathrand.IntN(2000))*time.Microsecond)
		done++
	}
	t.Logf("%d cycles: %d opened, %d settled, %d shipped", done, len(p.opened), len(p.settled), len(p.shipped))
	l := open(t, path, noon())
	outcomes := map[string]fleet.Outcome{}
	for _, e := range outbox(t, l) {
		if _, twice := outcomes[e.ID]; twice {
			t.Errorf("%s has two entries", e.ID)
		}
		outcomes[e.ID] = e.Outcome
		if seq, ok := p.shipped[e.ID]; ok && seq != e.Seq {
			t.Errorf("%s was shipped as %d and is %d", e.ID, seq, e.Seq)
		}
		delete(p.shipped, e.ID)
	}
	for id := range p.shipped {
		t.Errorf("%s was shipped and is gone", id)
	}
	for id := range p.settled {
		if got := outcomes[id]; got != fleet.OutcomeFinished {
			t.Errorf("%s was settled and is %q", id, got)
		}
	}
	for id := range p.opened {
		if outcomes[id] == "" {
			t.Errorf("%s was opened and is gone", id)
		}
	}
	if len(p.settled) == 0 {
		t.Error("the victims settled nothing")
	}
	if aside, err := filepath.Glob(path + "*.damaged"); err != nil || len(aside) > 0 {
		t.Errorf("a kill is no damage: %v, %v", aside, err)
	}
	for _, spec := range []policy.BudgetSpec{{Scope: "user/alice", Amount: "1 USD", Window: "day"}, {Scope: "organization", Amount: "1 tokens", Window: "hour", Rolling: true}} {
		if use := budgetUse(l, claim(spec, 0)); use.Used == 0 || use.Reserved != 0 {
			t.Errorf("%s: %d used, %d reserved", spec.Scope, use.Used, use.Reserved)
		}
	}
	shut(t, l)
	reconcile(t, path)
	if left, err := filepath.Glob(path + ".journal.*"); err != nil || len(left) > 0 {
		t.Errorf("left after Close: %v, %v", left, err)
	}
}

// kill starts a victim, lets it say some lines, and kills it some time later.
func (p *promises) kill(t *testing.T, path string, lines int, later time.Duration) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), os.Args[0])
	cmd.Env = append(os.Environ(), hurriedVariable+"="+path)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if lines == 0 { // as it starts, or recovers
		time.AfterFunc(10*later, func() { _ = cmd.Process.Kill() })
	}
	reader := bufio.NewReader(out)
	for i := 1; ; i++ {
		line, err := reader.ReadString('\n')
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		p.note(t, line)
		if i == lines {
			time.AfterFunc(later, func() { _ = cmd.Process.Kill() })
		}
	}
	if err := cmd.Wait(); err == nil || cmd.ProcessState.Exited() {
		t.Fatalf("the victim was not killed: %v", cmd.ProcessState)
	}
}

func (p *promises) note(t *testing.T, line string) {
	t.Helper()
	words := strings.Fields(line)
	if len(words) != 3 {
		t.Fatalf("the victim said %q", line)
	}
	switch id := words[1]; words[0] {
	case "opened":
		p.opened[id] = true
	case "settled":
		p.settled[id] = true
	case "shipped":
		seq, err := strconv.ParseInt(words[2], 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		if before, ok := p.shipped[id]; ok && before != seq {
			t.Errorf("%s was shipped as %d and as %d", id, before, seq)
		}
		p.shipped[id] = seq
	}
}
