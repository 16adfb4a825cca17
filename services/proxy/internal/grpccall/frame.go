package grpccall

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// prefixLen is the length of what stands before a message: whether it is compressed, and
// its own length.
const prefixLen = 5

// appendFrame appends a message with its prefix.
func appendFrame(b []byte, question Question) []byte {
	start := len(b)
	b = question.AppendTo(append(b, 0, 0, 0, 0, 0))
	binary.BigEndian.PutUint32(b[start+1:], uint32(len(b)-start-prefixLen))
	return b
}

// The answers of which there is no message.
var (
	errEmpty      = errors.New("its answer has no message")
	errCut        = errors.New("its answer ends within a message")
	errSeveral    = errors.New("its answer has more than one message")
	errCompressed = errors.New("its answer is compressed, which it was not told to be")
)

// bounded says that a message whose frame begins with b has most bytes, or fewer.
func bounded(b []byte, most uint32) error {
	if len(b) < prefixLen {
		return nil
	}
	if length := binary.BigEndian.Uint32(b[1:]); length > most {
		return fmt.Errorf("its answer has a message of %d bytes, more than the %d of max_receive_message_length", length, most)
	}
	if len(b) > prefixLen+int(most) {
		return errSeveral
	}
	return nil
}

// unframe is the only message in b.
func unframe(b []byte) ([]byte, error) {
	if len(b) == 0 {
		return nil, errEmpty
	}
	if len(b) < prefixLen {
		return nil, errCut
	}
	length, message := uint64(binary.BigEndian.Uint32(b[1:])), b[prefixLen:]
	switch {
	case b[0] != 0:
		return nil, errCompressed
	case uint64(len(message)) < length:
		return nil, errCut
	case uint64(len(message)) > length:
		return nil, errSeveral
	}
	return message, nil
}
