package ledger

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"strings"

	sqlite3 "modernc.org/sqlite/lib"

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
	Kept string // a signed head that was kept elsewhere
	// Pause, if not nil, is called between parts of the work, so that those who write to the database are not in its way for long.
	Pause func(ctx context.Context) error
	// Cost calculates what an entry costs by what is stored of it, where the prices that it names are known.
	Cost func(*Entry) (micros int64, known bool)
}

// Verify checks the ledger in the file path: whether SQLite finds it whole, whether its chain of hashes and the signed heads
// hold, whether its counters are what its entries add up to, and what Audit asks for. It changes nothing and may run
// beside a server, of which it sees one moment.
func Verify(ctx context.Context, path string, a Audit) (*Verified, error) {
	return newVerification(ctx, path, a).verified(func(v *verification) error { return v.run(v.whole) })
}

const (
	restoreIt = "stop the server and restore a backup with carpool db restore"
	compareIt = "somebody or something changed the file: compare with a backup and with control's copy (carpool usage), or restore a backup with carpool db restore"
)

type verification struct {
	Audit
	Verified
	ctx  context.Context //nolint:containedctx // lives as long as the call of Verify
	path string
	db   *sql.DB
	tx   *sql.Tx

	count   map[string]int
	sums    map[accountKey]int64
	spent   map[slotKey]spent
	passed  int64
	before  link // the entry after passed
	skipped []Range
	last    int64 // number of the entry before
	at      link
	broken  bool // the chain: what follows was told already

	uncounted bool // the head in the database is one of an older Carpool, see Head.Counted
}

// spent is what entries were charged of a slot, and when it stops counting.
type spent struct{ amount, ends int64 }

func newVerification(ctx context.Context, path string, a Audit) *verification {
	return &verification{Audit: a, ctx: ctx, path: path, count: make(map[string]int), sums: make(map[accountKey]int64), spent: make(map[slotKey]spent)}
}

// verified returns what a verification found. That a database cannot be read as one is a finding.
func (v *verification) verified(run func(*verification) error) (*Verified, error) {
	if err := run(v); err != nil {
		if !unreadable(err) || v.ctx.Err() != nil {
			return nil, fmt.Errorf("cannot verify the ledger %s: %w", v.path, explain(err))
		}
		v.find("integrity", restoreIt, "the database %s cannot be read: %v", v.path, err)
		return &v.Verified, nil
	}
	v.Hash = fmt.Sprintf("%x", v.at)
	return &v.Verified, nil
}

// unreadable reports whether an error tells of what is in a database, and not of how it can be reached.
func unreadable(err error) bool {
	if _, ok := errors.AsType[*contentError](err); ok {
		return true
	}
	switch code(err) {
	case sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_ERROR, sqlite3.SQLITE_FORMAT, sqlite3.SQLITE_MISMATCH, sqlite3.SQLITE_CONSTRAINT:
		return true
	}
	return false
}

// contentError says that a value in a database is not what is stored there.
type contentError struct{ error }

func (e *contentError) Unwrap() error { return e.error }

func (v *verification) find(check, do, format string, args ...any) {
	v.count[check]++
	if n := v.count[check]; n <= mostFindings {
		v.Findings = append(v.Findings, Finding{check, fmt.Sprintf(format, args...), do})
	}
}

// run opens the database for steps.
func (v *verification) run(steps func() error) (err error) {
	info, err := os.Stat(v.path)
	if err != nil {
		return err
	}
	if info.Size() == 0 {
		return errors.New("it is empty")
	}
	if v.db, err = sql.Open("sqlite", readOnly(v.path)); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, v.db.Close()) }()
	if err := v.look(); err != nil {
		return err
	}
	defer func() { _ = v.tx.Rollback() }() // nothing was written
	if err := steps(); err != nil {
		return err
	}
	for check, n := range v.count {
		if n > mostFindings {
			v.Findings = append(v.Findings, Finding{check, fmt.Sprintf("and %d more of these", n-mostFindings), "see the first of them"})
		}
	}
	return nil
}

// look begins to look at one moment of the database.
func (v *verification) look() (err error) {
	v.tx, err = v.db.BeginTx(v.ctx, &sql.TxOptions{ReadOnly: true})
	return err
}

// rest lets those go on who write, when it may take a while, and then looks at another moment.
func (v *verification) rest() error {
	if v.Pause == nil {
		return nil
	}
	if err := v.tx.Rollback(); err != nil {
		return err
	}
	return errors.Join(v.Pause(v.ctx), v.look())
}

// whole verifies everything.
func (v *verification) whole() error {
	copied, stop, err := v.pullCopy()
	if err != nil {
		return err
	}
	defer stop()
	signed, err := v.readHeads() // before the database, which only goes on
	if err != nil {
		return err
	}
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
	v.at = v.before
	for more := true; more; {
		if more, err = v.entries(copied); err != nil {
			return err
		}
	}
	for _, step := range []func() error{func() error { return v.end(copied) }, v.counters, v.budgets, func() error { return v.heads(signed) }} {
		if err := step(); err != nil {
			return err
		}
	}
	return nil
}

func (v *verification) schema() error {
	var id int64
	if err := v.tx.QueryRowContext(v.ctx, "PRAGMA application_id").Scan(&id); err != nil {
		return err
	}
	if id != applicationID {
		return errors.New("it is a database of another program; if it was the ledger, restore a backup with carpool db restore")
	}
	s, err := readSchema(v.ctx, v.tx)
	switch {
	case err != nil:
		return err
	case s.Have < s.Known:
		return fmt.Errorf("its schema is version %d, from before this Carpool (%d); start the server once, which brings it up to date", s.Have, s.Known)
	case s.Have > s.Known:
		return fmt.Errorf("its schema is version %d and this Carpool knows up to %d; use the newer Carpool that wrote it; if there was none, restore a backup with carpool db restore", s.Have, s.Known)
	}
	return nil
}

