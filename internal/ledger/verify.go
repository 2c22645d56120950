package ledger

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"carpool/internal/quota"
)

// Finding is something that is wrong with the books, and what to do about it.
type Finding struct {
	Check string `json:"check"` // integrity, chain, signature, numbers, entries, counters, budgets, prices or copy
	What  string `json:"what"`
	Do    string `json:"do"`
}

// mostFindings is how many findings of one check are told one by one.
const mostFindings = 20

// Verified is what a verification of a ledger found.
type Verified struct {
	Entries  int64     `json:"entries"`
	Chained  int64     `json:"chained"`  // of them, those in the chain; older ones are from before there was one
	Priced   int64     `json:"priced"`   // of them, those whose cost was calculated again
	Compared int64     `json:"compared"` // of them, those that were compared with control's copy
	Counters int64     `json:"counters"`
	Open     int64     `json:"open"` // exchanges that the next start settles
	LastSeq  int64     `json:"lastSeq"`
	Hash     string    `json:"hash"`          // the newest
	Signed   int64     `json:"signed"`        // number of the entry that was signed last
	Key      string    `json:"key,omitempty"` // id of the key that it was signed with
	Findings []Finding `json:"findings"`
}

// Audit says what a ledger is verified against. What is nil is left out.
type Audit struct {
	Node string
	Key  ed25519.PublicKey // the node's
	Copy Copy
	// Cost calculates what an entry costs by what is stored of it, where the prices that it names are known.
	Cost func(*Entry) (micros int64, known bool)
}

// Verify checks the ledger in the file path: whether SQLite finds it whole, whether its chain of hashes and the signed heads
// hold, whether its counters are what its entries add up to, and what Audit asks for. It changes nothing and may run
// beside a server, of which it sees one moment.
func Verify(ctx context.Context, path string, a Audit) (*Verified, error) {
	path, err := filepath.Abs(path) // SQLite would take the first folder of a relative URL for a host
	if err != nil {
		return nil, fmt.Errorf("cannot verify the ledger: %w", err)
	}
	v := &verification{Audit: a, ctx: ctx, path: path, count: make(map[string]int), sums: make(map[accountKey]int64), spent: make(map[slotKey]int64)}
	if err := v.run(); err != nil {
		if code(err) != 0 {
			v.find("integrity", restoreIt, "the database cannot be read: %v", err)
			return &v.Verified, nil
		}
		return nil, fmt.Errorf("cannot verify the ledger %s: %w", path, err)
	}
	v.Hash = fmt.Sprintf("%x", v.at)
	return &v.Verified, nil
}

const (
	restoreIt = "stop the server, move the file and its -wal file away and restore a backup"
	compareIt = "compare with a backup and with control's copy (carpool usage); somebody or something changed the file"
)

type verification struct {
	Audit
	Verified
	ctx  context.Context //nolint:containedctx // lives as long as the call of Verify
	path string
	tx   *sql.Tx

	count   map[string]int
	sums    map[accountKey]int64
	spent   map[slotKey]int64
	passed  int64
	skipped []Range
	last    int64 // number of the entry before
	at      link
	broken  bool // the chain: what follows was told already
}

func (v *verification) find(check, do, format string, args ...any) {
	v.count[check]++
	if n := v.count[check]; n <= mostFindings {
		v.Findings = append(v.Findings, Finding{check, fmt.Sprintf(format, args...), do})
	}
}

func (v *verification) run() (err error) {
	info, err := os.Stat(v.path)
	if err != nil {
		return err
	}
	if info.Size() == 0 {
		return errors.New("it is empty")
	}
	copied, stop, err := v.pullCopy()
	if err != nil {
		return err
	}
	defer stop()
	signed, err := v.readHeads() // before the database, which only goes on
	if err != nil {
		return err
	}
	dsn := url.URL{Scheme: "file", Path: urlPath(v.path), RawQuery: url.Values{
		"mode": {"ro"}, "_pragma": {"busy_timeout(" + strconv.Itoa(busyTimeout) + ")", "query_only(1)"},
	}.Encode()}
	db, err := sql.Open("sqlite", dsn.String())
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	if v.tx, err = db.BeginTx(v.ctx, &sql.TxOptions{ReadOnly: true}); err != nil {
		return err
	}
	defer func() { _ = v.tx.Rollback() }() // nothing was written
	for _, step := range []func() error{v.schema, v.integrity} {
		if err := step(); err != nil {
			return err
		}
	}
	if len(v.Findings) > 0 {
		return nil // what a damaged file says is worth nothing
	}
	if err := v.begin(); err != nil {
		return err
	}
	if err := v.entries(copied); err != nil {
		return err
	}
	if err := v.counters(); err != nil {
		return err
	}
	if err := v.budgets(); err != nil {
		return err
	}
	if err := v.heads(signed); err != nil {
		return err
	}
	for check, n := range v.count {
		if n > mostFindings {
			v.Findings = append(v.Findings, Finding{check, fmt.Sprintf("and %d more of these", n-mostFindings), "see the first of them"})
		}
	}
	return nil
}

