package v1

import (
	"encoding/json"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"strings"
	"testing"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/stretchr/testify/require"

	"github.com/weirproxy/weir/services/discovery/internal/registry"
	"github.com/weirproxy/weir/services/discovery/internal/rest/call"
)

// FuzzRegistration sends any body: it must be refused with a reason, or give a
// host that every reader can take.
func FuzzRegistration(f *testing.F) {
	f.Add("users", fields().Encode(), "")
	f.Add("users", fields("ip", "-", "auto_ip", "1").Encode(), "192.168.0.1")
	f.Add("users", fields("tags", `{"az":"","region":"","instance_id":"","canary":"false","load_balancing_weight":"100","x":[1, {}]}`, "ttl", "9").Encode(), "")
	f.Add("*", "ip=%zz&port=;&tags=nul", ",")
	f.Add("\xff", "ip=::ffff:10.0.0.1&port=+1&revision=\xff&tags={\"az\":\"\\ud800\"}", "")
	t := terms{ttl: time.Minute, maxTTL: time.Hour, autoIP: autoIP{1, []netip.Prefix{netip.MustParsePrefix("192.168.0.0/16")}}}
	f.Fuzz(func(test *testing.T, service, body, forwardedFor string) {
		r := httptest.NewRequest("POST", "/", strings.NewReader(body))
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		form, err := readForm(httptest.NewRecorder(), r)
		if err != nil {
			require.ErrorAs(test, err, new(*call.Refusal))
			return
		}
		r.Header.Set("X-Forwarded-For", forwardedFor)
		h, err := t.readHost(service, &form, r)
		if err != nil {
			require.ErrorAs(test, err, new(*call.Refusal))
			require.NotEmpty(test, err.Error())
			return
		}
		require.True(test, h.Address.IsValid())
		require.NotZero(test, h.Address.Port())
		require.NotEqual(test, "*", h.Service)
		require.LessOrEqual(test, h.Tags.Weight, uint8(100))
		require.Positive(test, h.TTL)
		for _, text := range []string{h.Service, h.ID, h.Revision, h.Repo, h.Tags.Zone, h.Tags.Region, h.Tags.InstanceID} {
			require.True(test, utf8.ValidString(text) && !strings.ContainsFunc(text, unicode.IsControl), "%q", text)
		}
		shown := appendHost(nil, &registry.View{Record: registry.Record{Host: &h}, Weight: h.Tags.Weight}, appendTime)
		require.True(test, utf8.Valid(shown), "%q", shown)
		var read struct {
			Port     uint16
			Revision string
			Tags     struct {
				AZ     *string `json:"az"`
				Canary *bool   `json:"canary"`
				Weight *uint8  `json:"load_balancing_weight"`
			}
		}
		require.NoError(test, json.Unmarshal(shown, &read))
		require.Equal(test, h.Revision, read.Revision)
		require.Equal(test, h.Tags.Zone, *read.Tags.AZ)
	})
}

// FuzzForm reads any body. What is read must be what net/url reads, which
// takes a semicolon for a fault where this takes it as it is.
func FuzzForm(f *testing.F) {
	f.Add(fields().Encode())
	f.Add("ip=10.0.0.1&port=80&&=&ttl")
	f.Add("a+b=c%20d&ta%67s={}&x=%zz")
	f.Add("ip=1&ip=2")
	f.Add("tags=%7B%22az%22%3A%22a;b%22%7D")
	f.Fuzz(func(t *testing.T, body string) {
		got := parseForm(body)
		err := got.faults.Line()
		want, wantErr := url.ParseQuery(strings.ReplaceAll(body, ";", "%3B"))
		if wantErr != nil {
			require.ErrorContains(t, err, ": invalid URL escape")
			return
		}
		twice := false
		for _, name := range fieldNames {
			twice = twice || len(want[name]) > 1
		}
		if twice {
			require.ErrorContains(t, err, " times")
			return
		}
		require.NoError(t, err)
		for _, name := range fieldNames {
			require.Equal(t, want.Get(name), got.find(name).value, name)
		}
	})
}

// FuzzTags reads any text as tags. Taken must be what encoding/json reads as an
// object without a name twice, and shown as that.
func FuzzTags(f *testing.F) {
	f.Add(`{"az":"a","region":"r","instance_id":"i"}`)
	f.Add(` { "az" : "\u0061\"" , "region":"r","instance_id":"i", "canary" : "true","load_balancing_weight":"7","x":{"y" : [1 , "]}"]} } `)
	f.Add(`{"az":"a","\u0061z":"a","x":1,"x":2}`)
	f.Add(`{"az":null,"region":1,"instance_id":[],"":{}}`)
	f.Add(`{}`)
	f.Add(`null`)
	f.Add("{\"\xff\":1}")
	f.Fuzz(func(t *testing.T, text string) {
		var f call.Faults
		tags := readTags(&field{value: text}, &f)
		if len(f) > 0 {
			return
		}
		var want map[string]any
		require.NoError(t, json.Unmarshal([]byte(text), &want))
		var got map[string]any
		shown := appendTags(nil, &tags, tags.Weight)
		require.NoError(t, json.Unmarshal(shown, &got), "%s", shown)
		for _, name := range []string{tagCanary, tagWeight} { // which may be text, or null
			delete(want, name)
			delete(got, name)
		}
		require.Equal(t, want, got)
	})
}
