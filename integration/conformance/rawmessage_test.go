package conformance

import (
	"bufio"
	"fmt"
	"io"
	"regexp"
	"strconv"
	"strings"
)

// rawMessage is an HTTP/1 message as it stood on the wire, its body without
// framing.
type rawMessage struct {
	line     string
	fields   []string // as "name: value", likewise the trailers
	framing  string   // of the body: "none", "length", "chunks" or "until the end"
	body     string
	trailers []string
}

// readRaw reads a message as it comes and judges nothing but where it ends: what
// a proxy sends is well-formed, and what is not shows in the comparison. bodyless
// says that it has no body, whatever its fields say; untilEnd that one without
// framing ends with the connection.
func readRaw(r *bufio.Reader, bodyless, untilEnd bool) (m rawMessage, err error) {
	if m.line, err = readLine(r); err != nil {
		return m, err
	}
	if m.fields, err = readFields(r); err != nil {
		return m, err
	}
	length, chunked := -1, false
	for _, field := range m.fields {
		name, value, _ := strings.Cut(field, ":")
		switch value = strings.TrimSpace(value); strings.ToLower(name) {
		case "content-length":
			if length, err = strconv.Atoi(value); err != nil {
				return m, fmt.Errorf("content-length: %w", err)
			}
		case "transfer-encoding":
			chunked = strings.Contains(strings.ToLower(value), "chunked")
		}
	}
	switch {
	case bodyless || bodylessStatus.MatchString(m.line):
		m.framing = "none"
	case chunked:
		m.framing = "chunks"
		err = m.readChunks(r)
	case length >= 0:
		m.framing = "length"
		err = m.readBody(r, length)
	case untilEnd:
		m.framing = "until the end"
		var text []byte
		text, err = io.ReadAll(r)
		m.body = string(text)
	default:
		m.framing = "none"
	}
	return m, err
}

// bodylessStatus is a status line of an answer that has no body.
var bodylessStatus = regexp.MustCompile(`^HTTP/1\.[01] (1\d\d|204|304)\b`)

func (m *rawMessage) readChunks(r *bufio.Reader) error {
	for {
		line, err := readLine(r)
		if err != nil {
			return err
		}
		size, err := strconv.ParseInt(line, 16, 32)
		if err != nil {
			return fmt.Errorf("size of a chunk: %w", err)
		}
		if size == 0 {
			m.trailers, err = readFields(r)
			return err
		}
		if err := m.readBody(r, int(size)); err != nil {
			return err
		}
		if line, err = readLine(r); err != nil || line != "" {
			return fmt.Errorf("end of a chunk: %q, %w", line, err)
		}
	}
}

func (m *rawMessage) readBody(r *bufio.Reader, length int) error {
	text := make([]byte, length)
	n, err := io.ReadFull(r, text)
	m.body += string(text[:n])
	return err
}

// readFields reads lines until an empty one.
func readFields(r *bufio.Reader) (fields []string, err error) {
	for {
		line, err := readLine(r)
		if err != nil || line == "" {
			return fields, err
		}
		fields = append(fields, line)
	}
}

// readLine reads a line without its end.
func readLine(r *bufio.Reader) (string, error) {
	line, err := r.ReadString('\n')
	return strings.TrimSuffix(strings.TrimSuffix(line, "\n"), "\r"), err
}
