package v2

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/getkin/kin-openapi/openapi3"
	"github.com/stretchr/testify/require"
)

func TestAHistoryTellsWhoDidWhat(t *testing.T) {
	f := newFixture(t)
	f.put(t, "/v2/services/users/hosts/a", `{"address":"10.0.0.1","port":80,"zone":"z","revision":"r1"}`)
	f.put(t, "/v2/services/users/hosts/a", `{"address":"10.0.0.1","port":80,"zone":"z","revision":"r2"}`)
	require.Equal(t, 200, f.call("PUT", "/v2/settings/weight",
		`{"scope":{"service":"users","zone":"z"},"weight":5,"author":"ada","reason":"new racks"}`).Code)
	require.Equal(t, 204, f.call("DELETE", "/v2/settings/weight?service=users&zone=z", "").Code)
	f.call("DELETE", "/v2/services/users/hosts/a", "")
	require.Equal(t, []string{
		"registered a by 192.0.2.1",
		`changed a by 192.0.2.1 revision "r1" to "r2"`,
		`setting made  by ada weight 5 of zone "z": new racks`,
		`setting ended  by 192.0.2.1 weight 5 of zone "z": new racks`,
		"deregistered a by 192.0.2.1",
	}, f.events(t, "users"))
	require.Equal(t, map[string]any{"service": "none", "events": []any{}}, f.get(t, "/v2/services/none/history"))
}

func TestAStreamTellsOfEventsAsTheyHappen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t)
		f.put(t, "/v2/services/users/hosts/old", fine)
		all, users := f.wait("/v2/events"), f.wait("/v2/events?service=users")
		time.Sleep(time.Second)
		first := stamp(time.Now())
		f.put(t, "/v2/services/users/hosts/a", fine)
		synctest.Wait()
		time.Sleep(time.Second)
		second := stamp(time.Now())
		f.call("DELETE", "/v2/services/users/hosts/a", "")
		f.put(t, "/v2/services/carts/hosts/b", fine)
		synctest.Wait()
		f.stop()
		<-all.ended
		<-users.ended
		event := func(at, kind, service, id string) string {
			return fmt.Sprintf("event: change\nid: %s\ndata: {\"at\":%q,\"kind\":%q,\"service\":%q,\"id\":%q,\"actor\":\"192.0.2.1\",\"detail\":\"\"}\n\n", at, at, kind, service, id)
		}
		ofUsers := "retry: 3000\n\n" + event(first, "registered", "users", "a") + event(second, "deregistered", "users", "a")
		require.Equal(t, ofUsers, users.w.Body.String())
		require.Equal(t, ofUsers+event(second, "registered", "carts", "b"), all.w.Body.String())
		require.Equal(t, "text/event-stream", all.w.Header().Get("Content-Type"))
		require.Equal(t, "no-store", all.w.Header().Get("Cache-Control"))
	})
}

func TestAStreamOfAServiceTellsOfItsZones(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t)
		f.put(t, "/v2/services/users/hosts/a", `{"address":"10.0.0.1","port":80,"zone":"z"}`)
		users, carts := f.wait("/v2/events?service=users"), f.wait("/v2/events?service=carts")
		synctest.Wait()
		at := stamp(time.Now())
		require.Equal(t, 200, f.call("PUT", "/v2/settings/drain", `{"scope":{"zone":"z"},"author":"ada","reason":"new racks"}`).Code)
		synctest.Wait()
		f.stop()
		<-users.ended
		<-carts.ended
		require.Equal(t, "retry: 3000\n\nevent: change\nid: "+at+"\ndata: "+
			`{"at":"`+at+`","kind":"setting made","service":"","zone":"z","id":"","actor":"ada","detail":"drain of zone \"z\": new racks"}`+"\n\n",
			users.w.Body.String())
		require.Equal(t, "retry: 3000\n\n", carts.w.Body.String())

		history := f.get(t, "/v2/services/users/history")
		require.NoError(t, readOpenAPI(t).Components.Schemas["History"].Value.VisitJSON(history, openapi3.EnableJSONSchema2020()))
		last := history["events"].([]any)[1].(map[string]any)
		require.Equal(t, []any{"setting made", "users", "z"}, []any{last["kind"], last["service"], last["zone"]})
	})
}

