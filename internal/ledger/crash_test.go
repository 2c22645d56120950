package ledger_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/google/uuid"
	"pgregory.net/rapid"

	"carpool/internal/fleet"
	"carpool/internal/ledger"
	"carpool/internal/policy"
)

// victimVariable makes the test binary a victim, with a ledger in the file it names.
const victimVariable = "CARPOOL_LEDGER_VICTIM"

func rand() string { return uuid.Must(uuid.NewV7()).String() }

// victim writes to a ledger until it is killed, and prints what it was told is safe: "opened ID" and "settled ID".
func victim(path string) {
	die := func(err error) {
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	}
	l, err := ledger.Open(context.Background(), path, ledger.Options{Node: "n1", Now: noon().Now})
	die(err)
	say := func(what, id string) {
		_, err := fmt.Fprintln(os.Stdout, what, id)
		die(err)
	}
	for range 8 {
		go func() {
			for i := 0; ; i++ {
				o := ask(rand(), 100, policy.Unlimited, policy.Unlimited)
				x, err := l.Reserve(context.Background(), o)
				die(err)
				say("opened", o.Entry.ID)
				if i%4 == 3 {
					continue // left open
				}
				die(x.Settle(ledger.Entry{Outcome: fleet.OutcomeFinished, InputTokens: 7}))
				say("settled", o.Entry.ID)
			}
		}()
	}
	select {}
}

func TestKill(t *testing.T) {
	path := file(t)
	said := map[string]string{}
	for round := range 3 {
		kill(t, path, 300*(round+1), said)
	}
	l := open(t, path, noon())
	outcomes := map[string]fleet.Outcome{}
	for _, e := range outbox(t, l) {
		if _, twice := outcomes[e.ID]; twice {
			t.Errorf("%s has two entries", e.ID)
		}
		outcomes[e.ID] = e.Outcome
	}
	count := map[string]int{}
	for id, what := range said {
		count[what]++
		// An exchange whose settlement was not confirmed may have been settled all the same.
		if got := outcomes[id]; got != fleet.OutcomeFinished && (what == "settled" || got != fleet.OutcomeCrashed) {
			t.Errorf("%s was %s and is %q", id, what, got)
		}
	}
	if count["settled"] == 0 || count["opened"] == 0 {
		t.Errorf("the victims said %v", count)
	}
	if u := daily(l, -1); u.Reserved != 0 {
		t.Errorf("%+v", u)
	}
	shut(t, l)
	reconcile(t, path)
}

