package ledger

import (
	"context"
	"crypto/ed25519"
	"crypto/sha256"
	"database/sql"
	"database/sql/driver"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

// The entries of a ledger are a chain: each has the SHA-256 of the one before it and of itself, written in the transaction
// that books it. Whoever changes, removes, adds or moves one has to make all hashes after it anew; and every few seconds
// the newest is signed with the node's key, and the signature is written beside the database too.

// link is the hash of an entry, or of what comes before the first.
type link [sha256.Size]byte

// next returns the link of the entry after l. charged is what it was charged to, the two quota windows and the budgets, and body
// the entry itself, all as they are stored.
func (l link) next(scratch *[]byte, seq int64, node string, charged [3]string, body []byte) link {
	b := append((*scratch)[:0], l[:]...)
	b = binary.BigEndian.AppendUint64(b, uint64(seq)) //nolint:gosec // its bits
	for _, text := range [...]string{node, charged[0], charged[1], charged[2]} {
		b = binary.BigEndian.AppendUint64(b, uint64(len(text)))
		b = append(b, text...)
	}
	b = append(b, body...)
	*scratch = b
	return sha256.Sum256(b)
}

func (l *link) scan(b []byte) error {
	if len(b) != len(l) {
		return fmt.Errorf("a hash has %d bytes, not %d", len(b), len(l))
	}
	copy(l[:], b)
	return nil
}

// HeadPath is the file that holds the head as it was signed last, beside the ledger in the file path.
func HeadPath(path string) string { return path + ".head" }

const headTitle = "carpool ledger head 1"

// Head is a chain's newest hash with everything that must be known to follow the chain to it.
type Head struct {
	Node    string
	Passed  int64 // the chain begins after this number ...
	Before  link  // ... with this hash
	Skipped []Range
	Counted *counted // nil: of an older Carpool, which did not sign it
	Seq     int64
	Hash    link
	At      time.Time
	Key     ed25519.PublicKey // of the node
}

// Range is numbers that no entry has since a time.
type Range struct {
	First, Last int64
	At          time.Time
}

// message is what is signed, a text that people can read.
func (h *Head) message() []byte {
	b := fmt.Appendf(nil, "%s\nnode %q\nafter %d %x\n", headTitle, h.Node, h.Passed, h.Before)
	for _, s := range h.Skipped {
		b = fmt.Appendf(b, "skipped %d %d %d\n", s.First, s.Last, s.At.UnixMicro())
	}
	if h.Counted != nil {
		b = fmt.Appendf(b, "counted %d %d %d\n", h.Counted.Waived, h.Counted.Pruned, h.Counted.Spent)
	}
	return fmt.Appendf(b, "head %d %x\nat %s\nkey %x\n", h.Seq, h.Hash, h.At.UTC().Format(time.RFC3339Nano), []byte(h.Key))
}

func (h *Head) sign(key ed25519.PrivateKey) string {
	h.Key, _ = key.Public().(ed25519.PublicKey)
	message := h.message()
	return string(message) + "signature " + hex.EncodeToString(ed25519.Sign(key, message)) + "\n"
}

var errHead = errors.New("it is not a signed head of a ledger, or was changed")

// readHead reads a signed head and checks its signature against the key that it names.
func readHead(text string) (*Head, error) {
	message, tail, ok := strings.Cut(text, "signature ")
	signature, err := hex.DecodeString(strings.TrimSpace(tail))
	if !ok || err != nil || hex.EncodeToString(signature) != strings.TrimSpace(tail) {
		return nil, errHead
	}
	h := &Head{}
	lines := strings.Split(strings.TrimSuffix(message, "\n"), "\n")
	if len(lines) < 6 || lines[0] != headTitle {
		return nil, errHead
	}
	for _, line := range lines[1:] {
		if err := h.read(line); err != nil {
			return nil, errHead
		}
	}
	if string(h.message()) != message || len(h.Key) != ed25519.PublicKeySize || !ed25519.Verify(h.Key, []byte(message), signature) {
		return nil, errHead
	}
	return h, nil
}

func (h *Head) read(line string) (err error) {
	name, value, _ := strings.Cut(line, " ")
	var hash string
	var micros int64
	var s Range
	switch name {
	case "node":
		h.Node, err = strconv.Unquote(value)
	case "after":
		if _, err = fmt.Sscanf(value, "%d %s", &h.Passed, &hash); err == nil {
			err = h.Before.decode(hash)
		}
	case "skipped":
		_, err = fmt.Sscanf(value, "%d %d %d", &s.First, &s.Last, &micros)
		s.At = time.UnixMicro(micros).UTC()
		h.Skipped = append(h.Skipped, s)
	case "counted":
		h.Counted = &counted{}
		_, err = fmt.Sscanf(value, "%d %d %d", &h.Counted.Waived, &h.Counted.Pruned, &h.Counted.Spent)
	case "head":
		if _, err = fmt.Sscanf(value, "%d %s", &h.Seq, &hash); err == nil {
			err = h.Hash.decode(hash)
		}
	case "at":
		h.At, err = time.Parse(time.RFC3339Nano, value)
	case "key":
		h.Key, err = hex.DecodeString(value)
	default:
		err = errHead
	}
	return err
}

func (l *link) decode(text string) error {
	b, err := hex.DecodeString(text)
	if err != nil {
		return err
	}
	return l.scan(b)
}

// KeyID is what people tell keys apart by.
func KeyID(key ed25519.PublicKey) string {
	sum := sha256.Sum256(key)
	return hex.EncodeToString(sum[:8])
}

// LoadKey reads the node's key, 32 bytes in hexadecimal, from the file path. When there is none it makes one, readable by
// its owner only.
func LoadKey(path string, random io.Reader) (ed25519.PrivateKey, error) {
	key, err := ReadKey(path)
	if !errors.Is(err, fs.ErrNotExist) {
		return key, err
	}
	seed := make([]byte, ed25519.SeedSize)
	if _, err := io.ReadFull(random, seed); err != nil {
		return nil, fmt.Errorf("cannot make the node's key: %w", err)
	}
	if err := replaceFile(path, hex.EncodeToString(seed)+"\n"); err != nil {
		return nil, fmt.Errorf("cannot make the node's key: %w", err)
	}
	return ed25519.NewKeyFromSeed(seed), nil
}

// ReadKey reads the node's key from the file path. It refuses one that others may read.
func ReadKey(path string) (ed25519.PrivateKey, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, fmt.Errorf("cannot read the node's key: %w", err)
	}
	if info.Mode().Perm()&0o077 != 0 {
		return nil, fmt.Errorf("the node's key %s can be read by others: run chmod 600 %s", path, path)
	}
	data, err := os.ReadFile(path) //nolint:gosec // the operator's own path
	if err != nil {
		return nil, fmt.Errorf("cannot read the node's key: %w", err)
	}
	seed, err := hex.DecodeString(strings.TrimSpace(string(data)))
	if err != nil || len(seed) != ed25519.SeedSize {
		return nil, fmt.Errorf("the node's key %s is damaged: it must hold %d hexadecimal digits; restore it, or move it away to have a new one made",
			path, 2*ed25519.SeedSize)
	}
	return ed25519.NewKeyFromSeed(seed), nil
}

