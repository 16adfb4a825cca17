package registry

import (
	"cmp"
	"fmt"
	"slices"
	"time"
)

// A Setting is what an operator decided about hosts. It lies apart from what
// hosts say of themselves, and no beat changes it.
type Setting struct {
	Scope Scope
	Kind  SettingKind
	// Weight is 1 to 100 for a setting of that kind, else 0.
	Weight uint8
	// Author and Reason are for those who find the setting later. Author is
	// never empty.
	Author, Reason string
	// Made is since when the setting has done what it does.
	Made time.Time
	// Expires is when the setting ends by itself; zero for never.
	Expires time.Time
}

// SettingKind is what is set. A scope has one setting of each kind at most.
type SettingKind string

const (
	// Weigh gives hosts a weight, whatever they say of it.
	Weigh SettingKind = "weight"
	// Drain makes hosts Draining, and Out a while later.
	Drain SettingKind = "drain"
	// Maintenance is Drain for hosts that are expected to be away: while it
	// lasts they do not expire, and no guard counts them.
	Maintenance SettingKind = "maintenance"
)

// Scope is which hosts a setting is about: one host (Service and ID), those of
// a zone (Zone, with a Service or of all services), or those of a Service. ID
// and Zone are never both given, and never all three empty.
type Scope struct {
	Service, ID, Zone string
}

// SettingKey names a setting: one per scope and kind.
type SettingKey struct {
	Scope Scope
	Kind  SettingKind
}

// Key is what names s.
func (s *Setting) Key() SettingKey { return SettingKey{s.Scope, s.Kind} }

// compareSettings orders settings by scope and kind.
func compareSettings(a, b Setting) int {
	return cmp.Or(
		cmp.Compare(a.Scope.Service, b.Scope.Service), cmp.Compare(a.Scope.Zone, b.Scope.Zone),
		cmp.Compare(a.Scope.ID, b.Scope.ID), cmp.Compare(a.Kind, b.Kind))
}

// setting is a Setting in force.
type setting struct {
	Setting
	// out says that its hosts have gone from Draining to Out, and that readers
	// were told so.
	out bool
}

// MaxSettings is how many settings there can be.
const MaxSettings = 10_000

// ErrTooManySettings is the answer to one more than MaxSettings.
var ErrTooManySettings = fmt.Errorf("there are %d settings, and cannot be more", MaxSettings)

// Make puts a setting in force, in the place of one with the same key, and returns
// it: where that did the same to its hosts, it is made when that was, so that
// hosts that are Out do not become Draining once more. The setting must be as its
// fields say. The error is ErrNotLoaded, ErrTooManySettings or nil.
func (r *Registry) Make(s Setting) (Setting, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.isLoaded {
		return Setting{}, ErrNotLoaded
	}
	known := r.settings[s.Key()]
	if known == nil && len(r.settings) >= MaxSettings {
		return Setting{}, ErrTooManySettings
	}
	if known != nil && known.Weight == s.Weight {
		s.Made = known.Made
	}
	event := &Event{
		At: time.Now(), Kind: SettingMade, Service: s.Scope.Service, ID: s.Scope.ID, Zone: s.Scope.Zone, Actor: s.Author, Detail: s.describe(),
	}
	r.set(&s)
	r.happened(event)
	r.outbox.change(Change{SettingKey: s.Key(), Setting: &s, Event: event})
	return s, nil
}

// End takes a setting back, and reports whether there was one. The error is
// ErrNotLoaded or nil.
func (r *Registry) End(k SettingKey, actor string) (bool, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.isLoaded {
		return false, ErrNotLoaded
	}
	return r.end(k, actor, ""), nil
}

// Settings returns what is set, ordered by scope and kind. The slice is the
// caller's. The error is ErrNotLoaded or nil.
func (r *Registry) Settings() ([]Setting, error) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	if !r.isLoaded {
		return nil, ErrNotLoaded
	}
	list := make([]Setting, 0, len(r.settings))
	for _, s := range r.settings {
		list = append(list, s.Setting)
	}
	slices.SortFunc(list, compareSettings)
	return list, nil
}

