// Package gate stands before all that callers reach over HTTP and gRPC: it says
// once for each call who makes it, keeps out those who must be known and are not,
// and bounds how often a source calls and how much it sends. What a caller may do
// beyond that, the faces ask the auth.Caller that it leaves in the context. It
// knows no host, and of paths and methods no more than it is told.
package gate

import (
	"errors"
	"fmt"
	"io"
	"net/http"

	"github.com/weirproxy/weir/services/discovery/internal/auth"
	"github.com/weirproxy/weir/services/discovery/internal/denial"
	"github.com/weirproxy/weir/services/discovery/internal/quota"
	"github.com/weirproxy/weir/services/discovery/internal/rest/httpjson"
)

// Gate is what it is made of. Every field but Sources is required.
type Gate struct {
	Policy *auth.Policy
	// Sources holds each address to a rate of calls that are not reads; nil for
	// none.
	Sources *quota.Sources
	// Open reports whether an HTTP path is for everyone, whoever may read.
	Open func(path string) bool
	// BodyLimit is how many bytes the body of a call to an HTTP path has at most.
	BodyLimit func(path string) int64
	// OnlyReads reports whether a gRPC method, "/package.Service/Method", only
	// reads.
	OnlyReads func(method string) bool
	Denials   *denial.Counters
}

// HTTP lets those calls through to next that pass the gate, and answers the
// others with {"error": reason}.
func (g *Gate) HTTP(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		caller := g.Policy.HTTP(r)
		if err := g.pass(r, &caller); err != nil {
			g.answer(w, err)
			return
		}
		r = r.WithContext(auth.NewContext(r.Context(), &caller))
		if r.Body != http.NoBody {
			r.Body = &body{http.MaxBytesReader(w, r.Body, g.BodyLimit(r.URL.Path)), g.Denials}
		}
		next.ServeHTTP(w, r)
	})
}

// pass returns why a call may not go on, or nil.
func (g *Gate) pass(r *http.Request, caller *auth.Caller) error {
	switch {
	case g.Open(r.URL.Path):
	case r.Method == "GET" || r.Method == "HEAD" || r.Method == "OPTIONS":
		if err := caller.MayRead(); err != nil {
			return err
		}
	default:
		if err := g.write(caller); err != nil {
			return err
		}
	}
	if most := g.BodyLimit(r.URL.Path); r.ContentLength > most {
		g.Denials.Count(denial.Body)
		return &denial.Error{Status: 413, Reason: denial.Body, Text: fmt.Sprintf("the body is longer than %d bytes", most)}
	}
	return nil
}

// write returns why a call that is no read may not go on, or nil. The rate comes
// first, so that tokens are not tried out oftener either.
func (g *Gate) write(caller *auth.Caller) error {
	if err := g.Sources.Take(caller.Address); err != nil {
		return err
	}
	return caller.MayWrite()
}

// answer tells a caller why its call did not pass.
func (g *Gate) answer(w http.ResponseWriter, err error) {
	status := http.StatusInternalServerError
	if refused := g.Denials.Of(err); refused != nil {
		status = refused.Status
		refused.SetHeaders(w.Header())
	}
	_, _ = httpjson.Answer(w, status, map[string]string{"error": err.Error()})
}

// body counts that it was longer than it may be: only reading one that comes
// without its length tells.
type body struct {
	io.ReadCloser
	denials *denial.Counters // nil once it was counted
}

func (b *body) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if _, tooLong := errors.AsType[*http.MaxBytesError](err); tooLong {
		b.denials.Count(denial.Body)
		b.denials = nil
	}
	return n, err
}
