package agent

import (
	"fmt"
	"net"
	"os"
	"os/signal"
	"strconv"
	"syscall"
	"testing"

	"github.com/weirproxy/weir/internal/servicetest"
)

// programPort is set for the test binary to be the program that an agent runs,
// or, with the arguments of one, the agent.
const programPort = "AGENT_TEST_PROGRAM_PORT"

func TestMain(m *testing.M) {
	if port := os.Getenv(programPort); port != "" {
		if os.Args[1] == "run" {
			os.Exit(Main(os.Args[1:], "test"))
		}
		program(port, os.Args[1:])
	}
	servicetest.Main(m)
}

// program listens on port of loopback, unless told to wait for SIGUSR1 first,
// says on standard output which signals it gets, and exits with 7 at SIGTERM.
// Told "exit N", it exits with N at SIGUSR2.
func program(port string, arguments []string) {
	signals := make(chan os.Signal, 8)
	signal.Notify(signals, syscall.SIGTERM, syscall.SIGUSR1, syscall.SIGUSR2)
	fmt.Println("started")
	if arguments[0] != "wait" {
		listen(port)
	}
	for s := range signals {
		fmt.Println(s)
		switch s {
		case syscall.SIGUSR1:
			listen(port)
		case syscall.SIGUSR2:
			code, _ := strconv.Atoi(arguments[1])
			os.Exit(code)
		case syscall.SIGTERM:
			os.Exit(7)
		}
	}
}

// listen takes connections until the program ends.
func listen(port string) {
	l, err := net.Listen("tcp", "127.0.0.1:"+port)
	if err != nil {
		fmt.Println(err)
		os.Exit(99)
	}
	// Ends with the process.
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			_ = c.Close()
		}
	}()
}