// integrity asks SQLite, table by table.
func (v *verification) integrity() error {
	rows, err := v.tx.QueryContext(v.ctx, "SELECT name FROM sqlite_schema WHERE type = 'table' ORDER BY name")
	if err != nil {
		return err
	}
	defer rows.Close()
	checks := []string{"PRAGMA integrity_check"}
	if v.Pause != nil {
		checks = []string{"PRAGMA integrity_check(sqlite_schema)"}
		for rows.Next() {
			var name string
			if err := rows.Scan(&name); err != nil {
				return err
			}
			checks = append(checks, `PRAGMA integrity_check("`+name+`")`)
		}
	}
	if err := errors.Join(rows.Err(), rows.Close()); err != nil {
		return err
	}
	for _, check := range checks {
		wrong, err := integrity(v.ctx, v.tx, check)
		if err != nil {
			return err
		}
		v.damaged(wrong)
		if err := v.rest(); err != nil {
			return err
		}
	}
	return nil
}

func (v *verification) damaged(wrong []string) {
	for _, w := range wrong {
		v.find("integrity", restoreIt, "the ledger's database is damaged: %s", w)
	}
}

// integrity runs one of SQLite's own checks.
func integrity(ctx context.Context, q querier, check string) (wrong []string, err error) {
	rows, err := q.QueryContext(ctx, check)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	for rows.Next() {
		var lines string
		if err := rows.Scan(&lines); err != nil {
			return nil, err
		}
		for line := range strings.SplitSeq(lines, "\n") { // of which some only begin a part
			if line != "" && line != "ok" && !strings.HasPrefix(line, "***") {
				wrong = append(wrong, line)
			}
		}
	}
	return wrong, rows.Err()
}

func (v *verification) begin() (err error) {
	if v.passed, v.before, v.skipped, err = readChain(v.ctx, v.tx); err != nil {
		return err
	}
	return v.tx.QueryRowContext(v.ctx, `SELECT count(*) FROM openings`).Scan(&v.Open)
}

// errMoved means that entries were pruned or got other numbers between two parts of a verification.
var errMoved = errors.New("old entries were removed meanwhile; it is tried again later")

// same makes sure that what was verified so far is still there.
func (v *verification) same() error {
	passed, _, skipped, err := readChain(v.ctx, v.tx)
	if err == nil && (passed != v.passed || len(skipped) != len(v.skipped)) {
		err = errMoved
	}
	return err
}

// stored is a row of the table entries.
type stored struct {
	Entry
	day, month string
	charges    string
	body, hash []byte
}

// part is how many entries are verified between pauses.
const part = 500

// entries verifies those that come next, and reports whether there may be more.
func (v *verification) entries(c *copied) (more bool, err error) {
	limit := int64(-1)
	if v.Pause != nil {
		limit = part
		if err := errors.Join(v.rest(), v.same()); err != nil {
			return false, err
		}
	}
	rows, err := v.tx.QueryContext(v.ctx, `SELECT seq, node, id, user_name, endpoint, outcome, started_at, day, month,
		input, output, cache_read, cache_write_5m, cache_write_1h, thinking, quota_tokens, charges, body, hash FROM entries
		WHERE seq > ? ORDER BY seq LIMIT ?`, v.last, limit)
	if err != nil {
		return false, err
	}
	defer rows.Close()
	n := int64(0)
	for ; rows.Next(); n++ {
		var s stored
		var started int64
		var body, hash sql.RawBytes
		if err := rows.Scan(&s.Seq, &s.Node, &s.ID, &s.User, &s.Endpoint, &s.Outcome, &started, &s.day, &s.month,
			&s.InputTokens, &s.OutputTokens, &s.CacheReadTokens, &s.CacheWrite5mTokens, &s.CacheWrite1hTokens, &s.ThinkingTokens,
			&s.QuotaTokens, &s.charges, &body, &hash); err != nil {
			return false, &contentError{err}
		}
		s.body, s.hash = body, hash
		if err := v.entry(&s, started, c); err != nil {
			return false, err
		}
	}
	return n == limit, rows.Err()
}

func (v *verification) entry(s *stored, started int64, c *copied) error {
	v.Entries++
	v.numbers(s.Seq)
	v.link(s)
	v.LastSeq, v.last = s.Seq, s.Seq
	if s.QuotaTokens != 0 {
		for _, key := range [...]accountKey{{s.User, quota.Daily, s.day}, {s.User, quota.Monthly, s.month}} {
			v.sums[key] = quota.Add(v.sums[key], s.QuotaTokens)
		}
	}
	charges, err := readCharges(s.charges)
	if err != nil {
		v.find("entries", compareIt, "what entry %d (%s) was charged to cannot be read: %v", s.Seq, s.ID, err)
	}
	for i := range charges {
		c := &charges[i]
		v.spent[c.slotKey] = spent{quota.Add(v.spent[c.slotKey].amount, c.amount), c.ends.Unix()}
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
	switch {
	case first == seq-1:
		v.find("numbers", restoreIt+", or get it from control's copy", "entry %d is missing", first)
	case first < seq:
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
	return v.remaining(c)
}
