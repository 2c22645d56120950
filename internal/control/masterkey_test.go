package control

import (
	"bytes"
	"crypto/rand"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"carpool/internal/policy"
)

func TestMasterKeyFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "new", "master.key")
	made, err := LoadMasterKey(path, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	for name, mode := range map[string]os.FileMode{path: 0o600, filepath.Dir(path): 0o700} {
		if info, err := os.Stat(name); err != nil || info.Mode().Perm() != mode {
			t.Errorf("%s: %v %v", name, info.Mode(), err)
		}
	}
	read, err := LoadMasterKey(path, bytes.NewReader(nil))
	if err != nil || read.Hasher().Hash("x") != made.Hasher().Hash("x") {
		t.Errorf("another key was read: %v", err)
	}
	left, err := os.ReadDir(filepath.Dir(path))
	if err != nil || len(left) != 1 {
		t.Errorf("%v %v", left, err)
	}

	if err := os.Chmod(path, 0o640); err != nil {
		t.Fatal(err)
	}
	if _, err := LoadMasterKey(path, rand.Reader); err == nil || !strings.Contains(err.Error(), "chmod 600 "+path) {
		t.Errorf("%v", err)
	}
	for _, content := range []string{"", "00", strings.Repeat("zz", 32), strings.Repeat("00", 33)} {
		if err := errors.Join(os.Chmod(path, 0o600), os.WriteFile(path, []byte(content), 0o600)); err != nil {
			t.Fatal(err)
		}
		if _, err := LoadMasterKey(path, rand.Reader); err == nil || !strings.Contains(err.Error(), "damaged") {
			t.Errorf("%q: %v", content, err)
		}
	}
	if _, err := LoadMasterKey(filepath.Dir(path), rand.Reader); err == nil {
		t.Error("a folder is no key")
	}
	if _, err := LoadMasterKey(filepath.Join(t.TempDir(), "k"), bytes.NewReader(make([]byte, 5))); err == nil {
		t.Error("too little randomness")
	}
}

func TestSeal(t *testing.T) {
	load := func() MasterKey {
		key, err := LoadMasterKey(filepath.Join(t.TempDir(), "key"), rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		return key
	}
	key, other := load(), load()
	secret := policy.NewSecret("sk-test-credential")
	sealed, err := key.seal("main", secret, rand.Reader)
	if err != nil || strings.Contains(sealed, "credential") {
		t.Fatal(sealed, err)
	}
	again, err := key.seal("main", secret, rand.Reader)
	if err != nil || again == sealed {
		t.Error("the same text is sealed the same way twice")
	}
	if got, err := key.unseal("main", sealed); err != nil || got.Reveal() != secret.Reveal() {
		t.Error(err)
	}
	if _, err := other.unseal("main", sealed); err == nil || !strings.Contains(err.Error(), "replaced?") {
		t.Errorf("another key: %v", err)
	}
	if _, err := key.unseal("other", sealed); err == nil {
		t.Error("another name")
	}
	for _, damaged := range []string{"", "v1.", "v1.x", "v2" + sealed[2:], sealed[:len(sealed)-2], sealed + "AA"} {
		if _, err := key.unseal("main", damaged); err == nil {
			t.Errorf("%q", damaged)
		}
	}
}

func FuzzUnseal(f *testing.F) {
	key := MasterKey{"key", policy.NewSecret(strings.Repeat("k", 32))}
	sealed, err := key.seal("main", policy.NewSecret("secret"), strings.NewReader("not random at all")) // the same in each worker
	if err != nil {
		f.Fatal(err)
	}
	f.Add("main", sealed)
	f.Add("", "v1.AAAA")
	f.Fuzz(func(t *testing.T, name, text string) {
		if got, err := key.unseal(name, text); err == nil && (got.Reveal() != "secret" || name != "main") {
			t.Fatalf("%q %q unseals to %q", name, text, got.Reveal())
		}
	})
}

func FuzzParseTime(f *testing.F) {
	for _, text := range []string{"", "24h", "7d", "2w", "2026-11-23", "2026-11-23T08:00:00+01:00", "2026-11-23T08:00:00 01:00", "-1h", "99999d", "9999999999h", "0001-01-01", "d"} {
		f.Add(text)
	}
	now := time.Date(2026, 11, 23, 8, 0, 0, 0, time.UTC)
	zone := time.FixedZone("", 3600)
	f.Fuzz(func(t *testing.T, text string) {
		at, err := parseTime(text, now, zone)
		if err != nil {
			if !strings.Contains(err.Error(), "is not a time") {
				t.Fatal(err)
			}
			return
		}
		if _, err := json.Marshal(at); err != nil {
			t.Fatalf("%q: %v cannot be said: %v", text, at, err)
		}
	})
}

func TestParseTime(t *testing.T) {
	now := time.Date(2026, 11, 23, 8, 0, 0, 0, time.UTC)
	zone, err := time.LoadLocation("Europe/Berlin")
	if err != nil {
		t.Fatal(err)
	}
	for text, want := range map[string]string{
		"24h": "2026-11-22T08:00:00Z", "90m": "2026-11-23T06:30:00Z", "7d": "2026-11-16T08:00:00Z", "2w": "2026-11-09T08:00:00Z",
		"2026-11-23": "2026-11-22T23:00:00Z", "2026-07-01": "2026-06-30T22:00:00Z",
		"2026-11-23T08:00:00+01:00": "2026-11-23T07:00:00Z", "2026-11-23T08:00:00 01:00": "2026-11-23T07:00:00Z",
	} {
		if got, err := parseTime(text, now, zone); err != nil || got.Format(time.RFC3339) != want {
			t.Errorf("%q: %v %v, want %s", text, got, err, want)
		}
	}
	for _, text := range []string{"yesterday", "-1h", "d", "1.5d", "2026-13-01", "2026-11-23T08:00", "99999d", "1y"} {
		if got, err := parseTime(text, now, zone); err == nil {
			t.Errorf("%q is %v", text, got)
		}
	}
}

func TestChangeKnowsThreeStates(t *testing.T) {
	for body, want := range map[string]string{`{}`: "stays", `{"daily":null}`: "default", `{"daily":0}`: "0", `{"daily":-1}`: "-1"} {
		var patch QuotaPatch
		if err := json.Unmarshal([]byte(body), &patch); err != nil {
			t.Fatal(err)
		}
		got := "stays"
		if value, changes := patch.Daily.Get(); changes {
			got = show(value)
		}
		back, err := json.Marshal(patch)
		if got != want || err != nil || string(back) != body {
			t.Errorf("%s: %s, back %s %v", body, got, back, err)
		}
	}
}