// end takes a setting back here and in the Store. r.mu must be held.
func (r *Registry) end(k SettingKey, actor, why string) bool {
	s := r.settings[k]
	if s == nil {
		return false
	}
	r.unset(k)
	detail := s.describe()
	if why != "" {
		detail += ": " + why
	}
	event := &Event{At: time.Now(), Kind: SettingEnded, Service: k.Scope.Service, ID: k.Scope.ID, Zone: k.Scope.Zone, Actor: actor, Detail: detail}
	r.happened(event)
	r.outbox.change(Change{SettingKey: k, Event: event})
	return true
}

// set puts a setting in force. r.mu must be held.
func (r *Registry) set(s *Setting) {
	known := r.settings[s.Key()]
	if known != nil && known.Setting == *s {
		return
	}
	r.settings[s.Key()] = &setting{Setting: *s, out: known != nil && known.out && known.Made.Equal(s.Made)}
	r.settled(s.Key())
}

// unset undoes set. r.mu must be held.
func (r *Registry) unset(k SettingKey) {
	if r.settings[k] == nil {
		return
	}
	delete(r.settings, k)
	r.settled(k)
}

// settled has what a setting means for hosts take effect. r.mu must be held.
func (r *Registry) settled(k SettingKey) {
	if k.Kind == Maintenance {
		r.maintained(k.Scope)
	}
	r.tellScope(k.Scope)
}

// settingOf is the setting of one kind that holds for h, nil if none: the
// narrower scope comes first. r.mu must be held.
func (r *Registry) settingOf(kind SettingKind, h *Host) *setting {
	for _, scope := range [...]Scope{
		{Service: h.Service, ID: h.ID},
		{Service: h.Service, Zone: h.Tags.Zone},
		{Service: h.Service},
		{Zone: h.Tags.Zone},
	} {
		if scope == (Scope{}) {
			continue
		}
		if s := r.settings[SettingKey{scope, kind}]; s != nil {
			return s
		}
	}
	return nil
}

// settle ends the settings whose time is over, at a time of the registry's clock,
// and tells of hosts that have drained for long enough. A setting ends for all
// replicas: so none does soon after the wall clock was set, which may be wrong now,
// nor by one that was set since that was last looked for.
func (r *Registry) settle(at time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	now, wallNow := time.Now(), r.wall.at(at)
	for key, s := range r.settings {
		if !s.Expires.IsZero() && !wallNow.Before(s.Expires) && at >= r.settingsHeld {
			r.end(key, Itself, "its time is over")
			continue
		}
		if s.Kind != Weigh && !s.out && now.Sub(s.Made) >= r.options.DrainTime {
			s.out = true
			r.tellScope(key.Scope)
		}
	}
	for e := range r.draining {
		if now.Sub(e.drainingSince.Time()) >= r.options.DrainTime {
			delete(r.draining, e)
			r.tell(r.services[e.host.Service])
		}
	}
}

// tellScope tells of the services with hosts in a scope. r.mu must be held.
func (r *Registry) tellScope(scope Scope) {
	for _, s := range r.inScope(scope) {
		r.tell(s)
	}
}

// inScope returns the services with hosts in a scope. r.mu must be held.
func (r *Registry) inScope(scope Scope) (services []*service) {
	if scope.Service != "" {
		if s := r.services[scope.Service]; s != nil {
			services = append(services, s)
		}
		return services
	}
	for _, s := range r.services {
		if s.isIn(scope.Zone) {
			services = append(services, s)
		}
	}
	return services
}

// isIn reports whether a service has hosts in a zone. r.mu must be held.
func (s *service) isIn(zone string) bool {
	for _, e := range s.hosts {
		if e.host.Tags.Zone == zone {
			return true
		}
	}
	return false
}

// describe says what s is, for people.
func (s *Setting) describe() string {
	text := string(s.Kind)
	if s.Kind == Weigh {
		text = fmt.Sprintf("%s %d", text, s.Weight)
	}
	if s.Scope.Zone != "" {
		text += fmt.Sprintf(" of zone %q", s.Scope.Zone)
	}
	if s.Reason != "" {
		text += ": " + s.Reason
	}
	return text
}