func (v *verification) schema() error {
	var id, have int64
	if err := v.tx.QueryRowContext(v.ctx, "PRAGMA application_id").Scan(&id); err != nil {
		return err
	}
	if id != applicationID {
		return errors.New("it is a database of another program")
	}
	if err := v.tx.QueryRowContext(v.ctx, "SELECT max(version_id) FROM goose_db_version").Scan(&have); err != nil {
		return err
	}
	steps, err := fs.Glob(migrations, "migrations/*.sql")
	if err != nil {
		return err
	}
	newest := strings.TrimPrefix(steps[len(steps)-1], "migrations/")
	know, err := strconv.ParseInt(newest[:5], 10, 64)
	switch {
	case err != nil:
		return err
	case have < know:
		return fmt.Errorf("its schema is version %d, from before this Carpool (%d); start the server once, which brings it up to date", have, know)
	case have > know:
		return fmt.Errorf("its schema is version %d and this Carpool knows up to %d; use the newer Carpool that wrote it", have, know)
	}
	return nil
}

func (v *verification) integrity() error {
	wrong, err := integrity(v.ctx, v.tx)
	for _, w := range wrong {
		v.find("integrity", restoreIt, "the ledger's database is damaged: %s", w)
	}
	return err
}

func integrity(ctx context.Context, q querier) (wrong []string, err error) {
	rows, err := q.QueryContext(ctx, "PRAGMA integrity_check")
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	for rows.Next() {
		var line string
		if err := rows.Scan(&line); err != nil {
			return nil, err
		}
		if line != "ok" {
			wrong = append(wrong, line)
		}
	}
	return wrong, rows.Err()
}

func (v *verification) begin() (err error) {
	if v.passed, v.at, v.skipped, err = readChain(v.ctx, v.tx); err != nil {
		return err
	}
	return v.tx.QueryRowContext(v.ctx, `SELECT count(*) FROM openings`).Scan(&v.Open)
}

// stored is a row of the table entries.
type stored struct {
	Entry
	day, month string
	charges    string
	body, hash []byte
}

func (v *verification) entries(c *copied) error {
	rows, err := v.tx.QueryContext(v.ctx, `SELECT seq, node, id, user_name, endpoint, outcome, started_at, day, month,
		input, output, cache_read, cache_write_5m, cache_write_1h, thinking, quota_tokens, charges, body, hash FROM entries ORDER BY seq`)
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		var s stored
		var started int64
		var body, hash sql.RawBytes
		if err := rows.Scan(&s.Seq, &s.Node, &s.ID, &s.User, &s.Endpoint, &s.Outcome, &started, &s.day, &s.month,
			&s.InputTokens, &s.OutputTokens, &s.CacheReadTokens, &s.CacheWrite5mTokens, &s.CacheWrite1hTokens, &s.ThinkingTokens,
			&s.QuotaTokens, &s.charges, &body, &hash); err != nil {
			return err
		}
		s.body, s.hash = body, hash
		if err := v.entry(&s, started, c); err != nil {
			return err
		}
	}
	if err := rows.Err(); err != nil {
		return err
	}
	return v.end(c)
}

