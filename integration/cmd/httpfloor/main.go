// Command httpfloor is an HTTP service that does nothing: net/http, which reads
// the body and answers with an empty JSON object. The benchmarks run it to know
// what a call costs before anything is made of it; it is no part of the product.
package main

import (
	"context"
	"errors"
	"flag"
	"io"
	"net/http"
	"os"

	"github.com/weirproxy/weir/internal/daemon"
)

func main() {
	os.Exit(daemon.Main("httpfloor", func(ctx context.Context) error { return run(ctx, os.Args[1:]) }))
}

// run serves until ctx ends.
func run(ctx context.Context, args []string) error {
	flags := flag.NewFlagSet("httpfloor", flag.ContinueOnError)
	readyFile := flags.String("ready-file", "", "`path` of a JSON file of the bound address")
	if err := flags.Parse(args); err != nil {
		return err
	}
	listener, err := daemon.Listen("127.0.0.1:0", "loopback")
	if err != nil {
		return err
	}
	server := &http.Server{Handler: http.HandlerFunc(answer)}
	if err := daemon.WriteReadyFile(*readyFile, map[string]string{"http": listener.Addr().String()}); err != nil {
		_ = listener.Close()
		return err
	}
	defer context.AfterFunc(ctx, func() { _ = server.Close() })()
	if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

// answer says that all is well. Both errors mean that the caller has gone.
func answer(w http.ResponseWriter, r *http.Request) {
	_, _ = io.Copy(io.Discard, r.Body)
	w.Header().Set("Content-Type", "application/json")
	_, _ = io.WriteString(w, "{}\n")
}
