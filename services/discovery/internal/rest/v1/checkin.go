package v1

import (
	"io"
	"net/http"

	"github.com/weirproxy/weir/services/discovery/internal/auth"
)

// checkIn registers a host, or is its heartbeat: the same call either way, and
// the same answer.
func (f *face) checkIn(w http.ResponseWriter, r *http.Request) (int, error) {
	service := r.PathValue("service")
	err := f.take(w, r, service)
	f.told(service, err == nil)
	if err != nil {
		return 0, err
	}
	return done(w)
}

// take reads the host that a call registers, and checks it in.
func (f *face) take(w http.ResponseWriter, r *http.Request, service string) error {
	caller := auth.FromContext(r.Context())
	if err := caller.MayRegister(service); err != nil {
		return err
	}
	form, err := readForm(w, r)
	if err != nil {
		return err
	}
	h, err := f.terms.readHost(service, &form, r)
	if err != nil {
		return err
	}
	if err := caller.MayRegisterAddress(h.Address.Addr()); err != nil {
		return err
	}
	_, err = f.registry.CheckIn(h, caller.Actor())
	return err
}

// done answers that what was asked for is done.
func done(w http.ResponseWriter) (int, error) {
	w.Header().Set("Content-Type", "application/json")
	_, _ = io.WriteString(w, "{}\n") // a failed write means that the caller has gone
	return http.StatusOK, nil
}