func TestAStreamOnWhichNothingHappensSaysThatItIsThere(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t)
		c := f.wait("/v2/events?service=users")
		time.Sleep(31 * time.Second)
		f.put(t, "/v2/services/carts/hosts/a", fine) // of no interest
		synctest.Wait()
		c.leave()
		<-c.ended
		require.Equal(t, "retry: 3000\n\n: still here\n\n: still here\n\n", c.w.Body.String())
	})
}

func TestAReaderThatComesBackIsToldThatItMissedSome(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t)
		r := newRequest("HEAD", "/v2/events", "")
		r.Header.Set("Last-Event-ID", "2026-11-26T14:30:00.000Z")
		w := httptest.NewRecorder()
		f.ServeHTTP(w, r)
		require.Equal(t, "retry: 3000\n\nevent: missed\ndata: {}\n\n", w.Body.String())
	})
}

// stuck is a reader whose connection takes what is allowed, and then waits.
type stuck struct {
	*httptest.ResponseRecorder
	allowed chan struct{} // one value for each write
	flushed chan struct{} // one value for each write that began
}

func (s *stuck) FlushError() error {
	s.flushed <- struct{}{}
	<-s.allowed
	return nil
}

func TestASlowReaderIsToldThatItMissedSome(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t)
		reader := &stuck{httptest.NewRecorder(), make(chan struct{}), make(chan struct{}, 10)}
		ended := make(chan struct{})
		// Ends when the service stops; the test waits for it.
		go func() {
			defer close(ended)
			f.ServeHTTP(reader, newRequest("GET", "/v2/events", ""))
		}()
		<-reader.flushed
		for range 600 { // two events each, more than are kept
			f.put(t, "/v2/services/users/hosts/a", fine)
			f.call("DELETE", "/v2/services/users/hosts/a", "")
		}
		close(reader.allowed)
		synctest.Wait()
		f.put(t, "/v2/services/users/hosts/z", fine)
		synctest.Wait()
		f.stop()
		<-ended
		body := reader.Body.String()
		require.Equal(t, 1, strings.Count(body, "event: missed\ndata: {}\n\n"))
		require.Less(t, strings.Count(body, "event: change\n"), 1200)
		require.Less(t, strings.Index(body, "event: missed"), strings.Index(body, `"id":"z"`), "it goes on with what is new")
	})
}

func TestAReaderThatTakesNothingIsLetGo(t *testing.T) {
	f := newFixture(t)
	ended := make(chan struct{})
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		defer close(ended)
		f.ServeHTTP(&impatient{w}, r)
	}))
	server.Config.ConnContext = func(ctx context.Context, c net.Conn) context.Context {
		_ = c.(*net.TCPConn).SetWriteBuffer(4096)
		return ctx
	}
	server.Start()
	defer server.Close()
	connection, err := net.Dial("tcp", server.Listener.Addr().String())
	require.NoError(t, err)
	defer connection.Close()
	require.NoError(t, connection.(*net.TCPConn).SetReadBuffer(4096))
	_, err = connection.Write([]byte("GET /v2/events HTTP/1.1\r\nHost: discovery\r\n\r\n"))
	require.NoError(t, err)
	// Nobody reads: what is written fills the buffers of both sockets at last.
	reason := strings.Repeat("x", 250)
	for n := 0; ; n++ {
		f.put(t, "/v2/services/"+reason+"/hosts/a", fmt.Sprintf(`{"address":"10.0.0.1","port":%d,"revision":%q}`, n%1000+1, reason))
		select {
		case <-ended:
			return
		default:
		}
	}
}

// impatient gives each write a hundredth of its time.
type impatient struct{ http.ResponseWriter }

func (w *impatient) Unwrap() http.ResponseWriter { return w.ResponseWriter }

func (w *impatient) SetWriteDeadline(at time.Time) error {
	return http.NewResponseController(w.ResponseWriter).SetWriteDeadline(time.Now().Add(time.Until(at) / 100))
}
