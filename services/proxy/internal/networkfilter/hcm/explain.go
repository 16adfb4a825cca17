package hcm

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/weirproxy/weir/services/proxy/internal/http1"
	"github.com/weirproxy/weir/services/proxy/internal/message"
	"github.com/weirproxy/weir/services/proxy/internal/route"
)

// Explain tells what becomes of a request up to its HTTP filters, a line for each
// fact. Head is as a client of HTTP/1.1 sends it, with the empty line, to our port; in
// has the address of the client's end of the connection, and no request. It does what
// connection.serveRequest does, with the same code, and counts the request so: it is
// for a manager that serves nobody.
func (m *manager) Explain(head []byte, port int, in route.Input) string {
	m.measured.Do(m.measure)
	var e explanation
	c := &connection{manager: m, reader: http1.NewReader(bytes.NewReader(head), m.limits), peer: in.ClientAddress, port: port, work: &work{}}
	c.reader.Options = m.http1.Options
	s := &c.stream
	if _, err := c.reader.ReadRequest(&s.Request); err != nil {
		if protocol, ok := errors.AsType[*message.ProtocolError](err); ok {
			e.answer(&refusal{status: protocol.Status, text: err.Error()}, &s.Request)
		} else {
			e.line("answer", "none: %v", err)
		}
		return e.String()
	}
	r, before := &s.Request, factsOf(&s.Request)
	chain, refused := c.prepare()
	if refused != nil {
		e.answer(refused, r)
		return e.String()
	}
	if len(r.Upgrade) > 0 { // which then is what these said
		before.names = slices.DeleteFunc(before.names, func(name string) bool { return name == "connection" || name == "upgrade" })
	}
	table := m.routes.Load()
	table.DropInternalOnly(r)
	e.changes(before, factsOf(r))
	if in.ClientAddress != s.ClientAddress {
		e.line("client", "%s, by x-forwarded-for of %s", s.ClientAddress, in.ClientAddress)
	}
	in.Request, in.ClientAddress = r, s.ClientAddress
	e.WriteString(table.Explain(in, func(found *route.Route) string {
		s.Route = found
		if _, refused := m.upgraded(s, chain); refused != nil {
			return refused.answer(r)
		}
		return ""
	}))
	if len(r.Upgrade) > 0 && s.Route != nil {
		e.line("upgrade", "%s", r.Upgrade)
	}
	return e.String()
}

// answer is what the request is answered with, in words.
func (r *refusal) answer(request *message.Request) string {
	status := route.Answer(request, r.status)
	if r.location != "" {
		return status + ", location: " + r.location
	}
	return status + ": " + strings.TrimSuffix(r.text, "\n")
}

// explanation is lines of a label and a text, as those of route.Table.Explain.
type explanation struct{ strings.Builder }

func (e *explanation) line(label, format string, args ...any) {
	fmt.Fprintf(e, "%-16s %s\n", label, fmt.Sprintf(format, args...))
}

func (e *explanation) answer(r *refusal, request *message.Request) {
	e.line("answer", "%s", r.answer(request))
}

// requestFacts is what steps before the routes may change.
type requestFacts struct {
	path, host, scheme string
	names              []string // of header fields
}

func factsOf(r *message.Request) requestFacts {
	f := requestFacts{path: string(r.Path), host: string(r.Authority)}
	scheme, _ := r.Headers.Get("x-forwarded-proto")
	f.scheme = string(scheme)
	for i := range r.Headers.Len() {
		name, _ := r.Headers.At(i)
		f.names = append(f.names, string(name))
	}
	return f
}

// changes tells what was made of a request.
func (e *explanation) changes(before, now requestFacts) {
	if before.path != now.path {
		e.line("normalized path", "%s, from %s", now.path, before.path)
	}
	if before.host != now.host {
		e.line("normalized host", "%s, from %s", now.host, before.host)
	}
	if before.scheme != "" && before.scheme != now.scheme {
		e.line("scheme", "%s, as x-forwarded-proto of clients is not trusted", now.scheme)
	}
	var dropped []string
	for _, name := range before.names {
		if !slices.Contains(now.names, name) && !slices.Contains(dropped, name) {
			dropped = append(dropped, name)
		}
	}
	if dropped != nil {
		e.line("dropped headers", "%s", strings.Join(dropped, ", "))
	}
}
