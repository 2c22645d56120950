package ledger

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"carpool/internal/quota"
)

// transaction is the mover's connection with its prepared statements and the state of the transaction in progress.
// It adds charges up and writes each counter once per transaction.
type transaction struct {
	path string // of the database
	conn *sql.Conn
	stmt statements

	lastSeq, acknowledged int64 // as of this transaction
	doubtful              int64 // the first number by which control may have something else; 0: there is none
	chain                 chain

	rows    []driver.NamedValue // entries that are not written yet, see insert
	charges map[accountKey]charged
	spent   map[slotKey]charged
	used    map[string]int64 // key id to time in microseconds

	recounted counted // see recount
}

type charged struct {
	tokens int64 // or micro-dollars
	ends   int64
}

type statements struct {
	begin, commit, rollback                  *sql.Stmt
	insertOpening, deleteOpening             *sql.Stmt
	entryExists                              *sql.Stmt
	resetUser, resetAll                      *sql.Stmt
	acknowledge, doubt, prune, pruneCounters *sql.Stmt
	pruneBudgets                             *sql.Stmt
	renumber                                 *sql.Stmt
	readState, checkpoint                    *sql.Stmt

	// Without database/sql, whose share in the cost of an entry is a fifth. Many is rowsAtOnce of them in one statement,
	// which has a price of its own as well.
	insertEntry, insertMany driver.Stmt
	addUsed, touchKey       driver.Stmt
	addSpent                driver.Stmt
}

const insertOpening = `INSERT OR IGNORE INTO openings
	(id, user_name, day, day_ends, month, month_ends, reserved, input, quota_tokens, body, charges)
	VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`

const (
	insertEntry = `INSERT INTO entries
		(seq, node, id, user_name, endpoint, outcome, started_at, day, month,
		 input, output, cache_read, cache_write_5m, cache_write_1h, thinking, quota_tokens, charges, body, hash) VALUES ` + entryRow
	entryRow     = `(?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, CAST(? AS TEXT), ?)`
	entryColumns = 19
	rowsAtOnce   = 32

	// most is where counters stop, as [quota.Add] does. Beyond it SQLite goes on in floating point, which a counter does not take: no
	// entry could be booked any more.
	most = `9223372036854775807`

	addUsed = `INSERT INTO counters (user_name, period, label, ends_at, used, waived) VALUES (?1, ?2, ?3, ?4, ?5, 0)
		ON CONFLICT DO UPDATE SET used = min(used + ?5, ` + most + `), ends_at = ?4`
	addSpent = `INSERT INTO budget_counters (budget, subject, series, label, ends_at, used) VALUES (?1, ?2, ?3, ?4, ?5, ?6)
		ON CONFLICT DO UPDATE SET used = min(used + ?6, ` + most + `), ends_at = ?5`
	touchKey = `INSERT INTO keys (key_id, last_used) VALUES (?1, ?2)
		ON CONFLICT DO UPDATE SET last_used = max(last_used, ?2)`
)

func newTransaction(ctx context.Context, db *sql.DB, path string) (*transaction, error) {
	conn, err := db.Conn(ctx)
	if err != nil {
		return nil, err
	}
	tx := &transaction{path: path, conn: conn, charges: make(map[accountKey]charged), spent: make(map[slotKey]charged), used: make(map[string]int64)}
	s := &tx.stmt
	for _, p := range []struct {
		to  **sql.Stmt
		sql string
	}{
		{&s.begin, `BEGIN IMMEDIATE`},
		{&s.commit, `COMMIT`},
		{&s.rollback, `ROLLBACK`},
		{&s.insertOpening, insertOpening},
		{&s.deleteOpening, `DELETE FROM openings WHERE id = ?`},
		{&s.entryExists, `SELECT EXISTS (SELECT 1 FROM entries WHERE id = ? AND started_at BETWEEN ? AND ?)`},
		{&s.resetUser, `UPDATE counters SET waived = min(waived + used, ` + most + `), used = 0 WHERE period = ? AND label = ? AND user_name = ?`},
		{&s.resetAll, `UPDATE counters SET waived = min(waived + used, ` + most + `), used = 0 WHERE period = ? AND label = ?`},
		{&s.acknowledge, `UPDATE state SET acknowledged = ?`},
		{&s.doubt, `UPDATE state SET doubtful = ?`},
		{&s.renumber, `UPDATE entries SET seq = seq + ?1 WHERE seq > ?2 AND seq <= ?3`},
		{&s.prune, `DELETE FROM entries WHERE seq <= ?`},
		{&s.pruneCounters, `DELETE FROM counters WHERE ends_at < ? AND min(used + waived, ` + most + `) = pruned`},
		{&s.pruneBudgets, `DELETE FROM budget_counters WHERE ends_at < ? AND used = pruned`},
		{&s.readState, `SELECT acknowledged, max(acknowledged, coalesce((SELECT max(seq) FROM entries), 0)), doubtful FROM state`},
		{&s.checkpoint, `PRAGMA wal_checkpoint(PASSIVE)`},
	} {
		if *p.to, err = conn.PrepareContext(ctx, p.sql); err != nil { //nolint:sqlclosecheck // they end with the connection
			return nil, errors.Join(err, conn.Close())
		}
	}
	err = conn.Raw(func(c any) (err error) {
		for _, p := range []struct {
			to  *driver.Stmt
			sql string
		}{
			{&s.insertEntry, insertEntry},
			{&s.insertMany, insertEntry + strings.Repeat(", "+entryRow, rowsAtOnce-1)},
			{&s.addUsed, addUsed},
			{&s.addSpent, addSpent},
			{&s.touchKey, touchKey},
		} {
			if *p.to, err = c.(driver.ConnPrepareContext).PrepareContext(ctx, p.sql); err != nil {
				return err
			}
		}
		return nil
	})
	if err == nil {
		err = tx.readState(ctx)
	}
	if err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	return tx, nil
}

