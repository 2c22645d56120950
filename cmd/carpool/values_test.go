package main

import (
	"testing"
	"time"

	"carpool/internal/policy"
)

func TestParseTokens(t *testing.T) {
	for text, want := range map[string]int64{
		"0": 0, "500000": 500_000, "40k": 40_000, "40K": 40_000, "2M": 2_000_000, "1.5M": 1_500_000, "0.001k": 1,
		"2G": 2_000_000_000, "1b": 1_000_000_000, "2,000,000": 2_000_000, "2_000": 2000, "unlimited": policy.Unlimited,
		"-1": policy.Unlimited, "Unlimited": policy.Unlimited, "1000000G": 1e15,
	} {
		if got, err := parseTokens(text); err != nil || got == nil || *got != want {
			t.Errorf("parseTokens(%q) = %v, %v; want %d", text, got, err, want)
		}
	}
	if got, err := parseTokens("default"); err != nil || got != nil {
		t.Errorf("parseTokens(default) = %v, %v", got, err)
	}
	for _, text := range []string{"", "k", "-2", "2MM", "1.5", "1.2345k", "1.k", ".5M", "2 M", "0x10", "1e6", "１", "99999999999999999999", "1000001G", "many"} {
		if got, err := parseTokens(text); err == nil {
			t.Errorf("parseTokens(%q) = %v; want an error", text, got)
		}
	}
}

func FuzzParseTokens(f *testing.F) {
	for _, text := range []string{"2M", "1.5k", "unlimited", "default", "-1", "1,000", "9e9"} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		if got, err := parseTokens(text); err == nil && got != nil && (*got < policy.Unlimited || *got > maxTokens) {
			t.Errorf("parseTokens(%q) = %d", text, *got)
		}
	})
}

func TestParsePast(t *testing.T) {
	zone := time.FixedZone("CET", 3600)
	now := time.Date(2026, 11, 23, 7, 30, 0, 0, zone)
	for text, want := range map[string]time.Time{
		"": {}, "now": now, "today": time.Date(2026, 11, 23, 0, 0, 0, 0, zone), "Yesterday": time.Date(2026, 11, 22, 0, 0, 0, 0, zone),
		"90m": now.Add(-90 * time.Minute), "24h": now.Add(-24 * time.Hour), "7d": now.Add(-7 * 24 * time.Hour), "2w": now.Add(-14 * 24 * time.Hour),
		"2026-11-01": time.Date(2026, 11, 1, 0, 0, 0, 0, zone), "2026-11-01 12:30": time.Date(2026, 11, 1, 12, 30, 0, 0, zone),
		"2026-11-01T12:30:00Z": time.Date(2026, 11, 1, 12, 30, 0, 0, time.UTC),
	} {
		if got, err := parsePast(text, now); err != nil || !got.Equal(want) {
			t.Errorf("parsePast(%q) = %v, %v; want %v", text, got, err, want)
		}
	}
	for _, text := range []string{"whenever", "-5m", "7", "d", "-7d", "1.5d", "2026-13-01", "99999d"} {
		if got, err := parsePast(text, now); err == nil {
			t.Errorf("parsePast(%q) = %v; want an error", text, got)
		}
	}
}

func TestParseExpiry(t *testing.T) {
	now := time.Date(2026, 11, 23, 7, 30, 0, 500, time.UTC)
	if got, err := parseExpiry("never", now); got != nil || err != nil {
		t.Errorf("never is %v, %v", got, err)
	}
	for text, want := range map[string]time.Time{
		"90d": time.Date(2027, 2, 21, 7, 30, 0, 0, time.UTC), "2027-01-31": time.Date(2027, 1, 31, 0, 0, 0, 0, time.UTC),
	} {
		if got, err := parseExpiry(text, now); err != nil || !got.Equal(want) {
			t.Errorf("parseExpiry(%q) = %v, %v; want %v", text, got, err, want)
		}
	}
	for _, text := range []string{"", "soon", "0s", "2026-11-23", "-1d"} {
		if got, err := parseExpiry(text, now); err == nil {
			t.Errorf("parseExpiry(%q) = %v; want an error", text, got)
		}
	}
}
