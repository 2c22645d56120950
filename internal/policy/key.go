package policy

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"hash/crc32"
	"io"
	"math/big"
	"strings"
	"sync"
)

// A generated key reads cpk_<id>_<secret><checksum>: a public id that may be shown and logged, 256 random bits, and a
// CRC-32 that lets a scanner or a typing error be recognised without asking the server.
const (
	KeyPrefix   = "cpk_"
	TokenPrefix = "cpa_" // an administrator's token, of the same make

	idLength       = 10
	secretLength   = 43 // 256 bits in base 62
	checksumLength = 6
	minGivenKey    = 20 // shortest key an operator may bring along
)

const base62 = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"

// KeyHash is the keyed hash of a key; the key itself is never stored.
type KeyHash [sha256.Size]byte

// Hasher hashes keys with a secret of the installation, so that a stolen database cannot be searched for weak keys.
type Hasher struct{ macs *sync.Pool } // of hash.Hash, which have the secret worked in

// NewHasher returns a Hasher with the installation's secret.
func NewHasher(pepper []byte) Hasher {
	return Hasher{&sync.Pool{New: func() any { return hmac.New(sha256.New, pepper) }}}
}

// Hash returns the keyed hash of a key or an administrator's token.
func (h Hasher) Hash(key string) (sum KeyHash) {
	mac, _ := h.macs.Get().(hash.Hash)
	mac.Write([]byte(key))
	mac.Sum(sum[:0])
	mac.Reset()
	h.macs.Put(mac)
	return sum
}

// GenerateKey makes a key with prefix KeyPrefix or TokenPrefix and returns it with its public id.
func GenerateKey(prefix string, random io.Reader) (key, id string, err error) {
	id, err = GenerateID(random)
	if err != nil {
		return "", "", err
	}
	secret, err := randomBase62(random, 32, secretLength)
	if err != nil {
		return "", "", err
	}
	body := prefix + id + "_" + secret
	return body + checksum(body), id, nil
}

// GenerateID makes a public id.
func GenerateID(random io.Reader) (string, error) { return randomBase62(random, 7, idLength) }

func randomBase62(random io.Reader, bytes, length int) (string, error) {
	raw := make([]byte, bytes)
	if _, err := io.ReadFull(random, raw); err != nil {
		return "", fmt.Errorf("cannot read random bytes: %w", err)
	}
	return encodeBase62(raw, length), nil
}

func encodeBase62(raw []byte, length int) string {
	n, base, rest := new(big.Int).SetBytes(raw), big.NewInt(62), new(big.Int)
	out := make([]byte, length)
	for i := length - 1; i >= 0; i-- {
		n.DivMod(n, base, rest)
		out[i] = base62[rest.Int64()]
	}
	return string(out)
}

func checksum(body string) string {
	var sum [4]byte
	binary.BigEndian.PutUint32(sum[:], crc32.ChecksumIEEE([]byte(body)))
	return encodeBase62(sum[:], checksumLength)
}

// CheckKey says what is wrong with the form of a key: an error for a cpk_ key that was not generated in this form, nil for
// any other string. It explains why a key is not known; it does not decide, for an operator may bring keys of any form.
func CheckKey(key string) error {
	rest, ok := strings.CutPrefix(key, KeyPrefix)
	if !ok {
		return nil
	}
	body := len(key) - checksumLength
	if len(rest) != idLength+1+secretLength+checksumLength || checksum(key[:body]) != key[body:] {
		return errors.New("the key is damaged: its checksum does not fit (copied incompletely?)")
	}
	// Anybody can compute a checksum: without this an id could hold what must not get into a log.
	if rest[idLength] != '_' || strings.Trim(rest[:idLength]+rest[idLength+1:], base62) != "" {
		return errors.New("the key is damaged: it holds characters that no key has")
	}
	return nil
}

// KeyID returns the public id inside a generated key, or "" for a key of another form.
func KeyID(key string) string {
	rest, ok := strings.CutPrefix(key, KeyPrefix)
	if !ok || CheckKey(key) != nil {
		return ""
	}
	return rest[:idLength]
}
