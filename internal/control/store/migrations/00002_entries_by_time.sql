-- An index by user and one by session scatter a batch of entries over as many pages as it has users and sessions, which
-- costs more than everything else about it. Entries come in the order of their time: one index by time grows at its end,
-- and a question about a user or a session reads the index instead of the entries.

-- +goose Up
DROP INDEX entries_user;
DROP INDEX entries_session;
DROP INDEX entries_started;
CREATE INDEX entries_started ON entries (started_at, user_name, session_id);
