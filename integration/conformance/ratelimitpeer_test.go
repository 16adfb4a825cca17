package conformance

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	commonpb "github.com/envoyproxy/go-control-plane/envoy/extensions/common/ratelimit/v3"
	rlspb "github.com/envoyproxy/go-control-plane/envoy/service/ratelimit/v3"
	typepb "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/weirproxy/weir/integration/harness"
	"github.com/weirproxy/weir/internal/servicetest"
)

// TestAnswersAreThoseOfThePeer gives random rules and requests to ratelimit and
// to the peer that RATELIMIT_PEER names, each with a Redis of its own, and
// wants the same answers. What the two do differently on purpose is kept out of
// it:
//
//   - keys, values and domains hold no underscore and are not empty, since the
//     peer's counters are named by joining them with one;
//   - windows are an hour long at least, so that none ends within a run, and a
//     run in which an hour did end is made again; each override has entries of
//     its own that name its unit and amount, since the peer's counters and its
//     local cache do not tell by what they are limited;
//   - with STOP_CACHE_KEY_INCREMENT_WHEN_OVERLIMIT no two descriptors of a
//     request share a counter, since the peer reads before it counts and does
//     not see the one in the other's;
//   - what the peer answers with an error of no kind, or with its end: no
//     domain, no descriptors, units that are none, hits beyond 63 bits;
//   - metadata of rules is flat and stands with no name of a metric that the
//     request shapes, under which the peer mixes it up or loses it.
//
// The time until a reset, in statuses and headers, may differ by a second: that
// between the two calls.
func TestAnswersAreThoseOfThePeer(t *testing.T) {
	if harness.RatelimitPeer() == "" {
		t.Skip("RATELIMIT_PEER names no binary of a rate limiter to compare with")
	}
	const headers, cache = "LIMIT_RESPONSE_HEADERS_ENABLED=true", "LOCAL_CACHE_SIZE_IN_BYTES=1048576"
	for _, settings := range [][]string{
		nil,
		{headers},
		{headers, "SHADOW_MODE=true"},
		{headers, "QUOTA_MODE=true"},
		{headers, cache},
		{headers, stopWhenOver},
		{headers, stopWhenOver, cache},
		{metadata},
	} {
		for seed := range uint64(3) {
			t.Run(fmt.Sprintf("%s/seed=%d", strings.Join(append([]string{"default"}, settings...), ","), seed), func(t *testing.T) {
				for {
					began := time.Now().Unix() / 3600
					difference := compareWithPeer(t, seed, settings)
					if time.Now().Unix()/3600 == began {
						require.Empty(t, difference)
						return
					}
				}
			})
		}
	}
}

// The settings on which what is sent depends.
const (
	metadata     = "RESPONSE_DYNAMIC_METADATA=true"
	stopWhenOver = "STOP_CACHE_KEY_INCREMENT_WHEN_OVERLIMIT=true"
)

// compareWithPeer makes one run and returns the first difference, empty if
// there is none.
func compareWithPeer(t *testing.T, seed uint64, settings []string) string {
	t.Helper()
	const requests = 400
	random := &chance{
		Rand:      rand.New(rand.NewPCG(seed, 1)),
		once:      slices.Contains(settings, stopWhenOver),
		described: slices.Contains(settings, metadata),
	}
	tree := random.rules(0)
	text, err := json.MarshalIndent(map[string]any{"domain": "mill", "descriptors": tree}, "", "  ")
	require.NoError(t, err)
	rules := filepath.Join(t.TempDir(), "rules") // JSON is YAML
	require.NoError(t, os.Mkdir(rules, 0o755))
	require.NoError(t, os.WriteFile(filepath.Join(rules, "mill.yaml"), text, 0o644))

	programs := []*harness.Process{
		harness.Start(t, harness.RatelimitPeerProgram(t, rules, servicetest.Redis(t).Address, settings...)),
		harness.Ratelimit(t, rules, append([]string{"REDIS_URL=redis://" + servicetest.Redis(t).Address, "REDIS_TIMEOUT=10s"}, settings...)...),
	}
	clients := make([]rlspb.RateLimitServiceClient, len(programs))
	for i, p := range programs {
		clients[i] = rlspb.NewRateLimitServiceClient(dial(t, p))
	}
	refused, granted := 0, 0 // descriptors that met a limit
	for n := range requests {
		request := random.request(tree)
		answers := make([]*rlspb.RateLimitResponse, len(programs))
		for i, client := range clients {
			answers[i], err = client.ShouldRateLimit(t.Context(), request)
			require.NoError(t, err, "%s, of %v", programs[i].Program.Name, request)
		}
		takeNearTimes(answers[0], answers[1])
		theirs, ours := protojson.Format(answers[0]), protojson.Format(answers[1])
		if !equalJSON(t, theirs, ours) {
			return fmt.Sprintf("request %d: %s\nanswer of the peer: %s\nours: %s\nrules: %s", n, protojson.Format(request), theirs, ours, text)
		}
		for _, s := range answers[0].GetStatuses() {
			switch {
			case s.GetCode() == rlspb.RateLimitResponse_OVER_LIMIT:
				refused++
			case s.GetCurrentLimit() != nil:
				granted++
			}
		}
	}
	require.NotZero(t, refused, "descriptors that were refused")
	require.NotZero(t, granted, "descriptors that were granted within a limit")
	return ""
}

