package ledger

import (
	"encoding/binary"
	"hash/crc32"
	"reflect"
	"testing"
)

// A journal of a Carpool that did not know budgets is the same but for its version.
func TestJournalOfVersion1(t *testing.T) {
	path, data := sample(t)
	data[4] = 1
	binary.LittleEndian.PutUint32(data[preambleSize-4:], crc32.Checksum(data[:preambleSize-4], crc32.MakeTable(crc32.Castagnoli)))
	all, log, err := reopen(t, path, data)
	if err != nil || !reflect.DeepEqual(all, sampleAt(5)) {
		t.Errorf("%v, %v\n%s", all, err, log)
	}
	data[4] = 0
	binary.LittleEndian.PutUint32(data[preambleSize-4:], crc32.Checksum(data[:preambleSize-4], crc32.MakeTable(crc32.Castagnoli)))
	if _, _, err := reopen(t, path, data); err == nil {
		t.Error("there is no version 0")
	}
}
