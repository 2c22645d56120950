-- What entries that are older than the retention leave behind. A roll-up is what entries of the same hour (or quarter of one, where the time
-- zone needs it; started_at is when that begins) add up to that have everything in common that reports ask for; digest stands for that. Agents
-- are told apart from main agents (*), and not from each other.
--
-- A removal is a row for the entries that left together: what they add up to, and eight bytes for each of them, in base64, so that an
-- exchange that is delivered again is known.

-- +goose Up
CREATE TABLE rollups (
    started_at              BIGINT  NOT NULL,
    digest                  TEXT    NOT NULL,
    user_name               TEXT    NOT NULL,
    team                    TEXT    NOT NULL,
    key_id                  TEXT    NOT NULL,
    key_name                TEXT    NOT NULL,
    endpoint                TEXT    NOT NULL,
    model_asked             TEXT    NOT NULL,
    model_sent              TEXT    NOT NULL,
    model_served            TEXT    NOT NULL,
    upstream                TEXT    NOT NULL,
    provider                TEXT    NOT NULL,
    agent_id                TEXT    NOT NULL,
    client                  TEXT    NOT NULL,
    client_version          TEXT    NOT NULL,
    outcome                 TEXT    NOT NULL,
    uncharged               BOOLEAN NOT NULL,
    first_at                BIGINT  NOT NULL,
    last_at                 BIGINT  NOT NULL,
    end_at                  BIGINT  NOT NULL,
    requests                BIGINT  NOT NULL,
    errors                  BIGINT  NOT NULL,
    input_tokens            BIGINT  NOT NULL,
    output_tokens           BIGINT  NOT NULL,
    cache_read_tokens       BIGINT  NOT NULL,
    cache_write_5m_tokens   BIGINT  NOT NULL,
    cache_write_1h_tokens   BIGINT  NOT NULL,
    thinking_tokens         BIGINT  NOT NULL,
    quota_tokens            BIGINT  NOT NULL,
    web_searches            BIGINT  NOT NULL,
    file_operations         BIGINT  NOT NULL,
    request_bytes           BIGINT  NOT NULL,
    response_bytes          BIGINT  NOT NULL,
    answered_duration_ms    BIGINT  NOT NULL,
    answered_first_byte_ms  BIGINT  NOT NULL,
    answered                BIGINT  NOT NULL,
    cost_micro_usd          BIGINT  NOT NULL,
    cache_savings_micro_usd BIGINT  NOT NULL,
    unpriced                BIGINT  NOT NULL,
    estimated               BIGINT  NOT NULL,
    PRIMARY KEY (started_at, digest)
);

CREATE TABLE removals (
    id             BIGINT PRIMARY KEY,
    cutoff         BIGINT NOT NULL,
    from_at        BIGINT NOT NULL,
    to_at          BIGINT NOT NULL,
    entries        BIGINT NOT NULL,
    tokens         BIGINT NOT NULL,
    cost_micro_usd BIGINT NOT NULL,
    digests        TEXT   NOT NULL
);
CREATE INDEX removals_time ON removals (to_at, from_at);
CREATE INDEX removals_cutoff ON removals (cutoff);
