package format

import (
	"cmp"
	"fmt"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/weirproxy/weir/services/proxy/internal/uuid"
)

// spec is how an operator is written, and what makes it.
type spec struct {
	argument argumentRule
	length   bool // may be bounded
	make     func(argument string) (operator, error)
}

type argumentRule int

const (
	noArgument argumentRule = iota
	mayHaveArgument
	needsArgument
)

// operators are all that can stand between percent signs.
var operators = func() map[string]spec {
	all := map[string]spec{
		"START_TIME":       {mayHaveArgument, false, timeOperator(start, false)},
		"START_TIME_LOCAL": {mayHaveArgument, false, timeOperator(start, true)},
		"EMIT_TIME":        {mayHaveArgument, false, timeOperator(now, false)},
		"EMIT_TIME_LOCAL":  {mayHaveArgument, false, timeOperator(now, true)},

		"REQUEST_HEADER":   {needsArgument, true, requestHeaderOperator},
		"REQ":              {needsArgument, true, requestHeaderOperator},
		"RESPONSE_HEADER":  {needsArgument, true, responseHeaderOperator},
		"RESP":             {needsArgument, true, responseHeaderOperator},
		"RESPONSE_TRAILER": {needsArgument, true, responseTrailerOperator},
		"TRAILER":          {needsArgument, true, responseTrailerOperator},
		"PATH":             {mayHaveArgument, true, pathOperator},
		"QUERY_PARAM":      {needsArgument, true, queryParameter},
		"QUERY_PARAMS":     {mayHaveArgument, true, queryParameters},

		"COMMON_DURATION": {needsArgument, false, commonDuration},

		"RESPONSE_CODE_DETAILS": {mayHaveArgument, false, responseCodeDetails},
		"GRPC_STATUS":           {mayHaveArgument, false, grpcStatusOperator},

		"DYNAMIC_METADATA":  {needsArgument, true, dynamicMetadata},
		"METADATA":          {needsArgument, true, metadata},
		"UPSTREAM_METADATA": {needsArgument, true, upstreamMetadata},
		"CLUSTER_METADATA":  {needsArgument, true, clusterMetadata},

		coalesceName: {argument: needsArgument, length: true}, // made of others of these, by newOperator

		"HOSTNAME":              {noArgument, false, hostname},
		"ENVIRONMENT":           {needsArgument, true, environment},
		"REQUESTED_SERVER_NAME": {mayHaveArgument, false, requestedServerName},
	}
	for name, write := range texts {
		all[name] = spec{make: always(operator{write: write})}
	}
	for name, number := range numbers {
		all[name] = spec{make: always(numeric(number))}
	}
	addTraffic(all)
	for name, duration := range durations {
		all[name] = spec{make: always(numeric(milliseconds(duration)))}
	}
	for name, address := range addresses {
		all[name] = spec{make: always(operator{write: withPort(address)})}
		all[name+"_WITHOUT_PORT"] = spec{mayHaveArgument, false, withoutPort(address)}
		all[strings.TrimSuffix(name, "_ADDRESS")+"_PORT"] = spec{make: always(numeric(port(address)))}
	}
	for _, name := range unknowable {
		all[name] = spec{make: always(operator{write: missing})}
	}
	for _, name := range unknowableTimes {
		all[name] = spec{argument: mayHaveArgument, make: func(argument string) (operator, error) {
			_, err := parseTimeFormat(argument)
			return operator{write: missing}, err
		}}
	}
	return all
}()

// unknowable are the operators whose facts the proxy does not have: it serves
// no TLS, traces nothing, and counts no virtual clusters.
var unknowable = []string{
	"VIRTUAL_CLUSTER_NAME", "ROUNDTRIP_DURATION", "TRACE_ID", "SPAN_ID",
	"DOWNSTREAM_TRANSPORT_FAILURE_REASON",
	"DOWNSTREAM_TLS_VERSION", "DOWNSTREAM_TLS_CIPHER", "DOWNSTREAM_TLS_SESSION_ID",
	"DOWNSTREAM_PEER_SUBJECT", "DOWNSTREAM_PEER_ISSUER", "DOWNSTREAM_PEER_SERIAL",
	"DOWNSTREAM_PEER_FINGERPRINT_256", "DOWNSTREAM_PEER_FINGERPRINT_1", "DOWNSTREAM_PEER_CERT",
	"DOWNSTREAM_PEER_URI_SAN", "DOWNSTREAM_PEER_DNS_SAN", "DOWNSTREAM_PEER_IP_SAN", "DOWNSTREAM_PEER_EMAIL_SAN",
	"DOWNSTREAM_LOCAL_URI_SAN", "DOWNSTREAM_LOCAL_DNS_SAN", "DOWNSTREAM_LOCAL_IP_SAN", "DOWNSTREAM_LOCAL_EMAIL_SAN",
	"DOWNSTREAM_LOCAL_SUBJECT",
}

