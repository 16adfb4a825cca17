package v1

import (
	"io"
	"net/http"
)

// checkIn registers a host, or is its heartbeat: the same call either way, and
// the same answer.
func (f *face) checkIn(w http.ResponseWriter, r *http.Request) error {
	form, err := readForm(w, r)
	if err != nil {
		return err
	}
	h, err := f.terms.readHost(r.PathValue("service"), &form, r)
	if err != nil {
		return err
	}
	if _, err := f.registry.CheckIn(h, actor(r)); err != nil {
		return err
	}
	done(w)
	return nil
}

// done answers that what was asked for is done.
func done(w http.ResponseWriter) {
	w.Header().Set("Content-Type", "application/json")
	_, _ = io.WriteString(w, "{}\n") // a failed write means that the caller has gone
}
