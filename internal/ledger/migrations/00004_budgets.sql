-- +goose Up

-- What an entry was charged to besides the quota windows, as a list of [budget, subject, series, label, ends_at, amount];
-- of an opening the amount is what it reserved.
ALTER TABLE entries ADD COLUMN charges TEXT NOT NULL DEFAULT '[]';
ALTER TABLE openings ADD COLUMN charges TEXT NOT NULL DEFAULT '[]';

-- What was used of a budget in a slot of its window. It is the sum of what the entries' charges say and what was pruned.
CREATE TABLE budget_counters (
    budget  TEXT    NOT NULL,
    subject TEXT    NOT NULL, -- whose part of it: organization, team/NAME, user/NAME or key/NAME
    series  TEXT    NOT NULL, -- unit and window: a budget that changes them begins anew
    label   TEXT    NOT NULL, -- of the slot
    ends_at INTEGER NOT NULL, -- seconds since 1970: when it stops counting
    used    INTEGER NOT NULL, -- micro-dollars or tokens
    pruned  INTEGER NOT NULL DEFAULT 0, -- of it, what entries that were pruned had counted
    PRIMARY KEY (budget, subject, series, label)
) STRICT, WITHOUT ROWID;
