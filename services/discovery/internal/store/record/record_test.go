package record_test

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"
	"unsafe"

	"github.com/stretchr/testify/require"

	"github.com/weirproxy/weir/internal/servicetest"
	"github.com/weirproxy/weir/services/discovery/internal/registry"
	"github.com/weirproxy/weir/services/discovery/internal/store/record"
)

func TestMain(m *testing.M) { servicetest.Main(m) }

var at = time.Date(2026, 2, 3, 4, 5, 6, 7_000_000, time.UTC)

// host is a record with every field.
func host() registry.Record {
	canary := false
	return registry.Record{
		Host: &registry.Host{
			Key:        registry.Key{Service: "users", ID: "a"},
			Address:    netip.MustParseAddrPort("10.0.0.1:8080"),
			Additional: []netip.Addr{netip.MustParseAddr("fd00::1")},
			Ports:      []registry.Port{{Name: "grpc", Number: 9090}, {Name: "metrics", Number: 9100}},
			Repo:       "users-repo", Revision: "r1",
			Tags: registry.Tags{
				Region: "eu", Zone: "eu-1", InstanceID: "i-1", Canary: &canary, Weight: 7,
				Other: registry.TagListOf(map[string]json.RawMessage{"rack": json.RawMessage(`{"note":"<a & b>"}`)}),
			},
			TTL: 1500 * time.Millisecond, Draining: true,
		},
		Lease:     1<<64 - 1,
		FirstSeen: at, LastCheckIn: at.Add(time.Second), DrainingSince: at.Add(time.Minute),
	}
}

func TestWhatWasWrittenIsReadAgain(t *testing.T) {
	local := time.FixedZone("local", 3600)

	r := host()
	r.FirstSeen = r.FirstSeen.In(local)
	text, err := record.EncodeHost(&r)
	require.NoError(t, err)
	read, err := record.DecodeHost(text)
	require.NoError(t, err)
	require.Equal(t, host(), read)

	r.LastCheckIn = time.Time{}
	text, err = record.EncodeHost(&r)
	require.NoError(t, err)
	require.NotContains(t, string(text), "last_check_in")
	read, err = record.DecodeHost(text)
	require.NoError(t, err)
	require.True(t, read.LastCheckIn.IsZero())

	for _, s := range []registry.Setting{
		{Scope: registry.Scope{Service: "users"}, Kind: registry.Weigh, Weight: 100, Author: "ops", Reason: "<slow>", Made: at, Expires: at.Add(time.Hour)},
		{Scope: registry.Scope{Service: "users", ID: "a"}, Kind: registry.Maintenance, Author: "ops", Made: at},
		{Scope: registry.Scope{Zone: "eu-1"}, Kind: registry.Drain, Author: "ops", Made: at},
	} {
		text, err := record.EncodeSetting(&s)
		require.NoError(t, err)
		read, err := record.DecodeSetting(text)
		require.NoError(t, err)
		require.Equal(t, s, read)
	}

	e := registry.Event{At: at, Kind: registry.Changed, Service: "users", ID: "a", Actor: "10.0.0.9", Detail: "port 1 → 2", Zone: "z"}
	for _, detail := range []string{e.Detail, "port 1, then 2"} {
		e.Detail = detail
		text, err = record.EncodeEvent(&e)
		require.NoError(t, err)
		for _, text := range [][]byte{text, spaced(text)} {
			event, err := record.DecodeEvent(text)
			require.NoError(t, err)
			require.Equal(t, e, event)
		}
	}
}

func TestAnEncoderWritesEachHostAsIfItWereTheOnlyOne(t *testing.T) {
	full, bare := host(), registry.Record{Host: &registry.Host{
		Key: registry.Key{Service: "a"}, Address: netip.MustParseAddrPort("10.0.0.1:1"), TTL: time.Second,
	}}
	encoder := record.NewHostEncoder()
	for _, r := range []registry.Record{full, bare, full} {
		want, err := record.EncodeHost(&r)
		require.NoError(t, err)
		got, err := encoder.Encode(&r)
		require.NoError(t, err)
		require.Equal(t, string(want), string(got))
	}
}

