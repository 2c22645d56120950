package ledger_test

import (
	"crypto/ed25519"
	"database/sql"
	"fmt"
	mrand "math/rand/v2"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"carpool/internal/ledger"
	"carpool/internal/policy"
)

// flips is how many damaged copies of a ledger are looked at, or the environment's LEDGER_FLIPS.
const flips = 100

// TestFlippedBytes damages copies of a ledger at random. A server that starts on one, because it finds nothing, has the
// same sums to tell as before; what it does not find and Verify does not find either has changed nothing; and whoever
// finds something says how to restore.
func TestFlippedBytes(t *testing.T) {
	t.Parallel()
	path := file(t)
	want := wornLedger(t, path)
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	key := nodeKey(t, path)
	seed, trials := mrand.Uint64(), flips
	if text := os.Getenv("LEDGER_FLIPS"); text != "" {
		trials, _ = strconv.Atoi(text)
	}
	if text := os.Getenv("LEDGER_FLIPS_SEED"); text != "" {
		seed, _ = strconv.ParseUint(text, 10, 64)
	}
	t.Logf("LEDGER_FLIPS_SEED=%d repeats this run", seed)
	dump, random := contents(t, path), mrand.New(mrand.NewPCG(seed, 0))
	atStart, later, harmless := 0, 0, 0
	for trial := range trials {
		damaged, what := slices.Clone(whole), ""
		for range 1 + random.IntN(1+7*(trial%2)) {
			at, bit := random.IntN(len(whole)), byte(1)<<random.IntN(8)
			damaged[at] ^= bit
			what += fmt.Sprintf(" %d^%#x", at, bit)
		}
		copied := filepath.Join(t.TempDir(), "ledger.db")
		write(t, copied, damaged)
		for _, name := range []string{"node.key", "ledger.db.head"} {
			beside, err := os.ReadFile(filepath.Join(filepath.Dir(path), name))
			if err != nil {
				t.Fatal(err)
			}
			write(t, filepath.Join(filepath.Dir(copied), name), beside)
		}
		func() {
			defer func() {
				if p := recover(); p != nil {
					t.Errorf("trial %d of seed %d,%s: panic: %v", trial, seed, what, p)
				}
			}()
			first := says(ledger.VerifyStart(t.Context(), copied))
			public, _ := key.Public().(ed25519.PublicKey)
			second := says(ledger.Verify(t.Context(), copied, ledger.Audit{Key: public}))
			for _, said := range []string{first, second} {
				if said != "" && !strings.Contains(said, "carpool db restore") {
					t.Errorf("trial %d of seed %d,%s: nobody knows how to restore: %s", trial, seed, what, said)
				}
			}
			if first != "" {
				atStart++
				return
			}
			changed := differences(dump, contents(t, copied))
			l, err := ledger.Open(t.Context(), copied, ledger.Options{Node: "n1", Now: noon().Now, Key: key})
			if err != nil {
				if !strings.Contains(err.Error(), "carpool db restore") {
					t.Errorf("trial %d of seed %d,%s: nobody knows how to restore: %v", trial, seed, what, err)
				}
				atStart++
				return
			}
			defer shut(t, l)
			switch {
			case second != "":
				later++
			case len(changed) > 0:
				t.Errorf("trial %d of seed %d,%s: nobody found what was changed: %q", trial, seed, what, changed)
			default:
				harmless++
			}
			if got := sumsOf(t, l); !reflect.DeepEqual(got, want) {
				t.Errorf("trial %d of seed %d,%s: it tells\n%+v instead of\n%+v", trial, seed, what, got, want)
			}
			use(t, l, "one more")
		}()
	}
	t.Logf("%d found at the start, %d by a verification, %d changed nothing", atStart, later, harmless)
}

// says is what a verification tells, nothing when all is well.
func says(v *ledger.Verified, err error) string {
	if err != nil {
		return err.Error()
	}
	var said []string
	for _, f := range v.Findings {
		said = append(said, f.What+"; "+f.Do)
	}
	return strings.Join(said, "\n")
}

// wornLedger makes a ledger with something in all of its tables, and returns what it tells.
func wornLedger(t *testing.T, path string) sums {
	t.Helper()
	c := noon()
	l := signing(t, path, c)
	month := strict("1000000 tokens", "month", 10)
	for i := range 120 {
		o := claiming(fmt.Sprint("e", i), month)
		o.Entry.User, o.Entry.KeyID, o.Entry.SessionID = []string{"alice", "bob", "carol"}[i%3], "k1", fmt.Sprint("session-", i/10)
		pay(t, reserve(t, l, o), int64(1000+i))
	}
	if err := l.Acknowledge(t.Context(), 60); err != nil {
		t.Fatal(err)
	}
	told := sumsOf(t, l)
	shut(t, l)
	clean(t, path)
	return told
}

type sums struct {
	Totals  map[string]ledger.Totals
	Quotas  map[string]any
	Budgets any
	Entries []ledger.Entry
}

func sumsOf(t *testing.T, l *ledger.Ledger) sums {
	t.Helper()
	s := sums{Totals: map[string]ledger.Totals{}, Quotas: map[string]any{}, Budgets: l.Budget(strict("1000000 tokens", "month", 10).Budget), Entries: outbox(t, l)}
	for _, user := range []string{"alice", "bob", "carol"} {
		var err error
		if s.Totals[user], err = l.Totals(t.Context(), ledger.Filter{User: user}); err != nil {
			t.Error(err)
		}
		s.Quotas[user] = l.QuotaState(user, policy.Unlimited, policy.Unlimited, time.UTC)
	}
	return s
}

// contents reads what a ledger's tables hold, but for the numbers of rows that are alone, and for when a key was used last,
// which is no sum and stands nowhere else.
func contents(t *testing.T, path string) map[string][]string {
	t.Helper()
	db, all := raw(t, path), map[string][]string{}
	defer db.Close()
	for table, columns := range map[string]string{
		"entries": "*", "counters": "*", "budget_counters": "*", "openings": "*", "state": "acknowledged, journal", "chain": "passed, hash, signed", "skipped": "*", "keys": "key_id",
	} {
		all[table] = rowsOf(t, db, "SELECT "+columns+" FROM "+table)
	}
	return all
}

func differences(before, after map[string][]string) (lines []string) {
	for table := range before {
		for _, line := range after[table] {
			if !slices.Contains(before[table], line) {
				lines = append(lines, table+": "+line)
			}
		}
		if len(before[table]) != len(after[table]) {
			lines = append(lines, fmt.Sprintf("%s: %d rows instead of %d", table, len(after[table]), len(before[table])))
		}
	}
	return lines
}

// rowsOf returns what a query does, and as the last row what goes wrong with it.
func rowsOf(t *testing.T, db *sql.DB, query string) (list []string) {
	t.Helper()
	rows, err := db.QueryContext(t.Context(), query)
	if err != nil {
		return []string{err.Error()}
	}
	defer rows.Close()
	names, err := rows.Columns()
	if err != nil {
		t.Fatal(err)
	}
	for rows.Next() {
		values, into := make([]any, len(names)), make([]any, len(names))
		for i := range values {
			into[i] = &values[i]
		}
		if err := rows.Scan(into...); err != nil {
			t.Fatal(err)
		}
		list = append(list, fmt.Sprint(values...))
	}
	if err := rows.Err(); err != nil {
		list = append(list, err.Error())
	}
	return list
}
