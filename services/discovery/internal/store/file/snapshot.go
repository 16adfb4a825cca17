package file

import (
	"bufio"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"hash"
	"io"
	"net/netip"
	"strings"
	"time"

	"github.com/weirproxy/weir/services/discovery/internal/registry"
)

// A snapshot is lines of JSON: a header, one line per host, and a trailer with
// a checksum of all before it, so that a half or changed file is told from a
// whole one.

// formatName and formatVersion stand in the header of every snapshot.
const (
	formatName    = "weir-discovery-hosts"
	formatVersion = 1
)

// beginning is how encode begins every snapshot, of this version or another.
const beginning = `{"format":"` + formatName + `"`

type header struct {
	Format  string `json:"format"`
	Version int    `json:"version"`
	Hosts   int    `json:"hosts"`
}

type trailer struct {
	SHA256 string `json:"sha256"`
}

// hostLine is one host in a snapshot.
type hostLine struct {
	Service     string                     `json:"service"`
	ID          string                     `json:"id"`
	Address     netip.AddrPort             `json:"address"`
	Repo        string                     `json:"repo,omitempty"`
	Revision    string                     `json:"revision,omitempty"`
	Region      string                     `json:"region,omitempty"`
	Zone        string                     `json:"zone,omitempty"`
	InstanceID  string                     `json:"instance_id,omitempty"`
	Canary      *bool                      `json:"canary,omitempty"`
	Weight      uint8                      `json:"weight,omitempty"`
	Tags        map[string]json.RawMessage `json:"tags,omitempty"`
	TTLMillis   int64                      `json:"ttl_ms"`
	FirstSeen   time.Time                  `json:"first_seen"`
	LastCheckIn time.Time                  `json:"last_check_in"`
}

// corruptError says what is wrong with a snapshot, and in which line.
type corruptError struct {
	line  int
	cause error
}

func (e *corruptError) Error() string { return fmt.Sprintf("line %d: %v", e.line, e.cause) }
func (e *corruptError) Unwrap() error { return e.cause }

// encode writes records as a snapshot.
func encode(w io.Writer, records []registry.Record) error {
	buffered := bufio.NewWriter(w)
	sum := sha256.New()
	lines := json.NewEncoder(io.MultiWriter(buffered, sum))
	if err := lines.Encode(header{formatName, formatVersion, len(records)}); err != nil {
		return err
	}
	for _, r := range records {
		h := r.Host
		err := lines.Encode(hostLine{
			Service: h.Service, ID: h.ID, Address: h.Address, Repo: h.Repo, Revision: h.Revision,
			Region: h.Tags.Region, Zone: h.Tags.Zone, InstanceID: h.Tags.InstanceID,
			Canary: h.Tags.Canary, Weight: h.Tags.Weight, Tags: h.Tags.Other,
			TTLMillis: h.TTL.Milliseconds(), FirstSeen: r.FirstSeen.UTC(), LastCheckIn: r.LastCheckIn.UTC(),
		})
		if err != nil {
			return err
		}
	}
	if err := json.NewEncoder(buffered).Encode(trailer{hex.EncodeToString(sum.Sum(nil))}); err != nil {
		return err
	}
	return buffered.Flush()
}

// checkBeginning tells a snapshot, be it cut short even within its beginning,
// from a file of somebody else.
func checkBeginning(r io.Reader) error {
	text, err := io.ReadAll(io.LimitReader(r, int64(len(beginning))))
	if err != nil {
		return err
	}
	if !strings.HasPrefix(beginning, string(text)) {
		// What it does begin with may be a secret.
		return fmt.Errorf("it is no snapshot, which begins with %s", beginning)
	}
	return nil
}

// decode reads a snapshot. The error is a *corruptError for a file that is not
// whole, or that of r.
func decode(r io.Reader) ([]registry.Record, error) {
	lines := lineReader{buffered: bufio.NewReader(r), sum: sha256.New()}
	var head header
	if err := lines.next(&head); err != nil {
		return nil, err
	}
	if head.Format != formatName || head.Version != formatVersion {
		return nil, lines.corrupt(fmt.Errorf("format %q, version %d: not %s, version %d",
			head.Format, head.Version, formatName, formatVersion))
	}
	var records []registry.Record
	for range head.Hosts {
		var line hostLine
		if err := lines.next(&line); err != nil {
			return nil, err
		}
		record, err := line.record()
		if err != nil {
			return nil, lines.corrupt(err)
		}
		records = append(records, record)
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
	return records, nil
}

// record turns a line into what the registry takes, or says why it cannot.
func (l *hostLine) record() (registry.Record, error) {
	host := &registry.Host{
		Key:     registry.Key{Service: l.Service, ID: l.ID},
		Address: l.Address, Repo: l.Repo, Revision: l.Revision,
		Tags: registry.Tags{
			Region: l.Region, Zone: l.Zone, InstanceID: l.InstanceID,
			Canary: l.Canary, Weight: l.Weight, Other: l.Tags,
		},
		TTL: time.Duration(l.TTLMillis) * time.Millisecond,
	}
	switch {
	case l.Service == "":
		return registry.Record{}, fmt.Errorf("a host without service")
	case !l.Address.IsValid() || l.Address.Port() == 0:
		return registry.Record{}, fmt.Errorf("host %q of %q: address %q", l.ID, l.Service, l.Address)
	case host.TTL <= 0:
		return registry.Record{}, fmt.Errorf("host %q of %q: ttl_ms %d", l.ID, l.Service, l.TTLMillis)
	case l.Weight > 100:
		return registry.Record{}, fmt.Errorf("host %q of %q: weight %d", l.ID, l.Service, l.Weight)
	}
	return registry.Record{Host: host, FirstSeen: l.FirstSeen, LastCheckIn: l.LastCheckIn}, nil
}

// lineReader reads JSON line by line and sums up what it read.
type lineReader struct {
	buffered *bufio.Reader
	sum      hash.Hash
	line     int
}

// next reads one line into v.
func (l *lineReader) next(v any) error {
	l.line++
	text, err := l.buffered.ReadBytes('\n')
	if err == io.EOF {
		return l.corrupt(fmt.Errorf("the file ends here: %w", io.ErrUnexpectedEOF))
	}
	if err != nil {
		return err
	}
	l.sum.Write(text) // a hash never fails
	if err := json.Unmarshal(text, v); err != nil {
		return l.corrupt(err)
	}
	return nil
}

func (l *lineReader) corrupt(cause error) error { return &corruptError{l.line, cause} }