func TestHostsShareTheMemoryOfWhatTheySayAlike(t *testing.T) {
	written := host()
	text, err := record.EncodeHost(&written)
	require.NoError(t, err)
	var decoder record.HostDecoder
	var zone *byte
	for _, text := range [][]byte{text, text, spaced(text)} {
		r, err := decoder.Decode(text)
		require.NoError(t, err)
		require.Equal(t, written, r)
		if zone == nil {
			zone = unsafe.StringData(r.Host.Tags.Zone)
		}
		require.Same(t, zone, unsafe.StringData(r.Host.Tags.Zone))
	}
}

// spaced is JSON that means the same and that no encoder of ours wrote.
func spaced(text []byte) []byte { return append([]byte(" "), text...) }

func TestADecoderReadsEachHostAsIfItWereTheOnlyOne(t *testing.T) {
	full := host()
	text, err := record.EncodeHost(&full)
	require.NoError(t, err)
	plain := []byte(`{"service":"a","id":"","address":"10.0.0.1:1","ttl_ms":1000,"first_seen":"2026-02-03T04:05:06Z"}`)
	bare, err := record.DecodeHost(plain)
	require.NoError(t, err)
	var decoder record.HostDecoder
	for range 2 {
		for _, text := range [][]byte{text, spaced(text)} {
			r, err := decoder.Decode(text)
			require.NoError(t, err)
			require.Equal(t, full, r)
		}
		for _, text := range [][]byte{plain, spaced(plain)} {
			r, err := decoder.Decode(text)
			require.NoError(t, err)
			require.Equal(t, bare, r)
		}
	}
}

// TestWhatAnEncoderDoesNotWriteIsReadAsItsJSON is of texts that are hosts as an encoder
// writes them but for one thing.
func TestWhatAnEncoderDoesNotWriteIsReadAsItsJSON(t *testing.T) {
	const text = `{"service":"a","id":"b","lease":7,"address":"10.0.0.1:1","revision":"r","canary":true,"weight":9,` +
		`"tags":{"rack":1},"ttl_ms":1000,"first_seen":"2026-02-03T04:05:06Z"}`
	want, err := record.DecodeHost([]byte(text))
	require.NoError(t, err)
	for _, change := range []struct{ from, to, fault string }{
		{`"id":"b"`, `"id":"\u0062"`, ""},
		{`"id":"b",`, `"id":"é","id":"b",`, ""},
		{`{"service":"a",`, `{"lease":7,"service":"a",`, ""},
		{`"tags":{"rack":1}`, `"tags":{"rack":1},"tags":{}`, ""},
		{`"tags":{"rack":1}`, `"tags": {"rack" : 1} `, ""},
		{`"revision"`, `"REVISION"`, ""},
		{`"revision"`, `"shoe_size":42,"revision"`, ""},
		{`:1000`, `:1e3`, "cannot unmarshal number 1e3"},
		{`:1000`, `:01000`, "invalid character '1'"},
		{`:1000`, `:`, "invalid character ','"},
		{`:1000`, `:-1000`, "ttl_ms -1000"},
		{`:1000`, `:9223372036854775808`, "cannot unmarshal number 9223372036854775808"},
		{`"weight":9`, `"weight":256`, "cannot unmarshal number 256"},
		{`"canary":true`, `"canary":maybe`, "invalid character 'm'"},
		{`"tags":{"rack":1}`, `"tags":{"rack":1]`, "invalid character ']'"},
		{`"tags":{"rack":1}`, `"tags":1`, "cannot unmarshal number"},
		{`"id":"b"`, `"id":"` + "\t" + `"`, "invalid character"},
		{`"id":"b"`, `"id":b"`, "invalid character 'b'"},
		{`05:06Z"}`, `05:06Z"`, "unexpected end"},
		{`05:06Z"}`, `05:06Z"}}`, "invalid character '}'"},
		{`05:06Z"}`, `05:06"}`, "parsing time"},
		{`10.0.0.1:1`, `10.0.0.1`, "not an ip:port"},
	} {
		require.Contains(t, text, change.from)
		changed := strings.Replace(text, change.from, change.to, 1)
		got, err := record.DecodeHost([]byte(changed))
		if change.fault != "" {
			require.ErrorContains(t, err, change.fault, changed)
			continue
		}
		require.NoError(t, err, changed)
		require.Equal(t, want, got, changed)
	}
}

