package hcm_test

import (
	"net"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/weirproxy/weir/internal/servicetest"
)

const (
	websocket      = "GET /chat HTTP/1.1\r\nHost: a\r\nConnection: keep-alive, Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: k\r\n\r\n"
	switching      = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: a\r\n\r\n"
	withWebsockets = `"upgrade_configs": [{"upgrade_type": "WebSocket"}],`
)

func TestUpgradedConnectionCarriesBothDirectionsAndEachOnesEnd(t *testing.T) {
	for _, last := range []string{"the client ends first", "the server ends first"} {
		t.Run(last, func(t *testing.T) {
			up := newUpstream(t)
			p := start(t, up.address(), config{fields: withWebsockets})
			client := p.dial()
			client.send(websocket)
			server := up.accept()
			head := server.head()
			require.Contains(t, head, "connection: Upgrade\r\nupgrade: websocket\r\n")
			require.Contains(t, head, "sec-websocket-key: k\r\n")
			require.NotContains(t, head, "content-length")
			require.NotContains(t, head, "transfer-encoding")
			server.send(switching + "early")
			head = client.head()
			require.Contains(t, head, "HTTP/1.1 101 Switching Protocols\r\n")
			require.Contains(t, head, "upgrade: websocket\r\n")
			require.Contains(t, head, "connection: Upgrade\r\n")
			require.Contains(t, head, "sec-websocket-accept: a\r\n")
			require.NotContains(t, head, "content-length")
			client.read("early")
			require.EqualValues(t, 1, p.stat("http.test.downstream_cx_upgrades_active"))
			client.send("up")
			server.read("up")
			server.send("down")
			client.read("down")

			first, second := client, server
			if last == "the server ends first" {
				first, second = server, client
			}
			require.NoError(t, first.conn.(*net.TCPConn).CloseWrite())
			second.closed() // its end has come through
			second.send("afterwards")
			first.read("afterwards")
			require.NoError(t, second.conn.Close())
			first.closed()
			servicetest.Eventually(t, "nothing is in flight", func() bool {
				return p.stat("cluster.up.upstream_rq_active") == 0 && p.stat("http.test.downstream_cx_active") == 0
			})
			require.EqualValues(t, 1, p.stat("http.test.downstream_cx_upgrades_total"))
			require.EqualValues(t, 0, p.stat("http.test.downstream_cx_upgrades_active"))
			require.EqualValues(t, 0, p.stat("cluster.up.upstream_cx_active"))
		})
	}
}

// What a client sends behind its request is for the server only once that has
// agreed: else it could smuggle requests past the proxy.
func TestWhatFollowsARefusedUpgradeIsTheNextRequest(t *testing.T) {
	up := newUpstream(t)
	p := start(t, up.address(), config{fields: withWebsockets})
	client := p.dial()
	client.send(websocket + "GET /next HTTP/1.1\r\nHost: a\r\n\r\n")
	server := up.accept()
	require.Contains(t, server.head(), "upgrade: websocket")
	server.send("HTTP/1.1 426 Upgrade Required\r\nContent-Length: 2\r\n\r\nno")
	response, body := client.response("GET")
	require.Equal(t, 426, response.StatusCode)
	require.Equal(t, "no", body)
	require.False(t, response.Close)
	head := server.head()
	require.Contains(t, head, "GET /next")
	require.Contains(t, head, "x-forwarded-proto", "it went through the proxy's own hands")
	server.send("HTTP/1.1 204 No Content\r\n\r\n")
	response, _ = client.response("GET")
	require.Equal(t, 204, response.StatusCode)
}

func TestUpgradesThatAreNotConfiguredAreRefused(t *testing.T) {
	for _, c := range []struct {
		name, fields, request string
		status                int
		text                  string
	}{
		{"none is", "", websocket, 403, "no upgrade to websocket is configured"},
		{"another is", `"upgrade_configs": [{"upgrade_type": "other"}],`, websocket, 403, "no upgrade to websocket is configured"},
		{"it is, but not enabled", `"upgrade_configs": [{"upgrade_type": "websocket", "enabled": false}],`, websocket, 403, "no upgrade to websocket is configured"},
		{"one of two", withWebsockets, strings.Replace(websocket, "Upgrade: websocket", "Upgrade: h2c, websocket", 1), 403, "no upgrade to h2c, websocket is configured"},
		{"an empty one, with a request behind it", withWebsockets, strings.Replace(websocket, "Upgrade: websocket", "Upgrade:", 1) + "GET /next HTTP/1.1\r\nHost: a\r\n\r\n", 403, "the upgrade field is empty"},
		{"none is, and there is a body", "", strings.Replace(websocket, "\r\n\r\n", "\r\nContent-Length: 1\r\n\r\nx", 1), 403, "no upgrade to websocket is configured"},
		{"with a body", withWebsockets, strings.Replace(websocket, "\r\n\r\n", "\r\nContent-Length: 1\r\n\r\nx", 1), 400, "an upgrade of a request with a body"},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := start(t, cannedUpstream(t), config{fields: c.fields})
			client := p.dial()
			client.send(c.request)
			response, body := client.response("GET")
			require.Equal(t, c.status, response.StatusCode)
			require.Contains(t, body, c.text)
			require.True(t, response.Close)
			client.closed()
			require.Equal(t, c.status == 403, p.stat("http.test.downstream_rq_ws_on_non_ws_route") == 1)
		})
	}
}