// replaceFile writes a small file, mode 0600, so that it is whole or as it was before.
func replaceFile(path, text string) (err error) {
	file, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+"-*") // made with mode 0600
	if err != nil {
		return err
	}
	_, err = file.WriteString(text)
	if err = errors.Join(err, file.Sync(), file.Close()); err == nil {
		err = os.Rename(file.Name(), path)
	}
	if err != nil {
		return errors.Join(err, os.Remove(file.Name()))
	}
	return nil
}

// chain is where the chain of a transaction stands.
type chain struct {
	head    link
	scratch []byte
	key     ed25519.PrivateKey // nil: heads are not signed
	node    string
	now     func() time.Time

	signedAt time.Time // when the newest head was signed, which a rollback makes unknown,
	headAt   time.Time // and the same by now, which can be set

	values [rowsAtOnce]driver.Value // the hashes of the rows that are not written yet, made once
}

// value makes a link the newest and returns it as a value for the row with an index.
func (c *chain) value(row int, l link) driver.Value {
	c.head = l
	value, ok := c.values[row].([]byte)
	if !ok {
		value = make([]byte, len(l))
		c.values[row] = value
	}
	copy(value, l[:])
	return c.values[row]
}

// querier is a connection or a transaction.
type querier interface {
	QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error)
	QueryRowContext(ctx context.Context, query string, args ...any) *sql.Row
}

