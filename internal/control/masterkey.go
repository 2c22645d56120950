package control

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"carpool/internal/policy"
)

// MasterKey is the installation's secret: keys and tokens are hashed, and upstream credentials sealed, with keys derived
// from it. Without its file a database is of no use, and the file is of no use without the database.
type MasterKey struct {
	path string
	key  policy.Secret
}

const (
	masterKeyBytes = 32

	// What is derived for what. The texts are part of the format of stored data.
	purposeHash = "carpool key hash v1"
	purposeSeal = "carpool credential seal v1"
	purposeShow = "carpool credential fingerprint v1"
)

// LoadMasterKey reads the master key file: 32 bytes in hexadecimal. When there is none it makes one, readable by its
// owner only. A file that others may read, or with any other content, is an error.
func LoadMasterKey(path string, random io.Reader) (MasterKey, error) {
	info, err := os.Stat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return createMasterKey(path, random)
	case err != nil:
		return MasterKey{}, fmt.Errorf("cannot read the master key: %w", err)
	case !info.Mode().IsRegular():
		return MasterKey{}, fmt.Errorf("cannot read the master key: %s is not a file", path)
	case info.Mode().Perm()&0o077 != 0:
		return MasterKey{}, fmt.Errorf("the master key %s can be read by others: run chmod 600 %s", path, path)
	}
	data, err := os.ReadFile(path) //nolint:gosec // the operator's own path
	if err != nil {
		return MasterKey{}, fmt.Errorf("cannot read the master key: %w", err)
	}
	raw, err := hex.DecodeString(strings.TrimSpace(string(data)))
	if err != nil || len(raw) != masterKeyBytes {
		return MasterKey{}, fmt.Errorf("the master key %s is damaged: it must hold %d hexadecimal digits; restore it from a backup", path, 2*masterKeyBytes)
	}
	return MasterKey{path, policy.NewSecret(string(raw))}, nil
}

// createMasterKey writes a new key beside its place and links it there, so that a crash leaves all of it or nothing and
// of two starting servers one wins.
func createMasterKey(path string, random io.Reader) (MasterKey, error) {
	fail := func(err error) (MasterKey, error) {
		return MasterKey{}, fmt.Errorf("cannot make the master key: %w", err)
	}
	raw := make([]byte, masterKeyBytes)
	if _, err := io.ReadFull(random, raw); err != nil {
		return fail(err)
	}
	folder := filepath.Dir(path)
	if err := os.MkdirAll(folder, 0o700); err != nil {
		return fail(err)
	}
	file, err := os.CreateTemp(folder, ".master-key-*") // made with mode 0600
	if err != nil {
		return fail(err)
	}
	defer os.Remove(file.Name()) //nolint:errcheck // a leftover is harmless
	_, err = file.WriteString(hex.EncodeToString(raw) + "\n")
	if err = errors.Join(err, file.Sync(), file.Close()); err != nil {
		return fail(err)
	}
	err = os.Link(file.Name(), path)
	if errors.Is(err, fs.ErrExist) {
		return LoadMasterKey(path, random)
	}
	if err != nil {
		return fail(err)
	}
	return MasterKey{path, policy.NewSecret(string(raw))}, nil
}

func (m MasterKey) derive(purpose string) ([]byte, error) {
	if m.key.IsZero() {
		return nil, errors.New("there is no master key")
	}
	key, err := hkdf.Key(sha256.New, []byte(m.key.Reveal()), nil, purpose, 32)
	if err != nil {
		return nil, fmt.Errorf("cannot derive a key: %w", err)
	}
	return key, nil
}

// Hasher returns the hasher of developers' keys and administrators' tokens.
func (m MasterKey) Hasher() policy.Hasher {
	key, err := m.derive(purposeHash)
	if err != nil {
		panic(err) // only for the zero MasterKey, which LoadMasterKey never returns without an error
	}
	return policy.NewHasher(key)
}

func (m MasterKey) sealer() (cipher.AEAD, error) {
	key, err := m.derive(purposeSeal)
	if err != nil {
		return nil, err
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, fmt.Errorf("cannot make a cipher: %w", err)
	}
	return cipher.NewGCM(block)
}

// sealed texts read v1.<base64url of nonce and ciphertext>: AES-256-GCM with the name as additional data, so that a
// credential cannot be moved to another upstream.
const sealPrefix = "v1."

func (m MasterKey) seal(name string, secret policy.Secret, random io.Reader) (string, error) {
	aead, err := m.sealer()
	if err != nil {
		return "", err
	}
	nonce := make([]byte, aead.NonceSize())
	if _, err := io.ReadFull(random, nonce); err != nil {
		return "", fmt.Errorf("cannot read random bytes: %w", err)
	}
	return sealPrefix + base64.RawURLEncoding.EncodeToString(aead.Seal(nonce, nonce, []byte(secret.Reveal()), []byte(name))), nil
}

func (m MasterKey) unseal(name, sealed string) (policy.Secret, error) {
	aead, err := m.sealer()
	if err != nil {
		return policy.Secret{}, err
	}
	text, ok := strings.CutPrefix(sealed, sealPrefix)
	raw, err := base64.RawURLEncoding.Strict().DecodeString(text)
	if !ok || err != nil || len(raw) < aead.NonceSize() {
		return policy.Secret{}, errors.New("the sealed text is damaged")
	}
	plain, err := aead.Open(nil, raw[:aead.NonceSize()], raw[aead.NonceSize():], []byte(name))
	if err != nil {
		return policy.Secret{}, fmt.Errorf("it was sealed with another master key: was %s replaced? Restore the one that belongs to this database", m.path)
	}
	return policy.NewSecret(string(plain)), nil
}

// fingerprint is 8 digits by which people tell credentials apart. It is keyed: a short credential cannot be guessed by it
// without the master key.
func (m MasterKey) fingerprint(secret policy.Secret) string {
	key, err := m.derive(purposeShow)
	if err != nil {
		return "?"
	}
	mac := hmac.New(sha256.New, key)
	mac.Write([]byte(secret.Reveal()))
	return hex.EncodeToString(mac.Sum(nil)[:4])
}
