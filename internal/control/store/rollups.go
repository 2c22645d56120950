package store

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

// rollup is a row of the table of this name: what entries of one stretch of time add up to that have the same of everything else.
type rollup struct {
	Sum       // its groups are the dimensions of rollupDimensions
	startedAt int64
	uncharged bool
}

// rollupDimensions are the columns of a roll-up that tell it from others of its time, besides uncharged, with what they are of an entry.
func rollupDimensions() []measure {
	dimensions := []measure{}
	for _, column := range []string{
		"user_name", "team", "key_id", "key_name", "endpoint", "model_asked", "model_sent", "model_served", "upstream", "provider",
		"client", "client_version", "outcome",
	} {
		dimensions = append(dimensions, measure{column, "e." + column})
	}
	// Agents are as many as sessions and more.
	return append(dimensions, measure{"agent_id", "CASE WHEN e.agent_id = '' THEN '' ELSE '" + AnyAgent + "' END"})
}

// AnyAgent stands in roll-ups for every agent but the main ones.
const AnyAgent = "*"

func (r *rollup) fields() []any {
	return append([]any{&r.startedAt, &r.uncharged}, r.grouped(len(rollupDimensions()))...)
}

// digest names the roll-up among those of its time.
func (r *rollup) digest() (string, error) {
	text, err := json.Marshal(append(slices.Clip(r.Groups), fmt.Sprint(r.uncharged)))
	if err != nil {
		return "", err
	}
	sum := sha256.Sum256(text)
	return base64.RawURLEncoding.EncodeToString(sum[:16]), nil
}

// RollUp removes at most about limit of the oldest entries that began before a time and adds what they add up to to the roll-ups, all of it
// or nothing. It leaves what its node may still deliver entries in front of. A roll-up is of a stretch of time as long as grain. It
// returns how many entries were removed; with fewer than limit there are no more.
func (s *Store) RollUp(ctx context.Context, before time.Time, grain time.Duration, limit int) (removed int64, err error) {
	err = s.Write(ctx, func(ctx context.Context, tx *Tx) error {
		const old = ` e.started_at < ? AND e.seq <= (SELECT n.contiguous FROM nodes AS n WHERE n.name = e.node)`
		number := func(n *int64) []any { return []any{n} }
		// Those that began at the same instant go together.
		end := before.UnixMicro()
		last, err := collect(ctx, tx.tx, number, `SELECT e.started_at FROM entries AS e WHERE`+old+` ORDER BY e.started_at LIMIT 1 OFFSET ?`, end, limit-1)
		if err != nil {
			return err
		}
		if len(last) == 1 {
			end = last[0] + 1
		}
		gone, err := collect(ctx, tx.tx, func(i *identity) []any { return []any{&i.startedAt, &i.id} },
			`SELECT e.started_at, e.id FROM entries AS e WHERE`+old+` ORDER BY e.started_at`, end)
		if err != nil || len(gone) == 0 {
			return err
		}
		sum, err := tx.addRollups(ctx, grain, old, end)
		if err != nil {
			return err
		}
		result, err := tx.tx.ExecContext(ctx, `DELETE FROM entries AS e WHERE`+old, end)
		if err != nil {
			return err
		}
		if removed, err = result.RowsAffected(); err != nil {
			return err
		}
		if removed != int64(len(gone)) || removed != sum.Requests {
			return fmt.Errorf("%d entries would be removed, %d were read and %d rolled up", removed, len(gone), sum.Requests)
		}
		return tx.exec(ctx, "note the removal", `INSERT INTO removals (id, cutoff, from_at, to_at, entries, tokens, cost_micro_usd, digests)
			SELECT COALESCE(MAX(id), 0) + 1, ?, ?, ?, ?, ?, ?, ? FROM removals`,
			before.UnixMicro(), gone[0].startedAt, gone[len(gone)-1].startedAt, removed, sum.Tokens(), sum.Cost, packDigests(gone))
	})
	if err != nil {
		return 0, fmt.Errorf("cannot roll up old entries: %w", err)
	}
	return removed, nil
}

