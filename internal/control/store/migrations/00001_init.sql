-- Times are microseconds since 1970 UTC. Lists and maps that are only read whole are JSON.

-- +goose Up
CREATE TABLE policy (
    id            BIGINT PRIMARY KEY,
    version       BIGINT NOT NULL,
    settings      TEXT   NOT NULL,
    default_quota TEXT   NOT NULL,
    seal_check    TEXT   NOT NULL
);

CREATE TABLE teams (
    name                TEXT   PRIMARY KEY,
    requests_per_minute BIGINT NOT NULL,
    tokens_per_minute   BIGINT NOT NULL,
    in_flight           BIGINT NOT NULL,
    created_at          BIGINT NOT NULL
);

CREATE TABLE users (
    name                TEXT    PRIMARY KEY,
    team                TEXT    REFERENCES teams (name),
    disabled            BOOLEAN NOT NULL,
    quota_daily         BIGINT,
    quota_monthly       BIGINT,
    requests_per_minute BIGINT  NOT NULL,
    tokens_per_minute   BIGINT  NOT NULL,
    in_flight           BIGINT  NOT NULL,
    created_at          BIGINT  NOT NULL
);

CREATE TABLE api_keys (
    name                TEXT    PRIMARY KEY,
    user_name           TEXT    NOT NULL REFERENCES users (name) ON DELETE CASCADE,
    disabled            BOOLEAN NOT NULL,
    expires_at          BIGINT,
    requests_per_minute BIGINT  NOT NULL,
    tokens_per_minute   BIGINT  NOT NULL,
    in_flight           BIGINT  NOT NULL,
    scope               TEXT    NOT NULL,
    created_at          BIGINT  NOT NULL
);

-- A key has one secret in force and, for a while after a rotation, the one before it.
CREATE TABLE key_secrets (
    id           TEXT   PRIMARY KEY,
    key_name     TEXT   NOT NULL REFERENCES api_keys (name) ON DELETE CASCADE,
    hash         TEXT   NOT NULL UNIQUE,
    created_at   BIGINT NOT NULL,
    retires_at   BIGINT,
    last_used_at BIGINT
);
CREATE INDEX key_secrets_key ON key_secrets (key_name);

CREATE TABLE upstreams (
    name          TEXT    PRIMARY KEY,
    provider      TEXT    NOT NULL,
    base_url      TEXT    NOT NULL,
    auth          TEXT    NOT NULL,
    credential    TEXT    NOT NULL, -- sealed
    weight        BIGINT  NOT NULL,
    priority      BIGINT  NOT NULL,
    disabled      BOOLEAN NOT NULL,
    max_in_flight BIGINT  NOT NULL,
    models        TEXT    NOT NULL,
    created_at    BIGINT  NOT NULL,
    updated_at    BIGINT  NOT NULL
);

CREATE TABLE routes (
    name TEXT PRIMARY KEY,
    spec TEXT NOT NULL
);

CREATE TABLE aliases (
    name  TEXT PRIMARY KEY,
    model TEXT NOT NULL
);

CREATE TABLE tokens (
    name         TEXT   PRIMARY KEY,
    id           TEXT   NOT NULL UNIQUE,
    hash         TEXT   NOT NULL UNIQUE,
    created_at   BIGINT NOT NULL,
    created_by   TEXT   NOT NULL,
    last_used_at BIGINT
);

CREATE TABLE audit (
    id      BIGINT PRIMARY KEY,
    at      BIGINT NOT NULL,
    actor   TEXT   NOT NULL,
    action  TEXT   NOT NULL,
    kind    TEXT   NOT NULL,
    name    TEXT   NOT NULL,
    detail  TEXT   NOT NULL,
    version BIGINT NOT NULL
);

-- Up to which sequence number the books have everything of a node.
CREATE TABLE nodes (
    name       TEXT   PRIMARY KEY,
    contiguous BIGINT NOT NULL
);

CREATE TABLE entries (
    node                  TEXT    NOT NULL,
    seq                   BIGINT  NOT NULL,
    id                    TEXT    NOT NULL,
    started_at            BIGINT  NOT NULL,
    first_byte_ms         BIGINT  NOT NULL,
    duration_ms           BIGINT  NOT NULL,
    outcome               TEXT    NOT NULL,
    status                BIGINT  NOT NULL,
    error_type            TEXT    NOT NULL,
    user_name             TEXT    NOT NULL,
    team                  TEXT    NOT NULL,
    key_id                TEXT    NOT NULL,
    key_name              TEXT    NOT NULL,
    endpoint              TEXT    NOT NULL,
    stream                BOOLEAN NOT NULL,
    model_asked           TEXT    NOT NULL,
    model_sent            TEXT    NOT NULL,
    model_served          TEXT    NOT NULL,
    route                 TEXT    NOT NULL,
    upstream              TEXT    NOT NULL,
    attempts              BIGINT  NOT NULL,
    moved_from            TEXT    NOT NULL,
    message_id            TEXT    NOT NULL,
    stop_reason           TEXT    NOT NULL,
    input_tokens          BIGINT  NOT NULL,
    output_tokens         BIGINT  NOT NULL,
    cache_read_tokens     BIGINT  NOT NULL,
    cache_write_5m_tokens BIGINT  NOT NULL,
    cache_write_1h_tokens BIGINT  NOT NULL,
    thinking_tokens       BIGINT  NOT NULL,
    web_searches          BIGINT  NOT NULL,
    service_tier          TEXT    NOT NULL,
    inference_geo         TEXT    NOT NULL,
    speed                 TEXT    NOT NULL,
    usage_reported        TEXT    NOT NULL,
    estimated             BOOLEAN NOT NULL,
    quota_tokens          BIGINT  NOT NULL,
    session_id            TEXT    NOT NULL,
    agent_id              TEXT    NOT NULL,
    parent_agent_id       TEXT    NOT NULL,
    request_class         TEXT    NOT NULL,
    client                TEXT    NOT NULL,
    client_version        TEXT    NOT NULL,
    client_request_id     TEXT    NOT NULL,
    upstream_request_id   TEXT    NOT NULL,
    tools                 TEXT    NOT NULL,
    file_operations       BIGINT  NOT NULL,
    request_bytes         BIGINT  NOT NULL,
    response_bytes        BIGINT  NOT NULL,
    PRIMARY KEY (node, seq)
);
CREATE INDEX entries_started ON entries (started_at);
CREATE INDEX entries_user ON entries (user_name, started_at);
CREATE INDEX entries_session ON entries (session_id);