// readHash reads the newest hash.
func (c *chain) readHash(ctx context.Context, q querier) error {
	var hash []byte
	const query = `SELECT coalesce((SELECT hash FROM entries ORDER BY seq DESC LIMIT 1), hash) FROM chain`
	if err := q.QueryRowContext(ctx, query).Scan(&hash); err != nil {
		return fmt.Errorf("cannot read the ledger's newest hash: %w", err)
	}
	return c.head.scan(hash)
}

// sign puts the signed head into the database. Entries collected by insert must have been written.
func (tx *transaction) sign() error {
	c := &tx.chain
	if c.key == nil {
		return nil
	}
	ctx := context.Background()
	h := &Head{Node: c.node, Seq: tx.lastSeq, Hash: c.head, At: c.now()}
	var err error
	if h.Passed, h.Before, h.Skipped, err = readChain(ctx, tx.conn); err != nil {
		return err
	}
	sum, err := tx.signedCounted(ctx)
	if err != nil {
		return err
	}
	h.Counted = &sum
	if err := tx.noteCounted(ctx); err != nil {
		return err
	}
	if _, err = tx.conn.ExecContext(ctx, `UPDATE chain SET signed = ?`, h.sign(c.key)); err != nil {
		return err
	}
	c.signedAt, c.headAt = time.Now(), h.At
	return nil
}

// readChain reads what the chain begins with, and the numbers that it leaves out.
func readChain(ctx context.Context, q querier) (passed int64, before link, skipped []Range, err error) {
	var hash []byte
	if err := q.QueryRowContext(ctx, `SELECT passed, hash FROM chain`).Scan(&passed, &hash); err != nil {
		return 0, link{}, nil, fmt.Errorf("cannot read where the chain begins: %w", err)
	}
	if err := before.scan(hash); err != nil {
		return 0, link{}, nil, err
	}
	rows, err := q.QueryContext(ctx, `SELECT first, last, at FROM skipped ORDER BY first`)
	if err != nil {
		return 0, link{}, nil, fmt.Errorf("cannot read which numbers were left out: %w", err)
	}
	defer rows.Close()
	for rows.Next() {
		var s Range
		var micros int64
		if err := rows.Scan(&s.First, &s.Last, &micros); err != nil {
			return 0, link{}, nil, fmt.Errorf("cannot read which numbers were left out: %w", err)
		}
		s.At = time.UnixMicro(micros).UTC()
		skipped = append(skipped, s)
	}
	return passed, before, skipped, rows.Err()
}

// relink makes the hashes of all entries after a number anew, when they have got other numbers.
func (tx *transaction) relink(after int64) error {
	ctx := context.Background()
	passed, before, _, err := readChain(ctx, tx.conn)
	if err != nil {
		return err
	}
	if passed > after {
		// Entries from before the upgrade are among them: the chain begins with them now.
		before, passed = link{}, after
		if _, err := tx.conn.ExecContext(ctx, `UPDATE chain SET passed = ?, hash = zeroblob(32)`, passed); err != nil {
			return err
		}
	}
	tx.chain.head = before
	var hash []byte
	switch err := tx.conn.QueryRowContext(ctx, `SELECT hash FROM entries WHERE seq > ? AND seq <= ? ORDER BY seq DESC LIMIT 1`, passed, after).Scan(&hash); {
	case err == nil:
		if err := tx.chain.head.scan(hash); err != nil {
			return err
		}
	case !errors.Is(err, sql.ErrNoRows):
		return err
	}
	for at := after; ; {
		var node, body string
		var charged [3]string
		err := tx.conn.QueryRowContext(ctx, `SELECT seq, node, day, month, charges, body FROM entries WHERE seq > ? ORDER BY seq LIMIT 1`, at).
			Scan(&at, &node, &charged[0], &charged[1], &charged[2], &body)
		if errors.Is(err, sql.ErrNoRows) {
			return nil
		}
		if err != nil {
			return err
		}
		tx.chain.head = tx.chain.head.next(&tx.chain.scratch, at, node, charged, []byte(body))
		if _, err := tx.conn.ExecContext(ctx, `UPDATE entries SET hash = ? WHERE seq = ?`, tx.chain.head[:], at); err != nil {
			return err
		}
	}
}

const signEvery = 5 * time.Second // between two signed heads while entries come