// unknowableTimes are those that can have the format of a time.
var unknowableTimes = []string{"DOWNSTREAM_PEER_CERT_V_START", "DOWNSTREAM_PEER_CERT_V_END"}

func missing(b []byte, _ *Facts) ([]byte, bool) { return b, false }

func always(op operator) func(string) (operator, error) {
	return func(string) (operator, error) { return op, nil }
}

// texts are the operators without argument whose values are texts.
var texts = map[string]func(b []byte, f *Facts) ([]byte, bool){
	"PROTOCOL":                          text(func(f *Facts) string { return f.Protocol }),
	"UPSTREAM_PROTOCOL":                 text(func(f *Facts) string { return f.UpstreamProtocol }),
	"CONNECTION_TERMINATION_DETAILS":    text(func(f *Facts) string { return f.TerminationDetails }),
	"ROUTE_NAME":                        text(func(f *Facts) string { return f.RouteName }),
	"UPSTREAM_CLUSTER":                  text(func(f *Facts) string { return f.Cluster }),
	"UPSTREAM_CLUSTER_RAW":              text(func(f *Facts) string { return f.Cluster }),
	"UPSTREAM_TRANSPORT_FAILURE_REASON": text(func(f *Facts) string { return f.UpstreamFailure }),
	"UPSTREAM_HOST":                     withPort(func(f *Facts) netip.AddrPort { return f.UpstreamHost }),
	"RESPONSE_FLAGS":                    func(b []byte, f *Facts) ([]byte, bool) { return f.Flags.append(b, false), true },
	"RESPONSE_FLAGS_LONG":               func(b []byte, f *Facts) ([]byte, bool) { return f.Flags.append(b, true), true },
	"FILTER_CHAIN_NAME": text(func(f *Facts) string {
		if f.Connection == nil {
			return ""
		}
		return f.Connection.FilterChain
	}),
	"LOCAL_REPLY_BODY": func(b []byte, f *Facts) ([]byte, bool) { return append(b, f.LocalReplyBody...), true },
	"STREAM_ID": func(b []byte, f *Facts) ([]byte, bool) {
		return header(b, f.requestHeaders(), "x-request-id")
	},
	"UNIQUE_ID":       func(b []byte, _ *Facts) ([]byte, bool) { return uuid.Append(b), true },
	"ACCESS_LOG_TYPE": func(b []byte, f *Facts) ([]byte, bool) { return append(b, cmp.Or(f.LogType, "DownstreamEnd")...), true },
}

// text makes the operator of a text, which is not known if it is empty.
func text(of func(*Facts) string) func(b []byte, f *Facts) ([]byte, bool) {
	return func(b []byte, f *Facts) ([]byte, bool) {
		value := of(f)
		return append(b, value...), value != ""
	}
}

// numbers are the operators without argument whose values are numbers.
var numbers = map[string]func(f *Facts) (int64, bool){
	"BYTES_RECEIVED":                 known(func(f *Facts) int64 { return f.ReceivedBytes() }),
	"BYTES_SENT":                     known(func(f *Facts) int64 { return f.SentBytes() }),
	"RESPONSE_CODE":                  known(func(f *Facts) int64 { return int64(f.ResponseCode) }),
	"UPSTREAM_REQUEST_ATTEMPT_COUNT": known(func(f *Facts) int64 { return int64(f.Attempts) }),
	"UPSTREAM_CONNECTION_ID":         known(func(f *Facts) int64 { return int64(f.UpstreamConnection) }),
	"CONNECTION_ID": func(f *Facts) (int64, bool) {
		if f.Connection == nil {
			return 0, false
		}
		return int64(f.Connection.ID), true
	},
	"REQUEST_HEADERS_BYTES":   known(requestHeaderBytes),
	"RESPONSE_HEADERS_BYTES":  known(responseHeaderBytes),
	"RESPONSE_TRAILERS_BYTES": known(func(f *Facts) int64 { return fieldBytes(f.ResponseTrailers) }),
	"GRPC_STATUS_NUMBER":      grpcStatus,
}

func known(of func(*Facts) int64) func(*Facts) (int64, bool) {
	return func(f *Facts) (int64, bool) { return of(f), true }
}

