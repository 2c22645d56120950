package ledger

import (
	"errors"
	"io/fs"
	"os"
	"slices"
	"time"

	"carpool/internal/quota"
)

func (v *verification) counters() error {
	unpruned, err := v.unpruned()
	if err != nil {
		return err
	}
	rows, err := v.tx.QueryContext(v.ctx, `SELECT user_name, period, label, ends_at, used, waived, pruned FROM counters ORDER BY user_name, period, label`)
	if err != nil {
		return err
	}
	defer rows.Close()
	const do = "see which requests are meant with carpool usage; carpool quota reset sets a window that counts too much to nothing, carpool db restore puts a backup back"
	for rows.Next() {
		var key accountKey
		var ends, used, waived, pruned int64
		if err := rows.Scan(&key.user, &key.window, &key.label, &ends, &used, &waived, &pruned); err != nil {
			return &contentError{err}
		}
		v.Counters++
		if !key.endsAt(ends) {
			v.find("counters", do, "%s quota of %s in %s: the counter says that it ends at %s", key.window, key.user, key.label, time.Unix(ends, 0).UTC().Format(time.RFC3339))
		}
		if pruned < 0 || pruned > 0 && unpruned || waived < 0 {
			v.find("counters", do, "%s quota of %s in %s: the counter says that %d tokens were used before a reset and that pruned entries had %d, which cannot be",
				key.window, key.user, key.label, waived, pruned)
		} else if has, want := quota.Add(used, waived), quota.Add(v.sums[key], pruned); has != want {
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

// endsAt reports whether the window can end at a time, in whatever time zone.
func (k accountKey) endsAt(unix int64) bool {
	start, err := time.Parse(map[quota.Window]string{quota.Daily: "2006-01-02", quota.Monthly: "2006-01"}[k.window], k.label)
	if err != nil {
		return false
	}
	const furthest = 14 * time.Hour
	return time.Unix(unix, 0).Sub(k.window.Period(start, time.UTC).End).Abs() <= furthest
}

// budgets compares what is counted of budgets with what the entries were charged to.
func (v *verification) budgets() error {
	unpruned, err := v.unpruned()
	if err != nil {
		return err
	}
	rows, err := v.tx.QueryContext(v.ctx, `SELECT budget, subject, series, label, ends_at, used, pruned FROM budget_counters ORDER BY budget, subject, series, label`)
	if err != nil {
		return err
	}
	defer rows.Close()
	const do = "see which requests are meant with carpool usage; a budget of another name begins anew, carpool db restore puts a backup back"
	for rows.Next() {
		var key slotKey
		var ends, used, pruned int64
		if err := rows.Scan(&key.budget, &key.subject, &key.series, &key.label, &ends, &used, &pruned); err != nil {
			return &contentError{err}
		}
		v.Counters++
		entries, known := v.spent[key]
		if known && entries.ends != ends {
			v.find("budgets", do, "budget %s of %s in %s (%s): the counter says that it ends at %s and the entries say %s",
				key.budget, key.subject, key.label, key.series, time.Unix(ends, 0).UTC().Format(time.RFC3339), time.Unix(entries.ends, 0).UTC().Format(time.RFC3339))
		}
		if pruned < 0 || pruned > 0 && unpruned {
			v.find("budgets", do, "budget %s of %s in %s (%s): the counter says that pruned entries had %d, which cannot be", key.budget, key.subject, key.label, key.series, pruned)
		} else if want := quota.Add(entries.amount, pruned); used != want {
			v.find("budgets", do, "budget %s of %s in %s (%s): the counter says %d and the entries add up to %d: a drift of %d",
				key.budget, key.subject, key.label, key.series, used, want, used-want)
		}
		delete(v.spent, key)
	}
	if err := rows.Err(); err != nil {
		return err
	}
	for key, sum := range v.spent {
		if sum.amount != 0 {
			v.find("budgets", do, "budget %s of %s in %s (%s): there is no counter and the entries add up to %d", key.budget, key.subject, key.label, key.series, sum.amount)
		}
	}
	return nil
}

// unpruned reports whether no entry was ever pruned: they go from the first on.
func (v *verification) unpruned() (first bool, err error) {
	if v.passed == 0 {
		return true, nil
	}
	err = v.tx.QueryRowContext(v.ctx, `SELECT EXISTS (SELECT 1 FROM entries WHERE seq = 1)`).Scan(&first)
	return first, err
}

// heads are the files with signed heads beside the database.
type heads struct{ beside, aside string }

func (v *verification) readHeads() (h heads, err error) {
	for path, to := range map[string]*string{HeadPath(v.path): &h.beside, HeadPath(v.path) + asideSuffix: &h.aside} {
		text, err := os.ReadFile(path)
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
		if err := v.head("the signed head in "+HeadPath(v.path), files.beside, false); err != nil {
			return err
		}
	}
	if v.Kept != "" {
		if err := v.head("the signed head that was kept elsewhere", v.Kept, false); err != nil {
			return err
		}
	}
	if inside == "" && v.Audit.Key != nil { // not only with entries: that there are none in the chain may be what was changed
		v.find("signature", compareIt+"; nothing is wrong when no server has run since carpool db migrate, and the next start signs",
			"there is a key of the node and the database has no signed head, which each start makes")
	}
	if files.aside != "" {
		v.find("signature", "compare it with a backup; when a restored backup is the cause, remove the file",
			"%s is a signed head that the ledger did not have when the server started", HeadPath(v.path)+asideSuffix)
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
		has, err := readCounted(v.ctx, v.tx)
		if err != nil {
			return err
		}
		if v.uncounted = h.Counted == nil; !v.uncounted && has != *h.Counted {
			v.find("counters", compareIt, "%s: the counters add up to %d tokens used before resets and %d of pruned entries, and %d of pruned entries in budgets; what was signed is %d, %d and %d: "+
				"a counter was changed and no reset did it", where, has.Waived, has.Pruned, has.Spent, h.Counted.Waived, h.Counted.Pruned, h.Counted.Spent)
		}
		if err := v.young(where, h); err != nil {
			return err
		}
	}
	known, err := h.isIn(v.ctx, v.tx)
	switch {
	case !known || v.Verified.Key == "":
	case h.Seq > v.Signed:
		v.find("signature", replayed, "%s is of entry %d, and the one in the database only of entry %d: an old head was put there", where, h.Seq, v.Signed)
	case v.uncounted && h.Counted != nil:
		v.find("signature", replayed, "%s says what the counters add up to, and the one in the database does not: an old head was put there", where)
	}
	if err == nil && !known {
		v.find("signature", compareIt+"; or an older copy took its place", "%s: entry %d as signed at %s is not in the ledger: what is at its end was removed or changed",
			where, h.Seq, h.At.UTC().Format("2006-01-02 15:04:05"))
	}
	return err
}

const (
	replayed = "somebody put an old signed head back, and what came after it may have been changed: compare with control's copy (carpool usage) and with a head " +
		"that was kept elsewhere (carpool db verify --head)"
	// lateness is how much later than the newest head an entry that it does not cover may have begun. See due: it is signEvery at most.
	lateness = time.Minute
)

// young tells of a head that cannot be the newest: it does not say what those after it do, or entries began when the newest
// must have been another one.
func (v *verification) young(where string, h *Head) error {
	if h.Counted == nil {
		version, err := readCountedVersion(v.ctx, v.tx)
		if err != nil {
			return err
		}
		if version >= countedVersion {
			v.find("signature", replayed, "%s does not say what the counters add up to, and later ones did: it is not the newest that was signed", where)
		}
	}
	var n, first int64
	err := v.tx.QueryRowContext(v.ctx, `SELECT count(*), coalesce(min(seq), 0) FROM entries WHERE seq > ? AND started_at > ?`,
		h.Seq, h.At.Add(lateness).UnixMicro()).Scan(&n, &first)
	if n > 0 {
		v.find("signature", replayed, "%s is from %s, and %d entries after it, from %d on, began more than a minute later: it is not the newest that was signed",
			where, h.At.UTC().Format("2006-01-02 15:04:05"), n, first)
	}
	return err
}

// newestHead looks only whether the head in the database can be the newest.
func (v *verification) newestHead() error {
	var inside string
	if err := v.tx.QueryRowContext(v.ctx, `SELECT signed FROM chain`).Scan(&inside); err != nil {
		return err
	}
	h, err := readHead(inside)
	if err != nil {
		return nil //nolint:nilerr // what is signed and how is left to Verify
	}
	return v.young("the signed head in the database", h)
}
