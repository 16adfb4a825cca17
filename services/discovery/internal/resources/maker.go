package resources

import (
	"errors"
	"fmt"
	"unicode/utf8"

	"github.com/weirproxy/weir/services/discovery/internal/registry"
)

// Options says how resources are made. The zero value shows every host to
// everyone in one priority, by a template that sets nothing.
type Options struct {
	// Template is what clusters are made of; nil for one that sets nothing.
	Template *Template
	// TagNamespace is the filter namespace under which endpoints carry their
	// hosts' tags as metadata; empty for none. LoadBalancer puts them where
	// Envoy's subset load balancer looks.
	TagNamespace string
	// ZonePriorities says that hosts of an asker's zone come first, then those of
	// its region, then the others.
	ZonePriorities bool
	// SubsetSize is how many hosts of a service an asker is shown; 0 for all.
	SubsetSize int
	// StaleDegraded says that hosts held beyond their TTL are shown as DEGRADED:
	// Envoy uses them when no others are left, and gRPC does not use them.
	StaleDegraded bool
}

// Maker makes resources. It never changes and may be used by many at once.
type Maker struct{ options Options }

// NewMaker returns an error that joins all that is wrong with the options.
func NewMaker(o Options) (*Maker, error) {
	var errs []error
	if o.SubsetSize < 0 {
		errs = append(errs, fmt.Errorf("subset of %d hosts: below 0", o.SubsetSize))
	}
	if !utf8.ValidString(o.TagNamespace) {
		errs = append(errs, fmt.Errorf("namespace %q of tags: not UTF-8", o.TagNamespace))
	}
	if len(errs) > 0 {
		return nil, errors.Join(errs...)
	}
	if o.Template == nil {
		o.Template = plainTemplate()
	}
	return &Maker{o}, nil
}

// WithTemplate returns a maker that is like m but for the template.
func (m *Maker) WithTemplate(t *Template) *Maker {
	o := m.options
	o.Template = t
	return &Maker{o}
}

// Varies reports whether resources of a type differ between views.
func (m *Maker) Varies(t Type) bool {
	return t == Endpoints && (m.options.ZonePriorities || m.options.SubsetSize > 0)
}

// Listed reports whether a resource of a type that bears a service's name is
// among all of its type. All others are there for those who ask for them by name:
// subsets of services, and listeners and routes.
func (m *Maker) Listed(t Type) bool { return t == Clusters }

// Service returns the service from which a resource of that name is made; ok is
// false if the type is not made from services. Whether there is such a service
// only the registry knows.
func (m *Maker) Service(t Type, name string) (service string, ok bool) {
	n, ok := readName(t, name)
	return n.service, ok
}

// IsPlain reports whether a service's name reads as that in resources of all
// types, and neither as a subset of another's hosts nor as another with a port.
func (m *Maker) IsPlain(service string) bool {
	for t := range Types {
		if n, ok := readName(t, service); ok && n.service != service {
			return false
		}
	}
	return true
}

// Make makes the resource of a type and name for a view, from the listing of a
// service: the one that Service tells, or the one of that very name, though it may
// read as a subset or end in a port. It is nil if there is none of that name: if
// the service is not known. The error is of a name or host whose text is not
// UTF-8, which no face takes.
func (m *Maker) Make(t Type, text, service string, v View, list registry.Listing) (*Resource, error) {
	n, ok := readName(t, text)
	if !ok || !list.Known {
		return nil, nil
	}
	if service == text {
		n = name{service: service, cluster: service}
	}
	switch t {
	case Clusters:
		return New(t, text, m.options.Template.cluster(n), 0)
	case Endpoints:
		return New(t, text, m.assignment(n, v.asker(), list.Hosts), 0)
	case Listeners:
		made, err := listener(text, n)
		if err != nil {
			return nil, fmt.Errorf("marshal %s %q: %w", t, text, err)
		}
		return New(t, text, made, 0)
	default:
		return New(t, text, routes(n), 0)
	}
}
