package client

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"time"
)

// Put registers a host, or says what it is now.
func (r *Registry) Put(ctx context.Context, service, id string, h Registration) (Receipt, error) {
	var receipt Receipt
	_, err := r.call(ctx, http.MethodPut, hostPath(service, id), h, &receipt)
	return receipt, err
}

// Heartbeat says that the host with that lease lives. An error that IsUnknown
// says that it must register again.
func (r *Registry) Heartbeat(ctx context.Context, service, id, lease string) error {
	_, err := r.call(ctx, http.MethodPost, hostPath(service, id)+"/heartbeat", beat{lease}, nil)
	return err
}

// Remove takes a host out; with a lease that is not empty, only if that is its own
// still. An error that IsUnknown says that it is out already.
func (r *Registry) Remove(ctx context.Context, service, id, lease string) error {
	path := hostPath(service, id)
	if lease != "" {
		path += "?" + url.Values{"lease": {lease}}.Encode()
	}
	_, err := r.call(ctx, http.MethodDelete, path, nil, nil)
	return err
}

// Hosts lists a service.
func (r *Registry) Hosts(ctx context.Context, service string) (Hosts, error) {
	list, _, err := r.listHosts(ctx, hostsPath(service))
	return list, err
}

// AwaitHosts lists a service once its index is another than that of an earlier
// list, and reports whether it became so within about wait.
func (r *Registry) AwaitHosts(ctx context.Context, service, index string, wait time.Duration) (list Hosts, changed bool, err error) {
	query := url.Values{"index": {index}, "wait": {wait.String()}}
	return r.listHosts(ctx, hostsPath(service)+"?"+query.Encode())
}

// listHosts lists a service, unless that has not changed. A list always has an
// index: who answers without is not discovery.
func (r *Registry) listHosts(ctx context.Context, path string) (list Hosts, changed bool, err error) {
	status, err := r.call(ctx, http.MethodGet, path, nil, &list)
	if err != nil || status == http.StatusNotModified {
		return Hosts{}, false, err
	}
	if list.Index == "" {
		return Hosts{}, false, fmt.Errorf("GET %s%s: the answer is not that of discovery: it has no index", r.Base, path)
	}
	return list, true, nil
}

// Services lists all services.
func (r *Registry) Services(ctx context.Context) (Services, error) {
	var list Services
	_, err := r.call(ctx, http.MethodGet, "/v2/services", nil, &list)
	return list, err
}

// Make makes a setting of a kind, in the place of one with the same scope.
func (r *Registry) Make(ctx context.Context, kind string, s Setting) error {
	_, err := r.call(ctx, http.MethodPut, "/v2/settings/"+url.PathEscape(kind), s, nil)
	return err
}

// End ends a setting of a kind. An error that IsUnknown says that there is none.
func (r *Registry) End(ctx context.Context, kind string, s Scope) error {
	query := url.Values{}
	for name, value := range map[string]string{"service": s.Service, "id": s.ID, "zone": s.Zone} {
		if value != "" {
			query.Set(name, value)
		}
	}
	_, err := r.call(ctx, http.MethodDelete, "/v2/settings/"+url.PathEscape(kind)+"?"+query.Encode(), nil, nil)
	return err
}

func hostsPath(service string) string { return "/v2/services/" + url.PathEscape(service) + "/hosts" }

func hostPath(service, id string) string { return hostsPath(service) + "/" + url.PathEscape(id) }

// call makes one call. body, unless nil, is sent as JSON; a success that is no
// 304 is read into answer, unless that is nil. It returns the status of a
// success, which is any of 2xx, and 304. Any other is a *StatusError.
func (r *Registry) call(ctx context.Context, method, path string, body, answer any) (status int, err error) {
	var text []byte
	if body != nil {
		if text, err = json.Marshal(body); err != nil {
			return 0, err
		}
	}
	request, err := http.NewRequestWithContext(ctx, method, r.Base+path, bytes.NewReader(text))
	if err != nil {
		return 0, err
	}
	if body != nil {
		request.Header.Set("Content-Type", "application/json")
	}
	if token := r.client.token.now(); token != "" {
		request.Header.Set("Authorization", "Bearer "+token)
	}
	response, err := r.client.http.Do(request)
	if err != nil {
		return 0, err
	}
	defer response.Body.Close()
	said, err := readAnswer(response.Body)
	switch {
	case err != nil:
		return 0, fmt.Errorf("%s %s: read the answer: %w", method, request.URL, err)
	case response.StatusCode == http.StatusNotModified:
		return response.StatusCode, nil
	case response.StatusCode/100 != 2:
		err := refused(request, response, said)
		if wait := retryAfter(response.Header); wait > 0 {
			r.wait(wait, err)
		}
		return 0, err
	case answer != nil:
		if err := json.Unmarshal(said, answer); err != nil {
			return 0, fmt.Errorf("%s %s: %s: the answer is not that of discovery: %w", method, request.URL, response.Status, err)
		}
	}
	return response.StatusCode, nil
}
