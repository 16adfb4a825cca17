package grpchttp2

import (
	"encoding/base64"
	"fmt"
	"strings"

	"google.golang.org/grpc/metadata"

	"github.com/weirproxy/weir/internal/http2"
)

// The protocol's own fields are no metadata, but for content-type and user-agent,
// which handlers are shown. What a handler sets of them is left out.
var ownFields = map[string]bool{
	"content-type": true, "user-agent": true, "te": true,
	"grpc-encoding": true, "grpc-message": true, "grpc-message-type": true, "grpc-status": true,
	"grpc-status-details-bin": true, "grpc-timeout": true,
}

// connectionFields belong to a connection (RFC 9113 §8.2.2), and what frames
// messages to HTTP: no message of HTTP/2 may have them from a handler.
var connectionFields = map[string]bool{
	"connection": true, "content-length": true, "host": true, "keep-alive": true, "proxy-connection": true,
	"transfer-encoding": true, "upgrade": true,
}

const binarySuffix = "-bin"

// incoming is the metadata of a request: its fields, and ":authority". Values of
// names that end in "-bin" are decoded. It keeps nothing of the head. The error
// names the value that is no base64.
func incoming(h *http2.Head) (metadata.MD, error) {
	text := string(h.Fields.Slab) // all values are parts of it
	values := make([]string, 0, 1+h.Fields.Len())
	md := make(metadata.MD, 1+h.Fields.Len())
	add := func(name, value string) {
		if there, ok := md[name]; ok {
			md[name] = append(there, value)
			return
		}
		values = append(values, value)
		last := len(values)
		md[name] = values[last-1 : last : last]
	}
	if len(h.Authority) > 0 {
		add(":authority", string(h.Authority))
	}
	for _, p := range h.Fields.Places {
		name, value := text[p.Name:p.NameEnd], text[p.Value:p.ValueEnd]
		switch {
		case name == "content-type" || name == "user-agent":
		case name == "host":
			if len(h.Authority) == 0 {
				add(":authority", value)
			}
			continue
		case ownFields[name]:
			continue
		case strings.HasSuffix(name, binarySuffix):
			// One field may hold several values.
			for part := range strings.SplitSeq(value, ",") {
				decoded, err := decodeBinary(strings.TrimSpace(part))
				if err != nil {
					return nil, fmt.Errorf("metadata %s: %w", name, err)
				}
				add(name, decoded)
			}
			continue
		}
		add(name, value)
	}
	return md, nil
}

// decodeBinary reads base64 with or without padding.
func decodeBinary(value string) (string, error) {
	b, err := base64.RawStdEncoding.DecodeString(strings.TrimRight(value, "="))
	return string(b), err
}

// checkMetadata says what of metadata no field may hold.
func checkMetadata(md metadata.MD) error {
	for name, values := range md {
		name = strings.ToLower(name)
		if name == "" || connectionFields[name] {
			return fmt.Errorf("metadata %q: not a name of metadata", name)
		}
		for _, c := range []byte(name) {
			if (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '-' && c != '_' && c != '.' {
				return fmt.Errorf("metadata %q: character %#02x in a name", name, c)
			}
		}
		if strings.HasSuffix(name, binarySuffix) {
			continue
		}
		for _, value := range values {
			for _, c := range []byte(value) {
				if c < ' ' || c > '~' {
					return fmt.Errorf("metadata %q: character %#02x in a value, which takes a name that ends in %s", name, c, binarySuffix)
				}
			}
			if value != strings.Trim(value, " ") {
				return fmt.Errorf("metadata %q: a value with space at its ends", name)
			}
		}
	}
	return nil
}

// appendMetadata adds metadata, which was checked, to the fields of a message.
func appendMetadata(f *http2.Fields, md metadata.MD) {
	for name, values := range md {
		name = strings.ToLower(name)
		if ownFields[name] {
			continue
		}
		for _, value := range values {
			if strings.HasSuffix(name, binarySuffix) {
				value = base64.RawStdEncoding.EncodeToString([]byte(value))
			}
			f.Add(name, value)
		}
	}
}