// numeric makes an operator of a number.
func numeric(number func(*Facts) (int64, bool)) operator {
	return operator{number: true, write: func(b []byte, f *Facts) ([]byte, bool) {
		n, ok := number(f)
		if !ok {
			return b, false
		}
		return strconv.AppendInt(b, n, 10), true
	}}
}

// addresses are the operators of addresses, less their variants.
var addresses = map[string]func(*Facts) netip.AddrPort{
	"UPSTREAM_LOCAL_ADDRESS": func(f *Facts) netip.AddrPort { return f.UpstreamLocal },
	"UPSTREAM_REMOTE_ADDRESS": func(f *Facts) netip.AddrPort {
		if !f.UpstreamLocal.IsValid() { // there is no connection
			return netip.AddrPort{}
		}
		return f.UpstreamHost
	},
	"DOWNSTREAM_REMOTE_ADDRESS":        func(f *Facts) netip.AddrPort { return f.Remote },
	"DOWNSTREAM_DIRECT_REMOTE_ADDRESS": peer,
	"DOWNSTREAM_LOCAL_ADDRESS":         local,
	"DOWNSTREAM_DIRECT_LOCAL_ADDRESS":  local,
}

func peer(f *Facts) netip.AddrPort {
	if f.Connection == nil {
		return netip.AddrPort{}
	}
	return f.Connection.Peer
}

func local(f *Facts) netip.AddrPort {
	if f.Connection == nil {
		return netip.AddrPort{}
	}
	return f.Connection.Local
}

func withPort(address func(*Facts) netip.AddrPort) func([]byte, *Facts) ([]byte, bool) {
	return func(b []byte, f *Facts) ([]byte, bool) {
		a := address(f)
		if !a.IsValid() {
			return b, false
		}
		return a.AppendTo(b), true
	}
}

func port(address func(*Facts) netip.AddrPort) func(*Facts) (int64, bool) {
	return func(f *Facts) (int64, bool) {
		a := address(f)
		return int64(a.Port()), a.IsValid()
	}
}

// withoutPort makes the operator of an address alone. Its argument is the
// length of the prefix that is left of an IPv4 address, and after a comma that
// of an IPv6 one.
func withoutPort(address func(*Facts) netip.AddrPort) func(string) (operator, error) {
	return func(argument string) (operator, error) {
		v4, v6 := -1, -1
		if argument != "" {
			first, second, both := strings.Cut(argument, ",")
			var err error
			if v4, err = prefixLength(first, 32); err == nil && both {
				v6, err = prefixLength(second, 128)
			}
			if err != nil {
				return operator{}, err
			}
		}
		return operator{write: func(b []byte, f *Facts) ([]byte, bool) {
			a := address(f)
			if !a.IsValid() {
				return b, false
			}
			bits := v6
			if a.Addr().Is4() {
				bits = v4
			}
			if bits < 0 {
				return a.Addr().AppendTo(b), true
			}
			prefix, _ := a.Addr().Prefix(bits) // which is in range
			return prefix.AppendTo(b), true
		}}, nil
	}
}

// prefixLength reads the length of a prefix; empty is −1, none.
func prefixLength(text string, most int) (int, error) {
	if text == "" {
		return -1, nil
	}
	n, err := strconv.ParseUint(text, 10, 8)
	if err != nil || int(n) > most {
		return 0, fmt.Errorf("%q is no length of a prefix, 0 to %d", text, most)
	}
	return int(n), nil
}

// durations are the operators of durations in milliseconds.
var durations = map[string]func(*Facts) (time.Duration, bool){
	"DURATION":            func(f *Facts) (time.Duration, bool) { return f.Duration(), true },
	"REQUEST_DURATION":    func(f *Facts) (time.Duration, bool) { return f.Since(RequestEnd) },
	"REQUEST_TX_DURATION": func(f *Facts) (time.Duration, bool) { return f.Since(UpstreamRequestEnd) },
	"RESPONSE_DURATION":   func(f *Facts) (time.Duration, bool) { return f.Since(ResponseBegin) },
	"RESPONSE_TX_DURATION": func(f *Facts) (time.Duration, bool) {
		return between(f, at(ResponseBegin), at(SendEnd))
	},
}

func milliseconds(duration func(*Facts) (time.Duration, bool)) func(*Facts) (int64, bool) {
	return func(f *Facts) (int64, bool) {
		d, ok := duration(f)
		return d.Milliseconds(), ok
	}
}

// point is when something was, from Start on, and whether it was.
type point func(*Facts) (time.Duration, bool)

func at(m Moment) point { return func(f *Facts) (time.Duration, bool) { return f.Since(m) } }

