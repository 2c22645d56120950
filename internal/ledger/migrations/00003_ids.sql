-- +goose Up

-- Entries without an index of their ids, which cost a tenth of an entry. Ids are asked for only after a crash, together
-- with the start of the exchange, of which there is an index.
CREATE TABLE entries_anew (
    seq            INTEGER PRIMARY KEY,
    node           TEXT    NOT NULL,
    id             TEXT    NOT NULL,
    user_name      TEXT    NOT NULL,
    endpoint       TEXT    NOT NULL,
    outcome        TEXT    NOT NULL,
    started_at     INTEGER NOT NULL, -- microseconds since 1970, UTC
    day            TEXT    NOT NULL, -- the quota windows it was counted in
    month          TEXT    NOT NULL,
    input          INTEGER NOT NULL,
    output         INTEGER NOT NULL,
    cache_read     INTEGER NOT NULL,
    cache_write_5m INTEGER NOT NULL,
    cache_write_1h INTEGER NOT NULL,
    thinking       INTEGER NOT NULL,
    quota_tokens   INTEGER NOT NULL,
    body           TEXT    NOT NULL
) STRICT;

INSERT INTO entries_anew SELECT * FROM entries ORDER BY seq;
DROP TABLE entries;
ALTER TABLE entries_anew RENAME TO entries;

CREATE INDEX entries_by_user ON entries (user_name, started_at);
CREATE INDEX entries_by_time ON entries (started_at);
