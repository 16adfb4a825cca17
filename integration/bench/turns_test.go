package bench

import (
	"cmp"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// A difference of a few percent drowns in what a machine does from second to second, by
// which two loads of a load generator are apart. So the two sides of a difference take
// turns of some milliseconds, many of them, each side first in half of the pairs.
const (
	turnsOfRound  = 40 // pairs, for each round of the other loads
	batchesOfTurn = 8  // of a request on each of wrkConnections
)

// inTurns is how much more CPU time a process takes for a request to an address than
// for one to the address before it, in microseconds: the median of so many pairs of
// turns.
func inTurns(pid int, base, other string, pairs int) (difference float64, err error) {
	var sides [2]turns
	for i, address := range []string{base, other} {
		defer sides[i].close()
		if err := sides[i].connect(address); err != nil {
			return 0, err
		}
	}
	var differences []float64
	for i := range pairs {
		var cpu [2]time.Duration
		for j := range sides {
			side := (i + j) % len(sides)
			before, err := preciseCPUTime(pid)
			if err != nil {
				return 0, err
			}
			if err := sides[side].take(batchesOfTurn); err != nil {
				return 0, err
			}
			after, err := preciseCPUTime(pid)
			if err != nil {
				return 0, err
			}
			cpu[side] = after - before
		}
		differences = append(differences, (cpu[1]-cpu[0]).Seconds()*1e6/(batchesOfTurn*wrkConnections))
	}
	_, median, _ := spread(differences)
	return median, nil
}

// turns are the connections of one side.
type turns struct {
	connections []net.Conn
	answer      [4096]byte
}

// connect opens the connections, and has each carry one request.
func (s *turns) connect(address string) error {
	for range wrkConnections {
		conn, err := net.Dial("tcp", address)
		if err != nil {
			return err
		}
		s.connections = append(s.connections, conn)
	}
	return s.take(1)
}

// take sends a request on each connection and awaits all answers, so many times.
func (s *turns) take(batches int) error {
	for range batches {
		for _, conn := range s.connections {
			if err := conn.SetDeadline(time.Now().Add(time.Minute)); err != nil {
				return err
			}
			if _, err := io.WriteString(conn, loopRequest); err != nil {
				return err
			}
		}
		for _, conn := range s.connections {
			if err := readAnswer(conn, s.answer[:]); err != nil {
				return err
			}
		}
	}
	return nil
}

func (s *turns) close() {
	for _, conn := range s.connections {
		_ = conn.Close()
	}
}

// preciseCPUTime is the user and system time that the threads of a process have used,
// in nanoseconds where cpuTime counts ticks. A turn is shorter than two of these. What
// threads had used that have ended since is not in it, so that longer loads count ticks.
func preciseCPUTime(pid int) (sum time.Duration, err error) {
	threads, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/schedstat", pid))
	if err != nil || len(threads) == 0 {
		return 0, cmp.Or(err, fmt.Errorf("no thread of process %d is found", pid))
	}
	for _, path := range threads {
		text, err := os.ReadFile(path)
		if os.IsNotExist(err) {
			continue // a thread that has ended
		}
		if err != nil {
			return 0, err
		}
		field, _, _ := strings.Cut(string(text), " ")
		n, err := strconv.ParseInt(field, 10, 64)
		if err != nil {
			return 0, fmt.Errorf("%s: %w", path, err)
		}
		sum += time.Duration(n)
	}
	return sum, nil
}

func TestThePreciseCPUTimeIsThatOfAllThreads(t *testing.T) {
	ticks := func() time.Duration { return cpuTimeOf(t, os.Getpid()) }
	before, err := preciseCPUTime(os.Getpid())
	require.NoError(t, err)
	const spent = 10 * clockTick
	for began := ticks(); ticks()-began < spent; {
	}
	after, err := preciseCPUTime(os.Getpid())
	require.NoError(t, err)
	require.GreaterOrEqual(t, after-before, spent-clockTick)
	_, err = preciseCPUTime(0)
	require.ErrorContains(t, err, "no thread of process 0")
}