// readState reads, at the start and when a failed transaction left them in doubt, the last sequence number and the acknowledged one. All entries up to the latter may have been pruned.
func (tx *transaction) readState(ctx context.Context) error {
	if err := tx.stmt.readState.QueryRowContext(ctx).Scan(&tx.acknowledged, &tx.lastSeq, &tx.doubtful); err != nil {
		return fmt.Errorf("cannot read the ledger's state: %w", err)
	}
	tx.chain.signedAt, tx.chain.headAt = time.Time{}, time.Time{}
	return tx.chain.readHash(ctx, tx.conn)
}

// doubt notes from which number on control may have something else.
func (tx *transaction) doubt(from int64) error {
	if from == tx.doubtful {
		return nil
	}
	_, err := tx.exec(tx.stmt.doubt, from)
	tx.doubtful = from
	return err
}

func (tx *transaction) exec(stmt *sql.Stmt, args ...any) (int64, error) {
	result, err := stmt.ExecContext(context.Background(), args...)
	if err != nil {
		return 0, err
	}
	return result.RowsAffected()
}

// directly executes a statement without database/sql.
func (tx *transaction) directly(stmt driver.Stmt, args []driver.NamedValue) error {
	return tx.conn.Raw(func(any) error {
		_, err := stmt.(driver.StmtExecContext).ExecContext(context.Background(), args)
		return err
	})
}

// insert writes an entry, with others behind it or at the end of the transaction.
func (tx *transaction) insert(seq int64, s *settlement) error {
	e := s.entry
	tx.add(seq)
	for _, text := range [...]string{e.Node, e.ID, e.User, e.Endpoint, string(e.Outcome)} {
		tx.addText(text)
	}
	tx.add(e.StartedAt.UnixMicro())
	tx.addText(s.daily.Label)
	tx.addText(s.monthly.Label)
	for _, n := range [...]int64{
		e.InputTokens, e.OutputTokens, e.CacheReadTokens, e.CacheWrite5mTokens, e.CacheWrite1hTokens, e.ThinkingTokens, e.QuotaTokens,
	} {
		tx.add(n)
	}
	charges := noCharges
	if len(s.charges) > 0 {
		charges = string(appendCharges(nil, s.charges))
	}
	tx.addText(charges)
	tx.add(s.body)
	tx.add(tx.chain.value(len(tx.rows)/entryColumns, tx.chain.head.next(&tx.chain.scratch, seq, e.Node, [3]string{s.daily.Label, s.monthly.Label, charges}, s.body)))
	if len(tx.rows) < rowsAtOnce*entryColumns {
		return nil
	}
	err := tx.directly(tx.stmt.insertMany, tx.rows)
	tx.rows = tx.rows[:0]
	return err
}

func (tx *transaction) add(v driver.Value) {
	tx.rows = append(tx.rows, driver.NamedValue{Ordinal: len(tx.rows) + 1, Value: v})
}

// addText is add for a value that the row before may have as well: then it is not made again.
func (tx *transaction) addText(s string) {
	if above := len(tx.rows) - entryColumns; above >= 0 {
		if known, ok := tx.rows[above].Value.(string); ok && known == s {
			tx.add(tx.rows[above].Value)
			return
		}
	}
	tx.add(s)
}

// flushRows writes the entries that are left.
func (tx *transaction) flushRows() error {
	for i, v := range tx.rows {
		tx.rows[i] = driver.NamedValue{Ordinal: i%entryColumns + 1, Value: v.Value}
	}
	for row := range slices.Chunk(tx.rows, entryColumns) {
		if err := tx.directly(tx.stmt.insertEntry, row); err != nil {
			return err
		}
	}
	clear(tx.rows[:cap(tx.rows)]) // what is in them belongs to requests
	tx.rows = tx.rows[:0]
	return nil
}