// due reports whether a head must be signed in the transaction that books settlements: with the first after a while, so
// that no entry is ever in the database that began long after the newest head was signed. Whoever puts an old head in the
// newest one's place is found by that, and neither an idle server nor a crash looks the same.
func (c *chain) due(batch []*settlement) bool {
	if c.key == nil {
		return false
	}
	latest := c.headAt.Add(signEvery)
	return time.Since(c.signedAt) >= signEvery || slices.ContainsFunc(batch, func(s *settlement) bool { return s.entry.StartedAt.After(latest) })
}

// sign has the newest hash signed and written beside the database, once what it stands for outlasts a loss of power. The
// mover's goroutine calls it, or whoever stands in for it.
func (m *mover) sign() {
	if m.tx.chain.key == nil {
		return
	}
	if err := m.transact((*transaction).sign); err != nil {
		m.ledger.log.Warn("cannot sign the ledger's head; the next entries try again", "error", err)
		return
	}
	m.exportSigned()
}

// exportSigned writes the head that was signed last beside the database.
func (m *mover) exportSigned() {
	if m.tx.chain.key == nil {
		return
	}
	m.exportedAt = time.Now()
	if err := m.export(); err != nil {
		m.ledger.log.Warn("cannot write the ledger's signed head beside it; the next entries try again", "error", err)
		return
	}
	m.exported = m.tx.chain.signedAt
}

func (m *mover) export() error {
	var signed string
	if err := m.tx.conn.QueryRowContext(context.Background(), `SELECT signed FROM chain`).Scan(&signed); err != nil {
		return fmt.Errorf("cannot read the signed head: %w", err)
	}
	if err := m.tx.checkpoint(); err != nil {
		return err
	}
	if err := replaceFile(HeadPath(m.ledger.file.path), signed); err != nil {
		return fmt.Errorf("cannot write the signed head: %w", err)
	}
	return nil
}

// exportSometimes writes a new head beside the database when the last one was not written just now.
func (m *mover) exportSometimes() {
	if m.exported != m.tx.chain.signedAt && time.Since(m.exportedAt) >= signEvery {
		m.exportSigned()
	}
}

// checkHead compares the ledger with the head that was written beside it. One that the ledger does not have is set aside:
// the ledger's file was replaced or changed, and whoever verifies the books has to know.
func (l *Ledger) checkHead(ctx context.Context) {
	path := HeadPath(l.file.path)
	text, err := os.ReadFile(path)
	if err != nil || l.mover.tx.chain.key == nil {
		return
	}
	h, err := readHead(string(text))
	if err == nil {
		var known bool
		if known, err = h.isIn(ctx, l.mover.tx.conn); known {
			return
		}
	}
	l.log.ErrorContext(ctx, "the ledger does not hold what its last signed head says: it was replaced by another copy, or changed; "+
		"compare it with a backup, see carpool db verify", "head", path+asideSuffix, "error", err)
	if err := os.Rename(path, path+asideSuffix); err != nil {
		l.log.ErrorContext(ctx, "cannot keep the signed head", "error", err)
	}
}

// asideSuffix is added to the name of a signed head that the ledger did not have when it was opened.
const asideSuffix = ".aside"

// isIn reports whether the ledger has the entry that the head names, or had it before it was pruned or got another number.
func (h *Head) isIn(ctx context.Context, q querier) (bool, error) {
	passed, before, skipped, err := readChain(ctx, q)
	if err != nil {
		return false, err
	}
	var outside bool // an entry that was in the chain leaves it only by being pruned
	if err := q.QueryRowContext(ctx, `SELECT EXISTS (SELECT 1 FROM entries WHERE seq > ? AND seq <= ?)`, h.Passed, min(h.Seq, passed)).Scan(&outside); err != nil || outside {
		return false, err
	}
	if h.Seq == passed {
		return h.Hash == before, nil
	}
	if h.Seq < passed {
		return true, nil
	}
	first := h.Seq // when no entry has the number, because SkipTo left it out, the head is the one before it
	for _, s := range skipped {
		if h.Seq >= s.First && !s.At.Before(h.At) {
			return true, nil
		}
		if s.First <= h.Seq && h.Seq <= s.Last {
			first = passed + 1
		}
	}
	var hash []byte
	err = q.QueryRowContext(ctx, `SELECT hash FROM entries WHERE seq <= ? AND seq >= ? ORDER BY seq DESC LIMIT 1`, h.Seq, first).Scan(&hash)
	if errors.Is(err, sql.ErrNoRows) {
		return first <= passed+1 && h.Hash == before, nil
	}
	return err == nil && string(hash) == string(h.Hash[:]), err
}
