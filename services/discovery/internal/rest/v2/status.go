package v2

import (
	"net/http"
	"time"

	"github.com/weirproxy/weir/services/discovery/internal/auth"
	"github.com/weirproxy/weir/services/discovery/internal/httpjson"
	"github.com/weirproxy/weir/services/discovery/internal/rest/call"
)

// statusJSON is who answers, and what the caller is to discovery.
type statusJSON struct {
	Env     string     `json:"env"`
	Replica string     `json:"replica"`
	State   string     `json:"state"`
	Now     string     `json:"now"`
	Caller  callerJSON `json:"caller"`
}

type callerJSON struct {
	Identity string `json:"identity"`
	Operator bool   `json:"operator"`
	Denied   string `json:"denied,omitempty"`
}

// status answers at any time, so that a page can say what it waits for.
func (f *face) status(w http.ResponseWriter, r *http.Request) (int, error) {
	if err := call.ReadQuery(r).End(); err != nil {
		return 0, err
	}
	caller := auth.FromContext(r.Context())
	operator, denied := caller.IsOperator()
	return httpjson.Answer(w, http.StatusOK, statusJSON{
		Env: f.env, Replica: f.replica, State: f.state(), Now: stamp(time.Now()),
		Caller: callerJSON{Identity: caller.Identity(), Operator: operator, Denied: denied},
	})
}

// state says whether calls are answered.
func (f *face) state() string {
	select {
	case <-f.stopping:
		return "stopping"
	default:
	}
	if f.checkLoaded() != nil {
		return "loading"
	}
	return "ready"
}
