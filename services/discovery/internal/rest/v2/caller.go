package v2

import (
	"errors"
	"net/http"
	"net/netip"

	"github.com/weirproxy/weir/services/discovery/internal/denial"
)

// Caller is who makes a call, and what they may do. An error says why not, for
// the caller to read.
type Caller interface {
	// Identity is the caller's name; empty if calls carry none.
	Identity() string
	// MayRegister asks to change hosts of a service, and MayRegisterAddress to
	// have one at an address, or to take out the one there.
	MayRegister(service string) error
	MayRegisterAddress(netip.Addr) error
	// MayOperate asks to do what is an operator's.
	MayOperate() error
}

// anybody is the caller where nobody asks who calls.
func anybody(*http.Request) Caller { return everyone{} }

type everyone struct{}

func (everyone) Identity() string                    { return "" }
func (everyone) MayRegister(string) error            { return nil }
func (everyone) MayRegisterAddress(netip.Addr) error { return nil }
func (everyone) MayOperate() error                   { return nil }

// actor names who makes a call in events and logs: by identity, else by the
// address of the connection.
func actor(c Caller, r *http.Request) string {
	if identity := c.Identity(); identity != "" {
		return identity
	}
	if remote, err := netip.ParseAddrPort(r.RemoteAddr); err == nil {
		return remote.Addr().Unmap().String()
	}
	return r.RemoteAddr
}

// host is the caller of a call about hosts of a service, if they may make it.
func (f *face) host(r *http.Request, service string) (Caller, error) {
	c := f.caller(r)
	if err := c.MayRegister(service); err != nil {
		return nil, forbid(err)
	}
	return c, nil
}

// operator is the caller of a call that is an operator's alone.
func (f *face) operator(r *http.Request) (Caller, error) {
	c := f.caller(r)
	if err := c.MayOperate(); err != nil {
		return nil, forbid(err)
	}
	return c, nil
}

// forbid is the answer to a caller that may not do something: what the error
// itself says of it, else 403.
func forbid(err error) error {
	if denied, ok := errors.AsType[*denial.Error](err); ok {
		return denied
	}
	return refuse(http.StatusForbidden, "%v", err)
}
