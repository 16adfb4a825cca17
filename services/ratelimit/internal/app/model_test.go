package app_test

import (
	"fmt"
	"maps"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	corepb "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	commonpb "github.com/envoyproxy/go-control-plane/envoy/extensions/common/ratelimit/v3"
	pb "github.com/envoyproxy/go-control-plane/envoy/service/ratelimit/v3"
	typepb "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/structpb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/weirproxy/weir/internal/servicetest"
	"github.com/weirproxy/weir/services/ratelimit/internal/app"
)

// model is the service's semantics once more, written from its description and
// as naively as that allows: it walks lists where the service has maps, and
// concatenates where it compares. It is right by being plain.
type model struct {
	domain            string
	rules             []*modelRule
	counters          map[string]uint64
	shadow, quota     bool
	stopWhenOver      bool
	headers, metadata bool
	localCache        bool
	over              map[string]uint64 // where counters stand that the local cache knows
}

// modelRule is one descriptor of a rule file.
type modelRule struct {
	key, value           string
	shadow, quota, share bool
	limit                *modelLimit
	metadata             string // of the one key "m"; "" is none
	below                []*modelRule
}

func (r *modelRule) isPattern() bool { return strings.Contains(r.key+r.value, "*") }

// text is what a pattern is compared by.
func (r *modelRule) text() string {
	if r.value == "" {
		return r.key
	}
	return r.key + "_" + r.value
}

// modelLimit is a rate_limit.
type modelLimit struct {
	unlimited  bool
	requests   uint32
	unit       pb.RateLimitResponse_RateLimit_Unit
	multiplier uint32
	name       string
	replaces   []string
}

var modelUnits = map[pb.RateLimitResponse_RateLimit_Unit]int64{
	pb.RateLimitResponse_RateLimit_HOUR:  3600,
	pb.RateLimitResponse_RateLimit_DAY:   24 * 3600,
	pb.RateLimitResponse_RateLimit_WEEK:  7 * 24 * 3600,
	pb.RateLimitResponse_RateLimit_MONTH: 30 * 24 * 3600,
	pb.RateLimitResponse_RateLimit_YEAR:  365 * 24 * 3600,
}

// window is the length of the limit's window in seconds.
func (l *modelLimit) window() int64 { return int64(l.multiplier) * modelUnits[l.unit] }

// drawModel makes random rules. Their windows are of an hour or longer, so
// that few runs see one end.
func drawModel(r *rand.Rand, domain string) *model {
	m := &model{domain: domain, counters: map[string]uint64{}, over: map[string]uint64{}}
	m.rules = drawRules(r, 1)
	return m
}

func drawRules(r *rand.Rand, depth int) []*modelRule {
	var list []*modelRule
	seen := map[string]bool{}
	for range 1 + r.IntN(5) {
		rule := &modelRule{key: pick(r, "a", "a", "b", "b", "c", "*", "b*"), value: pick(r, "", "", "x", "y", "xy", "x*", "*y", "*", "x*y*")}
		if seen[rule.key+"_"+rule.value] {
			continue
		}
		seen[rule.key+"_"+rule.value] = true
		rule.share = rule.isPattern() && r.IntN(2) == 0
		rule.shadow, rule.quota = r.IntN(5) == 0, r.IntN(5) == 0
		if r.IntN(4) > 0 {
			rule.limit = drawLimit(r)
			rule.metadata = pick(r, "", "one", "two")
		}
		if depth < 3 && r.IntN(2) == 0 {
			rule.below = drawRules(r, depth+1)
		}
		list = append(list, rule)
	}
	return list
}

func drawLimit(r *rand.Rand) *modelLimit {
	l := &modelLimit{unlimited: r.IntN(8) == 0, multiplier: pick(r, uint32(1), 1, 1, 2), name: pick(r, "", "n1", "n2", "n3")}
	for _, name := range []string{"n1", "n2", "n3"} {
		if name != l.name && r.IntN(6) == 0 {
			l.replaces = append(l.replaces, name)
		}
	}
	if !l.unlimited {
		l.requests = pick(r, uint32(0), 1, 3, 10, 30)
		l.unit = pick(r, pb.RateLimitResponse_RateLimit_HOUR, pb.RateLimitResponse_RateLimit_DAY, pb.RateLimitResponse_RateLimit_WEEK,
			pb.RateLimitResponse_RateLimit_MONTH, pb.RateLimitResponse_RateLimit_YEAR)
	}
	return l
}

