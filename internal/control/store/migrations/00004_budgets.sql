-- +goose Up
CREATE TABLE budgets (
    name TEXT PRIMARY KEY,
    spec TEXT NOT NULL
);
