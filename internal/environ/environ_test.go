package environ

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/weirproxy/weir/internal/servicetest"
)

func TestMain(m *testing.M) { servicetest.Main(m) }

type Common struct {
	LogLevel string `envconfig:"MILL_LOG_LEVEL" default:"info" desc:"least severity that is logged"`
}

type settings struct {
	Address string `envconfig:"MILL_HTTP_ADDRESS" default:"0.0.0.0:8090" desc:"where REST is served"`
	Common
	Grace   time.Duration     `envconfig:"MILL_DRAIN_GRACE" default:"1s" desc:"from unready to closed"`
	Streams int               `envconfig:"MILL_STREAMS" default:"64" desc:"streams per connection"`
	Ratio   float64           `envconfig:"MILL_RATIO" default:"0.8" desc:"near the limit from here"`
	Quiet   bool              `envconfig:"MILL_QUIET" desc:"no banner"`
	Peers   []string          `envconfig:"MILL_PEERS" desc:"other mills"`
	Tags    map[string]string `envconfig:"MILL_TAGS" desc:"tags of all metrics"`
	Bytes   int64             `envconfig:"MILL_BYTES" default:"1024" desc:"largest body"`
	Port    uint16            `envconfig:"PORT" default:"8090" desc:"older name's port"`
	Wait    *time.Duration    `envconfig:"MILL_WAIT" desc:"before the first sack; if unset, as long as it takes"`

	secret string // no tag, so no setting
}

func TestLoad(t *testing.T) {
	t.Run("takes_defaults_and_variables", func(t *testing.T) {
		t.Setenv("MILL_DRAIN_GRACE", "250ms")
		t.Setenv("MILL_PEERS", "a,b")
		t.Setenv("MILL_LOG_LEVEL", "debug")
		var s settings
		require.NoError(t, Load(&s))
		require.Equal(t, settings{
			Address: "0.0.0.0:8090", Common: Common{LogLevel: "debug"}, Grace: 250 * time.Millisecond,
			Streams: 64, Ratio: 0.8, Peers: []string{"a", "b"}, Bytes: 1024, Port: 8090,
		}, s)
	})
	t.Run("tells_a_zero_from_nothing_by_a_pointer", func(t *testing.T) {
		var s settings
		require.NoError(t, Load(&s))
		require.Nil(t, s.Wait)
		t.Setenv("MILL_WAIT", "0s")
		require.NoError(t, Load(&s))
		require.Equal(t, new(time.Duration(0)), s.Wait)
	})
	for variable, c := range map[string]struct{ value, want string }{
		"MILL_STREAMS":     {"many", `environment variable MILL_STREAMS="many": want integer`},
		"MILL_DRAIN_GRACE": {"5", `environment variable MILL_DRAIN_GRACE="5": want duration`},
		"MILL_QUIET":       {"perhaps", `environment variable MILL_QUIET="perhaps": want true or false`},
		"MILL_TAGS":        {"a:b,c,d:e,f", `environment variable MILL_TAGS="a:b,c,d:e,f": want k:v,… list: invalid map item: "c"; invalid map item: "f"`},
		"PORT":             {"65536", `environment variable PORT="65536": want integer`},
	} {
		t.Run("refuses_a_wrong_"+variable+"_by_name_and_value", func(t *testing.T) {
			t.Setenv(variable, c.value)
			var s settings
			require.ErrorContains(t, Load(&s), c.want)
		})
	}
}

func TestLoadNamesEveryBadVariable(t *testing.T) {
	t.Setenv("MILL_STREAMS", "many")
	t.Setenv("MILL_QUIET", "perhaps")
	var s settings
	require.EqualError(t, Load(&s), "environment variable MILL_STREAMS=\"many\": want integer\n"+
		"environment variable MILL_QUIET=\"perhaps\": want true or false")
	require.Equal(t, 64, s.Streams, "the default")
}