// carry notes an opening.
func (tx *transaction) carry(o *leftover) error {
	_, err := tx.exec(tx.stmt.insertOpening, o.columns()...)
	return err
}

func (o *leftover) columns() []any {
	return []any{
		o.id, o.user, o.daily.Label, o.daily.End.Unix(), o.monthly.Label, o.monthly.End.Unix(),
		o.reserved, o.estimate, o.charge, string(o.body), string(appendCharges(nil, o.charges)),
	}
}

// checkpoint makes what was committed outlast a loss of power.
func (tx *transaction) checkpoint() error {
	var busy, frames, moved int64
	if err := tx.stmt.checkpoint.QueryRowContext(context.Background()).Scan(&busy, &frames, &moved); err != nil {
		return fmt.Errorf("cannot write what is committed through to the disk: %w", explain(err))
	}
	if busy != 0 {
		return errors.New("cannot write what is committed through to the disk: somebody else is at it")
	}
	if moved < frames { // someone reads an older state, and SQLite may not even have forced its log to the disk
		if err := syncFile(tx.path + "-wal"); err != nil {
			return fmt.Errorf("cannot write what is committed through to the disk: %w", explain(err))
		}
	}
	return nil
}

func (tx *transaction) begin() error {
	tx.rows = tx.rows[:0]
	clear(tx.charges)
	clear(tx.spent)
	clear(tx.used)
	tx.recounted = counted{}
	_, err := tx.exec(tx.stmt.begin)
	return err
}

func (tx *transaction) commit() error {
	if err := tx.flush(); err != nil {
		return err
	}
	_, err := tx.exec(tx.stmt.commit)
	return err
}

// rollback ends a transaction that failed. Its own error says nothing: after some failures none is open any more.
func (tx *transaction) rollback() { _, _ = tx.exec(tx.stmt.rollback) }

// charge adds tokens to a user's counter of a window.
func (tx *transaction) charge(user string, w quota.Window, p quota.Period, tokens int64) {
	if tokens == 0 {
		return
	}
	key := accountKey{user, w, p.Label}
	tx.charges[key] = charged{quota.Add(tx.charges[key].tokens, tokens), p.End.Unix()}
}

// spend adds a charge to its budget's counter.
func (tx *transaction) spend(c *charge) {
	if c.amount != 0 {
		tx.spent[c.slotKey] = charged{quota.Add(tx.spent[c.slotKey].tokens, c.amount), c.ends.Unix()}
	}
}

// touch notes the use of a key.
func (tx *transaction) touch(key string, at time.Time) {
	if key != "" {
		tx.used[key] = max(tx.used[key], at.UnixMicro())
	}
}

// flush writes what insert, charge and touch have collected.
func (tx *transaction) flush() error {
	if err := tx.flushRows(); err != nil {
		return err
	}
	args := make([]driver.NamedValue, 6)
	direct := func(stmt driver.Stmt, values ...driver.Value) error {
		for i, v := range values {
			args[i] = driver.NamedValue{Ordinal: i + 1, Value: v}
		}
		return tx.directly(stmt, args[:len(values)])
	}
	for key, c := range tx.charges {
		if err := direct(tx.stmt.addUsed, key.user, string(key.window), key.label, c.ends, c.tokens); err != nil {
			return err
		}
	}
	for key, c := range tx.spent {
		if err := direct(tx.stmt.addSpent, key.budget, key.subject, key.series, key.label, c.ends, c.tokens); err != nil {
			return err
		}
	}
	for key, at := range tx.used {
		if err := direct(tx.stmt.touchKey, key, at); err != nil {
			return err
		}
	}
	clear(tx.charges)
	clear(tx.spent)
	clear(tx.used)
	return nil
}

func (tx *transaction) close() error {
	s := &tx.stmt
	var wrong []error
	for _, stmt := range []*sql.Stmt{
		s.begin, s.commit, s.rollback, s.insertOpening, s.deleteOpening, s.entryExists,
		s.resetUser, s.resetAll, s.acknowledge, s.doubt, s.renumber, s.prune, s.pruneCounters, s.pruneBudgets, s.readState, s.checkpoint,
	} {
		wrong = append(wrong, stmt.Close())
	}
	wrong = append(wrong, tx.conn.Raw(func(any) error {
		return errors.Join(s.insertEntry.Close(), s.insertMany.Close(), s.addUsed.Close(), s.addSpent.Close(), s.touchKey.Close())
	}))
	return errors.Join(append(wrong, tx.conn.Close())...)
}
