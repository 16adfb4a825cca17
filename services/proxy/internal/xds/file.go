package xds

import (
	"context"
	"crypto/sha256"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"

	"github.com/weirproxy/weir/internal/filewatch"
	"github.com/weirproxy/weir/services/proxy/internal/strict"
)

// filePoll is the time between looks at a file of which the file system does not
// tell.
const filePoll = 5 * time.Second

// maxFile bounds a file, in bytes.
const maxFile = 16 << 20

// fileNews is what a look at a file found.
type fileNews struct {
	text []byte
	err  error
}

// watchFile brings the resources of a file, at first and whenever it has become
// other than it was or other names are wanted, until ctx ends.
func (o *origin) watchFile(ctx context.Context) {
	path, log := o.source.Path, o.client.options.Log
	watch := filewatch.Loop[[]byte]{
		Poll: filePoll, What: "resources of xDS", Log: log,
		Concerns: func(string) bool { return true },
		Look: func() ([]byte, []string, [sha256.Size]byte, error) {
			directories := []string{filepath.Dir(path)}
			if d := o.source.WatchedDirectory; d != "" {
				directories = append(directories, d)
			}
			text, err := os.ReadFile(path)
			if err == nil && len(text) > maxFile {
				err = fmt.Errorf("%s: larger than %d bytes", path, maxFile)
			}
			if err != nil {
				return nil, directories, sha256.Sum256([]byte("cannot be read: " + err.Error())), err
			}
			return text, directories, sha256.Sum256(text), nil
		},
	}
	news := make(chan fileNews)
	done := make(chan struct{})
	// watchFile waits for it; the end of ctx ends it.
	go func() {
		defer close(done)
		hand := func(text []byte, err error) {
			select {
			case news <- fileNews{text, err}:
			case <-ctx.Done():
			}
		}
		hand(watch.First())
		watch.Run(ctx, hand)
	}()
	defer func() { <-done }()

	var last *response                     // that could be read
	taken := map[*subscription]*response{} // by whom, refused or not
	for {
		select {
		case <-ctx.Done():
			return
		case n := <-news:
			if r := o.readFile(n); r != nil {
				last = r
			}
		case <-o.wake:
		}
		if last == nil {
			continue
		}
		for _, s := range o.wanted() {
			o.client.mu.Lock()
			changed := s.changed || taken[s] != last
			s.changed = false
			o.client.mu.Unlock()
			if taken[s] = last; changed {
				_ = o.client.apply(s, last) // it is logged and counted
			}
		}
	}
}

// readFile makes a response of a file; nil, after it was logged and counted, if
// it is none.
func (o *origin) readFile(n fileNews) *response {
	text, err := n.text, n.err
	var r *response
	why := Away
	if err == nil {
		r, why, err = parseFile(o.source.Path, text, o.typeURL, o.client.options.Schema)
	}
	if err == nil {
		return r
	}
	o.client.options.Log.Error("resources of a file stay as they were", "type", o.typeURL, "error", err)
	for _, s := range o.wanted() {
		o.client.failed(s, why)
		if n.err != nil { // it may come yet
			continue
		}
		o.client.mu.Lock()
		s.refused = err.Error()
		first := s.waited()
		o.client.mu.Unlock()
		s.unusable(first)
	}
	return nil
}

// parseFile reads a DiscoveryResponse: in protobuf's binary form if the file is
// named .pb, else in YAML or JSON. Its version is a hash if it names none. An error of
// one that is none of these is as if it were Away, as in Envoy; one of another Refused.
func parseFile(name string, text []byte, typeURL string, schema *strict.Schema) (*response, Failure, error) {
	m := &discoveryv3.DiscoveryResponse{}
	var report *strict.Report
	if filepath.Ext(name) == ".pb" {
		if err := proto.Unmarshal(text, m); err != nil {
			return nil, Away, fmt.Errorf("%s: %w", name, err)
		}
	} else {
		report = &strict.Report{}
		f, root := report.Open(name, text, fileSchema{schema, typeURL})
		if root == nil {
			return nil, Away, report.Err()
		}
		f.Fill(root, m, "")
		if err := report.Err(); err != nil {
			return nil, Refused, err
		}
	}
	if m.GetTypeUrl() != "" && m.GetTypeUrl() != typeURL {
		return nil, Refused, fmt.Errorf("%s: type_url: %q is not %s", name, m.GetTypeUrl(), typeURL)
	}
	m.TypeUrl = typeURL
	r := readResponse(m)
	if r.file = report; r.version == "" {
		r.version = fmt.Sprintf("%x", sha256.Sum256(text))[:16]
	}
	return r, 0, nil
}

// fileSchema is what may stand in a file with resources of one type.
type fileSchema struct {
	*strict.Schema
	typeURL string
}

// responseFields are those of a DiscoveryResponse, and of the Resource that may
// wrap a resource, that mean something in a file.
var responseFields = map[protoreflect.FullName][]protoreflect.Name{
	"envoy.service.discovery.v3.DiscoveryResponse": {"version_info", "resources", "type_url"},
	"envoy.service.discovery.v3.Resource":          {"name", "version", "resource"},
}

// Supports implements protoyaml.Schema.
func (s fileSchema) Supports(fd protoreflect.FieldDescriptor) bool {
	if fields, ok := responseFields[fd.ContainingMessage().FullName()]; ok {
		return slices.Contains(fields, fd.Name())
	}
	return s.Schema.Supports(fd)
}

// Find implements protoyaml.Schema.
func (s fileSchema) Find(url string) (protoreflect.MessageType, error) {
	return s.FindFor(url, nil, nil)
}

// FindFor implements protoyaml.Slotted.
func (s fileSchema) FindFor(url string, field, outer protoreflect.FieldDescriptor) (protoreflect.MessageType, error) {
	if url == s.typeURL || url == wrapperType {
		return protoregistry.GlobalTypes.FindMessageByURL(url)
	}
	return s.Schema.FindFor(url, field, outer)
}
