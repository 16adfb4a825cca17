package v1

import (
	"net/http"
	"strings"
)

// checkIn registers a host, or is its heartbeat: the same call either way, and
// the same answer.
func (f *face) checkIn(w http.ResponseWriter, r *http.Request) error {
	service, err := pathName(r, "service")
	if err != nil {
		return err
	}
	form, err := readForm(w, r)
	if err != nil {
		return err
	}
	h, err := f.terms.readHost(service, form, strings.Join(r.Header.Values("X-Forwarded-For"), ","))
	if err != nil {
		return err
	}
	if _, err := f.registry.CheckIn(h, r.RemoteAddr); err != nil {
		return err
	}
	answer(w, http.StatusOK, struct{}{})
	return nil
}
