package ratelimit

import (
	"maps"
	"strconv"
	"strings"
	"time"

	rlsv3 "github.com/envoyproxy/go-control-plane/envoy/service/ratelimit/v3"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/weirproxy/weir/services/proxy/internal/descriptor"
	"github.com/weirproxy/weir/services/proxy/internal/grpcwire"
	"github.com/weirproxy/weir/services/proxy/internal/httpfilter"
	"github.com/weirproxy/weir/services/proxy/internal/message"
	"github.com/weirproxy/weir/services/proxy/internal/rlsclient"
	"github.com/weirproxy/weir/services/proxy/internal/stream"
)

// refusal makes the reply to a request over its limit; ResponseHead adds what
// does not come from the service.
func (c *config) refusal(response *rlsclient.Response, grpc bool) *httpfilter.Reply {
	reply := &httpfilter.Reply{Status: c.status, Body: response.Body}
	if grpc {
		reply = grpcReply(c.grpcStatus, response.Body)
	}
	if !c.unmarked {
		reply.Headers = append(reply.Headers, httpfilter.Header{Name: "x-envoy-ratelimited", Value: "true"})
	}
	for _, h := range response.ResponseHeaders {
		if !grpc || h.Name != "content-type" {
			reply.Headers = append(reply.Headers, httpfilter.Header(h))
		}
	}
	return reply
}

// grpcReply is a reply of gRPC, with a message if there is one.
func grpcReply(status int, text string) *httpfilter.Reply {
	reply := httpfilter.GRPCReply(status, grpcwire.Escape(text))
	if text == "" {
		reply.Headers = reply.Headers[:2] // without the message
	}
	return reply
}

// ResponseHead implements httpfilter.ResponseHead. The limits are shown beside
// those that the upstream may show.
func (f *filter) ResponseHead(s *stream.Stream) {
	c, h := f.config, &s.Response.Headers
	switch f.outcome {
	case unasked:
		return
	case passed:
		for _, added := range f.response.ResponseHeaders {
			h.Add(added.Name, added.Value)
		}
	}
	f.showLimits(h)
	if f.outcome != refused {
		return
	}
	c.onRefused.Apply(h, &s.Facts)
	if reset, ok := f.retryAfter(); ok && c.retryAfter && c.status == 429 && !h.Has("retry-after") {
		h.Add("retry-after", strconv.FormatInt(max(1, seconds(reset)), 10))
	}
}

// retryAfter is the longest time until the reset of a limit that the request is
// over, and whether there is one.
func (f *filter) retryAfter() (longest time.Duration, ok bool) {
	for i := range f.response.Statuses {
		if s := &f.response.Statuses[i]; s.Code == rlsv3.RateLimitResponse_OVER_LIMIT {
			longest, ok = max(longest, s.Reset), true
		}
	}
	return longest, ok
}

// seconds cuts a time down to whole ones.
func seconds(d time.Duration) int64 { return int64(d / time.Second) }

// showLimits adds the headers of draft-polli-ratelimit-headers-03: the limit with
// the fewest requests left, the first of several, and behind it all limits with
// their windows.
func (f *filter) showLimits(h *message.Headers) {
	var least *rlsclient.Status
	for i := range f.response.Statuses {
		if s := &f.response.Statuses[i]; f.shows(i) && s.Limited && (least == nil || s.Remaining < least.Remaining) {
			least = s
		}
	}
	if least == nil {
		return
	}
	var space [128]byte
	text := strconv.AppendUint(space[:0], uint64(least.Requests), 10)
	for i := range f.response.Statuses {
		if s := &f.response.Statuses[i]; f.shows(i) && s.Limited && s.Window > 0 {
			text = append(text, ", "...)
			text = strconv.AppendUint(text, uint64(s.Requests), 10)
			text = append(text, ";w="...)
			text = strconv.AppendInt(text, seconds(s.Window), 10)
			if s.Name != "" {
				text = append(text, `;name="`...)
				text = append(append(text, printable(s.Name)...), '"')
			}
		}
	}
	h.AddBytes("x-ratelimit-limit", text)
	h.AddBytes("x-ratelimit-remaining", strconv.AppendUint(space[:0], uint64(least.Remaining), 10))
	h.AddBytes("x-ratelimit-reset", strconv.AppendInt(space[:0], seconds(least.Reset), 10))
}

// shows says whether the limit of descriptor i is shown. The service may tell of
// more than there are.
func (f *filter) shows(i int) bool {
	if i < f.descriptors.Len() {
		switch f.descriptors.Details(i).Option {
		case descriptor.Off:
			return false
		case descriptor.Draft03:
			return true
		}
	}
	return f.config.showLimits
}

// printable is a name as it can stand in quotes: other characters are left out.
func printable(name string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r > '~' || r == '"' || r == '\\' {
			return -1
		}
		return r
	}, name)
}

// store keeps the service's metadata for the filters behind. What is there may be read
// by an access log beside, so that a new struct takes its place.
func (f *filter) store(s *stream.Stream) {
	fields := f.response.Metadata.GetFields()
	if len(fields) == 0 {
		return
	}
	if s.Facts.DynamicMetadata == nil {
		s.Facts.DynamicMetadata = map[string]*structpb.Struct{}
	}
	kept := f.response.Metadata
	if before := s.Facts.DynamicMetadata[f.config.namespace].GetFields(); len(before) > 0 {
		kept = &structpb.Struct{Fields: maps.Clone(before)}
		maps.Copy(kept.Fields, fields)
	}
	s.Facts.DynamicMetadata[f.config.namespace] = kept
}
