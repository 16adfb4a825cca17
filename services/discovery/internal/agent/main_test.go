package agent

import (
	"bytes"
	"encoding/json"
	"flag"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/weirproxy/weir/services/discovery/internal/client"
)

// parseRun reads the command line of run.
func parseRun(t *testing.T, line string) Options {
	t.Helper()
	s, a, err := parse(strings.Fields(line))
	require.NoError(t, err)
	require.Equal(t, "run", s.name)
	return a.(*runAction).options
}

// runDefaults are the options of run --service users --port 8080 -- program.
func runDefaults() Options {
	return Options{
		Discovery: client.Options{Registries: []string{"http://127.0.0.1:8090"}}, Service: "users",
		Host: client.Registration{Port: 8080, Revision: "unknown"},
		TTL:  30 * time.Second, Interval: 10 * time.Second, Drain: 5 * time.Second,
		Check:   Check{Kind: CheckTCP, Interval: 2 * time.Second, Failures: 3},
		Command: []string{"program"},
	}
}

func TestTheCommandLineIsReadWithItsDefaults(t *testing.T) {
	want := runDefaults()
	want.Command = []string{"program", "--flag", "argument"}
	require.Equal(t, want, parseRun(t, "run --service users --port 8080 -- program --flag argument"))

	canary := false
	require.Equal(t, Options{
		Discovery: client.Options{Registries: []string{"http://a:1/", "https://b"}}, Service: "users", ID: "i",
		Host: client.Registration{
			Address: netip.MustParseAddr("fd00::1"), AdditionalAddresses: []netip.Addr{netip.MustParseAddr("10.0.0.1")}, Port: 1,
			Ports: map[string]uint16{"http": 8080, "grpc": 9090}, Zone: "z", Region: "e", Repo: "p", Revision: "r", Weight: 7, Canary: &canary,
			Tags: map[string]json.RawMessage{
				"a": json.RawMessage(`"b"`), "c": json.RawMessage(`"d=e"`), "f": json.RawMessage(`[1,"2"]`), "n": json.RawMessage(`"7"`), "e": json.RawMessage(`""`),
			},
		},
		TTL: 9 * time.Second, Interval: 2 * time.Second,
		Check:     Check{Kind: CheckHTTP, URL: "http://127.0.0.1:1/healthz", Interval: time.Second, Failures: 2},
		HostsFile: "/run/hosts.json", HostsOf: []string{"a", "b"}, Command: []string{"program"},
	}, parseRun(t, "run --service users --port 1 --discovery http://a:1/,https://b --address fd00::1 --additional-address 10.0.0.1 --id i "+
		"--port-name http=8080 --port-name grpc=9090 --revision r --zone z --region e --repo p --weight 7 --canary=false "+
		`--tag a=b --tag c=d=e --tag f:=[1,"2"] --tag n=7 --tag e= --ttl 9s --interval 2s --drain 0s `+
		"--check http://127.0.0.1:1/healthz --check-interval 1s --check-failures 2 --hosts-file /run/hosts.json --hosts-of a,b -- program"))
}

func TestFlagsHaveTheirFormerNamesToo(t *testing.T) {
	want := runDefaults()
	want.ID, want.Host.Zone, want.Host.Address = "i", "z", netip.MustParseAddr("10.0.0.1")
	t.Setenv("DISCOVERY_AGENT_ZONE", "not taken, since there is a flag")
	require.Equal(t, want, parseRun(t, "run --service users --port 8080 --instance-id i --az z --ip ::ffff:10.0.0.1 -- program"))
}

