package record

import (
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/weirproxy/weir/services/discovery/internal/registry"
)

// settingJSON is a registry.Setting.
type settingJSON struct {
	Kind    registry.SettingKind `json:"kind"`
	Service string               `json:"service,omitempty"`
	ID      string               `json:"id,omitempty"`
	Zone    string               `json:"zone,omitempty"`
	Weight  uint8                `json:"weight,omitempty"`
	Author  string               `json:"author"`
	Reason  string               `json:"reason,omitempty"`
	Made    time.Time            `json:"made"`
	Expires time.Time            `json:"expires,omitzero"`
}

// EncodeSetting returns s as JSON. It does not fail for a setting of the
// registry; the error would be that of a time after the year 9999.
func EncodeSetting(s *registry.Setting) ([]byte, error) {
	text, err := encode(settingJSON{
		Kind: s.Kind, Service: s.Scope.Service, ID: s.Scope.ID, Zone: s.Scope.Zone,
		Weight: s.Weight, Author: s.Author, Reason: s.Reason, Made: s.Made.UTC(), Expires: s.Expires.UTC(),
	})
	if err != nil {
		return nil, fmt.Errorf("write setting %v: %w", s.Key(), err)
	}
	return text, nil
}

// DecodeSetting reads what EncodeSetting wrote, or says why it is not a setting.
func DecodeSetting(text []byte) (registry.Setting, error) {
	var v settingJSON
	if err := json.Unmarshal(text, &v); err != nil {
		return registry.Setting{}, err
	}
	if err := v.check(); err != nil {
		return registry.Setting{}, fmt.Errorf("setting %q of service %q, host %q, zone %q: %w", v.Kind, v.Service, v.ID, v.Zone, err)
	}
	return registry.Setting{
		Scope: registry.Scope{Service: v.Service, ID: v.ID, Zone: v.Zone}, Kind: v.Kind, Weight: v.Weight,
		Author: v.Author, Reason: v.Reason, Made: v.Made, Expires: v.Expires,
	}, nil
}

// check says which rule of registry.Setting v breaks.
func (v *settingJSON) check() error {
	switch v.Kind {
	case registry.Weigh:
		if v.Weight < 1 || v.Weight > 100 {
			return fmt.Errorf("weight %d", v.Weight)
		}
	case registry.Drain, registry.Maintenance:
		if v.Weight != 0 {
			return fmt.Errorf("weight %d of a kind that has none", v.Weight)
		}
	default:
		return errors.New("no such kind")
	}
	switch {
	case v.Service == "" && v.Zone == "":
		return errors.New("neither a service nor a zone")
	case v.ID != "" && (v.Zone != "" || v.Service == ""):
		return errors.New("a host with a zone, or without a service")
	case v.Author == "":
		return errors.New("no author")
	case !writable(v.Made, v.Expires):
		return fmt.Errorf("times %v, %v", v.Made, v.Expires)
	}
	return nil
}
