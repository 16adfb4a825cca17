package accesslog

import (
	"math"
	"math/rand/v2"

	accesslogv3 "github.com/envoyproxy/go-control-plane/envoy/config/accesslog/v3"

	"github.com/weirproxy/weir/services/proxy/internal/format"
	"github.com/weirproxy/weir/services/proxy/internal/layeredruntime"
	"github.com/weirproxy/weir/services/proxy/internal/matcher"
	"github.com/weirproxy/weir/services/proxy/internal/requestid"
	"github.com/weirproxy/weir/services/proxy/internal/strict"
)

// filter says whether a request is logged.
type filter func(*format.Facts, *layeredruntime.Snapshot) bool

// parseFilter makes the filter of a message that lies at the path at.
func parseFilter(m *accesslogv3.AccessLogFilter, at strict.Path, report *strict.Report) filter {
	switch kind := m.GetFilterSpecifier().(type) {
	case *accesslogv3.AccessLogFilter_StatusCodeFilter:
		compare := comparison(kind.StatusCodeFilter.GetComparison())
		return func(f *format.Facts, values *layeredruntime.Snapshot) bool {
			return compare(int64(f.ResponseCode), values)
		}
	case *accesslogv3.AccessLogFilter_DurationFilter:
		compare := comparison(kind.DurationFilter.GetComparison())
		return func(f *format.Facts, values *layeredruntime.Snapshot) bool {
			return compare(f.Duration().Milliseconds(), values)
		}
	case *accesslogv3.AccessLogFilter_NotHealthCheckFilter:
		return func(f *format.Facts, _ *layeredruntime.Snapshot) bool { return !f.HealthCheck }
	case *accesslogv3.AccessLogFilter_TraceableFilter:
		return func(f *format.Facts, _ *layeredruntime.Snapshot) bool { return f.ForcedTrace && !f.HealthCheck }
	case *accesslogv3.AccessLogFilter_RuntimeFilter:
		return sampled(kind.RuntimeFilter)
	case *accesslogv3.AccessLogFilter_AndFilter:
		all := parseFilters(kind.AndFilter.GetFilters(), at.Field("and_filter"), report)
		return func(f *format.Facts, values *layeredruntime.Snapshot) bool { return !matches(all, f, values, false) }
	case *accesslogv3.AccessLogFilter_OrFilter:
		some := parseFilters(kind.OrFilter.GetFilters(), at.Field("or_filter"), report)
		return func(f *format.Facts, values *layeredruntime.Snapshot) bool { return matches(some, f, values, true) }
	case *accesslogv3.AccessLogFilter_HeaderFilter:
		header := matcher.ParseHeader(kind.HeaderFilter.GetHeader(), at.Field("header_filter").Field("header"), report)
		return func(f *format.Facts, _ *layeredruntime.Snapshot) bool {
			return f.Request != nil && header.Match(f.Request)
		}
	case *accesslogv3.AccessLogFilter_ResponseFlagFilter:
		return flags(kind.ResponseFlagFilter.GetFlags(), at.Field("response_flag_filter").Field("flags"), report)
	case *accesslogv3.AccessLogFilter_GrpcStatusFilter:
		return grpcStatus(kind.GrpcStatusFilter)
	}
	return nil // the schema's walk has said so
}

func parseFilters(list []*accesslogv3.AccessLogFilter, at strict.Path, report *strict.Report) (filters []filter) {
	for i, m := range list {
		if f := parseFilter(m, at.Field("filters").Index(i), report); f != nil {
			filters = append(filters, f)
		}
	}
	return filters
}

// matches says whether any of the filters answers want.
func matches(filters []filter, f *format.Facts, values *layeredruntime.Snapshot, want bool) bool {
	for _, filter := range filters {
		if filter(f, values) == want {
			return true
		}
	}
	return false
}

// comparison says whether a number is as a ComparisonFilter wants it.
func comparison(m *accesslogv3.ComparisonFilter) func(int64, *layeredruntime.Snapshot) bool {
	op, key, configured := m.GetOp(), m.GetValue().GetRuntimeKey(), uint64(m.GetValue().GetDefaultValue())
	return func(got int64, values *layeredruntime.Snapshot) bool {
		want := int64(min(values.Integer(key, configured), math.MaxInt64))
		switch op {
		case accesslogv3.ComparisonFilter_GE:
			return got >= want
		case accesslogv3.ComparisonFilter_LE:
			return got <= want
		case accesslogv3.ComparisonFilter_NE:
			return got != want
		default:
			return got == want
		}
	}
}

// sampled lets a share of the requests through, told by their x-request-id so
// that all proxies on the way choose the same ones. A number in the runtime is in the
// denominator of percent_sampled.
func sampled(m *accesslogv3.RuntimeFilter) filter {
	configured := layeredruntime.ShareOf(m.GetPercentSampled())
	return func(f *format.Facts, values *layeredruntime.Snapshot) bool {
		n := rand.Uint32()
		if f.Request != nil && !m.GetUseIndependentRandomness() {
			if number, ok := requestid.Number(&f.Request.Headers); ok {
				n = number
			}
		}
		return uint64(n%configured.Denominator) < values.Integer(m.GetRuntimeKey(), uint64(configured.Numerator))
	}
}

// flags lets requests through that have any of the flags, or any at all where
// none is named.
func flags(names []string, at strict.Path, report *strict.Report) filter {
	var wanted format.Flags
	for i, name := range names {
		flag, ok := format.Flag(name)
		if !ok {
			report.Add(at.Index(i), "%q is no response flag", name)
		}
		wanted |= flag
	}
	if len(names) == 0 {
		wanted = ^wanted
	}
	return func(f *format.Facts, _ *layeredruntime.Snapshot) bool { return f.Flags&wanted != 0 }
}

// grpcStatus lets requests through by the grpc-status of their responses;
// without one it is UNKNOWN.
func grpcStatus(m *accesslogv3.GrpcStatusFilter) filter {
	listed := map[int64]bool{}
	for _, status := range m.GetStatuses() {
		listed[int64(status)] = true
	}
	return func(f *format.Facts, _ *layeredruntime.Snapshot) bool {
		code, ok := format.GRPCStatus(f)
		if !ok {
			code = int64(accesslogv3.GrpcStatusFilter_UNKNOWN)
		}
		return listed[code] != m.GetExclude()
	}
}
