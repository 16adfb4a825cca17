package xds

import (
	"errors"
	"fmt"
	"net/http"
	"time"

	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	// The messages that a resource of a type may hold, for JSON shows what is in
	// an Any.
	_ "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/router/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/service/runtime/v3"

	"github.com/weirproxy/weir/services/discovery/internal/httpjson"
	"github.com/weirproxy/weir/services/discovery/internal/registry"
	"github.com/weirproxy/weir/services/discovery/internal/resources"
	"github.com/weirproxy/weir/services/discovery/internal/rest/call"
)

// MaxPollBody is the longest body of a call of REST-JSON, in bytes: a proxy's node
// alone is above 100 KiB as JSON.
const MaxPollBody = 1 << 20

// pollPath is where the calls of REST-JSON are.
func pollPath(t resources.Type) string { return "/v3/discovery:" + t.String() }

// IsPoll reports whether an HTTP path is one of the calls of REST-JSON, which
// only read.
func IsPoll(path string) bool {
	for t := range resources.Types {
		if path == pollPath(t) {
			return true
		}
	}
	return false
}

// Routes answer POST /v3/discovery:<type>, a DiscoveryRequest as JSON, by the
// DiscoveryResponse of all that it asks for, or by 304 if the client has that, as its
// version_info says. Such a call is a stream that ends with its first response, so
// what holds for streams holds for it: it may wait for something new, and is refused
// while nothing is loaded.
func (s *Server) Routes() (routes []call.Route) {
	for t := range resources.Types {
		routes = append(routes, call.Route{Path: pollPath(t), Methods: map[string]call.Handler{
			"POST": func(w http.ResponseWriter, r *http.Request) (int, error) { return s.poll(w, r, t) },
		}})
	}
	return routes
}

// poll answers a call of REST-JSON.
func (s *Server) poll(w http.ResponseWriter, r *http.Request, t resources.Type) (int, error) {
	if !s.hub.isLoaded() {
		return 0, registry.ErrNotLoaded
	}
	body, err := call.ReadBody(w, r, MaxPollBody)
	if err != nil {
		return 0, err
	}
	asked, err := readPoll(body, t)
	if err != nil {
		return 0, err
	}
	p, err := s.openPoll(r.Context(), r.RemoteAddr, t, asked)
	if err != nil {
		return 0, httpRefusal(err)
	}
	defer p.close()
	response, settled, err := p.response(s)
	if err != nil {
		return 0, httpRefusal(err)
	}
	var code int
	if response == nil {
		code, err = p.answerNothing(w, t, settled)
	} else {
		code, err = s.answerPoll(w, response)
	}
	if asked.refused {
		s.metrics.nacks[t].Inc()
	}
	if err == nil {
		s.polled.note(p.stream, t, asked, response, time.Now())
	}
	return code, err
}

// readPoll reads a DiscoveryRequest. The error is a *call.Refusal.
func readPoll(body []byte, t resources.Type) (*request, error) {
	var m discoveryv3.DiscoveryRequest
	// What newer clients say beyond the fields that are known is of no matter.
	if err := (protojson.UnmarshalOptions{DiscardUnknown: true}).Unmarshal(body, &m); err != nil {
		return nil, call.Refuse(http.StatusBadRequest, "read the body as a DiscoveryRequest: %v", err)
	}
	if m.GetTypeUrl() != "" && m.GetTypeUrl() != t.URL() {
		return nil, call.Refuse(http.StatusBadRequest, "type_url %q: the path is that of %s", m.GetTypeUrl(), t)
	}
	m.TypeUrl = t.URL()
	message, err := proto.Marshal(&m)
	var r request
	if err == nil {
		err = r.read(message)
	}
	if err != nil {
		return nil, call.Refuse(http.StatusBadRequest, "read the body as a DiscoveryRequest: %v", err)
	}
	return &r, nil
}

// answerPoll answers with a response as canonical JSON.
func (s *Server) answerPoll(w http.ResponseWriter, r *response) (int, error) {
	text, err := protojson.Marshal(r.message(s.identifier))
	if err != nil {
		// A resource of a file that holds what this program has no message of.
		return 0, fmt.Errorf("write %s as JSON: %w", r.typ, err)
	}
	return httpjson.Write(w, text)
}

// answerNothing answers a call for which there is no response: the client has
// what there is, or there is nothing.
func (p *pollCall) answerNothing(w http.ResponseWriter, t resources.Type, settled bool) (int, error) {
	if !settled {
		return 0, &call.Refusal{Status: http.StatusServiceUnavailable, Reason: fmt.Sprintf("%s are not made yet", t), RetryAfter: time.Second}
	}
	if err := p.withheld(); err != nil {
		return 0, err
	}
	if !p.hasSomething() {
		return 0, call.Refuse(http.StatusNotFound, "no %s of the names that are asked for", t)
	}
	w.WriteHeader(http.StatusNotModified)
	return http.StatusNotModified, nil
}

// httpRefusal is an error of a stream, which is a gRPC status, as HTTP tells it.
// One that was made of another error is that.
func httpRefusal(err error) error {
	if cause := errors.Unwrap(err); cause != nil {
		return cause
	}
	r := &call.Refusal{Status: http.StatusBadRequest, Reason: status.Convert(err).Message()}
	switch status.Code(err) {
	case codes.PermissionDenied:
		r.Status = http.StatusForbidden
	case codes.Unauthenticated:
		r.Status = http.StatusUnauthorized
	case codes.ResourceExhausted:
		r.Status, r.RetryAfter = http.StatusTooManyRequests, time.Second
	}
	return r
}
