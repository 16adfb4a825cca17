package bench

import (
	"cmp"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// profile runs a scenario once more and takes a CPU profile of its process
// meanwhile, which it keeps in a directory. It returns how the profile's time
// divides, in Markdown; no figure is of this run.
func profile(t testing.TB, s *scenario, parts []part, directory string, d time.Duration) string {
	t.Helper()
	path := takeProfile(t, s, directory, d)
	times, total := splitProfile(t, path, parts)
	_, median, _ := s.spread(func(s sample) float64 { return s.cpu })
	var b strings.Builder
	fmt.Fprintf(&b, "%s; its profile is %s\n\n| part | share | CPU µs a %s |\n|---|---|---|\n", s.title, path, cmp.Or(s.unit, request))
	for _, part := range parts {
		share := times[part.name].Seconds() / total.Seconds()
		fmt.Fprintf(&b, "| %s | %.0f %% | %s |\n", part.name, 100*share, microseconds(share*median))
	}
	return b.String()
}

// takeProfile runs a scenario, and keeps a CPU profile of its process meanwhile in
// a file of a directory.
func takeProfile(t testing.TB, s *scenario, directory string, d time.Duration) (path string) {
	t.Helper()
	require.NoError(t, os.MkdirAll(directory, 0o755))
	name := regexp.MustCompile(`[^a-z0-9]+`).ReplaceAllString(strings.ToLower(s.title), "-")
	path = filepath.Join(directory, name+".prof")
	fetched := make(chan error, 1)
	// Ends with the profile; the receive below waits for it.
	go func() { fetched <- fetchProfile(s.process.Addr("admin"), path, d-time.Second) }()
	s.load(t, d)
	require.NoError(t, <-fetched, "profile of %s", s.program)
	return path
}

// fetchProfile writes a CPU profile of so many seconds to a file.
func fetchProfile(admin, path string, d time.Duration) error {
	client := http.Client{Timeout: d + 30*time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	response, err := client.Get("http://" + admin + "/debug/pprof/profile?seconds=" + seconds(d))
	if err != nil {
		return err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("GET %s: %s", response.Request.URL, response.Status)
	}
	text, err := io.ReadAll(response.Body)
	if err != nil {
		return fmt.Errorf("read the profile: %w", err)
	}
	return os.WriteFile(path, text, 0o644)
}

// splitProfile divides the time of a profile.
func splitProfile(t testing.TB, path string, parts []part) (times map[string]time.Duration, total time.Duration) {
	t.Helper()
	text, err := exec.Command("go", "tool", "pprof", "-traces", path).Output()
	require.NoError(t, err, "go tool pprof -traces %s", path)
	times, total, err = split(string(text), parts)
	require.NoError(t, err, path)
	return times, total
}

// part is one row of a split. A stack belongs to the part that names the
// function nearest to its leaf; those that are of no part, such as the standard
// library's and the runtime's, count for whoever called them.
type part struct {
	name     string
	function *regexp.Regexp
}

// ratelimitParts are those of a rate limiter, in the order of a request. Of two
// that name the same function the first has it.
func ratelimitParts() []part {
	const own = `^github\.com/weirproxy/weir/services/ratelimit/internal/`
	return []part{
		{"decode", regexp.MustCompile(own + `rls\.(.*[.)])?(?i:unmarshal|decode|read)|^google\.golang\.org/protobuf/.*(?i:unmarshal|consume|merge)`)},
		{"encode", regexp.MustCompile(own + `rls\.(.*[.)])?(?i:marshal|encode|append|size)|^google\.golang\.org/protobuf/.*(?i:marshal|append|size)`)},
		{"match", regexp.MustCompile(own + `limits\.`)},
		{"store", regexp.MustCompile(own + `store/|^github\.com/redis/`)},
		{"check", regexp.MustCompile(own + `(limiter|localcache|algorithm)[./]`)},
		{"serve (the rest of internal/rls)", regexp.MustCompile(own + `rls\.`)},
		{"transport (grpc-go, net, system calls)", regexp.MustCompile(`^google\.golang\.org/grpc|^golang\.org/x/net|` + own + `(app|grpcserver)\.|^github\.com/weirproxy/weir/internal/`)},
		collection, scheduler, theRest,
	}
}

// registryParts are those of discovery, likewise.
func registryParts() []part {
	const own = `^github\.com/weirproxy/weir/services/discovery/internal/`
	return []part{
		{"registry, and its store", regexp.MustCompile(own + `(registry|guard|store)[./]`)},
		{"the API (internal/rest, internal/beats)", regexp.MustCompile(own + `(rest|beats)[./]|^encoding/json`)},
		{"transport (net/http, grpc-go, net, system calls)", regexp.MustCompile(`^net/http|^google\.golang\.org/(grpc|protobuf)|^golang\.org/x/net|^github\.com/weirproxy/weir/internal/`)},
		collection, scheduler, theRest,
	}
}

// xdsParts are those of discovery that serves xDS, in the order of a change.
func xdsParts() []part {
	const (
		own   = `^github\.com/weirproxy/weir/services/discovery/internal/`
		http2 = `^github\.com/weirproxy/weir/internal/http2\.`
	)
	return []part{
		{"taking changes (net/http, REST, registry)", regexp.MustCompile(own + `(gate|auth|quota|httpjson|rest|registry|guard|store)[./]|^net/http`)},
		{"making resources, and marking", regexp.MustCompile(own + `(resources\.|xds\.\(\*hub\))`)},
		{"streams (the rest of internal/xds)", regexp.MustCompile(own + `xds\.`)},
		{"writing (internal/http2, system calls)", regexp.MustCompile(http2 + `(\(\*(encoder|buffer|writer)\)|append)|` + http2 + `\(\*Stream\)\.(Write|Flush|endBlock)|` + http2 + `\(\*Conn\)\.(flush|write|landed|takeOff|beginBlock)`)},
		{"reading, and who has a stream (the rest of internal/http2)", regexp.MustCompile(http2)},
		{"calls (internal/grpchttp2, protobuf)", regexp.MustCompile(`^github\.com/weirproxy/weir/internal/grpchttp2\.|^google\.golang\.org/(grpc|protobuf)`)},
		collection, scheduler, theRest,
	}
}

// The parts of every Go program.
var (
	collection = part{"garbage collection", regexp.MustCompile(`^runtime\.(gcBgMarkWorker|gcAssistAlloc|bgsweep|bgscavenge|gcStart)`)}
	scheduler  = part{"scheduler", regexp.MustCompile(`^runtime\.(mcall|schedule|park_m|goexit0|mstart|sysmon|findRunnable)`)}
	theRest    = part{other, regexp.MustCompile(`^$`)}
)

// other is the part of stacks that are of no other one.
const other = "other"

// split divides the time of the stacks that pprof -traces prints. An error says
// what could not be read.
func split(traces string, parts []part) (times map[string]time.Duration, total time.Duration, err error) {
	const rule = "-----------+"
	times = map[string]time.Duration{}
	for _, stack := range strings.Split(traces, rule)[1:] {
		_, body, _ := strings.Cut(stack, "\n") // the rest of the rule
		spent, frames, err := readStack(body)
		if err != nil {
			return nil, 0, err
		}
		times[partOf(frames, parts)] += spent
		total += spent
	}
	if total == 0 {
		return nil, 0, fmt.Errorf("no samples in %q", traces)
	}
	return times, total, nil
}

// readStack reads one stack: the first line has the time, the leaf first.
func readStack(text string) (spent time.Duration, frames []string, err error) {
	for line := range strings.Lines(text) {
		fields := strings.Fields(line)
		if len(fields) > 0 && len(frames) == 0 {
			if spent, err = time.ParseDuration(fields[0]); err != nil {
				return 0, nil, fmt.Errorf("a stack's time: %w", err)
			}
			fields = fields[1:]
		}
		if len(fields) > 0 {
			frames = append(frames, fields[0])
		}
	}
	return spent, frames, nil
}

// partOf is the name of the part that a stack belongs to.
func partOf(frames []string, parts []part) string {
	for _, frame := range frames {
		i := slices.IndexFunc(parts, func(p part) bool { return p.function.MatchString(frame) })
		if i >= 0 {
			return parts[i].name
		}
	}
	return other
}

func TestWhatASocketTakesIsOfThePartThatWrites(t *testing.T) {
	const http2 = "github.com/weirproxy/weir/internal/http2."
	for want, frames := range map[string][]string{
		"writing (internal/http2, system calls)": {
			"internal/runtime/syscall.Syscall6", "syscall.write", http2 + "(*writer).writeSocket", "internal/poll.(*FD).RawWrite", http2 + "(*Conn).writeSome"},
		"reading, and who has a stream (the rest of internal/http2)": {
			"internal/runtime/syscall.Syscall6", "syscall.read", http2 + "(*reader).readSocket", "internal/poll.(*FD).RawRead", http2 + "(*reader).fillSocket"},
	} {
		require.Equal(t, want, partOf(frames, xdsParts()))
	}
}

func TestAStackBelongsToThePartNearestToItsLeaf(t *testing.T) {
	const own = "github.com/weirproxy/weir/services/ratelimit/internal/"
	traces := `File: ratelimit
Type: cpu
-----------+-------------------------------------------------------
      10ms   runtime.mallocgc
             runtime.newobject
             ` + own + `limits.(*Tree).Match
             ` + own + `limiter.(*Limiter).Check
             google.golang.org/grpc.(*Server).handleStream
-----------+-------------------------------------------------------
      20ms   internal/runtime/syscall.Syscall6
             syscall.write (inline)
             net.(*conn).Write
             github.com/redis/go-redis/v9/internal/pool.(*Conn).WithWriter
             ` + own + `store/redis.(*Store).send
-----------+-------------------------------------------------------
      30ms   syscall.write
             google.golang.org/grpc/internal/transport.(*loopyWriter).run
-----------+-------------------------------------------------------
     1.20s   google.golang.org/protobuf/internal/impl.(*MessageInfo).unmarshalPointer
             google.golang.org/grpc.(*Server).processUnaryRPC
-----------+-------------------------------------------------------
      50ms   runtime.scanobject
             runtime.gcBgMarkWorker
-----------+-------------------------------------------------------
      60ms   runtime.futex
             runtime.mcall
-----------+-------------------------------------------------------
      70ms   time.now
             main.main
`
	times, total, err := split(traces, ratelimitParts())
	require.NoError(t, err)
	require.Equal(t, 1440*time.Millisecond, total)
	require.Equal(t, map[string]time.Duration{
		"match":                                  10 * time.Millisecond,
		"store":                                  20 * time.Millisecond,
		"transport (grpc-go, net, system calls)": 30 * time.Millisecond,
		"decode":                                 1200 * time.Millisecond,
		"garbage collection":                     50 * time.Millisecond,
		"scheduler":                              60 * time.Millisecond,
		other:                                    70 * time.Millisecond,
	}, times)
	_, _, err = split("File: ratelimit\n", ratelimitParts())
	require.ErrorContains(t, err, "no samples")
}
