-- +goose Up

-- "CPLG": tells a ledger from any other SQLite file.
PRAGMA application_id = 1129335879;

-- One row per exchange. body is the entry as JSON; the columns beside it are what queries ask for.
CREATE TABLE entries (
    seq            INTEGER PRIMARY KEY,
    node           TEXT    NOT NULL,
    id             TEXT    NOT NULL UNIQUE,
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

CREATE INDEX entries_by_user ON entries (user_name, started_at);
CREATE INDEX entries_by_time ON entries (started_at);

-- Exchanges between admission and settlement. What is left here after a crash is settled at the next start.
CREATE TABLE openings (
    id           TEXT    NOT NULL PRIMARY KEY,
    user_name    TEXT    NOT NULL,
    day          TEXT    NOT NULL,
    day_ends     INTEGER NOT NULL, -- seconds since 1970
    month        TEXT    NOT NULL,
    month_ends   INTEGER NOT NULL,
    reserved     INTEGER NOT NULL,
    input        INTEGER NOT NULL, -- estimate, charged after a crash
    quota_tokens INTEGER NOT NULL, -- what the quota formula makes of the estimate
    body         TEXT    NOT NULL
) STRICT, WITHOUT ROWID;

-- What was used of a quota window. used + waived is the sum of the window's entries.
CREATE TABLE counters (
    user_name TEXT    NOT NULL,
    period    TEXT    NOT NULL, -- daily or monthly
    label     TEXT    NOT NULL, -- date of the period: 2006-01-02 or 2006-01
    ends_at   INTEGER NOT NULL, -- seconds since 1970
    used      INTEGER NOT NULL,
    waived    INTEGER NOT NULL, -- used before a reset
    PRIMARY KEY (user_name, period, label)
) STRICT, WITHOUT ROWID;

CREATE TABLE keys (
    key_id    TEXT    NOT NULL PRIMARY KEY,
    last_used INTEGER NOT NULL -- microseconds since 1970, UTC
) STRICT, WITHOUT ROWID;

-- One row. Entries after acknowledged are the outbox.
CREATE TABLE state (
    id           INTEGER PRIMARY KEY CHECK (id = 1),
    acknowledged INTEGER NOT NULL
) STRICT;

INSERT INTO state (id, acknowledged) VALUES (1, 0);
