package agent

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/weirproxy/weir/services/discovery/internal/client"
)

func TestAProgramWhosePortIsAnsweredBeforeItIsNotStarted(t *testing.T) {
	other, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer other.Close()
	port := other.Addr().(*net.TCPAddr).AddrPort().Port()
	var e events
	d := newDiscovery(t, &e, 200)
	o := Options{
		Discovery: client.Options{Registries: []string{d.URL}}, Host: client.Registration{Address: netip.MustParseAddr("127.0.0.1"), Port: port},
		TTL: time.Second, Interval: time.Millisecond, Command: []string{"/none/such"},
	}
	code := Run(o, nil, &e, &e, slog.New(slog.NewTextHandler(&e, nil)))
	require.Equal(t, startFailed, code)
	require.Len(t, e.all(), 1)
	require.Contains(t, e.all()[0], fmt.Sprintf("port %d is answered before /none/such was started", port))
}

// at is a target.
func at(address string) func(context.Context) (netip.AddrPort, error) {
	return func(context.Context) (netip.AddrPort, error) { return netip.MustParseAddrPort(address), nil }
}

func TestThePortOfAnAddressThatIsNotOursIsNotAsked(t *testing.T) {
	begin := time.Now()
	require.False(t, newHealth(Check{}, at("192.0.2.1:1"), nil).isTaken())
	require.Less(t, time.Since(begin), checkTimeout)
}

func TestNothingIsAskedWhereNothingIsToBeChecked(t *testing.T) {
	h := newHealth(Check{Kind: CheckNone}, nil, nil)
	require.False(t, h.isTaken())
	require.True(t, h.await(t.Context()))
}

func TestACheckOverHTTPWantsASuccess(t *testing.T) {
	for status, passes := range map[int]bool{200: true, 204: true, 302: false, 404: false, 503: false} {
		t.Run(fmt.Sprint(status), func(t *testing.T) {
			s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				w.Header().Set("Location", "/")
				if r.URL.Path == "/" { // where the redirection leads
					return
				}
				w.WriteHeader(status)
			}))
			defer s.Close()
			err := newHealth(Check{Kind: CheckHTTP, URL: s.URL + "/healthz"}, nil, nil).ask(t.Context())
			if passes {
				require.NoError(t, err)
			} else {
				require.ErrorContains(t, err, fmt.Sprintf("GET %s/healthz: %d", s.URL, status))
			}
		})
	}
}

func TestACheckThatHangsFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHealth(Check{Kind: CheckHTTP, URL: "http://program"}, nil, nil)
		h.http.Transport = transport(func(request *http.Request) (*http.Response, error) {
			<-request.Context().Done()
			return nil, request.Context().Err()
		})
		begin := time.Now()
		require.ErrorIs(t, h.ask(t.Context()), context.DeadlineExceeded)
		require.Equal(t, checkTimeout, time.Since(begin))
	})
}

func TestOnlyFailuresInARowMakeAProgramUnwell(t *testing.T) {
	for name, test := range map[string]struct {
		checks string // a + passes, a - fails
		want   []bool
	}{
		"all pass":                   {"+++++", nil},
		"two at a time":              {"--+--+--", nil},
		"three in a row":             {"+---", []bool{true}},
		"more, said once":            {"-------", []bool{true}},
		"well again":                 {"---+", []bool{true, false}},
		"well again, and unwell":     {"----++--+---", []bool{true, false, true}},
		"one that passes is nothing": {"+", nil},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx, stop := context.WithCancel(t.Context())
				checks := test.checks
				h := newHealth(Check{Kind: CheckHTTP, URL: "http://program", Interval: time.Second, Failures: 3}, nil, slog.New(slog.DiscardHandler))
				h.http.Transport = transport(func(*http.Request) (*http.Response, error) {
					if checks == "" {
						stop()
						return nil, errors.New("no more")
					}
					next := checks[0]
					checks = checks[1:]
					if next == '-' {
						return answer(503, "")
					}
					return answer(200, "")
				})
				var told []bool
				h.watch(ctx, func(unwell bool) { told = append(told, unwell) })
				require.Equal(t, test.want, told)
			})
		})
	}
}

func TestThatACheckDoesNotPassIsSaidOnceAfterAWhile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var e events
		h := newHealth(Check{Kind: CheckHTTP, URL: "http://program"}, nil, slog.New(slog.NewTextHandler(&e, nil)))
		begin := time.Now()
		h.http.Transport = transport(func(*http.Request) (*http.Response, error) {
			if time.Since(begin) > time.Minute {
				return answer(200, "")
			}
			return answer(503, "")
		})
		require.True(t, h.await(t.Context()))
		require.Equal(t, 1, e.count("the program is not registered yet"))
		require.Len(t, e.all(), 1)
	})
}
