package v2

import (
	"errors"
	"net/http"
	"time"

	"github.com/weirproxy/weir/services/discovery/internal/auth"
	"github.com/weirproxy/weir/services/discovery/internal/httpjson"
	"github.com/weirproxy/weir/services/discovery/internal/registry"
	"github.com/weirproxy/weir/services/discovery/internal/rest/call"
	"github.com/weirproxy/weir/services/discovery/internal/rule"
)

// The bounds of a setting: its reason in bytes, and how long it can be in force
// when it names an end.
const (
	maxReason     = 1000
	maxExpiration = 366 * 24 * time.Hour
)

// settingJSON is how a setting is shown.
type settingJSON struct {
	Kind    registry.SettingKind `json:"kind"`
	Scope   scopeJSON            `json:"scope"`
	Weight  uint8                `json:"weight,omitempty"`
	Author  string               `json:"author"`
	Reason  string               `json:"reason"`
	Made    string               `json:"made"`
	Expires string               `json:"expires,omitempty"`
}

type scopeJSON struct {
	Service string `json:"service,omitempty"`
	ID      string `json:"id,omitempty"`
	Zone    string `json:"zone,omitempty"`
}

func showSetting(s registry.Setting) settingJSON {
	shown := settingJSON{
		Kind: s.Kind, Scope: scopeJSON(s.Scope), Weight: s.Weight,
		Author: s.Author, Reason: s.Reason, Made: stamp(s.Made),
	}
	if !s.Expires.IsZero() {
		shown.Expires = stamp(s.Expires)
	}
	return shown
}

// settings answers with what operators set.
func (f *face) settings(w http.ResponseWriter, r *http.Request) (int, error) {
	if err := call.ReadQuery(r).End(); err != nil {
		return 0, err
	}
	inForce, err := f.registry.Settings()
	if err != nil {
		return 0, err
	}
	settings := make([]settingJSON, len(inForce))
	for i, s := range inForce {
		settings[i] = showSetting(s)
	}
	return httpjson.Answer(w, http.StatusOK, struct {
		Settings []settingJSON `json:"settings"`
	}{settings})
}

// putSetting puts a setting in force, in the place of one of the same kind and
// scope.
func (f *face) putSetting(w http.ResponseWriter, r *http.Request) (int, error) {
	caller := auth.FromContext(r.Context())
	if err := caller.MayOperate(); err != nil {
		return 0, err
	}
	q := call.ReadQuery(r)
	body, err := readBody(w, r, call.MaxBody, &q.Faults)
	if err != nil {
		return 0, err
	}
	s := readSetting(pathKind(r, &q.Faults), body, caller.Identity(), time.Now(), &q.Faults)
	if err := q.End(); err != nil {
		return 0, err
	}
	s, err = f.registry.Make(s)
	if err != nil {
		return 0, err
	}
	return httpjson.Answer(w, http.StatusOK, showSetting(s))
}

// readSetting makes a setting of a body, from now on. Its author is identity, if
// that is not empty, whatever the body says.
func readSetting(kind registry.SettingKind, body []byte, identity string, now time.Time, f *call.Faults) registry.Setting {
	o := readObject(body, "", f)
	s := registry.Setting{Kind: kind, Scope: readScope(o), Made: now}
	weight, weighs := o.integer("weight", 100)
	s.Weight = uint8(weight)
	if weighs != (s.Kind == registry.Weigh) {
		if weighs {
			o.fault("weight", "is of the kind weight alone")
		} else {
			o.missing("weight")
		}
	}
	author, given := o.text("author", some(maxText))
	switch {
	case identity != "":
		author = identity
	case !given:
		o.missing("author")
	}
	s.Author = author
	if s.Reason, given = o.text("reason", some(maxReason)); !given {
		o.missing("reason")
	}
	if in := o.duration("expires_in", maxExpiration); in != 0 {
		s.Expires = now.Add(in)
	}
	o.end()
	return s
}

// some is atMost for a text that must say something.
func some(most int) func(string) error {
	return func(text string) error {
		if text == "" {
			return errors.New("is empty")
		}
		return atMost(most)(text)
	}
}

// readScope takes which hosts a setting is about.
func readScope(o *object) registry.Scope {
	if _, given := o.members["scope"]; !given {
		o.missing("scope")
		return registry.Scope{}
	}
	members := o.object("scope")
	if members.members == nil {
		return registry.Scope{}
	}
	var scope registry.Scope
	scope.Service, _ = members.text("service", rule.ServiceName)
	scope.ID, _ = members.text("id", rule.Name)
	scope.Zone, _ = members.text("zone", rule.Name)
	members.end()
	checkScope(scope, o.faults)
	return scope
}

// checkScope refuses what is no scope.
func checkScope(s registry.Scope, f *call.Faults) {
	switch {
	case s == registry.Scope{}:
		f.Add("scope", "names neither service nor zone")
	case s.ID != "" && s.Zone != "":
		f.Add("scope", "names both id and zone")
	case s.ID != "" && s.Service == "":
		f.Add("scope", "names an id, but no service")
	}
}

// deleteSetting ends a setting.
func (f *face) deleteSetting(w http.ResponseWriter, r *http.Request) (int, error) {
	caller := auth.FromContext(r.Context())
	if err := caller.MayOperate(); err != nil {
		return 0, err
	}
	q := call.ReadQuery(r)
	key := registry.SettingKey{Kind: pathKind(r, &q.Faults)}
	key.Scope.Service, _ = q.Checked("service", rule.ServiceName)
	key.Scope.ID, _ = q.Checked("id", rule.Name)
	key.Scope.Zone, _ = q.Checked("zone", rule.Name)
	checkScope(key.Scope, &q.Faults)
	if err := q.End(); err != nil {
		return 0, err
	}
	ended, err := f.registry.End(key, caller.Actor())
	if err != nil {
		return 0, err
	}
	if !ended {
		return 0, call.Refuse(http.StatusNotFound, "there is no setting %s of that scope", key.Kind)
	}
	return httpjson.Nothing(w)
}