func (v *verification) entry(s *stored, started int64, c *copied) error {
	v.Entries++
	v.numbers(s.Seq)
	v.link(s)
	v.LastSeq, v.last = s.Seq, s.Seq
	if s.QuotaTokens != 0 {
		v.sums[accountKey{s.User, quota.Daily, s.day}] += s.QuotaTokens
		v.sums[accountKey{s.User, quota.Monthly, s.month}] += s.QuotaTokens
	}
	charges, err := readCharges(s.charges)
	if err != nil {
		v.find("entries", compareIt, "what entry %d (%s) was charged to cannot be read: %v", s.Seq, s.ID, err)
	}
	for i := range charges {
		v.spent[charges[i].slotKey] += charges[i].amount
	}
	e, err := decode(s.body, s.Node, s.Seq)
	if err != nil {
		v.find("entries", compareIt, "entry %d cannot be read: %v", s.Seq, err)
		return nil
	}
	if e.ID != s.ID || e.User != s.User || e.Endpoint != s.Endpoint || e.Outcome != s.Outcome || e.StartedAt.UnixMicro() != started ||
		e.InputTokens != s.InputTokens || e.OutputTokens != s.OutputTokens || e.CacheReadTokens != s.CacheReadTokens ||
		e.CacheWrite5mTokens != s.CacheWrite5mTokens || e.CacheWrite1hTokens != s.CacheWrite1hTokens ||
		e.ThinkingTokens != s.ThinkingTokens || e.QuotaTokens != s.QuotaTokens {
		v.find("entries", compareIt, "entry %d (%s): its columns say something else than the entry itself", s.Seq, s.ID)
	}
	if v.Cost != nil && e.PriceVersion != "" {
		if cost, known := v.Cost(&e); known {
			v.Priced++
			if cost != e.Cost {
				v.find("prices", "see with carpool usage what it was; a price was changed or the entry was", "entry %d (%s) is booked with %d micro-dollars and costs %d: a drift of %d",
					s.Seq, s.ID, e.Cost, cost, e.Cost-cost)
			}
		}
	}
	return v.compare(c, &e)
}

// numbers tells of entries that are missing before one. Of those from before the chain, age may have taken any.
func (v *verification) numbers(seq int64) {
	first := max(v.last, v.passed) + 1
	for _, s := range v.skipped {
		if s.First <= first && first <= s.Last {
			first = s.Last + 1
		}
	}
	if first < seq {
		v.find("numbers", restoreIt+", or get them from control's copy", "entries %d to %d are missing", first, seq-1)
	}
}

func (v *verification) link(s *stored) {
	if s.Seq <= v.passed {
		if len(s.hash) > 0 {
			v.find("chain", compareIt, "entry %d is from before the chain and has a hash", s.Seq)
		}
		return
	}
	v.Chained++
	var scratch []byte
	next := v.at.next(&scratch, s.Seq, s.Node, [3]string{s.day, s.month, s.charges}, s.body)
	if !bytes.Equal(next[:], s.hash) && !v.broken {
		v.broken = true
		v.find("chain", compareIt, "the chain is broken at entry %d (%s): it, or what is before it, was changed, removed or moved", s.Seq, s.ID)
	}
	copy(v.at[:], s.hash) // go on from what is there, so that one change is one finding
	v.broken = v.broken && !bytes.Equal(next[:], s.hash)
}

// end looks at what should come after the last entry.
func (v *verification) end(c *copied) error {
	var acknowledged int64
	if err := v.tx.QueryRowContext(v.ctx, `SELECT acknowledged FROM state`).Scan(&acknowledged); err != nil {
		return err
	}
	v.numbers(acknowledged + 1)
	v.LastSeq = max(v.LastSeq, acknowledged)
	return v.rest(c)
}

func (v *verification) counters() error {
	rows, err := v.tx.QueryContext(v.ctx, `SELECT user_name, period, label, used, waived, pruned FROM counters ORDER BY user_name, period, label`)
	if err != nil {
		return err
	}
	defer rows.Close()
	const do = "see which requests are meant with carpool usage; carpool quota reset sets a window that counts too much to nothing"
	for rows.Next() {
		var key accountKey
		var used, waived, pruned int64
		if err := rows.Scan(&key.user, &key.window, &key.label, &used, &waived, &pruned); err != nil {
			return err
		}
		v.Counters++
		if has, want := used+waived, v.sums[key]+pruned; has != want {
			v.find("counters", do, "%s quota of %s in %s: the counter says %d tokens and the entries add up to %d: a drift of %d",
				key.window, key.user, key.label, has, want, has-want)
		}
		delete(v.sums, key)
	}
	if err := rows.Err(); err != nil {
		return err
	}
	for key, sum := range v.sums {
		v.find("counters", do, "%s quota of %s in %s: there is no counter and the entries add up to %d tokens", key.window, key.user, key.label, sum)
	}
	return nil
}

