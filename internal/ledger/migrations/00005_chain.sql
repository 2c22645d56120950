-- +goose Up

-- SHA-256 over the entry before it and the entry, see chain.go. Entries from before this upgrade have none.
ALTER TABLE entries ADD COLUMN hash BLOB;

-- One row. The chain is the entries after the number passed: from there hash goes on. What is not in the chain is older
-- than it, or was pruned. signed is the head as it was signed last.
CREATE TABLE chain (
    id     INTEGER PRIMARY KEY CHECK (id = 1),
    passed INTEGER NOT NULL,
    hash   BLOB    NOT NULL,
    signed TEXT    NOT NULL
) STRICT;

INSERT INTO chain (id, passed, hash, signed)
    SELECT 1, max(acknowledged, coalesce((SELECT max(seq) FROM entries), 0)), zeroblob(32), '' FROM state;

-- Numbers that no entry has, because the ledger was restored from a backup and went on behind what control had.
CREATE TABLE skipped (
    first INTEGER PRIMARY KEY,
    last  INTEGER NOT NULL,
    at    INTEGER NOT NULL -- microseconds since 1970, UTC
) STRICT;

-- What entries that were pruned had counted: used + waived - pruned is the sum of the entries that are kept.
ALTER TABLE counters ADD COLUMN pruned INTEGER NOT NULL DEFAULT 0;

UPDATE counters SET pruned = max(0, used + waived - (
    SELECT coalesce(sum(quota_tokens), 0) FROM entries
    WHERE entries.user_name = counters.user_name
        AND CASE counters.period WHEN 'daily' THEN entries.day ELSE entries.month END = counters.label))
    WHERE (SELECT acknowledged FROM state) > 0 AND NOT EXISTS (SELECT 1 FROM entries WHERE seq = 1);
