package v2

import (
	"encoding/json"
	"net/http"
	"time"

	"github.com/weirproxy/weir/services/discovery/internal/httpjson"
	"github.com/weirproxy/weir/services/discovery/internal/registry"
	"github.com/weirproxy/weir/services/discovery/internal/rest/call"
	"github.com/weirproxy/weir/services/discovery/internal/rule"
)

// eventJSON is how an event is shown.
type eventJSON struct {
	At      string             `json:"at"`
	Kind    registry.EventKind `json:"kind"`
	Service string             `json:"service"`
	Zone    string             `json:"zone,omitempty"`
	ID      string             `json:"id"`
	Actor   string             `json:"actor"`
	Detail  string             `json:"detail"`
}

func showEvent(e registry.Event) eventJSON {
	return eventJSON{stamp(e.At), e.Kind, e.Service, e.Zone, e.ID, e.Actor, e.Detail}
}

// history answers with what happened to a service lately.
func (f *face) history(w http.ResponseWriter, r *http.Request) (int, error) {
	query := call.ReadQuery(r)
	service := pathService(r, &query.Faults)
	if err := query.End(); err != nil {
		return 0, err
	}
	past, err := f.registry.History(service)
	if err != nil {
		return 0, err
	}
	events := make([]eventJSON, len(past))
	for i, e := range past {
		events[i] = showEvent(e)
	}
	return httpjson.Answer(w, http.StatusOK, struct {
		Service string      `json:"service"`
		Events  []eventJSON `json:"events"`
	}{service, events})
}

const (
	// keepAlive is how often a stream on which nothing happens says that it is
	// there: so proxies leave it open, and a reader that vanished is noticed.
	keepAlive = 15 * time.Second
	// writeTime is how long a reader may take to read one write; a slower one is
	// let go.
	writeTime = 10 * time.Second
)

// The texts of the stream beside events. A browser comes back after retry, with
// the id that it saw last; an event without data it would ignore.
const (
	textRetry     = "retry: 3000\n\n"
	textMissed    = "event: missed\ndata: {}\n\n"
	textKeepAlive = ": still here\n\n"
)

// events is the stream of all events from now on, or of those of one service,
// those of a zone in which it has hosts among them.
// A reader that is too slow for them is told that it missed some; one that
// takes nothing at all is let go, and so is one that may read no more.
func (f *face) events(w http.ResponseWriter, r *http.Request) (int, error) {
	query := call.ReadQuery(r)
	service, _ := query.Checked("service", rule.ServiceName)
	if err := query.End(); err != nil {
		return 0, err
	}
	if err := f.checkLoaded(); err != nil {
		return 0, err
	}
	end, err := f.waiters.begin()
	if err != nil {
		return 0, err
	}
	defer end()

	feed := f.registry.EventsOf(service)
	defer feed.Close()
	stream := newStream(w)
	defer stream.end()
	text := textRetry
	if r.Header.Get("Last-Event-ID") != "" { // it was here before, and not meanwhile
		text += textMissed
	}
	if !stream.write([]byte(text)) || r.Method == "HEAD" {
		return http.StatusOK, nil
	}
	ticker := time.NewTicker(keepAlive)
	defer ticker.Stop()
	for {
		var b []byte
		select {
		case <-feed.Ready():
			events, missed := feed.Take()
			for _, e := range events {
				b = appendEvent(b, e)
			}
			if missed {
				b = append(b, textMissed...)
			}
		case <-ticker.C:
			b = append(b, textKeepAlive...)
		case <-f.stopping:
			return http.StatusOK, nil
		case <-r.Context().Done():
			return http.StatusOK, nil
		}
		if len(b) == 0 {
			continue
		}
		// Who may not read any more finds out why when it comes back.
		if mayStillRead(r) != nil || !stream.write(b) {
			return http.StatusOK, nil
		}
	}
}

// appendEvent appends one event of the stream.
func appendEvent(b []byte, e registry.Event) []byte {
	b = append(b, "event: change\nid: "...)
	b = appendStamp(b, e.At)
	b = append(b, "\ndata: "...)
	data, _ := json.Marshal(showEvent(e)) // texts alone: always can be
	b = append(b, data...)
	return append(b, "\n\n"...)
}

// stream is an answer that goes on.
type stream struct {
	w          http.ResponseWriter
	connection *http.ResponseController
}

// newStream begins the answer. The listener's deadlines are for calls that are
// answered at once; each write has one of its own instead.
func newStream(w http.ResponseWriter) *stream {
	s := &stream{w, http.NewResponseController(w)}
	_ = s.connection.SetReadDeadline(time.Time{}) // as in await
	w.Header().Set("Content-Type", "text/event-stream")
	w.Header().Set("Cache-Control", "no-store")
	return s
}

// write sends b at once, and reports whether the reader is still there.
func (s *stream) write(b []byte) bool {
	_ = s.connection.SetWriteDeadline(time.Now().Add(writeTime))
	if _, err := s.w.Write(b); err != nil {
		return false
	}
	return s.connection.Flush() == nil
}

// end gives the reader time to take what is left.
func (s *stream) end() {
	_ = s.connection.SetReadDeadline(time.Now().Add(answerTime))
	_ = s.connection.SetWriteDeadline(time.Now().Add(writeTime))
}