// budgets compares what is counted of budgets with what the entries were charged to.
func (v *verification) budgets() error {
	rows, err := v.tx.QueryContext(v.ctx, `SELECT budget, subject, series, label, used, pruned FROM budget_counters ORDER BY budget, subject, series, label`)
	if err != nil {
		return err
	}
	defer rows.Close()
	const do = "see which requests are meant with carpool usage; a budget of another name begins anew"
	for rows.Next() {
		var key slotKey
		var used, pruned int64
		if err := rows.Scan(&key.budget, &key.subject, &key.series, &key.label, &used, &pruned); err != nil {
			return err
		}
		v.Counters++
		if want := v.spent[key] + pruned; used != want {
			v.find("budgets", do, "budget %s of %s in %s (%s): the counter says %d and the entries add up to %d: a drift of %d",
				key.budget, key.subject, key.label, key.series, used, want, used-want)
		}
		delete(v.spent, key)
	}
	if err := rows.Err(); err != nil {
		return err
	}
	for key, sum := range v.spent {
		if sum != 0 {
			v.find("budgets", do, "budget %s of %s in %s (%s): there is no counter and the entries add up to %d", key.budget, key.subject, key.label, key.series, sum)
		}
	}
	return nil
}

// heads are the files with signed heads beside the database.
type heads struct{ beside, aside string }

func (v *verification) readHeads() (h heads, err error) {
	for suffix, to := range map[string]*string{headSuffix: &h.beside, headSuffix + asideSuffix: &h.aside} {
		text, err := os.ReadFile(v.path + suffix)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return heads{}, err
		}
		*to = string(text)
	}
	return h, nil
}

func (v *verification) heads(files heads) error {
	var inside string
	if err := v.tx.QueryRowContext(v.ctx, `SELECT signed FROM chain`).Scan(&inside); err != nil {
		return err
	}
	if inside != "" {
		if err := v.head("the signed head in the database", inside, true); err != nil {
			return err
		}
	}
	if files.beside != "" && files.beside != inside {
		if err := v.head("the signed head in "+v.path+headSuffix, files.beside, false); err != nil {
			return err
		}
	}
	if inside == "" && v.Audit.Key != nil && v.Chained > 0 {
		v.find("signature", compareIt, "there is a key of the node and the database has no signed head")
	}
	if files.aside != "" {
		v.find("signature", "compare it with a backup; when a restored backup is the cause, remove the file",
			"%s is a signed head that the ledger did not have when the server started", v.path+headSuffix+asideSuffix)
	}
	return nil
}

func (v *verification) head(where, text string, inside bool) error {
	h, err := readHead(text)
	if err != nil {
		v.find("signature", compareIt, "%s: %v", where, err)
		return nil
	}
	if v.Audit.Key != nil && !v.Audit.Key.Equal(h.Key) {
		v.find("signature", "put the node's key back that belongs to the ledger; with a new one, what was signed before proves nothing",
			"%s was signed with the key %s and the node has %s", where, KeyID(h.Key), KeyID(v.Audit.Key))
	}
	if inside {
		v.Signed, v.Verified.Key = h.Seq, KeyID(h.Key)
		begins, before, skipped, err := readChain(v.ctx, v.tx)
		if err != nil {
			return err
		}
		if h.Passed != begins || h.Before != before || !slices.EqualFunc(h.Skipped, skipped, func(a, b Range) bool {
			return a.First == b.First && a.Last == b.Last && a.At.Equal(b.At)
		}) {
			v.find("signature", compareIt, "%s: the chain began after entry %d, and does no more", where, h.Passed)
		}
	}
	known, err := h.isIn(v.ctx, v.tx)
	if err == nil && !known {
		v.find("signature", compareIt+"; or an older copy took its place", "%s: entry %d as signed at %s is not in the ledger: what is at its end was removed or changed",
			where, h.Seq, h.At.UTC().Format("2006-01-02 15:04:05"))
	}
	return err
}