func TestFlagsCanBeGivenByVariables(t *testing.T) {
	t.Setenv("DISCOVERY_AGENT_DISCOVERY", "http://a,http://b")
	t.Setenv("DISCOVERY_AGENT_ZONE", "z")
	t.Setenv("DISCOVERY_AGENT_TTL", "60s")
	t.Setenv("DISCOVERY_AGENT_TAG", "a=b c\nd:={\"e\": 1}\n")
	t.Setenv("DISCOVERY_AGENT_PORT", "") // as if it were not there
	want := runDefaults()
	want.Discovery.Registries, want.Host.Zone, want.TTL, want.Interval = []string{"http://a", "http://b"}, "z", 9*time.Second, 3*time.Second
	want.Host.Tags = map[string]json.RawMessage{"a": json.RawMessage(`"b c"`), "d": json.RawMessage(`{"e": 1}`)}
	require.Equal(t, want, parseRun(t, "run --service users --port 8080 --ttl 9s -- program"))

	_, a, err := parse(strings.Fields("drain --service users --reason r"))
	require.NoError(t, err)
	require.Equal(t, []string{"http://a", "http://b"}, a.(*makeAction).options.Registries)
	require.Equal(t, client.Scope{Service: "users"}, a.(*makeAction).Scope, "what is drained stands on the command line")

	t.Setenv("DISCOVERY_AGENT_TTL", "soon")
	_, _, err = parse(strings.Fields("run --service users --port 8080 -- program"))
	require.ErrorContains(t, err, `environment variable DISCOVERY_AGENT_TTL="soon": parse error`)
}

func TestAVariableThatStandsForNoFlagIsTold(t *testing.T) {
	require.Equal(t, []string{"DISCOVERY_AGENT_TTTL", "DISCOVERY_AGENT_REASON", "DISCOVERY_AGENT_IP"}, strangeVariables([]string{
		"DISCOVERY_AGENT_TTL=1s", "DISCOVERY_AGENT_TTTL=1s", "DISCOVERY_AGENT_REASON=r", "DISCOVERY_AGENT_IP=10.0.0.1", "DISCOVERY_AGENT_FILE=f",
		"DISCOVERY_STORE=memory:", "HOME=/",
	}))
}

func TestAWrongCommandLineIsRefusedWithAllThatIsWrong(t *testing.T) {
	for line, reasons := range map[string][]string{
		"":                                     {"no subcommand: there are run, watch, drain, maintenance, up, list"},
		"walk":                                 {`unknown subcommand "walk"`},
		"help walk":                            {`unknown subcommand "walk"`},
		"--bogus":                              {"unknown flag --bogus"},
		"--port 80 run":                        {"unknown flag --port: flags stand after the subcommand"},
		"run":                                  {"--service: missing", "--port 0: not from 1 to 65535", "no program"},
		"run --prot 80":                        {"flag provided but not defined: -prot"},
		"run --service":                        {"flag needs an argument: -service"},
		"run --port x --ttl y -- p":            {`invalid value "x" for flag -port`, `invalid value "y" for flag -ttl`, "--service: missing"},
		"run --service a --port 65536 -- p":    {"--port 65536: not from 1 to 65535"},
		"run --service a --port 1 --ip x -- p": {`--address "x": not the address of a host`},
		"run --service a --port 1 --address 0.0.0.0 -- p":                   {`--address "0.0.0.0": not the address of a host`},
		"run --service a --port 1 --address fe80::1%eth0 -- p":              {`--address "fe80::1%eth0": not the address of a host`},
		"run --service a --port 1 --address 10.0.0.1 --auto -- p":           {"--address and --auto: only one of them"},
		"run --service a --port 1 --additional-address x -- p":              {`--additional-address "x": not the address of a host`},
		"run --service a --port 1 --weight 101 -- p":                        {"--weight 101: not from 1 to 100, or 0 for none"},
		"run --service a --port 1 --canary=perhaps -- p":                    {`invalid boolean value "perhaps" for -canary`},
		"run --service a --port 1 --ttl 1500ms -- p":                        {"--ttl 1.5s: not whole seconds"},
		"run --service a --port 1 --ttl 0s -- p":                            {"--ttl 0s: not whole seconds", "--interval 0s"},
		"run --service a --port 1 --interval 30s -- p":                      {"--interval 30s: not from 10ms to below --ttl 30s"},
		"run --service a --port 1 --interval 1ns --check-interval 1ns -- p": {"--interval 1ns: not from 10ms to below --ttl 30s", "--check-interval 1ns: below 10ms"},
		"run --service a --port 1 --drain -1s -- p":                         {"--drain -1s: below 0"},
		"run --service a --port 1 --check maybe -- p":                       {`--check "maybe": not tcp, none or a URL`},
		"run --service a --port 1 --check http:///x -- p":                   {`--check "http:///x": not tcp, none or a URL`},
		"run --service a --port 1 --check-interval 0s -- p":                 {"--check-interval 0s: below 10ms"},
		"run --service a --port 1 --check-failures 0 -- p":                  {"--check-failures 0: below 1"},
		"run --service a --port 1 --discovery localhost -- p":               {`"localhost": not a URL such as`},
		"run --service a --port 1 --discovery http://a, -- p":               {`"": not a URL such as`},
		"run --service a --port 1 --token-file /none/such -- p":             {"--token-file", "/none/such"},
		"run --service a --port 1 --cert /none/such -- p":                   {"a certificate and its key: only one of them is given"},
		"run --service a --port 1 --tag x -- p":                             {`--tag "x": neither name=text nor name:=JSON`},
		"run --service a --port 1 --tag az=x --tag canary:=true -- p":       {`--tag "az=x": it has a flag of its own, --zone`, "--canary"},
		"run --service a --port 1 --tag x=1 --tag x=2 --tag y:=z -- p":      {"x is there twice", "what stands after := is not JSON"},
		"run --service a --port 1 --port-name x --port-name x=0 -- p":       {`--port-name "x": not a name and a port`, `--port-name "x=0"`},
		"run --service a --port 1 --port-name x=1 --port-name x=2 -- p":     {`--port-name "x=2": x is there twice`},
		"run --service a --port 1 --hosts-of b -- p":                        {"--hosts-file and --hosts-of: only one of them is given"},
		"run --service a --port 1 --hosts-file f --hosts-of a,,a -- p":      {"--hosts-of: a name is empty", "--hosts-of: a is there twice"},
		"watch extra": {"--service: missing", "--file: missing", `after the flags: ["extra"]`},
		"drain":       {"--service, --id, --zone: none of them is given", "--reason: missing"},
		"drain --id i --zone z --reason r --for 10ms": {`--id "i": its --service is missing`, "--id and --zone: only one of them", "--for 10ms: below a second"},
		"maintenance --for -1s":                       {"--for -1s: below a second", "--reason: missing"},
		"up":                                          {"--service, --id, --zone: none of them is given"},
		"list a b":                                    {`after the flags: ["a"]`},
		"list --zone z":                               {"--zone: a service is missing"},
	} {
		t.Run(line, func(t *testing.T) {
			_, _, err := parse(strings.Fields(line))
			require.Error(t, err)
			for _, reason := range reasons {
				require.ErrorContains(t, err, reason)
			}
		})
	}
}

