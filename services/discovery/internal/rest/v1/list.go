package v1

import (
	"net/http"
	"slices"
	"strconv"
	"time"

	"github.com/weirproxy/weir/services/discovery/internal/httpjson"
	"github.com/weirproxy/weir/services/discovery/internal/registry"
)

// timeForm is how last_check_in is written: UTC, to the microsecond.
const timeForm = "2006-01-02 15:04:05.000000+00:00"

// list answers with the hosts of a service. An unknown service is no error: a
// reader cannot tell it from one without hosts.
func (f *face) list(w http.ResponseWriter, r *http.Request) (int, error) {
	service := r.PathValue("service")
	var room [registry.CommonHosts]registry.View
	listing, err := f.registry.ListInto(room[:0], service)
	if err != nil {
		return 0, err
	}
	return f.answerList(w, r, `{"service":`, service, &listing)
}

// listRepo answers with the hosts of a repository.
func (f *face) listRepo(w http.ResponseWriter, r *http.Request) (int, error) {
	repo := r.PathValue("repo")
	listing, err := f.registry.ListRepo(repo)
	if err != nil {
		return 0, err
	}
	return f.answerList(w, r, `{"service_repo_name":`, repo, &listing)
}

// answerList answers with hosts, by what follows of the object that begins with
// open. Lists are what is asked for most, so they are written by hand, in a
// fraction of the time that encoding/json takes.
//
// The entity tag is of all but the times of the check-ins, so that a poller is
// not sent a list again in which nothing else is new. A partial list has none:
// who holds one so has it from before.
func (f *face) answerList(w http.ResponseWriter, r *http.Request, open, name string, listing *registry.Listing) (int, error) {
	hosts := shown(listing.Hosts)
	if err := listing.Safe(len(hosts) == 0, httpjson.Holds(r)); err != nil {
		return 0, err
	}
	if !listing.Partial && httpjson.Unmodified(w, r, httpjson.Tag(uint64(listing.Version)^f.envHash)) {
		return http.StatusNotModified, nil
	}
	return httpjson.Compose(w, func(b []byte) []byte {
		b = append(b, open...)
		b = httpjson.AppendText(b, name)
		b = append(b, `,"env":`...)
		b = httpjson.AppendText(b, f.env)
		b = append(b, `,"hosts":[`...)
		for i := range hosts {
			if i > 0 {
				b = append(b, ',')
			}
			b = appendHost(b, &hosts[i])
		}
		return append(b, "]}\n"...)
	})
}

// shown returns the hosts that are listed, in the place of all. A list of v1
// has no word for a host's state: one that is in it is given work. So those
// that drain or are unhealthy are left out, and where a service has no others
// they are not: they may still work, and a list without hosts would stop the
// service before they end.
func shown(hosts []registry.View) []registry.View {
	kept := hosts[:0]
	for len(hosts) > 0 {
		n := 1
		for n < len(hosts) && hosts[n].Host.Service == hosts[0].Host.Service {
			n++
		}
		service := hosts[:n]
		hosts = hosts[n:]
		lists := isNotOut
		if slices.ContainsFunc(service, takesWork) {
			lists = takesWork
		}
		for i := range service {
			if lists(service[i]) {
				kept = append(kept, service[i])
			}
		}
	}
	return kept
}

func takesWork(v registry.View) bool { return v.TakesWork() }
func isNotOut(v registry.View) bool  { return v.State != registry.Out }

// appendHost appends one host as lists show it. The legacy SDS wants
// ip_address, port as an integer, and in tags az as text, canary as a boolean
// and the weight as an integer of 1 to 100; one host that breaks this spoils
// the whole list for it.
func appendHost(b []byte, v *registry.View) []byte {
	b = append(b, `{"service":`...)
	b = httpjson.AppendText(b, v.Host.Service)
	b = append(b, `,"ip_address":"`...)
	b = v.Host.Address.Addr().AppendTo(b)
	b = append(b, `","service_repo_name":`...)
	b = httpjson.AppendText(b, v.Host.Repo)
	b = append(b, `,"port":`...)
	b = strconv.AppendUint(b, uint64(v.Host.Address.Port()), 10)
	b = append(b, `,"revision":`...)
	b = httpjson.AppendText(b, v.Host.Revision)
	b = append(b, `,"last_check_in":"`...)
	b = appendTime(b, v.LastCheckIn)
	b = append(b, `","tags":`...)
	b = appendTags(b, &v.Host.Tags, v.Weight)
	return append(b, '}')
}

// appendTime appends a time as timeForm has it.
func appendTime(b []byte, t time.Time) []byte {
	const dateEnd = len("2006-01-02")
	begin := len(b)
	b = httpjson.AppendTime(b, t, 6)
	b[begin+dateEnd] = ' '                   // in the place of the T
	return append(b[:len(b)-1], "+00:00"...) // in the place of the Z
}
