package app

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"slices"
	"strings"

	"github.com/weirproxy/weir/services/proxy/internal/listener"
	"github.com/weirproxy/weir/services/proxy/internal/message"
	"github.com/weirproxy/weir/services/proxy/internal/route"
)

const routeUsage = `proxy route tells how a request finds its route in a configuration, and what becomes of it. Nothing is sent.

  proxy route -c FILE --request 'GET https://example.com/a?b=c' -H x-user:ann

It goes through the codec of HTTP/1.1, the normalization of path and host, the checks of upgrades and the routes, as
in the proxy. The routes are those of the file: what comes by xDS is not known. HTTP filters are not run.

Flags:
`

// routeCommand is the command proxy route.
func routeCommand(args []string, stdout io.Writer) (run func(context.Context) error, err error) {
	o := Options{LogLevel: "info"}
	flags := flag.NewFlagSet("proxy route", flag.ContinueOnError)
	flags.SetOutput(io.Discard)
	o.declareBootstrap(flags)
	line := flags.String("request", "", "the `REQUEST`: a method, GET unless given, and a URL")
	var fields []string
	flags.Func("H", "a header `NAME:VALUE` of the request; may be repeated", func(text string) error {
		fields = append(fields, text)
		return nil
	})
	name := flags.String("listener", "", "`NAME` of the listener; needed where several have routes")
	client := flags.String("client", "127.0.0.1", "`ADDRESS` of the client")
	random := flags.Uint64("random", 0, "`NUMBER` by which weights and shares choose")

	err = flags.Parse(args)
	switch {
	case errors.Is(err, flag.ErrHelp):
		return help(routeUsage, flags, stdout), nil
	case err != nil:
		return nil, fmt.Errorf("%w; proxy route --help lists the flags", err)
	case flags.NArg() > 0:
		return nil, fmt.Errorf("unexpected argument %q; proxy route --help lists the flags", flags.Arg(0))
	case o.ConfigPath == "" && o.ConfigYAML == "":
		return nil, errors.New("no bootstrap: give one with -c FILE; proxy route --help lists the flags")
	case *line == "":
		return nil, errors.New("no request: give one with --request 'GET https://example.com/a'; proxy route --help lists the flags")
	}
	in := route.Input{Random: *random}
	if in.ClientAddress, err = netip.ParseAddr(*client); err != nil {
		return nil, fmt.Errorf("--client %s: no IP address", *client)
	}
	request, err := parseRequest(*line, fields)
	if err != nil {
		return nil, err
	}
	return func(ctx context.Context) error {
		c, err := untilEnd(ctx, func() (*configuration, error) {
			return configure(o, slog.New(slog.DiscardHandler), nil)
		})
		if err != nil {
			return err
		}
		in.Runtime = c.runtime.Snapshot()
		found, filter, err := routesOf(c.staticListeners, *name)
		if err != nil {
			return err
		}
		fmt.Fprintf(stdout, "%-16s %s %s://%s%s\n%-16s %s\n", "request", request.Method, scheme(request),
			request.Authority, request.Path, "listener", found.Name)
		fmt.Fprint(stdout, filter.Explain(head(request), int(found.Address.Port()), in))
		return nil
	}, nil
}

// parseRequest makes a request of "METHOD URL" and header fields, as a client sends it.
// The URL may be a path alone if Host is among the fields, and is a host and a port with
// CONNECT.
func parseRequest(line string, fields []string) (*message.Request, error) {
	method, url, ok := strings.Cut(strings.TrimSpace(line), " ")
	if !ok {
		method, url = "GET", method
	}
	if strings.ContainsAny(line+strings.Join(fields, ""), "\r\n") {
		return nil, errors.New("neither --request nor -H takes a line end")
	}
	wrong := func(why string) error { return fmt.Errorf("--request %q: %s", line, why) }
	if strings.ContainsAny(url, " #") {
		return nil, wrong("a URL has no spaces, and that of a request no #")
	}
	r := &message.Request{Method: []byte(method)}
	if scheme, rest, ok := strings.Cut(url, "://"); ok {
		if scheme != "http" && scheme != "https" {
			return nil, wrong("the scheme is neither http nor https")
		}
		r.Headers.Add("x-forwarded-proto", scheme)
		end := strings.IndexAny(rest, "/?")
		if end < 0 {
			end = len(rest)
		}
		r.Authority, url = []byte(rest[:end]), rest[end:]
		if !strings.HasPrefix(url, "/") {
			url = "/" + url
		}
	}
	if method == "CONNECT" {
		r.Authority = []byte(url)
	} else {
		r.Path = []byte(url)
	}
	for _, field := range fields {
		name, value, ok := strings.Cut(field, ":")
		name = strings.ToLower(strings.TrimSpace(name))
		if value = strings.TrimSpace(value); !ok || name == "" {
			return nil, fmt.Errorf("-H %q: a header is a name, a colon and a value", field)
		}
		switch name {
		case "host":
			r.Authority = []byte(value)
		case "x-forwarded-proto":
			r.Headers.Set(name, value)
		default:
			r.Headers.Add(name, value)
		}
	}
	switch {
	case method != "CONNECT" && !strings.HasPrefix(url, "/") && url != "*":
		return nil, wrong("neither a URL such as https://example.com/a nor a path")
	case len(r.Authority) == 0:
		return nil, wrong("there is no host: use a whole URL or -H host:…")
	}
	return r, nil
}

// head is a request's as a client of HTTP/1.1 sends it.
func head(r *message.Request) []byte {
	target := r.Path
	if len(target) == 0 {
		target = r.Authority
	}
	b := fmt.Appendf(nil, "%s %s HTTP/1.1\r\nhost: %s\r\n", r.Method, target, r.Authority)
	for i := range r.Headers.Len() {
		name, value := r.Headers.At(i)
		b = fmt.Appendf(b, "%s: %s\r\n", name, value)
	}
	return append(b, "\r\n"...)
}

func scheme(r *message.Request) string {
	if scheme, ok := r.Headers.Get("x-forwarded-proto"); ok {
		return string(scheme)
	}
	return "http"
}

// routed is a network filter that has routes.
type routed interface {
	Routes() *route.Table
	Explain(head []byte, port int, in route.Input) string
}

// routesOf finds the routes of the listener of that name, or of the only one
// that has some.
func routesOf(listeners []*listener.Config, name string) (*listener.Config, routed, error) {
	var found *listener.Config
	var filter routed
	var names []string
	for _, l := range listeners {
		for _, f := range l.Filters() {
			r, ok := f.(routed)
			if !ok || r.Routes() == nil {
				continue
			}
			if !slices.Contains(names, l.Name) {
				names = append(names, l.Name)
			}
			if found == nil && (name == "" || l.Name == name) { // of its first filter chain
				found, filter = l, r
			}
		}
	}
	known := strings.Join(names, ", ")
	switch {
	case len(names) == 0:
		return nil, nil, errors.New("no listener of the configuration has routes")
	case found == nil:
		return nil, nil, fmt.Errorf("--listener %s: no such listener with routes; those are: %s", name, known)
	case name == "" && len(names) > 1:
		return nil, nil, fmt.Errorf("several listeners have routes: choose one with --listener: %s", known)
	}
	return found, filter, nil
}