func TestAnEncodedHostIsCompact(t *testing.T) {
	r := registry.Record{
		Host:      &registry.Host{Key: registry.Key{Service: "users", ID: "a"}, Address: netip.MustParseAddrPort("10.0.0.1:80"), TTL: time.Minute},
		FirstSeen: at,
	}
	text, err := record.EncodeHost(&r)
	require.NoError(t, err)
	want := []byte(`{"service":"users","id":"a","address":"10.0.0.1:80","ttl_ms":60000,"first_seen":"2026-02-03T04:05:06.007Z"}`)
	require.Equal(t, want, text)
}

func TestATagThatIsNotJSONIsRefused(t *testing.T) {
	r := host()
	r.Host.Tags.Other = registry.TagListOf(map[string]json.RawMessage{"rack": json.RawMessage(`{`)})
	_, err := record.EncodeHost(&r)
	require.ErrorContains(t, err, `write host "a" of "users"`)
}

func TestAHostThatCannotBeIsRefused(t *testing.T) {
	for text, reason := range map[string]string{
		``:                "unexpected end of JSON input",
		`[]`:              "cannot unmarshal array",
		`{}`:              "a host without service",
		`{"service":"s"}`: `host "" of "s": address`,
		`{"service":"s","id":"a","address":"10.0.0.1:0","ttl_ms":1}`:                                              `host "a" of "s": address "10.0.0.1:0"`,
		`{"service":"s","address":"[fe80::1%eth0]:1","ttl_ms":1}`:                                                 "address",
		`{"service":"s","address":"h:1","ttl_ms":1}`:                                                              "ParseAddr",
		`{"service":"s","address":"10.0.0.1:1"}`:                                                                  "ttl_ms 0",
		`{"service":"s","address":"10.0.0.1:1","ttl_ms":9223372036854775807}`:                                     "ttl_ms 9223372036854775807",
		`{"service":"s","address":"10.0.0.1:1","ttl_ms":1,"weight":101}`:                                          "weight 101",
		`{"service":"s","address":"10.0.0.1:1","ttl_ms":1,"additional_addresses":["fe80::1%a"]}`:                  "additional address",
		`{"service":"s","address":"10.0.0.1:1","ttl_ms":1,"additional_addresses":[""]}`:                           "additional address",
		`{"service":"s","address":"10.0.0.1:1","ttl_ms":1,"ports":[{"name":"b","port":1},{"name":"a","port":1}]}`: `port 1 named "a" in place 1`,
		`{"service":"s","address":"10.0.0.1:1","ttl_ms":1,"ports":[{"name":"a","port":0}]}`:                       `port 0 named "a"`,
		`{"service":"s","address":"10.0.0.1:1","ttl_ms":1,"first_seen":"9999-12-31T23:59:59-23:00"}`:              "times 9999",
		`{"service":"s","address":"10.0.0.1:1","ttl_ms":1,"ports":[{"port":1}]}`:                                  `named ""`,
	} {
		_, err := record.DecodeHost([]byte(text))
		require.ErrorContains(t, err, reason, text)
	}
}

