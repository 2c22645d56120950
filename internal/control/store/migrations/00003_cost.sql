-- What an entry costs. Those from before there were prices have no price version.

-- +goose Up
ALTER TABLE entries ADD COLUMN provider                TEXT    NOT NULL DEFAULT '';
ALTER TABLE entries ADD COLUMN location                TEXT    NOT NULL DEFAULT '';
ALTER TABLE entries ADD COLUMN uncharged               BOOLEAN NOT NULL DEFAULT FALSE;
ALTER TABLE entries ADD COLUMN cost_micro_usd          BIGINT  NOT NULL DEFAULT 0;
ALTER TABLE entries ADD COLUMN cache_savings_micro_usd BIGINT  NOT NULL DEFAULT 0;
ALTER TABLE entries ADD COLUMN unpriced                BOOLEAN NOT NULL DEFAULT FALSE;
ALTER TABLE entries ADD COLUMN price_rule              TEXT    NOT NULL DEFAULT '';
ALTER TABLE entries ADD COLUMN price_version           TEXT    NOT NULL DEFAULT '';