func pick[T any](r *rand.Rand, list ...T) T { return list[r.IntN(len(list))] }

// yaml is the rule file.
func (m *model) yaml() string {
	var b strings.Builder
	fmt.Fprintf(&b, "domain: %s\ndescriptors:\n", m.domain)
	writeRules(&b, m.rules, "  ")
	return b.String()
}

func writeRules(b *strings.Builder, rules []*modelRule, indent string) {
	for _, rule := range rules {
		fmt.Fprintf(b, "%s- key: %q\n", indent, rule.key)
		in := indent + "  "
		if rule.value != "" {
			fmt.Fprintf(b, "%svalue: %q\n", in, rule.value)
		}
		fmt.Fprintf(b, "%sshadow_mode: %v\n%squota_mode: %v\n%sshare_threshold: %v\n", in, rule.shadow, in, rule.quota, in, rule.share)
		if rule.metadata != "" {
			fmt.Fprintf(b, "%smetadata: {m: %s, nested: {%s: true}}\n", in, rule.metadata, rule.metadata)
		}
		if l := rule.limit; l != nil {
			fmt.Fprintf(b, "%srate_limit:\n", in)
			if l.unlimited {
				fmt.Fprintf(b, "%s  unlimited: true\n", in)
			} else {
				fmt.Fprintf(b, "%s  unit: %s\n%s  requests_per_unit: %d\n%s  unit_multiplier: %d\n", in, l.unit, in, l.requests, in, l.multiplier)
			}
			if l.name != "" {
				fmt.Fprintf(b, "%s  name: %s\n", in, l.name)
			}
			if len(l.replaces) > 0 {
				fmt.Fprintf(b, "%s  replaces:\n", in)
			}
			for _, name := range l.replaces {
				fmt.Fprintf(b, "%s    - name: %s\n", in, name)
			}
		}
		if len(rule.below) > 0 {
			fmt.Fprintf(b, "%sdescriptors:\n", in)
			writeRules(b, rule.below, in+"  ")
		}
	}
}

// drawRequest makes a random request for the model's rules, whose keys and
// values it mostly meets.
func (m *model) drawRequest(r *rand.Rand) *pb.RateLimitRequest {
	req := &pb.RateLimitRequest{Domain: m.domain, HitsAddend: pick(r, uint32(0), 0, 1, 2, 5)}
	for range 1 + r.IntN(4) {
		d := &commonpb.RateLimitDescriptor{}
		for range pick(r, 0, 1, 1, 1, 2, 2, 3) {
			d.Entries = append(d.Entries, &commonpb.RateLimitDescriptor_Entry{
				Key: pick(r, "a", "b", "c", "d"), Value: pick(r, "", "x", "y", "xy", "xyz", "z", "xzyy"),
			})
		}
		if r.IntN(4) == 0 {
			d.HitsAddend = wrapperspb.UInt64(pick(r, uint64(0), 1, 2, 7))
		}
		d.IsNegativeHits = r.IntN(10) == 0
		if r.IntN(10) == 0 {
			d.Limit = &commonpb.RateLimitDescriptor_RateLimitOverride{
				RequestsPerUnit: pick(r, uint32(0), 2, 9), UnitMultiplier: pick(r, nil, wrapperspb.UInt32(1), wrapperspb.UInt32(3)), Unit: pick(r, typepb.RateLimitUnit_HOUR, typepb.RateLimitUnit_DAY, typepb.RateLimitUnit_YEAR),
			}
		}
		req.Descriptors = append(req.Descriptors, d)
	}
	return req
}

// matches says whether the pattern stands for all of text, * for any run.
func matches(pattern, text string) bool {
	if pattern == "" {
		return text == ""
	}
	if pattern[0] == '*' {
		for i := range len(text) + 1 {
			if matches(pattern[1:], text[i:]) {
				return true
			}
		}
		return false
	}
	return text != "" && pattern[0] == text[0] && matches(pattern[1:], text[1:])
}

