package grpchttp2

import (
	"bytes"
	"compress/gzip"
	"encoding/binary"
	"errors"
	"io"
	"math"
	"sync"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/mem"
	"google.golang.org/grpc/status"
)

// A message is framed by one byte that says whether it is compressed, and four
// with its length.
const frameLen = 5

// The first byte of a frame.
const (
	plainMessage      = 0
	compressedMessage = 1
)

// firstPiece is how much memory a message has at first: what it announces is
// believed only as far as it comes.
const firstPiece = 16 << 10

// pool is of the memory of messages.
var pool = mem.DefaultBufferPool()

// message reads the next message, which the caller frees. Behind the last it
// returns io.EOF; other errors are a status, or what the stream says.
func (s *stream) message() (mem.Buffer, error) {
	var frame [frameLen]byte
	switch n, err := s.fill(frame[:]); {
	case n > 0 && errors.Is(err, io.EOF):
		return nil, status.Error(codes.Internal, "the request ends within a message")
	case err != nil:
		return nil, err
	}
	length := int64(binary.BigEndian.Uint32(frame[1:]))
	if most := int64(s.call.server.options.MaxMessage); length > most {
		return nil, status.Errorf(codes.ResourceExhausted, "a message of %d bytes: %d are the most", length, most)
	}
	switch {
	case frame[0] > compressedMessage:
		return nil, status.Errorf(codes.Internal, "a message with flag %d", frame[0])
	case frame[0] == compressedMessage && !s.gzip:
		return nil, status.Error(codes.Internal, "a compressed message without grpc-encoding")
	}
	body, err := s.body(int(length))
	if errors.Is(err, io.EOF) {
		return nil, status.Error(codes.Internal, "the request ends within a message")
	}
	if err != nil || frame[0] == plainMessage {
		return body, err
	}
	defer body.Free()
	return unzip(body.ReadOnlyData(), s.call.server.options.MaxMessage)
}

// body reads length bytes.
func (s *stream) body(length int) (mem.Buffer, error) {
	b := pool.Get(min(length, max(len(s.rest), firstPiece)))
	have := 0
	for {
		n, err := s.fill((*b)[have:])
		if err != nil {
			pool.Put(b)
			return nil, err
		}
		if have += n; have == length {
			return mem.NewBuffer(b, pool), nil
		}
		larger := pool.Get(min(length, 2*have))
		copy(*larger, *b)
		pool.Put(b)
		b = larger
	}
}

// fill reads as much as p holds. If it ends before, n says how much there was.
func (s *stream) fill(p []byte) (n int, err error) {
	for n < len(p) {
		if len(s.rest) == 0 {
			if s.rest, err = s.http2.Next(); err != nil {
				return n, err
			}
		}
		copied := copy(p[n:], s.rest)
		n += copied
		s.rest = s.rest[copied:]
	}
	return n, nil
}

// zips are readers of gzip to be used again.
var zips sync.Pool

// unzip decompresses a message, which may then have most bytes.
func unzip(b []byte, most int) (mem.Buffer, error) {
	z, _ := zips.Get().(*gzip.Reader)
	var err error
	if z == nil {
		z, err = gzip.NewReader(bytes.NewReader(b))
	} else {
		err = z.Reset(bytes.NewReader(b))
	}
	if err != nil {
		return nil, status.Errorf(codes.Internal, "a message that is no gzip: %v", err)
	}
	defer zips.Put(z)
	plain, err := io.ReadAll(io.LimitReader(z, int64(most)+1))
	switch {
	case err != nil:
		return nil, status.Errorf(codes.Internal, "a message that is no gzip: %v", err)
	case len(plain) > most:
		return nil, status.Errorf(codes.ResourceExhausted, "a message of more than %d bytes, decompressed: those are the most", most)
	}
	return mem.SliceBuffer(plain), nil
}

// gatherSize is how much of a message that is in pieces is written at once.
const gatherSize = 16 << 10

var gathers = sync.Pool{New: func() any { return new([gatherSize]byte) }}

// writeMessage writes a message in its frame. Short pieces go together, since each
// write is a frame of HTTP/2.
func (s *stream) writeMessage(data mem.BufferSlice) error {
	length := data.Len()
	if length > math.MaxUint32 {
		return status.Errorf(codes.ResourceExhausted, "a message of %d bytes, which no frame holds", length)
	}
	gather := gathers.Get().(*[gatherSize]byte)
	defer gathers.Put(gather)
	b := append(gather[:0], plainMessage)
	b = binary.BigEndian.AppendUint32(b, uint32(length)) //nolint:gosec // it was just compared
	for _, piece := range data {
		for p := piece.ReadOnlyData(); len(p) > 0; {
			if len(b) == 0 && len(p) >= gatherSize {
				if err := s.http2.WriteData(p, false); err != nil {
					return err
				}
				break
			}
			n := min(len(p), gatherSize-len(b))
			b, p = append(b, p[:n]...), p[n:]
			if len(b) == gatherSize {
				if err := s.http2.WriteData(b, false); err != nil {
					return err
				}
				b = b[:0]
			}
		}
	}
	if len(b) == 0 {
		return nil
	}
	return s.http2.WriteData(b, false)
}
