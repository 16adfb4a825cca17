// Package gate stands before all that callers reach over HTTP and gRPC: it says
// once for each call who makes it, keeps out those who must be known and are not,
// and bounds how often a source calls. What a caller may do beyond that, the faces
// ask the auth.Caller that it leaves in the context. It knows no host, and of
// paths and methods no more than it is told.
package gate

import (
	"net/http"

	"github.com/weirproxy/weir/services/discovery/internal/auth"
	"github.com/weirproxy/weir/services/discovery/internal/denial"
	"github.com/weirproxy/weir/services/discovery/internal/httpjson"
	"github.com/weirproxy/weir/services/discovery/internal/quota"
)

// Gate is what it is made of. Every field but Sources is required.
type Gate struct {
	Policy *auth.Policy
	// Sources holds each address to a rate of calls that are not reads; nil for
	// none.
	Sources *quota.Sources
	// Open reports whether an HTTP path is for everyone, whoever may read.
	Open func(path string) bool
	// OnlyReads reports whether a gRPC method, "/package.Service/Method", only
	// reads, or a POST to an HTTP path.
	OnlyReads func(path string) bool
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
		next.ServeHTTP(w, r.WithContext(auth.NewContext(r.Context(), &caller)))
	})
}

// pass returns why a call may not go on, or nil.
func (g *Gate) pass(r *http.Request, caller *auth.Caller) error {
	switch {
	case g.Open(r.URL.Path):
		return nil
	case g.reads(r):
		return caller.MayRead()
	default:
		return g.write(caller)
	}
}

// reads reports whether a call changes nothing.
func (g *Gate) reads(r *http.Request) bool {
	switch r.Method {
	case "GET", "HEAD", "OPTIONS":
		return true
	case "POST":
		return g.OnlyReads(r.URL.Path)
	default:
		return false
	}
}

// write returns why a call that is no read may not go on, or nil. The rate comes
// first, so that what is refused counts too. It is no guard of tokens, which can be
// tried out with reads as often as one likes: they are too long to be guessed.
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
