// Command httpfloor is an HTTP service that does nothing: net/http, which reads
// the body and answers with an empty JSON object; below /bytes/<length>/ with as many
// bytes, and the header of a list of discovery. The benchmarks run it to know
// what a call costs before anything is made of it; it is no part of the product.
package main

import (
	"context"
	"errors"
	"flag"
	"io"
	"net/http"
	"os"
	"strconv"
	"strings"

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
	if rest, long := strings.CutPrefix(r.URL.Path, "/bytes/"); long {
		length, _, _ := strings.Cut(rest, "/")
		answerLong(w, length)
		return
	}
	_, _ = io.Copy(io.Discard, r.Body)
	w.Header().Set("Content-Type", "application/json")
	_, _ = io.WriteString(w, "{}\n")
}

// zeros is what long answers are cut from.
var zeros [1 << 20]byte

// answerLong answers with so many bytes.
func answerLong(w http.ResponseWriter, text string) {
	length, err := strconv.Atoi(text)
	if err != nil || length < 0 || length > len(zeros) {
		http.Error(w, "length: not from 0 to "+strconv.Itoa(len(zeros)), http.StatusBadRequest)
		return
	}
	h := w.Header()
	h.Set("Content-Type", "application/json")
	h.Set("Content-Length", text)
	h.Set("Etag", `W/"0123456789abcdef"`)
	_, _ = w.Write(zeros[:length]) // an error means that the caller has gone
}