func TestASettingOrEventThatCannotBeIsRefused(t *testing.T) {
	for text, reason := range map[string]string{
		`{`:                "unexpected end of JSON input",
		`{"kind":"share"}`: "no such kind",
		`{"kind":"weight","service":"s","author":"a"}`:                                   "weight 0",
		`{"kind":"weight","service":"s","author":"a","weight":101}`:                      "weight 101",
		`{"kind":"drain","service":"s","author":"a","weight":1}`:                         "weight 1 of a kind that has none",
		`{"kind":"drain","author":"a"}`:                                                  "neither a service nor a zone",
		`{"kind":"drain","service":"s","id":"a","zone":"z","author":"a"}`:                "a host with a zone",
		`{"kind":"drain","zone":"z","id":"a","author":"a"}`:                              "a host with a zone, or without a service",
		`{"kind":"drain","service":"s","author":"a","made":"9999-12-31T23:59:59-23:00"}`: "times 9999",
		`{"kind":"drain","service":"s"}`:                                                 `setting "drain" of service "s", host "", zone "": no author`,
	} {
		_, err := record.DecodeSetting([]byte(text))
		require.ErrorContains(t, err, reason, text)
	}
	_, err := record.DecodeEvent([]byte(`{}`))
	require.ErrorContains(t, err, "an event without kind")
	_, err = record.DecodeEvent([]byte(`{"kind":"registered","at":"9999-12-31T23:59:59-23:00"}`))
	require.ErrorContains(t, err, `event "registered" at 9999`)
	_, err = record.DecodeEvent([]byte(`{`))
	require.Error(t, err)
}

func TestUnknownFieldsOfANewerVersionAreIgnored(t *testing.T) {
	r := host()
	text, err := record.EncodeHost(&r)
	require.NoError(t, err)
	read, err := record.DecodeHost(append([]byte(`{"shoe_size":42,`), text[1:]...))
	require.NoError(t, err)
	require.Equal(t, r, read)
}

