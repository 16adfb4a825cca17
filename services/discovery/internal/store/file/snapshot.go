package file

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"
	"slices"
	"strings"

	"github.com/weirproxy/weir/services/discovery/internal/registry"
	"github.com/weirproxy/weir/services/discovery/internal/store/record"
)

// A snapshot is lines of JSON: a header, one line per host, one per setting, and
// a trailer with a checksum of all before it, so that a half or changed file is
// told from a whole one.

// formatName and formatVersion stand in the header of every snapshot. Version 1
// had no settings, and hosts without leases; it is still read.
const (
	formatName    = "weir-discovery-hosts"
	formatVersion = 2
)

// beginning is how encode begins every snapshot, of this version or another.
const beginning = `{"format":"` + formatName + `"`

// trailerBeginning is how the last line begins.
const trailerBeginning = `{"sha256":"`

type header struct {
	Format   string `json:"format"`
	Version  int    `json:"version"`
	Hosts    int    `json:"hosts"`
	Settings int    `json:"settings,omitempty"`
	// Partial and Lost are those of registry.Contents. Older snapshots say neither,
	// and are taken to have all hosts.
	Partial bool `json:"partial,omitempty"`
	Lost    bool `json:"lost,omitempty"`
}

type trailer struct {
	SHA256 string `json:"sha256"`
}

// corruptError says what is wrong with a snapshot, and in which line.
type corruptError struct {
	line  int
	cause error
}

func (e *corruptError) Error() string { return fmt.Sprintf("line %d: %v", e.line, e.cause) }
func (e *corruptError) Unwrap() error { return e.cause }

// encode writes the hosts and settings of c as a snapshot.
func encode(w io.Writer, c *registry.Contents) error {
	buffered := bufio.NewWriter(w)
	sum := sha256.New()
	write := func(text []byte, err error) error {
		if err != nil {
			return err
		}
		text = append(text, '\n')
		sum.Write(text) // a hash never fails
		_, err = buffered.Write(text)
		return err
	}
	head := header{formatName, formatVersion, len(c.Records), len(c.Settings), c.Partial, c.Lost}
	if err := write(json.Marshal(head)); err != nil {
		return err
	}
	hosts := record.NewHostEncoder()
	for i := range c.Records {
		if err := write(hosts.Encode(&c.Records[i])); err != nil {
			return err
		}
	}
	for i := range c.Settings {
		if err := write(record.EncodeSetting(&c.Settings[i])); err != nil {
			return err
		}
	}
	if err := json.NewEncoder(buffered).Encode(trailer{hex.EncodeToString(sum.Sum(nil))}); err != nil {
		return err
	}
	return buffered.Flush()
}

// isOurs tells a snapshot, be it cut short or damaged, from a file of somebody
// else, and leaves f at its beginning. Of a snapshot there is left the beginning
// or a part of it, the name of the format in the header, or the trailer; or
// nothing but zeros, as some file systems leave a file in a power cut.
func isOurs(f io.ReadSeeker) (bool, error) {
	const part = 512
	head, err := io.ReadAll(io.LimitReader(f, part))
	if err != nil {
		return false, err
	}
	size, err := f.Seek(0, io.SeekEnd)
	if err != nil {
		return false, err
	}
	if _, err = f.Seek(max(0, size-part), io.SeekStart); err != nil {
		return false, err
	}
	tail, err := io.ReadAll(io.LimitReader(f, part))
	if err != nil {
		return false, err
	}
	_, err = f.Seek(0, io.SeekStart)
	return strings.HasPrefix(beginning, string(head)) ||
		bytes.Contains(head, []byte(formatName+`"`)) ||
		len(bytes.Trim(head, "\x00")) == 0 ||
		bytes.Contains(tail, []byte("\n"+trailerBeginning)), err
}

// believed is for how many hosts there is room at most because a header says so, which
// may be damaged.
const believed = 1 << 17

// decode reads a snapshot, the hosts of a service one after the other: in that order
// they are registered in half the time. The error is a *corruptError for a file that is
// not whole, or that of r.
func decode(r io.Reader) (*registry.Contents, error) {
	lines := lineReader{buffered: bufio.NewReaderSize(r, 64<<10), sum: sha256.New()}
	var head header
	if err := lines.next(&head); err != nil {
		return nil, err
	}
	if head.Format != formatName || head.Version < 1 || head.Version > formatVersion {
		return nil, lines.corrupt(fmt.Errorf("format %q, version %d: not %s, version %d at most",
			head.Format, head.Version, formatName, formatVersion))
	}
	c := &registry.Contents{Partial: head.Partial, Lost: head.Lost}
	c.Records = make([]registry.Record, 0, min(max(0, head.Hosts), believed))
	var hosts record.HostDecoder
	for range head.Hosts {
		text, err := lines.read()
		if err != nil {
			return nil, err
		}
		host, err := hosts.Decode(text)
		if err != nil {
			return nil, lines.corrupt(err)
		}
		if host.Lease == 0 {
			host.Lease = registry.NewLease()
		}
		c.Records = append(c.Records, host)
	}
	slices.SortFunc(c.Records, func(a, b registry.Record) int { return strings.Compare(a.Host.Service, b.Host.Service) })
	for range head.Settings {
		text, err := lines.read()
		if err != nil {
			return nil, err
		}
		setting, err := record.DecodeSetting(text)
		if err != nil {
			return nil, lines.corrupt(err)
		}
		c.Settings = append(c.Settings, setting)
	}
	want := hex.EncodeToString(lines.sum.Sum(nil))
	var end trailer
	if err := lines.next(&end); err != nil {
		return nil, err
	}
	if end.SHA256 != want {
		return nil, lines.corrupt(fmt.Errorf("checksum %q, want %q", end.SHA256, want))
	}
	if _, err := lines.buffered.ReadByte(); err != io.EOF {
		return nil, lines.corrupt(fmt.Errorf("something stands after the checksum"))
	}
	return c, nil
}

// lineReader reads line by line and sums up what it read.
type lineReader struct {
	buffered *bufio.Reader
	sum      hash.Hash
	line     int
	text     []byte
}

// read returns the next line without its end. It is valid until the next one is read.
func (l *lineReader) read() ([]byte, error) {
	l.line++
	l.text = l.text[:0]
	err := bufio.ErrBufferFull
	for errors.Is(err, bufio.ErrBufferFull) {
		var part []byte
		part, err = l.buffered.ReadSlice('\n')
		l.text = append(l.text, part...)
	}
	if err == io.EOF {
		return nil, l.corrupt(fmt.Errorf("the file ends here: %w", io.ErrUnexpectedEOF))
	}
	if err != nil {
		return nil, err
	}
	l.sum.Write(l.text) // a hash never fails
	return l.text[:len(l.text)-1], nil
}

// next reads the next line, which is JSON, into v.
func (l *lineReader) next(v any) error {
	text, err := l.read()
	if err != nil {
		return err
	}
	if err := json.Unmarshal(text, v); err != nil {
		return l.corrupt(err)
	}
	return nil
}

func (l *lineReader) corrupt(cause error) error { return &corruptError{l.line, cause} }
