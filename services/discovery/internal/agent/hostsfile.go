package agent

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"sync"
	"time"

	"github.com/weirproxy/weir/services/discovery/internal/client"
	"github.com/weirproxy/weir/services/discovery/internal/replacefile"
)

// fileFormat and fileVersion stand at the beginning of every hosts file.
const (
	fileFormat  = "weir-discovery-known-hosts"
	fileVersion = 1
)

// fileBeginning is how every hosts file begins, of this version or another.
const fileBeginning = "{\n \"format\": \"" + fileFormat + `"`

// fileContent is a hosts file, as its readers see it.
type fileContent struct {
	Format  string `json:"format"`
	Version int    `json:"version"`
	// Written is when the file was written.
	Written time.Time `json:"written"`
	// Services are those of the watched ones that a registry has known, by name.
	Services map[string]knownHosts `json:"services"`
}

// knownHosts is the last that is known of a service. Hosts that are out are left
// out.
type knownHosts struct {
	// Index is that of the registry's list.
	Index string `json:"index"`
	// AsOf is when a registry last said that this is so. It grows old while none
	// answers, or none knows the service.
	AsOf time.Time `json:"as_of"`
	// Hosts take work; Draining ones finish what they have. Both are as the
	// registry's v2 API lists them, and never nil.
	Hosts    []client.Host `json:"hosts"`
	Draining []client.Host `json:"draining"`
}

// hostsFile is a file of the last known hosts of services. It is safe for
// concurrent use.
type hostsFile struct {
	path string
	// changed has room for one and says that the file is to be written.
	changed chan struct{}

	mu       sync.Mutex
	services map[string]knownHosts
}

// openHostsFile reads what a former agent wrote at path about services; other
// services are forgotten. What cannot be understood of it, though an agent wrote
// it, is not used, and the log says so. A path at which something else lies is an
// error, and so is a directory that cannot be written to. The file is left as it
// is.
func openHostsFile(path string, services []string, log *slog.Logger) (*hostsFile, error) {
	f := &hostsFile{path: path, changed: make(chan struct{}, 1), services: map[string]knownHosts{}}
	// Better said now than at the first change.
	if err := replacefile.Check(path); err != nil {
		return nil, fmt.Errorf("hosts file %s: %w", path, err)
	}
	text, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return f, nil
	}
	if err != nil {
		return nil, fmt.Errorf("hosts file %s: %w", path, err)
	}
	if len(text) > 0 && !bytes.HasPrefix(text, []byte(fileBeginning)) {
		// What it does begin with may be a secret.
		return nil, fmt.Errorf("hosts file %s: something else lies there: it does not begin with %q", path, fileBeginning)
	}
	content, err := decodeHostsFile(text)
	if err != nil {
		log.Warn("the hosts file cannot be understood and will be written anew", "path", path, "error", err)
	}
	for _, service := range services {
		if known, ok := content.Services[service]; ok {
			f.services[service] = sorted(known.Index, known.AsOf, append(known.Hosts, known.Draining...))
		}
	}
	return f, nil
}

// decodeHostsFile reads a hosts file.
func decodeHostsFile(text []byte) (fileContent, error) {
	var content fileContent
	if len(text) == 0 { // somebody made it for the agent
		return fileContent{}, nil
	}
	if err := json.Unmarshal(text, &content); err != nil {
		return fileContent{}, err
	}
	if content.Format != fileFormat || content.Version != fileVersion {
		return fileContent{}, fmt.Errorf("format %q, version %d: not %s, version %d", content.Format, content.Version, fileFormat, fileVersion)
	}
	return content, nil
}

// sorted is the file's part about a service.
func sorted(index string, asOf time.Time, hosts []client.Host) knownHosts {
	known := knownHosts{Index: index, AsOf: asOf.UTC(), Hosts: []client.Host{}, Draining: []client.Host{}}
	for _, h := range hosts {
		switch h.State {
		case "serving":
			known.Hosts = append(known.Hosts, h)
		case "draining":
			known.Draining = append(known.Draining, h)
		}
	}
	return known
}

// update takes what a registry answered, and reports whether it did. A registry
// that does not know a service any more has lost its memory, or the service has
// had no hosts for long: then the file has none already, or keeps those that it
// has.
func (f *hostsFile) update(service string, list client.Hosts, now time.Time) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	held, heard := f.services[service]
	if !list.Known && len(held.Hosts)+len(held.Draining) > 0 {
		return false
	}
	if list.Known || heard {
		f.services[service] = sorted(list.Index, now, list.Hosts)
	}
	f.touch()
	return true
}

// held is the index of a service's list, where that has hosts; else it is empty.
func (f *hostsFile) held(service string) (index string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	known := f.services[service]
	if len(known.Hosts)+len(known.Draining) == 0 {
		return ""
	}
	return known.Index
}

// confirm notes that a registry said that a service's list is still the one
// with that index.
func (f *hostsFile) confirm(service, index string, now time.Time) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if held, ok := f.services[service]; ok && held.Index == index {
		held.AsOf = now.UTC()
		f.services[service] = held
		f.touch()
	}
}

// touch has the file written.
func (f *hostsFile) touch() {
	select {
	case f.changed <- struct{}{}:
	default: // it will be, with what has changed since
	}
}

// write replaces the file by what is known. Its readers see the old or the new
// one, whole, also after a crash.
func (f *hostsFile) write(now time.Time) error {
	f.mu.Lock()
	content := fileContent{Format: fileFormat, Version: fileVersion, Written: now.UTC(), Services: f.services}
	var text bytes.Buffer
	lines := json.NewEncoder(&text)
	lines.SetIndent("", " ")
	err := lines.Encode(content)
	f.mu.Unlock()
	if err == nil {
		err = replacefile.Write(f.path, func(w io.Writer) error {
			_, err := w.Write(text.Bytes())
			return err
		})
	}
	if err != nil {
		return fmt.Errorf("write hosts file %s: %w", f.path, err)
	}
	return nil
}
