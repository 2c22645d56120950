// Package ledger is a node's memory of what was spent: an SQLite file with one entry per exchange and the quota counters.
//
// An exchange is a Reserve followed by exactly one Settle. Reserve decides in memory, under one lock, whether the request
// fits into the user's daily and monthly quota, and returns once the opening is written, so that a killed process leaves a
// trace: Open turns openings without a settlement into entries with the outcome crashed. Settle returns once the entry is
// written, with the node's next sequence number.
//
// # Two places
//
// A transaction of SQLite costs tens of microseconds of processor time whatever it holds, and a request would need two. So
// what requests wait for is a journal, files beside the database (PATH.journal.00000001 and so on): one goroutine, the
// writer, takes all openings and settlements that have queued up and appends them with one write. Another one, the mover,
// books the settlements in the database, hundreds in one transaction, a fraction of a second later. Everything that reads
// waits for the mover first, so that it sees whatever was settled before; and what leaves the node, the outbox, leaves it
// from the database only. ResetQuota takes its turn among the settlements. When the mover falls far behind, writers wait.
//
// The journal is a chain of segments, each written once from beginning to end, with a checksum over each record. A new
// segment begins with the openings that are still open, so that the one before can be deleted as soon as its settlements
// are in the database. A settlement's sequence number is given to it in the journal. It is also the mark of what has been
// moved: the database holds all numbers up to its last and none above, because entries are moved in order and each
// transaction is whole. So Open can read a journal again, at whatever moment a process died, and neither books an entry
// twice nor loses or renumbers one. Close, and a Backup for its copy, put what is open into the database too: then the file
// alone is the ledger. Close leaves no journal.
//
// # What can go wrong
//
// What was written survives the death of the process. The journal is forced to stable storage within
// Options.SyncInterval after something was written, by a timer that nobody waits for: after a loss of power the exchanges
// of the last interval may be missing, but never some from before those, and the file is whole. With an interval of 0 each
// write is followed by a sync before those who wait for it are told. SQLite with synchronous=NORMAL forces the database to
// the disk at checkpoints, of which there is one before a segment is deleted, and a segment is on stable storage before
// the next one is begun, which is when a request may wait for the disk, once in 8 MiB.
//
// When a sync fails, the system may have dropped what it could not write and say so only once. Nothing new is opened until
// the segment was left: its settlements booked, its openings carried into a new one that is on stable storage.
//
// A record that is cut off at the journal's end is what a killed process was writing; nobody was told that it is safe, and
// it is dropped. Any other damage ends the journal there: what is before is booked, and the whole segment is kept aside as
// PATH.journal.NUMBER.damaged, with those after it if entries between are missing, and the log says so. Open refuses a
// journal of a newer Carpool, of another ledger, and one that goes on later than the file ends, as beside a file that was
// replaced by an older copy. A copy that the journal does continue is brought up to date by it; a journal that is behind
// the file changes nothing.
//
// When the journal or the database cannot be written, nothing new is opened; settlements wait, in memory or in the
// journal, and are tried again every second and with each request. Ready tells.
//
// A file restored from a backup may end before what control has got from the one before it, and would give numbers out
// twice. Resume, with control's mark, goes on after them. This is the only place where numbers are left out, and where an
// entry changes its number: the journal's records of it are below the last number then, and are not booked again. A process
// that was killed after control had got entries, and before it noted that, changes none: the file knows that it has them.
//
// # What shows changes
//
// Entries are a chain of hashes whose newest is signed now and then, see chain.go and docs/adr/0007. Verify follows it, and
// recalculates whatever can be, without being in the way of the process that has the file.
//
// A file belongs to one process at a time. The outbox is the tail of the entries that control has not acknowledged:
// Outbox, Acknowledge, Committed.
package ledger