// kill starts a victim, lets it say some lines and kills it. It adds to said the last that was said of each id.
func kill(t *testing.T, path string, lines int, said map[string]string) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), os.Args[0])
	cmd.Env = append(os.Environ(), victimVariable+"="+path)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	reader := bufio.NewReader(out)
	for i := 0; ; i++ {
		line, err := reader.ReadString('\n')
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		what, id, ok := strings.Cut(strings.TrimSpace(line), " ")
		if !ok {
			t.Fatalf("the victim said %q", line)
		}
		said[id] = what
		if i == lines {
			if err := cmd.Process.Kill(); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := cmd.Wait(); err == nil || cmd.ProcessState.Exited() {
		t.Fatalf("the victim was not killed: %v", cmd.ProcessState)
	}
}

// image copies the files of an open ledger, as they would be found after a crash.
func image(t rapid.TB, from, to string) {
	t.Helper()
	state := func() string {
		var b strings.Builder
		segments, err := filepath.Glob(from + ".journal.*")
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range append(segments, from, from+"-wal") {
			if info, err := os.Stat(name); err == nil {
				_, _ = fmt.Fprintln(&b, name, info.Size(), info.ModTime().UnixNano())
			}
		}
		return b.String()
	}
	for { // until nothing was written meanwhile: a process dies at one moment
		before := state()
		var failed error
		var copied []string
		for line := range strings.Lines(before) {
			name, _, _ := strings.Cut(line, " ")
			data, err := os.ReadFile(name)
			if err == nil {
				copied = append(copied, to+strings.TrimPrefix(name, from))
				err = os.WriteFile(copied[len(copied)-1], data, 0o600)
			}
			failed = errors.Join(failed, err)
		}
		if state() == before {
			if failed != nil {
				t.Fatal(failed)
			}
			return
		}
		for _, name := range copied {
			if err := os.Remove(name); err != nil {
				t.Fatal(err)
			}
		}
	}
}

func TestCrashSettlesWhatWasOpen(t *testing.T) {
	path, copied, c := file(t), file(t), noon()
	l := open(t, path, c)
	finish(t, reserve(t, l, ask("e1", 100, 1000, 1000)), 90)
	o := ask("e2", 100, 1000, 1000) // its input is estimated as 50
	o.Formula = policy.Formula{Input: 2000, Output: 1000}
	o.Entry.SessionID, o.Entry.Cost, o.Entry.PriceRule = "s1", 250, "claude-opus-5"
	reserve(t, l, o)
	o = ask("e3", 0, 0, 0)
	o.Entry.Endpoint, o.InputEstimate = ledger.EndpointCountTokens, 70
	reserve(t, l, o)
	image(t, path, copied)
	c.set("2026-11-24T12:00:00Z")
	again := open(t, copied, c)
	entries := outbox(t, again)
	if len(entries) != 3 {
		t.Fatalf("%+v", entries)
	}
	e := entries[1]
	if e.ID != "e2" || e.Outcome != fleet.OutcomeCrashed || !e.Estimated || e.InputTokens != 50 || e.QuotaTokens != 100 ||
		e.User != "alice" || e.SessionID != "s1" || e.Cost != 250 || e.PriceRule != "claude-opus-5" || e.FirstByte != -1 || e.Usage != nil || !e.StartedAt.Equal(noon().Now()) {
		t.Errorf("%+v", e)
	}
	if e := entries[2]; e.ID != "e3" || e.Outcome != fleet.OutcomeCrashed || e.QuotaTokens != 0 {
		t.Errorf("%+v", e)
	}
	if s := again.QuotaState("alice", 1000, 1000, nil); s.Daily.Used != 0 || s.Monthly.Used != 190 || s.Monthly.Reserved != 0 {
		t.Errorf("%+v", s)
	}
	c.set("2026-11-23T12:00:00Z")
	if s := again.QuotaState("alice", 1000, 1000, nil); s.Daily.Used != 190 {
		t.Errorf("charged to another day than it was reserved in: %+v", s)
	}
	shut(t, again)
	reconcile(t, copied)
	again = open(t, copied, c)
	if n := len(outbox(t, again)); n != 3 {
		t.Errorf("%d entries after another start", n)
	}
}

// reconcile checks that the file agrees with itself: no opening is left, each counter is the sum of its entries, and the
// chain holds.
func reconcile(t testing.TB, path string) {
	t.Helper()
	if err := disagreement(t.Context(), path); err != nil {
		t.Error(err)
	}
	if v, err := ledger.Verify(t.Context(), path, ledger.Audit{}); err != nil || len(v.Findings) > 0 {
		t.Errorf("%+v %v", v, err)
	}
}

func TestThousandsOfOpenings(t *testing.T) {
	t.Parallel()
	path, copied := file(t), file(t)
	l := open(t, path, noon())
	var group sync.WaitGroup
	for range 16 {
		group.Go(func() {
			for range 100 {
				reserve(t, l, ask(rand(), 2, -1, -1))
			}
		})
	}
	group.Wait()
	image(t, path, copied)
	again := open(t, copied, noon())
	if u := daily(again, -1); u.Used != 1600 || again.LastSeq() != 1600 {
		t.Errorf("%+v, last %d", u, again.LastSeq())
	}
	shut(t, again)
	reconcile(t, copied)
}