// find walks the rules by the entries and returns the rule at exactly the last
// one, and the values that name its counter: "*" before those that a pattern
// shares.
func (m *model) find(entries []*commonpb.RateLimitDescriptor_Entry) (*modelRule, string) {
	rules, identity := m.rules, ""
	for i, e := range entries {
		var met *modelRule
		for _, rule := range rules {
			if rule.key == e.Key && rule.value == e.Value && rule.value != "" && !rule.isPattern() {
				met = rule
			}
		}
		for _, rule := range rules {
			if met == nil && rule.isPattern() && matches(rule.text(), e.Key+"_"+e.Value) {
				met = rule
			}
		}
		for _, rule := range rules {
			if met == nil && rule.key == e.Key && rule.value == "" && !rule.isPattern() {
				met = rule
			}
		}
		if met == nil {
			return nil, ""
		}
		if met.share {
			identity += fmt.Sprintf("/%q*%q", e.Key, met.value)
		} else {
			identity += fmt.Sprintf("/%q=%q", e.Key, e.Value)
		}
		if i == len(entries)-1 {
			return met, identity
		}
		rules = met.below
	}
	return nil, ""
}

// held is what one descriptor of a request is held to.
type held struct {
	rule    *modelRule
	limit   *modelLimit // nil: none
	counter string      // "": not counted
	hits    uint64
	refund  bool
	known   bool // to be over, by the local cache
	over    bool // see look
}

// hold finds what the descriptors are held to, without those that are replaced.
func (m *model) hold(req *pb.RateLimitRequest) []*held {
	var list []*held
	replaced := map[string]bool{}
	for _, d := range req.Descriptors {
		h := &held{hits: uint64(max(1, req.HitsAddend)), refund: d.IsNegativeHits}
		if d.HitsAddend != nil {
			h.hits = d.HitsAddend.Value
		}
		identity := ""
		if d.Limit != nil {
			h.limit = &modelLimit{requests: d.Limit.RequestsPerUnit, unit: pb.RateLimitResponse_RateLimit_Unit(d.Limit.Unit), multiplier: 1}
			if m := d.Limit.UnitMultiplier; m != nil {
				h.limit.multiplier = m.Value
			}
			for _, e := range d.Entries {
				identity += fmt.Sprintf("/%q=%q", e.Key, e.Value)
			}
		} else if rule, of := m.find(d.Entries); rule != nil && rule.limit != nil {
			h.rule, h.limit, identity = rule, rule.limit, of
			for _, name := range rule.limit.replaces {
				replaced[name] = true
			}
		}
		if h.limit != nil && !h.limit.unlimited {
			h.counter = fmt.Sprintf("%s@%d", identity, h.limit.window())
		}
		list = append(list, h)
	}
	for _, h := range list {
		if h.rule != nil && !h.limit.unlimited && h.limit.name != "" && replaced[h.limit.name] {
			*h = held{}
		}
	}
	return list
}

// look has the local cache decide, and says whether the request is one that
// stops: where nothing is counted that is not over. What is over is then what
// would be if all were counted, one after another.
func (m *model) look(list []*held) (stops bool) {
	known := false
	for _, h := range list {
		h.known = h.counter != "" && !h.refund && m.over[h.counter] > uint64(h.limit.requests)
		known = known || h.known
	}
	if !m.stopWhenOver {
		return false
	}
	then := maps.Clone(m.counters)
	for _, h := range list {
		switch {
		case h.counter == "" || h.known:
			continue
		case h.refund:
			then[h.counter] -= min(then[h.counter], h.hits)
			continue
		case known:
			h.hits = 0
		}
		then[h.counter] += h.hits
		h.over = then[h.counter] > uint64(h.limit.requests)
		stops = stops || h.over
	}
	return stops || known
}

// count counts a descriptor's hits, and says whether they are over. Alone says
// that it is the only one of its request on its counter.
func (m *model) count(h *held, stops, alone bool) (over bool) {
	n := m.counters[h.counter]
	if !m.stopWhenOver {
		h.over = n+h.hits > uint64(h.limit.requests)
	}
	switch {
	case h.known:
		return true
	case h.refund:
		m.counters[h.counter] = n - min(n, h.hits)
		return false
	case h.over:
		m.counters[h.counter] = n + h.hits
		if m.localCache && (alone || !m.stopWhenOver) {
			m.over[h.counter] = n + h.hits
		}
		return true
	case !stops:
		m.counters[h.counter] = n + h.hits
	}
	return false
}