// between is the time from one point to a later one.
func between(f *Facts, from, to point) (time.Duration, bool) {
	begin, ok := from(f)
	if !ok {
		return 0, false
	}
	end, ok := to(f)
	return end - begin, ok && end >= begin
}

// points are the names of COMMON_DURATION.
var points = map[string]point{
	"DS_RX_BEG": func(*Facts) (time.Duration, bool) { return 0, true },
	"DS_RX_END": at(RequestEnd),
	"US_CX_BEG": at(UpstreamConnectBegin),
	"US_CX_END": at(UpstreamConnectEnd),
	"US_HS_END": func(*Facts) (time.Duration, bool) { return 0, false }, // the handshake of TLS
	"US_TX_BEG": at(UpstreamRequestBegin),
	"US_TX_END": at(UpstreamRequestEnd),
	"US_RX_BEG": at(ResponseBegin),
	"US_RX_END": at(UpstreamResponseEnd),
	"DS_TX_BEG": at(SendBegin),
	"DS_TX_END": at(SendEnd),
}

// commonDuration makes COMMON_DURATION(from:to:unit).
func commonDuration(argument string) (operator, error) {
	parts := strings.Split(argument, ":")
	if len(parts) != 2 && len(parts) != 3 {
		return operator{}, fmt.Errorf("it is two points and perhaps ms, us or ns, with colons between")
	}
	unit := time.Millisecond
	if len(parts) == 3 {
		var ok bool
		if unit, ok = map[string]time.Duration{"ms": time.Millisecond, "us": time.Microsecond, "ns": time.Nanosecond}[parts[2]]; !ok {
			return operator{}, fmt.Errorf("%q is not ms, us or ns", parts[2])
		}
	}
	ends := [2]point{}
	for i := range ends {
		var ok bool
		if ends[i], ok = points[parts[i]]; !ok {
			return operator{}, fmt.Errorf("there is no point %q: nothing here sets points of its own", parts[i])
		}
	}
	return numeric(func(f *Facts) (int64, bool) {
		d, ok := between(f, ends[0], ends[1])
		return int64(d / unit), ok
	}), nil
}

// responseCodeDetails makes RESPONSE_CODE_DETAILS, whose spaces become _ unless
// ALLOW_WHITESPACES.
func responseCodeDetails(argument string) (operator, error) {
	if argument != "" && argument != "ALLOW_WHITESPACES" {
		return operator{}, fmt.Errorf("it is ALLOW_WHITESPACES or nothing")
	}
	return operator{write: func(b []byte, f *Facts) ([]byte, bool) {
		start := len(b)
		b = append(b, f.Details...)
		for i := start; argument == "" && i < len(b); i++ {
			if b[i] == ' ' || '\t' <= b[i] && b[i] <= '\r' {
				b[i] = '_'
			}
		}
		return b, f.Details != ""
	}, foreign: true}, nil
}

// hostname makes HOSTNAME, which is read once.
func hostname(string) (operator, error) {
	name, err := os.Hostname()
	return operator{write: text(func(*Facts) string { return name })}, err
}

// environment makes ENVIRONMENT(name), which is read once. What is not set is
// "-", in JSON too.
func environment(name string) (operator, error) {
	value, ok := os.LookupEnv(name)
	if !ok {
		value = "-"
	}
	return operator{write: func(b []byte, _ *Facts) ([]byte, bool) { return append(b, value...), true }, foreign: true}, nil
}

// requestedServerName makes REQUESTED_SERVER_NAME(which:whose): the name that a
// TLS client asked for, which none is yet, or that of the host.
func requestedServerName(argument string) (operator, error) {
	which, whose, _ := strings.Cut(argument, ":")
	names := []string{"x-envoy-original-host", ":authority"}
	switch whose {
	case "", "ORIG_OR_HOST":
	case "ORIG":
		names = names[:1]
	case "HOST":
		names = names[1:]
	default:
		return operator{}, fmt.Errorf("%q is not ORIG, HOST or ORIG_OR_HOST", whose)
	}
	switch which {
	case "", "SNI_ONLY":
		return operator{write: missing}, nil
	case "SNI_FIRST", "HOST_FIRST":
		return operator{foreign: true, write: func(b []byte, f *Facts) ([]byte, bool) {
			start := len(b)
			for _, name := range names {
				if b, ok := requestHeader(b, f, name); ok {
					return b[:start+hostLength(b[start:])], true
				}
			}
			return b, false
		}}, nil
	}
	return operator{}, fmt.Errorf("%q is not SNI_ONLY, SNI_FIRST or HOST_FIRST", which)
}
