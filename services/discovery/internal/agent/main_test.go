package agent

import (
	"bytes"
	"flag"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestTheCommandLineIsReadWithItsDefaults(t *testing.T) {
	o, err := parse(strings.Fields("run --service users --port 8080 -- program --flag argument"))
	require.NoError(t, err)
	require.Equal(t, Options{
		Discovery: []string{"http://127.0.0.1:8090"}, Service: "users", Port: 8080, InstanceID: instanceID(8080),
		Revision: "unknown", TTL: 30 * time.Second, Interval: 10 * time.Second, Drain: time.Second,
		Command: []string{"program", "--flag", "argument"},
	}, o)

	o, err = parse(strings.Fields("run --service users --port 1 --discovery http://a:1/,https://b --ip fd00::1 --instance-id i " +
		"--revision r --az z --region e --repo p --tag a=b --tag c=d=e --ttl 9s --interval 2s --drain 0s -- program"))
	require.NoError(t, err)
	require.Equal(t, Options{
		Discovery: []string{"http://a:1", "https://b"}, Service: "users", IP: netip.MustParseAddr("fd00::1"), Port: 1, InstanceID: "i",
		Revision: "r", Zone: "z", Region: "e", Repo: "p", Tags: map[string]string{"a": "b", "c": "d=e"},
		TTL: 9 * time.Second, Interval: 2 * time.Second, Command: []string{"program"},
	}, o)
}

func TestAWrongCommandLineIsRefusedWithAllThatIsWrong(t *testing.T) {
	for line, reasons := range map[string][]string{
		"":                                     {"no subcommand"},
		"walk":                                 {`unknown subcommand "walk"`},
		"--bogus":                              {"unknown flag --bogus"},
		"--port 80 run":                        {"unknown flag --port: those of run stand after it"},
		"run":                                  {"--service: missing", "--port 0: not from 1 to 65535", "no program"},
		"run --prot 80":                        {"flag provided but not defined: -prot"},
		"run --service a --port 65536 -- p":    {"--port 65536: not from 1 to 65535"},
		"run --service a --port 1 --ip x -- p": {`--ip "x": not the address of a host`},
		"run --service a --port 1 --ip 0.0.0.0 -- p":          {`--ip "0.0.0.0": not the address of a host`},
		"run --service a --port 1 --ip 10.0.0.1 --auto -- p":  {"--ip and --auto: only one of them"},
		"run --service a --port 1 --ttl 1500ms -- p":          {"--ttl 1.5s: not whole seconds"},
		"run --service a --port 1 --ttl 0s -- p":              {"--ttl 0s: not whole seconds", "--interval 0s"},
		"run --service a --port 1 --interval 30s -- p":        {"--interval 30s: not between 0 and --ttl 30s"},
		"run --service a --port 1 --drain -1s -- p":           {"--drain -1s: below 0"},
		"run --service a --port 1 --discovery localhost -- p": {`--discovery "localhost": not a URL`},
		"run --service a --port 1 --discovery http://a, -- p": {`--discovery "": not a URL`},
		"run --service a --port 1 --tag x -- p":               {"not key=value"},
		"run --service a --port 1 --tag az=x -- p":            {"az has a flag of its own"},
	} {
		t.Run(line, func(t *testing.T) {
			_, err := parse(strings.Fields(line))
			require.Error(t, err)
			for _, reason := range reasons {
				require.ErrorContains(t, err, reason)
			}
		})
	}
}

func TestHelpAndVersionAreNoErrors(t *testing.T) {
	for _, line := range []string{"--help", "-h", "help", "run --help"} {
		_, err := parse(strings.Fields(line))
		require.ErrorIs(t, err, flag.ErrHelp, line)
	}
	_, err := parse([]string{"--version"})
	require.ErrorIs(t, err, errVersion)

	var out bytes.Buffer
	printFlags(&out)
	for _, name := range []string{"-service", "-port", "-discovery", "-ip", "-auto", "-tag", "-ttl", "-interval", "-drain"} {
		require.Contains(t, out.String(), name)
	}
}