func TestLoadNamesTheWrongItemsOfAList(t *testing.T) {
	t.Setenv("MILL_NETWORKS", "foo,10.0.0.0/8,1.2.3.4/99")
	var s struct {
		Networks []netip.Prefix `envconfig:"MILL_NETWORKS" default:"10.0.0.0/8"`
	}
	require.EqualError(t, Load(&s), `environment variable MILL_NETWORKS="foo,10.0.0.0/8,1.2.3.4/99": want comma list: `+
		`netip.ParsePrefix("foo"): no '/'; netip.ParsePrefix("1.2.3.4/99"): prefix length out of range`)
}

func TestLoadTakesAnEmptyVariableForUnset(t *testing.T) {
	t.Setenv("MILL_STREAMS", "")
	t.Setenv("MILL_DRAIN_GRACE", "")
	t.Setenv("MILL_HTTP_ADDRESS", "")
	var s settings
	require.NoError(t, Load(&s))
	require.Equal(t, 64, s.Streams)
	require.Equal(t, time.Second, s.Grace)
	require.Empty(t, s.Address, "text can be empty")
}

func TestVariablesStandInTheOrderOfTheFields(t *testing.T) {
	want := []Variable{
		{"MILL_HTTP_ADDRESS", "text", "0.0.0.0:8090", "where REST is served"},
		{"MILL_LOG_LEVEL", "text", "info", "least severity that is logged"},
		{"MILL_DRAIN_GRACE", "duration", "1s", "from unready to closed"},
		{"MILL_STREAMS", "integer", "64", "streams per connection"},
		{"MILL_RATIO", "number", "0.8", "near the limit from here"},
		{"MILL_QUIET", "true or false", "", "no banner"},
		{"MILL_PEERS", "comma list", "", "other mills"},
		{"MILL_TAGS", "k:v,… list", "", "tags of all metrics"},
		{"MILL_BYTES", "integer", "1024", "largest body"},
		{"PORT", "integer", "8090", "older name's port"},
		{"MILL_WAIT", "duration", "", "before the first sack; if unset, as long as it takes"},
	}
	require.Equal(t, want, Variables(settings{}))
	require.Equal(t, want, Variables(&settings{secret: "unused"}))
}

func TestHelpIsATableOfAllVariables(t *testing.T) {
	var out strings.Builder
	Help(&out, settings{})
	servicetest.Golden(t, "testdata/help.txt", []byte(out.String()))
}

func TestMisspelt(t *testing.T) {
	for name, c := range map[string]struct {
		environment []string
		want        []string
	}{
		"known_names_are_well":      {[]string{"MILL_STREAMS=1", "PORT=1"}, nil},
		"strangers_are_no_business": {[]string{"PATH=/bin", "HOST=x", "=C:", "SPORT=1"}, nil},
		"kubernetes_links_are_no_settings": {[]string{
			"MILL_SERVICE_HOST=10.0.0.1", "MILL_SERVICE_PORT=80", "MILL_SERVICE_PORT_HTTP_ADMIN=81", "MILL_PORT=tcp://10.0.0.1:80",
			"MILL_PORT_80_TCP=tcp://10.0.0.1:80", "MILL_PORT_80_TCP_PROTO=tcp", "MILL_PORT_80_TCP_PORT=80", "MILL_PORT_80_TCP_ADDR=10.0.0.1",
		}, nil},
		"an_unknown_name_with_our_prefix": {[]string{"MILL_PORTS=1"}, []string{"environment variable MILL_PORTS is not a setting; the nearest is MILL_PEERS"}},
		"a_letter_missing_in_the_prefix":  {[]string{"MIL_STREAMS=1"}, []string{"environment variable MIL_STREAMS is not a setting; the nearest is MILL_STREAMS"}},
		"two_letters_swapped":             {[]string{"MLIL_QUIET=1"}, []string{"environment variable MLIL_QUIET is not a setting; the nearest is MILL_QUIET"}},
	} {
		t.Run(name, func(t *testing.T) {
			require.Equal(t, c.want, Misspelt(settings{}, []string{"MILL_"}, c.environment))
		})
	}
}