// equalJSON compares what the texts say. How many spaces protobuf writes depends
// on the build, in JSON and in the text of an override that metadata has.
func equalJSON(t *testing.T, a, b string) bool {
	t.Helper()
	single := func(text string) []byte { return []byte(strings.Join(strings.Fields(text), " ")) }
	var x, y any
	require.NoError(t, json.Unmarshal(single(a), &x))
	require.NoError(t, json.Unmarshal(single(b), &y))
	return fmt.Sprint(x) == fmt.Sprint(y)
}

// takeNearTimes sets the times of theirs to those of ours where they are a
// second apart at most.
func takeNearTimes(theirs, ours *rlspb.RateLimitResponse) {
	near := func(a, b time.Duration) bool { return (a - b).Abs() <= time.Second }
	for i, s := range theirs.GetStatuses() {
		if i < len(ours.GetStatuses()) && s.GetDurationUntilReset() != nil {
			if reset := ours.GetStatuses()[i].GetDurationUntilReset(); reset != nil && near(reset.AsDuration(), s.GetDurationUntilReset().AsDuration()) {
				s.DurationUntilReset = reset
			}
		}
	}
	for i, h := range theirs.GetResponseHeadersToAdd() {
		if i < len(ours.GetResponseHeadersToAdd()) && strings.HasSuffix(h.GetKey(), "Reset") {
			value := ours.GetResponseHeadersToAdd()[i].GetValue()
			a, errA := strconv.Atoi(h.GetValue())
			b, errB := strconv.Atoi(value)
			if errA == nil && errB == nil && near(time.Duration(a)*time.Second, time.Duration(b)*time.Second) {
				h.Value = value
			}
		}
	}
}

// chance makes rules and requests.
type chance struct {
	*rand.Rand
	// once makes descriptors whose counters differ within a request.
	once bool
	// described makes rules with metadata.
	described bool
}

// in is true once in so many times, by chance.
func (c *chance) in(times int) bool { return c.IntN(times) == 0 }

// pick returns one of some values.
func (c *chance) pick(values ...string) string { return values[c.IntN(len(values))] }

// rule is one descriptor of a rule file.
type rule struct {
	Key            string `json:"key"`
	Value          string `json:"value,omitempty"`
	RateLimit      *limit `json:"rate_limit,omitempty"`
	Descriptors    []rule `json:"descriptors,omitempty"`
	ShadowMode     bool   `json:"shadow_mode,omitempty"`
	QuotaMode      bool   `json:"quota_mode,omitempty"`
	DetailedMetric bool   `json:"detailed_metric,omitempty"`
	ValueToMetric  bool   `json:"value_to_metric,omitempty"`
	ShareThreshold bool   `json:"share_threshold,omitempty"`

	Metadata map[string]string `json:"metadata,omitempty"`
}

// limit is a rate_limit of a rule file.
type limit struct {
	Unit            string              `json:"unit,omitempty"`
	RequestsPerUnit *int                `json:"requests_per_unit,omitempty"`
	Unlimited       bool                `json:"unlimited,omitempty"`
	Name            string              `json:"name,omitempty"`
	Replaces        []map[string]string `json:"replaces,omitempty"`
}