// answer is what the service must say to req at time now.
func (m *model) answer(req *pb.RateLimitRequest, now time.Time) *pb.RateLimitResponse {
	list := m.hold(req)
	stops := m.look(list)
	out := &pb.RateLimitResponse{OverallCode: pb.RateLimitResponse_OK}
	quotas, overQuotas, tightest, least := 0, 0, -1, uint32(math.MaxUint32)
	for i, h := range list {
		status := &pb.RateLimitResponse_DescriptorStatus{Code: pb.RateLimitResponse_OK}
		out.Statuses = append(out.Statuses, status)
		if h.limit != nil && h.limit.unlimited {
			status.LimitRemaining = math.MaxUint32
			continue
		}
		quota := m.quota || h.rule != nil && h.rule.quota
		if quota {
			quotas++
		}
		if h.limit == nil {
			continue
		}
		window := h.limit.window()
		status.CurrentLimit = &pb.RateLimitResponse_RateLimit{Name: h.limit.name, RequestsPerUnit: h.limit.requests, Unit: h.limit.unit}
		if h.limit.multiplier > 1 {
			status.CurrentLimit.UnitMultiplier = wrapperspb.UInt32(h.limit.multiplier)
		}
		status.DurationUntilReset = durationpb.New(time.Duration(window-now.Unix()%window) * time.Second)
		if m.count(h, stops, alone(list, h)) {
			status.Code = pb.RateLimitResponse_OVER_LIMIT
		} else if n := m.counters[h.counter]; n < uint64(h.limit.requests) {
			status.LimitRemaining = h.limit.requests - uint32(n)
		}
		if h.rule != nil && h.rule.shadow {
			status.Code = pb.RateLimitResponse_OK
		}
		if status.LimitRemaining < least {
			tightest, least = i, status.LimitRemaining
		}
		switch over := status.Code == pb.RateLimitResponse_OVER_LIMIT; {
		case over && quota:
			overQuotas++
		case over:
			out.OverallCode = pb.RateLimitResponse_OVER_LIMIT
			tightest, least = i, 0
		}
	}
	for _, h := range list {
		if h.refund {
			delete(m.over, h.counter)
		}
	}
	if quotas > 0 && quotas == overQuotas {
		out.OverallCode = pb.RateLimitResponse_OVER_LIMIT
	}
	if m.shadow {
		out.OverallCode = pb.RateLimitResponse_OK
	}
	if m.headers && tightest >= 0 {
		of := out.Statuses[tightest]
		for _, header := range [][2]string{
			{"RateLimit-Limit", fmt.Sprint(of.CurrentLimit.RequestsPerUnit)},
			{"RateLimit-Remaining", fmt.Sprint(of.LimitRemaining)},
			{"RateLimit-Reset", fmt.Sprint(of.DurationUntilReset.Seconds)},
		} {
			out.ResponseHeadersToAdd = append(out.ResponseHeadersToAdd, &corepb.HeaderValue{Key: header[0], Value: header[1]})
		}
	}
	if m.metadata {
		out.DynamicMetadata = m.dynamicMetadata(req, list, out.Statuses)
	}
	return out
}

// dynamicMetadata repeats the request, and merges the metadata of the rules
// that passed.
func (m *model) dynamicMetadata(req *pb.RateLimitRequest, list []*held, statuses []*pb.RateLimitResponse_DescriptorStatus) *structpb.Struct {
	var descriptors []any
	merged := map[string]any{}
	for i, d := range req.Descriptors {
		entries := []any{}
		for _, e := range d.Entries {
			entries = append(entries, e.Key+"="+e.Value)
		}
		descriptor := map[string]any{"entries": entries}
		if d.Limit != nil {
			descriptor["limit"] = fmt.Sprintf("unit:%s", d.Limit.Unit)
			if n := d.Limit.RequestsPerUnit; n != 0 { // as protobuf's text leaves out what is 0
				descriptor["limit"] = fmt.Sprintf("requests_per_unit:%d unit:%s", n, d.Limit.Unit)
			}
			if m := d.Limit.UnitMultiplier; m != nil {
				descriptor["limit"] = fmt.Sprintf("%s unit_multiplier:{value:%d}", descriptor["limit"], m.Value)
			}
		}
		if d.HitsAddend != nil {
			descriptor["hitsAddend"] = float64(d.HitsAddend.Value)
		}
		descriptors = append(descriptors, descriptor)
		rule := list[i].rule
		if rule == nil || rule.limit.unlimited || rule.metadata == "" || statuses[i].Code != pb.RateLimitResponse_OK {
			continue
		}
		if merged["m"] == nil {
			merged["m"], merged["nested"] = rule.metadata, map[string]any{}
		}
		merged["nested"].(map[string]any)[rule.metadata] = true
	}
	fields := map[string]any{"domain": req.Domain, "descriptors": descriptors}
	if req.HitsAddend != 0 {
		fields["hitsAddend"] = float64(req.HitsAddend)
	}
	if len(merged) > 0 {
		fields["metadata"] = merged
	}
	s, err := structpb.NewStruct(fields)
	if err != nil {
		panic(err)
	}
	return s
}