// TestARouteSaysWhichUpgradesItAllows has upgrade_configs of routes in the place of
// the manager's.
func TestARouteSaysWhichUpgradesItAllows(t *testing.T) {
	const (
		on  = `, "upgrade_configs": [{"upgrade_type": "WebSocket"}]`
		off = `, "upgrade_configs": [{"upgrade_type": "websocket", "enabled": false}]`
		own = `"upgrade_configs": [{"upgrade_type": "websocket", "enabled": false, "filters": [
			{"name": "r", "typed_config": {"@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"}}]}],`
	)
	for _, c := range []struct {
		name, fields, route, request string
		allowed                      bool
	}{
		{"by itself", "", on, websocket, true},
		{"by itself, of a Connection that says so twice", "", on, strings.Replace(websocket, "keep-alive, Upgrade", "Upgrade, upgrade", 1), true},
		{"though the manager does not", own, on, websocket, true},
		{"not that one", "", on, strings.Replace(websocket, "Upgrade: websocket", "Upgrade: other", 1), false},
		{"not, though the manager does", withWebsockets, off, websocket, false},
		{"another one, so that the manager decides", withWebsockets, `, "upgrade_configs": [{"upgrade_type": "other"}]`, websocket, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			up := newUpstream(t)
			p := start(t, up.address(), config{fields: c.fields, route: c.route})
			client := p.dial()
			client.send(c.request)
			if !c.allowed {
				response, _ := client.response("GET")
				require.Equal(t, 403, response.StatusCode)
				client.closed()
				require.EqualValues(t, 1, p.stat("http.test.downstream_rq_ws_on_non_ws_route"))
				return
			}
			server := up.accept()
			server.head()
			server.send(switching + "x")
			require.Contains(t, client.head(), "HTTP/1.1 101")
			client.read("x")
			client.send("up")
			server.read("up")
		})
	}
}

func TestARefusedUpgradeHasTheHeadersOfItsRoute(t *testing.T) {
	const entry = `"name": "r", "response_headers_to_add": [{"header": {"key": "x-down", "value": "%ROUTE_NAME% %RESPONSE_CODE_DETAILS%"}}],`
	p := start(t, cannedUpstream(t), config{entry: entry})
	client := p.dial()
	client.send(websocket)
	response, _ := client.response("GET")
	require.Equal(t, 403, response.StatusCode)
	require.Equal(t, "r upgrade_failed", response.Header.Get("X-Down"))
	client.closed()
	require.Zero(t, p.stat("http.test.downstream_cx_protocol_error"))
}

func TestUpgradeWithoutConnectionUpgradeIsNone(t *testing.T) {
	up := newUpstream(t)
	client := start(t, up.address(), config{fields: withWebsockets}).dial()
	client.send("GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\n\r\n")
	require.NotContains(t, up.accept().head(), "upgrade")
}

func TestUpgradedConnectionThatIsIdleIsCut(t *testing.T) {
	t.Parallel() // it waits
	up := newUpstream(t)
	p := start(t, up.address(), config{fields: withWebsockets + `"stream_idle_timeout": "3s", "request_timeout": "0.01s",`})
	client := p.dial()
	client.send(websocket)
	server := up.accept()
	server.head()
	server.send(switching)
	client.head()
	server.closed()
	client.closed()
	require.EqualValues(t, 1, p.stat("http.test.downstream_rq_idle_timeout"))
	require.EqualValues(t, 0, p.stat("http.test.downstream_rq_timeout"), "an upgraded request never ends")
}

func TestUpgradedConnectionEndsWithAClientThatIsGone(t *testing.T) {
	up := newUpstream(t)
	p := start(t, up.address(), config{fields: withWebsockets})
	client := p.dial()
	client.send(websocket)
	server := up.accept()
	server.head()
	server.send(switching)
	client.head()
	require.NoError(t, client.conn.(*net.TCPConn).SetLinger(0))
	require.NoError(t, client.conn.Close())
	server.closed()
	require.NoError(t, server.conn.Close())
	servicetest.Eventually(t, "nothing is in flight", func() bool { return p.stat("cluster.up.upstream_rq_active") == 0 })
}

func TestUpgradeThatExpectsA100GetsNone(t *testing.T) {
	up := newUpstream(t)
	client := start(t, up.address(), config{fields: withWebsockets}).dial()
	client.send(strings.Replace(websocket, "\r\n\r\n", "\r\nExpect: 100-continue\r\n\r\n", 1))
	server := up.accept()
	server.head()
	server.send(switching + "x")
	require.Contains(t, client.head(), "HTTP/1.1 101")
	client.send("up")
	server.read("up")
	client.read("x")
}

func TestUpgradeMayHaveFiltersOfItsOwn(t *testing.T) {
	up := newUpstream(t)
	p := start(t, up.address(), config{fields: `"upgrade_configs": [{"upgrade_type": "websocket", "filters": [{"name": "r", "typed_config": {"@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"}}]}],`})
	client := p.dial()
	client.send(websocket)
	server := up.accept()
	server.head()
	server.send(switching + "x")
	client.head()
	client.read("x")
}