// addRollups adds what the entries that a condition selects add up to to the roll-ups, and returns what that is altogether.
func (t *Tx) addRollups(ctx context.Context, grain time.Duration, condition string, args ...any) (all Sum, err error) {
	of, columns := []string{}, []string{"started_at", "uncharged"}
	for _, d := range rollupDimensions() {
		of, columns = append(of, d.of), append(columns, d.column)
	}
	places := make([]string, len(of))
	for i := range places {
		places[i] = fmt.Sprint(i + 3)
	}
	rollups, err := collect(ctx, t.tx, (*rollup).fields, fmt.Sprintf(`SELECT e.started_at - e.started_at %% %d, e.uncharged, %s, %s
		FROM entries AS e WHERE %s GROUP BY 1, 2, %s`, grain.Microseconds(), strings.Join(of, ", "), sumColumns(false), condition, strings.Join(places, ", ")), args...)
	if err != nil {
		return Sum{}, err
	}
	add := []string{
		"first_at = CASE WHEN excluded.first_at < rollups.first_at THEN excluded.first_at ELSE rollups.first_at END",
		"last_at = CASE WHEN excluded.last_at > rollups.last_at THEN excluded.last_at ELSE rollups.last_at END",
		"end_at = CASE WHEN excluded.end_at > rollups.end_at THEN excluded.end_at ELSE rollups.end_at END",
	}
	columns = append(columns, "first_at", "last_at", "end_at")
	for _, m := range measures() {
		columns, add = append(columns, m.column), append(add, m.column+" = "+clamped("rollups."+m.column+" + excluded."+m.column))
	}
	columns = append(columns, "digest")
	//nolint:gosec // only constants are joined
	statement, err := t.tx.PrepareContext(ctx, `INSERT INTO rollups (`+strings.Join(columns, ", ")+`) VALUES (`+marks(len(columns))+`)
		ON CONFLICT (started_at, digest) DO UPDATE SET `+strings.Join(add, ", "))
	if err != nil {
		return Sum{}, err
	}
	defer func() { err = errors.Join(err, statement.Close()) }()
	for i := range rollups {
		r := &rollups[i]
		digest, err := r.digest()
		if err != nil {
			return Sum{}, err
		}
		values, err := r.values()
		if err != nil {
			return Sum{}, err
		}
		if _, err := statement.ExecContext(ctx, append(values, digest)...); err != nil {
			return Sum{}, err
		}
		all.Add(r.Sum)
	}
	return all, nil
}

// values returns what the fields hold.
func (r *rollup) values() ([]any, error) {
	args := []any{r.startedAt, r.uncharged}
	for _, group := range r.Groups {
		args = append(args, group)
	}
	return appendValues(args, r.Sum.fields())
}

// Cutoff returns the time before which entries were removed and only roll-ups are kept, zero when there are none.
func (s *Store) Cutoff(ctx context.Context) (time.Time, error) {
	marks, err := collect(ctx, s.db, func(at *time.Time) []any { return []any{instant{at}} }, `SELECT cutoff FROM removals ORDER BY cutoff DESC LIMIT 1`)
	if err != nil {
		return time.Time{}, fmt.Errorf("cannot read since when there are entries: %w", err)
	}
	if len(marks) == 0 {
		return time.Time{}, nil
	}
	return marks[0], nil
}

// digestSize is how much of an identity a removal remembers.
const digestSize = 8

func (i identity) digest() string {
	sum := sha256.Sum256(append(binary.BigEndian.AppendUint64(nil, uint64(i.startedAt)), i.id...)) //nolint:gosec // the same bits
	return string(sum[:digestSize])
}

func packDigests(all []identity) string {
	digests := make([]string, len(all))
	for i := range all {
		digests[i] = all[i].digest()
	}
	return base64.StdEncoding.EncodeToString([]byte(strings.Join(digests, "")))
}

func unpackDigests(text string) (digests map[string]bool, err error) {
	packed, err := base64.StdEncoding.DecodeString(text)
	if err != nil || len(packed)%digestSize != 0 {
		return nil, errors.New("the database does not say which entries were removed")
	}
	digests = make(map[string]bool, len(packed)/digestSize)
	for one := range slices.Chunk(packed, digestSize) {
		digests[string(one)] = true
	}
	return digests, nil
}

// removedOf returns those of some exchanges that were removed.
func removedOf(ctx context.Context, q querier, some []identity) (removed map[identity]bool, err error) {
	removed = map[identity]bool{}
	if len(some) == 0 {
		return removed, nil
	}
	first, last := some[0].startedAt, some[0].startedAt
	for _, i := range some {
		first, last = min(first, i.startedAt), max(last, i.startedAt)
	}
	type removal struct {
		from, to int64
		digests  string
	}
	removals, err := collect(ctx, q, func(r *removal) []any { return []any{&r.from, &r.to, &r.digests} },
		`SELECT from_at, to_at, digests FROM removals WHERE to_at >= ? AND from_at <= ?`, first, last)
	if err != nil {
		return nil, err
	}
	for _, r := range removals {
		digests, err := unpackDigests(r.digests)
		if err != nil {
			return nil, err
		}
		for _, i := range some {
			if r.from <= i.startedAt && i.startedAt <= r.to && digests[i.digest()] {
				removed[i] = true
			}
		}
	}
	return removed, nil
}