func TestAFlagWhoseValueCannotBeReadIsToldOnce(t *testing.T) {
	t.Setenv("DISCOVERY_AGENT_WEIGHT", "heavy")
	_, _, err := parse(strings.Fields("run --port x --ttl y --check-interval 1ns --canary=perhaps -- p"))
	require.EqualError(t, err, `invalid value "x" for flag -port: parse error
invalid value "y" for flag -ttl: parse error
invalid boolean value "perhaps" for -canary: strconv.ParseBool: parsing "perhaps": invalid syntax
environment variable DISCOVERY_AGENT_WEIGHT="heavy": parse error
--service: missing
--check-interval 1ns: below 10ms`)
}

func TestHelpAndVersionAreNoErrors(t *testing.T) {
	for _, line := range []string{"--help", "-h", "help", "run --help", "run --service a -h", "help list", "up --help"} {
		_, _, err := parse(strings.Fields(line))
		require.ErrorIs(t, err, flag.ErrHelp, line)
	}
	_, _, err := parse([]string{"--version"})
	require.ErrorIs(t, err, errVersion)
}

func TestHelpTellsSubcommandsAndTheFlagsOfEach(t *testing.T) {
	var all bytes.Buffer
	printHelp(&all, nil)
	for _, s := range subcommands() {
		require.Contains(t, all.String(), "discovery-agent "+s.name+" ")
		var one bytes.Buffer
		printHelp(&one, &s)
		f := newFlags(s.name)
		s.action().declare(f)
		f.VisitAll(func(flag *flag.Flag) { require.Contains(t, one.String(), "  -"+flag.Name) })
	}
}
