-- +goose Up

-- From which number on control may have something else, because exchanges were settled as crashed since it last said
-- which numbers it has, see resumption. 0: there is none.
ALTER TABLE state ADD COLUMN doubtful INTEGER NOT NULL DEFAULT 0;

-- What a Carpool that did not note it has left unacknowledged.
UPDATE state SET doubtful = acknowledged + 1 WHERE EXISTS (SELECT 1 FROM entries WHERE seq > acknowledged);
