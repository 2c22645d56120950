package policy_test

import (
	"bytes"
	"crypto/rand"
	"errors"
	"hash/crc32"
	"io"
	"math/big"
	"strings"
	"testing"
	"testing/iotest"

	"carpool/internal/policy"
)

const alphabet = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"

func generate(t testing.TB, prefix string, random io.Reader) (key, id string) {
	t.Helper()
	key, id, err := policy.GenerateKey(prefix, random)
	if err != nil {
		t.Fatal(err)
	}
	return key, id
}

func TestGeneratedKeyHasItsForm(t *testing.T) {
	t.Parallel()
	for _, prefix := range []string{policy.KeyPrefix, policy.TokenPrefix} {
		for range 200 {
			key, id := generate(t, prefix, rand.Reader)
			if len(key) != len(prefix)+10+1+43+6 {
				t.Fatalf("%q has %d characters", key, len(key))
			}
			rest, ok := strings.CutPrefix(key, prefix+id+"_")
			if !ok || strings.Trim(rest+id, alphabet) != "" || len(id) != 10 {
				t.Fatalf("%q with id %q is not <prefix><id>_<secret><checksum>", key, id)
			}
			if err := policy.CheckKey(key); err != nil {
				t.Fatal(err)
			}
			if got := policy.KeyID(key); prefix == policy.KeyPrefix && got != id || prefix == policy.TokenPrefix && got != "" {
				t.Fatalf("KeyID(%q) = %q, generated with %q", key, got, id)
			}
		}
	}
}

// The secret must hold all 256 bits: the largest value needs all of its 43 characters and loses none.
func TestGeneratedKeyHolds256Bits(t *testing.T) {
	t.Parallel()
	for _, fill := range []byte{0x00, 0x01, 0x80, 0xff} {
		raw := bytes.Repeat([]byte{fill}, 7+32)
		key, _ := generate(t, policy.KeyPrefix, bytes.NewReader(raw))
		secret := key[len(policy.KeyPrefix)+10+1:][:43]
		got := new(big.Int)
		for _, c := range []byte(secret) {
			got.Mul(got, big.NewInt(62)).Add(got, big.NewInt(int64(strings.IndexByte(alphabet, c))))
		}
		if want := new(big.Int).SetBytes(raw[7:]); got.Cmp(want) != 0 {
			t.Errorf("secret of %#x: holds %x, want %x", fill, got, want)
		}
	}
}

func TestGenerateKeyWithoutRandomness(t *testing.T) {
	t.Parallel()
	broken := errors.New("no entropy")
	for n := range 7 + 32 {
		random := io.MultiReader(bytes.NewReader(make([]byte, n)), iotest.ErrReader(broken))
		if key, id, err := policy.GenerateKey(policy.KeyPrefix, random); !errors.Is(err, broken) || key != "" || id != "" {
			t.Fatalf("with %d random bytes: %q, %q, %v", n, key, id, err)
		}
	}
}

func TestCheckKeyFindsTypingErrors(t *testing.T) {
	t.Parallel()
	key, _ := generate(t, policy.KeyPrefix, rand.Reader)
	for i := len(policy.KeyPrefix); i < len(key); i++ {
		for _, c := range []byte("0Aa_-") {
			wrong := key[:i] + string(c) + key[i+1:]
			if err := policy.CheckKey(wrong); (err == nil) != (wrong == key) {
				t.Fatalf("%q instead of %q: %v", wrong, key, err)
			}
		}
		if policy.CheckKey(key[:i]) == nil {
			t.Fatalf("the first %d characters pass", i)
		}
		if i+1 < len(key) && key[i] != key[i+1] {
			swapped := key[:i] + key[i+1:i+2] + key[i:i+1] + key[i+2:]
			if policy.CheckKey(swapped) == nil {
				t.Fatalf("two characters exchanged at %d pass", i)
			}
		}
	}
	for _, wrong := range []string{key + "0", key + " ", policy.KeyPrefix} {
		if policy.CheckKey(wrong) == nil || policy.KeyID(wrong) != "" {
			t.Errorf("%q passes", wrong)
		}
	}
	for _, foreign := range []string{"", "sk-ant-api03-abc", "CPK_abc", "cpa_abc", strings.Repeat("x", 1000)} {
		if err := policy.CheckKey(foreign); err != nil || policy.KeyID(foreign) != "" {
			t.Errorf("%q: %v, id %q", foreign, err, policy.KeyID(foreign))
		}
	}
}

// Whoever knows the form can compute a checksum over anything; an id goes to logs and must still be one.
func TestKeyIDIsNeverForeignText(t *testing.T) {
	t.Parallel()
	forge := func(body string) string {
		sum, tail := crc32.ChecksumIEEE([]byte(body)), make([]byte, 6)
		for i := len(tail) - 1; i >= 0; i-- {
			tail[i], sum = alphabet[sum%62], sum/62
		}
		return body + string(tail)
	}
	secret := strings.Repeat("0", 43)
	if good := forge("cpk_0123456789_" + secret); policy.CheckKey(good) != nil {
		t.Fatalf("the forgery itself is wrong: %q", good)
	}
	for _, body := range []string{
		"cpk_01234\n6789_" + secret, "cpk_0123 56789_" + secret, "cpk_0123456789-" + secret,
		"cpk_012345678\x00_" + secret, "cpk_0123456789_" + secret[1:] + "é"[:1],
	} {
		if key := forge(body); policy.CheckKey(key) == nil || policy.KeyID(key) != "" {
			t.Errorf("%q passes with id %q", key, policy.KeyID(key))
		}
	}
}

func FuzzCheckKey(f *testing.F) {
	key, _ := generate(f, policy.KeyPrefix, rand.Reader)
	f.Add(key)
	f.Add("cpk_")
	f.Add("cpk_0123456789_")
	f.Fuzz(func(t *testing.T, s string) {
		id := policy.KeyID(s)
		if strings.Trim(id, alphabet) != "" || (id != "" && policy.CheckKey(s) != nil) {
			t.Errorf("KeyID(%q) = %q", s, id)
		}
	})
}

func TestHashIsKeyed(t *testing.T) {
	t.Parallel()
	key, _ := generate(t, policy.KeyPrefix, rand.Reader)
	one, same, other := policy.NewHasher([]byte("pepper")), policy.NewHasher([]byte("pepper")), policy.NewHasher([]byte("salt"))
	if one.Hash(key) != same.Hash(key) {
		t.Error("the same secret and key give different hashes")
	}
	if one.Hash(key) == other.Hash(key) {
		t.Error("the hash does not depend on the installation's secret")
	}
	if one.Hash(key) == one.Hash(key+" ") || one.Hash("") == (policy.KeyHash{}) {
		t.Error("different keys give the same hash")
	}
}

func BenchmarkHash(b *testing.B) {
	key, _ := generate(b, policy.KeyPrefix, rand.Reader)
	hasher := policy.NewHasher([]byte("0123456789abcdef0123456789abcdef"))
	b.ReportAllocs()
	for b.Loop() {
		hasher.Hash(key)
	}
}
