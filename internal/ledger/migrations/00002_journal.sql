-- +goose Up

-- Every segment of the journal names the ledger it belongs to. A copy of the file keeps the name: the journal of the
-- original continues it.
ALTER TABLE state ADD COLUMN journal TEXT NOT NULL DEFAULT '';
UPDATE state SET journal = lower(hex(randomblob(16)));
