package v1

import (
	"net/http"
	"slices"
	"strconv"

	"github.com/weirproxy/weir/services/discovery/internal/httpjson"
	"github.com/weirproxy/weir/services/discovery/internal/registry"
	"github.com/weirproxy/weir/services/discovery/internal/rest/sheet"
)

// timeForm is how last_check_in is written: UTC, to the microsecond.
var timeForm = httpjson.TimeForm{Between: ' ', Digits: 6, Zone: "+00:00"}

// list answers with the hosts of a service. An unknown service is no error: a
// reader cannot tell it from one without hosts.
//
// The entity tag is of all but the times of the check-ins, so that a poller is
// not sent a list again in which nothing else is new. A partial list has none:
// who holds one so has it from before.
func (f *face) list(w http.ResponseWriter, r *http.Request) (int, error) {
	var room [registry.CommonHosts]registry.Instant
	reading, err := f.lists.Read(room[:0], r.PathValue("service"))
	if err != nil {
		return 0, err
	}
	list := reading.Kept
	if err := reading.Safe(list.Hosts == 0, httpjson.Holds(r)); err != nil {
		return 0, err
	}
	if !reading.Partial && httpjson.Unmodified(w, r, list.Tag()) {
		return http.StatusNotModified, nil
	}
	return list.Answer(w, reading.CheckIns)
}

// makeSheet makes what list answers with of the hosts of a service.
func (f *face) makeSheet(service string, listing *registry.Listing) *sheet.Sheet {
	all := listing.Hosts
	hosts := shown(slices.Clone(all))
	draft := sheet.NewDraft(&timeForm)
	at := 0 // the place of a host among all
	body := f.appendList(sheet.Room(len(hosts)), `{"service":`, service, hosts, func(b []byte, v *registry.View) []byte {
		for all[at].Host != v.Host {
			at++
		}
		return draft.LeaveTime(b, at)
	})
	return draft.End(body, listing.Version, f.tag(listing))
}

// listRepo answers with the hosts of a repository, as list does with those of a
// service. It is asked for less, and makes its answer anew each time.
func (f *face) listRepo(w http.ResponseWriter, r *http.Request) (int, error) {
	repo := r.PathValue("repo")
	listing, err := f.registry.ListRepo(repo)
	if err != nil {
		return 0, err
	}
	hosts := shown(listing.Hosts)
	if err := listing.Safe(len(hosts) == 0, httpjson.Holds(r)); err != nil {
		return 0, err
	}
	if !listing.Partial && httpjson.Unmodified(w, r, f.tag(&listing)) {
		return http.StatusNotModified, nil
	}
	return httpjson.Compose(w, func(b []byte) []byte {
		return f.appendList(b, `{"service_repo_name":`, repo, hosts, appendTime)
	})
}

// tag is the entity tag of a list, as http.Header has it.
func (f *face) tag(list *registry.Listing) []string {
	return httpjson.Tag(uint64(list.Version) ^ f.envHash)
}

// timeWriter appends the time of the last check-in of a host, or leaves room for it.
type timeWriter func(b []byte, v *registry.View) []byte

func appendTime(b []byte, v *registry.View) []byte { return timeForm.AppendTime(b, v.LastCheckIn) }

// appendList appends a list of hosts: open, which begins an object, whose they are,
// and env go before them.
func (f *face) appendList(b []byte, open, name string, hosts []registry.View, appendTime timeWriter) []byte {
	b = append(b, open...)
	b = httpjson.AppendText(b, name)
	b = append(b, `,"env":`...)
	b = httpjson.AppendText(b, f.env)
	b = append(b, `,"hosts":[`...)
	for i := range hosts {
		if i > 0 {
			b = append(b, ',')
		}
		b = appendHost(b, &hosts[i], appendTime)
	}
	return append(b, "]}\n"...)
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
func appendHost(b []byte, v *registry.View, appendTime timeWriter) []byte {
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
	b = appendTime(b, v)
	b = append(b, `","tags":`...)
	b = appendTags(b, &v.Host.Tags, v.Weight)
	return append(b, '}')
}
