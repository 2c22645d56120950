package ledger

import (
	"bytes"
	"context"
	"encoding/json"
	"iter"
	"slices"
	"strings"
)

// Copy is what control has of a node, at one moment before the ledger is read.
type Copy interface {
	// Entries are the node's, by ascending number.
	Entries(ctx context.Context, node string) iter.Seq2[Entry, error]
	// Contiguous is the number up to which control has everything that the node ever had.
	Contiguous(ctx context.Context, node string) (int64, error)
	// Has reports whether control has an exchange under whatever number.
	Has(ctx context.Context, e *Entry) (bool, error)
}

// copied walks over control's copy beside the ledger's entries.
type copied struct {
	next       func() (Entry, error, bool)
	entry      *Entry
	contiguous int64
}

func (v *verification) pullCopy() (*copied, func(), error) {
	if v.Copy == nil {
		return nil, func() {}, nil
	}
	contiguous, err := v.Copy.Contiguous(v.ctx, v.Node)
	if err != nil {
		return nil, nil, err
	}
	next, stop := iter.Pull2(v.Copy.Entries(v.ctx, v.Node))
	c := &copied{next: next, contiguous: contiguous}
	if err := c.advance(); err != nil {
		stop()
		return nil, nil, err
	}
	return c, stop, nil
}

func (c *copied) advance() error {
	e, err, more := c.next()
	if err != nil {
		return err
	}
	c.entry = nil
	if more {
		c.entry = &e
	}
	return nil
}

// compare compares an entry with control's, and tells of those before it that only control has.
func (v *verification) compare(c *copied, e *Entry) error {
	if c == nil || e.Node != v.Node {
		return nil
	}
	for c.entry != nil && c.entry.Seq < e.Seq {
		v.onlyCopied(c.entry)
		if err := c.advance(); err != nil {
			return err
		}
	}
	if c.entry != nil && c.entry.Seq == e.Seq {
		v.Compared++
		if fields, err := differing(e, c.entry); err != nil || len(fields) > 0 {
			v.find("copy", "compare both with a backup; reports go by control's, quotas by the ledger's", "entry %d (%s) differs from control's copy in %s",
				e.Seq, e.ID, strings.Join(fields, ", "))
		}
		return c.advance()
	}
	if e.Seq > c.contiguous {
		return nil
	}
	// A node that was restored from a backup delivers exchanges again, and control keeps what it had.
	has, err := v.Copy.Has(v.ctx, e)
	if err == nil && !has {
		v.find("copy", "restore a backup of control's database that has it", "entry %d (%s) is not in control's copy, which has everything up to %d", e.Seq, e.ID, c.contiguous)
	}
	return err
}

func (v *verification) remaining(c *copied) error {
	for c != nil && c.entry != nil {
		v.onlyCopied(c.entry)
		if err := c.advance(); err != nil {
			return err
		}
	}
	return nil
}

func (v *verification) onlyCopied(e *Entry) {
	if e.Seq <= v.passed {
		return // pruned, or from before the chain
	}
	for _, s := range v.skipped {
		if s.First <= e.Seq && e.Seq <= s.Last {
			return
		}
	}
	v.find("copy", "start the server, which goes on behind it, when the ledger was restored from a backup; otherwise restore one",
		"control's copy has entry %d (%s) and the ledger has not", e.Seq, e.ID)
}

// differing returns the names of the fields in which two entries differ.
func differing(a, b *Entry) (fields []string, err error) {
	var values [2]map[string]json.RawMessage
	var bodies [2][]byte
	for i, e := range []*Entry{a, b} {
		if bodies[i], err = appendEntry(nil, e); err != nil {
			return nil, err
		}
	}
	if bytes.Equal(bodies[0], bodies[1]) {
		return nil, nil
	}
	for i, body := range bodies {
		if err := json.Unmarshal(body, &values[i]); err != nil {
			return nil, err
		}
	}
	for name, value := range values[0] {
		if !bytes.Equal(value, values[1][name]) {
			fields = append(fields, name)
		}
	}
	for name := range values[1] {
		if _, ok := values[0][name]; !ok {
			fields = append(fields, name)
		}
	}
	slices.Sort(fields)
	return fields, nil
}
