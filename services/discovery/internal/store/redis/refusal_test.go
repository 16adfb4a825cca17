package redis

import (
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/weirproxy/weir/internal/servicetest"
	"github.com/weirproxy/weir/services/discovery/internal/registry"
	"github.com/weirproxy/weir/services/discovery/internal/store/storetest"
)

func TestARefusalIsToldApartFromARedisThatIsAway(t *testing.T) {
	overHTTP, overHTTPS := httptest.NewServer(http.NotFoundHandler()), httptest.NewUnstartedServer(http.NotFoundHandler())
	overHTTPS.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
	overHTTPS.StartTLS()
	t.Cleanup(overHTTP.Close)
	t.Cleanup(overHTTPS.Close)
	a := servicetest.NewAuthority(t)
	cert, key := a.IssueFiles(at("127.0.0.1"))
	for name, test := range map[string]struct {
		server func(t *testing.T) (address string)
		url    string // the address comes behind the @
		want   string // empty for one that is away
	}{
		"a wrong password": {withPassword, "redis://:wrong@", "WRONGPASS"},
		"no password":      {withPassword, "redis://@", "NOAUTH"},
		"a user without rights": {func(t *testing.T) string {
			server := servicetest.Redis(t)
			server.Command("ACL SETUSER discovery on >right ~sd:* +ping")
			return server.Address
		}, "redis://discovery:right@", "NOPERM"},
		"no such database": {func(t *testing.T) string { return servicetest.Redis(t).Address }, "redis://@/99", "DB index is out of range"},
		"TLS without saying so": {func(t *testing.T) string {
			address := servicetest.FreeAddress(t)
			_, port, _ := net.SplitHostPort(address)
			servicetest.Redis(t, "--tls-port", port, "--tls-cert-file", cert, "--tls-key-file", key, "--tls-ca-cert-file", a.File())
			return address
		}, "redis://@", "it speaks TLS, which the URL says by rediss"},
		"TLS with one that speaks none": {func(t *testing.T) string { return servicetest.Redis(t).Address },
			"rediss://@", "it speaks no TLS, which the URL asks for by rediss://"},
		"TLS with HTTP": {func(*testing.T) string { return overHTTP.Listener.Addr().String() }, "rediss://@", "first record does not look like a TLS handshake"},
		"a Cluster that is one server": {func(t *testing.T) string { return servicetest.Redis(t).Address },
			"redis+cluster://@", "it is no Cluster, which the URL says by redis+cluster"},
		"Sentinels that are a server": {func(t *testing.T) string { return servicetest.Redis(t).Address },
			"redis+sentinel://@/main", "it is no Sentinel, which the URL says by redis+sentinel"},
		"a server that is of a Cluster": {func(t *testing.T) string { return servicetest.RedisCluster(t)[0].Address },
			"redis://@", "it is of a Cluster, which the URL says by redis+cluster alone"},
		"a key of another type": {func(t *testing.T) string {
			server := servicetest.Redis(t)
			server.Command("SET sd:{7}:rec x")
			return server.Address
		}, "redis://@", "sd:{7}:rec: WRONGTYPE"},
		"another key of another type": {func(t *testing.T) string {
			server := servicetest.Redis(t)
			server.Command("SET sd:{7}:beat x")
			return server.Address
		}, "redis://@", "one of sd:{7}:rec, sd:{7}:beat, sd:{7}:log, sd:{7}:ovr, sd:{7}:meta, sd:{7}:tomb: WRONGTYPE"},
		"a state of another type": {func(t *testing.T) string {
			server := servicetest.Redis(t)
			server.Command("HSET sd:{0}:state a x")
			return server.Address
		}, "redis://@", "sd:{0}:state: WRONGTYPE"},
		"a Cluster that is away":   {func(t *testing.T) string { return servicetest.FreeAddress(t) }, "redis+cluster://@", ""},
		"Sentinels that are away":  {func(t *testing.T) string { return servicetest.FreeAddress(t) }, "redis+sentinel://@/main", ""},
		"a master of another name": {func(t *testing.T) string { return servicetest.Sentinel(t).Address }, "redis+sentinel://@/other", ""},
		"HTTP":                     {func(*testing.T) string { return overHTTP.Listener.Addr().String() }, "redis://@", "HTTP/1.1 400 Bad Request"},
		"HTTPS":                    {func(*testing.T) string { return overHTTPS.Listener.Addr().String() }, "redis://@", "it speaks TLS"},
		"away":                     {func(t *testing.T) string { return servicetest.FreeAddress(t) }, "redis://@", ""},
		"one that hangs up": {func(t *testing.T) string {
			l, err := net.Listen("tcp", "127.0.0.1:0")
			require.NoError(t, err)
			ended := make(chan struct{})
			t.Cleanup(func() { _ = l.Close(); <-ended })
			// Ends with the listener; the cleanup waits for it.
			go func() {
				defer close(ended)
				for {
					conn, err := l.Accept()
					if err != nil {
						return
					}
					_ = conn.Close()
				}
			}()
			return l.Addr().String()
		}, "redis://@", ""},
	} {
		t.Run(name, func(t *testing.T) {
			s := open(t, strings.Replace(test.url, "@", "@"+test.server(t), 1), time.Second)
			_, err := s.Load(t.Context())
			require.Error(t, err)
			if test.want == "" {
				require.NotErrorIs(t, err, registry.ErrRefused)
				return
			}
			require.ErrorIs(t, err, registry.ErrRefused)
			require.ErrorContains(t, err, test.want)
			require.NotContains(t, err.Error(), "right", "a password")
		})
	}
}

func withPassword(t *testing.T) string {
	server := servicetest.Redis(t)
	server.Command("CONFIG SET requirepass right")
	return server.Address
}

func TestARefusalIsToldOfEveryCall(t *testing.T) {
	server := servicetest.Redis(t)
	s := open(t, "redis://"+server.Address, patience)
	_, err := s.Load(t.Context())
	require.NoError(t, err)
	server.Command("ACL SETUSER default nocommands +ping")
	r := storetest.Record("users", "a", 1)
	for what, call := range map[string]func() error{
		"append": func() error {
			return s.Append(t.Context(), []registry.Change{{Key: r.Host.Key, Record: &r}})
		},
		"flush": func() error {
			_, err := s.Flush(t.Context(), []registry.Beat{{Key: r.Host.Key, At: time.Now()}})
			return err
		},
		"expire": func() error {
			_, err := s.Expire(t.Context(), []registry.Beat{{Key: r.Host.Key, At: time.Now()}})
			return err
		},
		"follow": func() error { return s.Follow(t.Context(), func(registry.Update) {}) },
	} {
		require.ErrorIs(t, call(), registry.ErrRefused, what)
	}
}
