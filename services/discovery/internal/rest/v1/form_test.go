package v1

import (
	"encoding/json"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/stretchr/testify/require"

	"github.com/weirproxy/weir/services/discovery/internal/registry"
)

// FuzzRegistration sends any body: it must be refused with a reason, or give a
// host that every reader can take.
func FuzzRegistration(f *testing.F) {
	f.Add("users", form().Encode(), "")
	f.Add("users", form("ip", "-", "auto_ip", "1").Encode(), "192.168.0.1")
	f.Add("users", form("tags", `{"az":"","region":"","instance_id":"","canary":"false","load_balancing_weight":"100","x":[1, {}]}`, "ttl", "9").Encode(), "")
	f.Add("*", "ip=%zz&port=;&tags=nul", ",")
	f.Add("\xff", "ip=::ffff:10.0.0.1&port=+1&revision=\xff&tags={\"az\":\"\\ud800\"}", "")
	t := terms{ttl: time.Minute, maxTTL: time.Hour, autoIPRanges: []netip.Prefix{netip.MustParsePrefix("192.168.0.0/16")}}
	f.Fuzz(func(test *testing.T, service, body, forwardedFor string) {
		r := httptest.NewRequest("POST", "/", strings.NewReader(body))
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		form, err := readForm(httptest.NewRecorder(), r)
		if err != nil {
			require.ErrorAs(test, err, new(*refusal))
			return
		}
		h, err := t.readHost(service, form, forwardedFor)
		if err != nil {
			require.ErrorAs(test, err, new(*refusal))
			require.NotEmpty(test, err.Error())
			return
		}
		require.True(test, h.Address.IsValid())
		require.NotZero(test, h.Address.Port())
		require.NotEqual(test, "*", h.Service)
		require.LessOrEqual(test, h.Tags.Weight, uint8(100))
		require.Positive(test, h.TTL)
		for _, text := range []string{h.Service, h.ID, h.Revision, h.Repo, h.Tags.Zone, h.Tags.Region} {
			require.True(test, utf8.ValidString(text), "%q", text)
		}
		shown := appendHost(nil, &registry.View{Record: registry.Record{Host: &h}})
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

func BenchmarkCheckIn(b *testing.B) {
	h := loadedHandler(b)
	body := form().Encode()
	b.ReportAllocs()
	for b.Loop() {
		r := httptest.NewRequest("POST", "/v1/registration/users", strings.NewReader(body))
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		w := httptest.NewRecorder()
		if h.ServeHTTP(w, r); w.Code != 200 {
			b.Fatal(w.Body)
		}
	}
}

func BenchmarkListOfTen(b *testing.B) {
	h := loadedHandler(b)
	for _, ip := range strings.Split("1 2 3 4 5 6 7 8 9 10", " ") {
		if w := call(h, "POST", "/v1/registration/users", form("ip", "10.0.0."+ip)); w.Code != 200 {
			b.Fatal(w.Body)
		}
	}
	b.ReportAllocs()
	for b.Loop() {
		if w := call(h, "GET", "/v1/registration/users", url.Values(nil)); w.Code != 200 {
			b.Fatal(w.Body)
		}
	}
}