// maxDepth is how many levels rules have at most.
const maxDepth = 3

// rules makes the descriptors of a level, each pair of key and value once.
func (c *chance) rules(depth int) []rule {
	var list []rule
	for range 2 + c.IntN(4) {
		r := rule{
			Key:            c.pick("user", "route", "region"),
			Value:          c.pick("", "", "a", "ab", "b", "a*", "*b", "*", "a*b", "*a*"),
			ShadowMode:     c.in(8),
			QuotaMode:      c.in(6),
			DetailedMetric: c.in(8),
			ValueToMetric:  c.in(8),
		}
		if c.described {
			r.DetailedMetric, r.ValueToMetric = false, false
			r.Metadata = map[string]string{c.pick("team", "tier"): c.pick("grain", "flour"), "owner": c.pick("ann", "bob")}
		}
		if slices.ContainsFunc(list, func(other rule) bool { return other.Key == r.Key && other.Value == r.Value }) {
			continue
		}
		r.ShareThreshold = strings.Contains(r.Value, "*") && c.in(2) && !c.once
		if !c.in(4) {
			r.RateLimit = c.limit()
		}
		if depth+1 < maxDepth && c.in(2) {
			r.Descriptors = c.rules(depth + 1)
		}
		list = append(list, r)
	}
	return list
}

func (c *chance) limit() *limit {
	l := &limit{}
	if c.in(8) {
		l.Unlimited = true
	} else {
		requests := c.IntN(8)
		l.Unit, l.RequestsPerUnit = c.pick("hour", "Day", "WEEK", "month", "year"), &requests
	}
	if c.in(3) {
		l.Name = c.pick("first", "second", "third")
	}
	for _, name := range []string{"first", "second", "third", "nobody"} {
		if name != l.Name && c.in(10) {
			l.Replaces = append(l.Replaces, map[string]string{"name": name})
		}
	}
	return l
}

// request makes a request most of whose descriptors meet rules.
func (c *chance) request(tree []rule) *rlspb.RateLimitRequest {
	request := &rlspb.RateLimitRequest{Domain: "mill", HitsAddend: uint32(c.IntN(4))}
	if c.in(20) {
		request.Domain = "granary" // which has no rules
	}
	for range 1 + c.IntN(4) {
		d := c.descriptor(tree)
		if c.once && slices.ContainsFunc(request.Descriptors, func(other *commonpb.RateLimitDescriptor) bool {
			return fmt.Sprint(other.GetEntries()) == fmt.Sprint(d.GetEntries())
		}) {
			continue
		}
		request.Descriptors = append(request.Descriptors, d)
	}
	return request
}

func (c *chance) descriptor(tree []rule) *commonpb.RateLimitDescriptor {
	d := &commonpb.RateLimitDescriptor{}
	add := func(key, value string) {
		d.Entries = append(d.Entries, &commonpb.RateLimitDescriptor_Entry{Key: key, Value: value})
	}
	if c.in(5) {
		d.HitsAddend = wrapperspb.UInt64(uint64(c.IntN(5)))
	}
	if c.in(8) {
		requests := c.IntN(6)
		unit := []typepb.RateLimitUnit{typepb.RateLimitUnit_HOUR, typepb.RateLimitUnit_DAY, typepb.RateLimitUnit_YEAR}[c.IntN(3)]
		add("override", fmt.Sprintf("%d/%v", requests, unit))
		d.Limit = &commonpb.RateLimitDescriptor_RateLimitOverride{RequestsPerUnit: uint32(requests), Unit: unit}
		return d
	}
	for level := tree; len(level) > 0; {
		r := level[c.IntN(len(level))]
		value := r.Value
		switch {
		case value == "":
			value = c.pick("a", "ab", "b", "x", "axb", "y")
		case strings.Contains(value, "*"):
			value = strings.ReplaceAll(value, "*", c.pick("x", "a", "b", "xx"))
		}
		add(r.Key, value)
		if level = r.Descriptors; c.in(3) {
			break
		}
	}
	if c.in(10) {
		add(c.pick("user", "route"), c.pick("a", "b"))
	}
	return d
}