// FuzzDecode holds that whatever bytes are read, what was taken for a host, a
// setting or an event is written and read again the same.
func FuzzDecode(f *testing.F) {
	r := host()
	text, err := record.EncodeHost(&r)
	require.NoError(f, err)
	f.Add(text)
	f.Add([]byte(`{"service":"s","address":"10.0.0.1:1","ttl_ms":1}`))
	f.Add([]byte(`{"kind":"weight","service":"s","author":"a","weight":1,"made":"2026-02-03T04:05:06Z"}`))
	f.Add([]byte(`{"kind":"registered","at":"9999-12-31T23:59:59-23:00"}`))
	f.Add([]byte(`{"kind":"registered","at":"2026-02-03T04:05:06Z"}`))
	f.Add([]byte(`{"at":"2026-02-03T04:05:06Z","kind":"changed","service":"s","id":"a","zone":"z","actor":"b","detail":"c"}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		r, err := record.DecodeHost(text)
		same, err2 := record.DecodeHost(spaced(text))
		require.Equal(t, r, same)
		require.Equal(t, fmt.Sprint(err), fmt.Sprint(err2))
		if err == nil {
			again(t, &r, record.EncodeHost, record.DecodeHost)
		}
		if s, err := record.DecodeSetting(text); err == nil {
			again(t, &s, record.EncodeSetting, record.DecodeSetting)
		}
		e, err := record.DecodeEvent(text)
		sameEvent, err2 := record.DecodeEvent(spaced(text))
		require.Equal(t, e, sameEvent)
		require.Equal(t, fmt.Sprint(err), fmt.Sprint(err2))
		if err == nil {
			again(t, &e, record.EncodeEvent, record.DecodeEvent)
		}
	})
}

// again writes v, reads it, and wants the same text of what was read.
func again[T any](t *testing.T, v *T, encode func(*T) ([]byte, error), decode func([]byte) (T, error)) {
	first, err := encode(v)
	require.NoError(t, err)
	read, err := decode(first)
	require.NoError(t, err, "%s", first)
	second, err := encode(&read)
	require.NoError(t, err)
	require.Equal(t, string(first), string(second))
}

func BenchmarkEncodeHost(b *testing.B) {
	r := host()
	b.ReportAllocs()
	for b.Loop() {
		_, _ = record.EncodeHost(&r)
	}
}

func BenchmarkHostEncoder(b *testing.B) {
	r := host()
	encoder := record.NewHostEncoder()
	b.ReportAllocs()
	for b.Loop() {
		_, _ = encoder.Encode(&r)
	}
}

func BenchmarkDecodeHost(b *testing.B) {
	r := host()
	text, err := record.EncodeHost(&r)
	require.NoError(b, err)
	b.ReportAllocs()
	for b.Loop() {
		_, _ = record.DecodeHost(text)
	}
}

func BenchmarkDecodeEvent(b *testing.B) {
	e := registry.Event{At: at, Kind: registry.Registered, Service: "users", ID: "10.0.0.1:80", Actor: "10.0.0.9"}
	text, err := record.EncodeEvent(&e)
	require.NoError(b, err)
	for name, text := range map[string][]byte{"plain": text, "other JSON": spaced(text)} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				_, _ = record.DecodeEvent(text)
			}
		})
	}
}

func BenchmarkHostDecoder(b *testing.B) {
	r := host()
	full, err := record.EncodeHost(&r)
	require.NoError(b, err)
	r.Host.Additional, r.Host.Ports, r.Host.Tags.Other = nil, nil, nil // as most hosts
	text, err := record.EncodeHost(&r)
	require.NoError(b, err)
	for name, text := range map[string][]byte{"plain": text, "full": full, "plain, other JSON": spaced(text), "full, other JSON": spaced(full)} {
		b.Run(name, func(b *testing.B) {
			var decoder record.HostDecoder
			b.ReportAllocs()
			for b.Loop() {
				_, _ = decoder.Decode(text)
			}
		})
	}
}

// TestAllocsOfAHostThatIsRead holds the path on which restarts wait.
func TestAllocsOfAHostThatIsRead(t *testing.T) {
	r := host()
	r.Host.Additional, r.Host.Ports, r.Host.Tags.Other, r.Host.Tags.Canary = nil, nil, nil, nil
	text, err := record.EncodeHost(&r)
	require.NoError(t, err)
	var decoder record.HostDecoder
	require.LessOrEqual(t, testing.AllocsPerRun(100, func() { _, _ = decoder.Decode(text) }), 3.0, "the host, its ID, its instance ID")
}

// TestAllocsOfWhatIsReadPlainly holds that what an encoder wrote, with all fields, is
// not left to encoding/json as a whole.
func TestAllocsOfWhatIsReadPlainly(t *testing.T) {
	r := host()
	full, err := record.EncodeHost(&r)
	require.NoError(t, err)
	e := registry.Event{At: at, Kind: registry.Registered, Service: "users", ID: "10.0.0.1:80", Zone: "eu-1", Actor: "10.0.0.9", Detail: "why"}
	event, err := record.EncodeEvent(&e)
	require.NoError(t, err)
	var decoder record.HostDecoder
	for name, test := range map[string]struct {
		text []byte
		read func([]byte) error
	}{
		"host": {full, func(text []byte) error {
			_, err := decoder.Decode(text)
			return err
		}},
		"event": {event, func(text []byte) error {
			_, err := record.DecodeEvent(text)
			return err
		}},
	} {
		t.Run(name, func(t *testing.T) {
			other := spaced(test.text)
			require.NoError(t, test.read(test.text))
			require.NoError(t, test.read(other))
			require.Less(t, testing.AllocsPerRun(100, func() { _ = test.read(test.text) }), testing.AllocsPerRun(100, func() { _ = test.read(other) }))
		})
	}
}