// alone says whether no other of list has h's counter.
func alone(list []*held, h *held) bool {
	return !slices.ContainsFunc(list, func(other *held) bool { return other != h && other.counter == h.counter })
}

// closeInTime gives want the times of got where those are a second on: the clock
// goes on between the two.
func closeInTime(want, got *pb.RateLimitResponse) {
	for i, status := range want.GetStatuses() {
		if i >= len(got.GetStatuses()) || status.DurationUntilReset == nil {
			continue
		}
		was, is := status.DurationUntilReset, got.Statuses[i].DurationUntilReset
		if is == nil || was.Seconds-is.GetSeconds() != 1 {
			continue
		}
		for j, h := range want.ResponseHeadersToAdd {
			if h.Value == fmt.Sprint(was.Seconds) && j < len(got.ResponseHeadersToAdd) && got.ResponseHeadersToAdd[j].Value == fmt.Sprint(is.GetSeconds()) {
				h.Value = fmt.Sprint(is.GetSeconds())
			}
		}
		status.DurationUntilReset = is
	}
}

// TestAnswersAreThoseOfTheModel drives the service with random rules and
// requests and compares every field of every answer.
func TestAnswersAreThoseOfTheModel(t *testing.T) {
	for _, backend := range []string{"memory", "redis"} {
		for _, c := range []struct {
			name string
			set  func(*app.Options, *model)
		}{
			{"by_default", func(*app.Options, *model) {}},
			{"shadow_mode", func(o *app.Options, m *model) { o.ShadowMode, m.shadow = true, true }},
			{"quota_mode", func(o *app.Options, m *model) { o.QuotaMode, m.quota = true, true }},
			{"stop_when_over", func(o *app.Options, m *model) { o.StopWhenOver, m.stopWhenOver = true, true }},
			{"local_cache_headers_and_metadata", func(o *app.Options, m *model) {
				o.LocalCacheSize, m.localCache = 1<<20, true
				o.ResponseHeaders, m.headers = true, true
				o.DynamicMetadata, m.metadata = true, true
			}},
			{"stop_when_over_and_local_cache", func(o *app.Options, m *model) {
				o.LocalCacheSize, m.localCache = 1<<20, true
				o.StopWhenOver, m.stopWhenOver = true, true
			}},
		} {
			t.Run(backend+"/"+c.name, func(t *testing.T) {
				// Windows end on the hour: what went on over one is done again.
				for hour := time.Now().Truncate(time.Hour); ; hour = time.Now().Truncate(time.Hour) {
					difference := compare(t, backend, uint64(len(c.name)), c.set)
					if time.Now().Truncate(time.Hour).Equal(hour) {
						require.Empty(t, difference)
						return
					}
				}
			})
		}
	}
}

// compare sends the service random requests for random rules, and returns the
// first answer that is not the model's, with what led to it, or "".
func compare(t *testing.T, backend string, seed uint64, set func(*app.Options, *model)) string {
	t.Helper()
	o := options(t)
	if backend == "redis" {
		o.RedisURL = servicetest.Redis(t).Address
	}
	random := rand.New(rand.NewPCG(4, seed))
	var models []*model
	for i := range 12 {
		m := drawModel(random, fmt.Sprintf("domain-%d", i))
		set(&o, m)
		models = append(models, m)
		require.NoError(t, os.WriteFile(filepath.Join(o.RuntimeRoot, "config", m.domain+".yaml"), []byte(m.yaml()), 0o644))
	}
	client := pb.NewRateLimitServiceClient(start(t, o).conn)
	for i := range 1500 {
		m := models[i%len(models)]
		req := m.drawRequest(random)
		want := m.answer(req, time.Now())
		got, err := client.ShouldRateLimit(t.Context(), req)
		require.NoError(t, err, "%v", req)
		closeInTime(want, got)
		if !proto.Equal(want, got) {
			return fmt.Sprintf("request %d: %v\nwanted: %s\ngot: %s\nof rules:\n%s", i, req, protojson.Format(want), protojson.Format(got), m.yaml())
		}
	}
	return ""
}
