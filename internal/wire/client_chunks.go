package wire

import "errors"

const (
	mostChunkLine = 4 << 10  // a chunk's size and its extensions
	mostTrailer   = 16 << 10 // all trailer fields
)

// chunks takes the framing of the chunked coding (RFC 9112 §7.1) out of bytes that come in any pieces. Extensions and trailer
// fields are dropped.
type chunks struct {
	left  int64 // of the chunk's data; while its size is read: the size so far
	line  int   // bytes of the line, or of the trailer, so far
	state chunkState
}

type chunkState uint8

const (
	chunkSize    chunkState = iota // the first digit must come
	chunkDigits                    // more digits, or their end
	chunkBlank                     // white space after the size
	chunkExtra                     // extensions
	chunkSizeEnd                   // the line feed after all that
	chunkData
	chunkDataCR
	chunkDataLF
	chunkTrailer // at the beginning of a line
	chunkTrailerField
	chunkLast // the line feed of the empty line
	chunkEnd
)

var errChunks = errors.New("the chunked coding of the answer is malformed") //nolint:gochecknoglobals // a constant

func (c *chunks) ended() bool { return c.state == chunkEnd }

// decode moves the data in p to its front. It returns how much that is, and how much of p was used, which is all of it before
// the end.
func (c *chunks) decode(p []byte) (n, used int, err error) {
	for used < len(p) && c.state != chunkEnd {
		if c.state != chunkData {
			used++
			if err := c.step(p[used-1]); err != nil {
				return n, used, err
			}
			continue
		}
		size := int(min(c.left, int64(len(p)-used)))
		copy(p[n:], p[used:used+size])
		n, used = n+size, used+size
		if c.left -= int64(size); c.left == 0 {
			c.state = chunkDataCR
		}
	}
	return n, used, nil
}

// step takes one byte of framing.
func (c *chunks) step(b byte) error {
	c.line++
	switch c.state {
	case chunkSize, chunkDigits:
		if digit := hexDigit(b); digit >= 0 {
			if c.left >= 1<<58 {
				return errChunks
			}
			c.left, c.state = c.left<<4|digit, chunkDigits
			break
		}
		if c.state == chunkSize {
			return errChunks
		}
		return c.afterSize(b)
	case chunkBlank:
		return c.afterSize(b)
	case chunkExtra:
		switch b {
		case '\r':
			c.state = chunkSizeEnd
		case '\n':
			return errChunks
		}
	case chunkSizeEnd:
		if c.line = 0; c.left == 0 {
			return c.expect(b, '\n', chunkTrailer)
		}
		return c.expect(b, '\n', chunkData)
	case chunkDataCR:
		return c.expect(b, '\r', chunkDataLF)
	case chunkDataLF:
		c.line = 0
		return c.expect(b, '\n', chunkSize)
	case chunkTrailer, chunkTrailerField:
		return c.trailer(b)
	case chunkLast:
		return c.expect(b, '\n', chunkEnd)
	case chunkData, chunkEnd: // are no framing
	}
	if c.line > mostChunkLine {
		return errChunks
	}
	return nil
}

func (c *chunks) afterSize(b byte) error {
	switch b {
	case ' ', '\t':
		c.state = chunkBlank
	case ';':
		c.state = chunkExtra
	case '\r':
		c.state = chunkSizeEnd
	default:
		return errChunks
	}
	if c.line > mostChunkLine {
		return errChunks
	}
	return nil
}

func (c *chunks) trailer(b byte) error {
	empty := c.state == chunkTrailer
	switch {
	case empty && b == '\r':
		c.state = chunkLast
	case empty && b == '\n':
		return errChunks
	case b == '\n':
		c.state = chunkTrailer
	default:
		c.state = chunkTrailerField
	}
	if c.line > mostTrailer {
		return errChunks
	}
	return nil
}

func (c *chunks) expect(b, want byte, next chunkState) error {
	if b != want {
		return errChunks
	}
	c.state = next
	return nil
}

func hexDigit(b byte) int64 {
	switch {
	case '0' <= b && b <= '9':
		return int64(b - '0')
	case 'a' <= b && b <= 'f':
		return int64(b-'a') + 10
	case 'A' <= b && b <= 'F':
		return int64(b-'A') + 10
	}
	return -1
}
