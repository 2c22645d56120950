package node

import (
	"context"
	"fmt"
	"log/slog"

	"carpool/internal/fleet"
)

// resume asks control for its mark before the first exchange. Either side may have been restored from a backup, and no
// number may be given to a second exchange.
func (n *Node) resume(ctx context.Context) error {
	n.ship.Lock()
	defer n.ship.Unlock()
	mark, err := n.link.Ship(ctx, fleet.UsageBatch{Node: n.name})
	if err != nil {
		return fmt.Errorf("cannot ask control which entries it has: %w", err)
	}
	acknowledged := n.ledger.Acknowledged()
	if mark < acknowledged {
		n.log.Warn("control lacks entries that it had; was its database restored? They are delivered again",
			slog.Int64("completeTo", mark), slog.Int64("acknowledged", acknowledged))
	}
	n.noteStrangers(mark)
	if err := n.ledger.Resume(ctx, mark); err != nil {
		return err
	}
	n.mark = mark
	return nil
}

func (n *Node) noteStrangers(mark int64) {
	if last := n.ledger.LastSeq(); mark > last {
		n.log.Warn("control has entries that this ledger does not know; was its file lost or restored? It goes on after them",
			slog.Int64("ledgerEndsAt", last), slog.Int64("completeTo", mark))
	}
}

// shipAll sends everything that control does not have. One batch is under way at a time.
func (n *Node) shipAll(ctx context.Context) error {
	n.ship.Lock()
	defer n.ship.Unlock()
	for {
		batch, err := n.batch(ctx)
		if err != nil || batch.To == 0 && len(batch.Entries) == 0 {
			return err
		}
		mark, err := n.link.Ship(ctx, batch)
		if err != nil {
			return fmt.Errorf("cannot ship entries after %d: %w", n.mark, err)
		}
		before, delivered := n.mark, batch.To
		if last := len(batch.Entries) - 1; last >= 0 {
			delivered = max(delivered, batch.Entries[last].Seq)
		}
		n.mark = mark
		switch {
		case mark <= before:
			return fmt.Errorf("control has everything up to entry %d, and acknowledged nothing after entry %d", mark, before)
		case mark > delivered: // control was replaced meanwhile, and may know others by the numbers of these
			n.noteStrangers(mark)
			err = n.ledger.SkipTo(ctx, mark)
		default:
			err = n.ledger.Acknowledge(ctx, mark)
		}
		if err != nil {
			return err
		}
	}
}

// batch returns what comes after control's mark. What was acknowledged may be pruned, or never have had a number here;
// then the batch says that control need not wait for it.
func (n *Node) batch(ctx context.Context) (fleet.UsageBatch, error) {
	batch := fleet.UsageBatch{Node: n.name}
	acknowledged := n.ledger.Acknowledged() // before the outbox is read: what comes after it is never pruned
	entries, err := n.ledger.Outbox(ctx, n.mark, batchSize)
	if err != nil {
		return batch, err
	}
	batch.Entries = entries
	end := acknowledged
	if len(entries) == batchSize {
		end = min(end, entries[len(entries)-1].Seq)
	}
	gone := end - n.mark
	for i := range entries {
		if entries[i].Seq <= end {
			gone--
		}
	}
	if gone > 0 {
		batch.From, batch.To = n.mark+1, end
		n.log.Warn("control lacks entries that this ledger does not have any more",
			slog.Int64("gone", gone), slog.Int64("from", batch.From), slog.Int64("to", batch.To))
	}
	return batch, nil
}
