package record

import (
	"encoding/json"
	"strconv"
	"time"

	"github.com/weirproxy/weir/services/discovery/internal/registry"
)

// DecodeHost reads what EncodeHost wrote, or says why it is not a host. The
// lease is 0 if it was written before there were leases.
func DecodeHost(text []byte) (registry.Record, error) { return new(HostDecoder).Decode(text) }

// HostDecoder is DecodeHost for many hosts, which share the memory of what they say
// alike: most hosts of a service differ in their address and name alone. The zero
// value knows none. It is for one goroutine, and for as long as hosts are read.
type HostDecoder struct {
	host  hostJSON
	known map[string]string
}

// Decode is DecodeHost. It keeps nothing of text.
func (d *HostDecoder) Decode(text []byte) (registry.Record, error) {
	v := &d.host
	if *v = (hostJSON{}); !d.readPlain(text) {
		*v = hostJSON{}
		if err := json.Unmarshal(text, v); err != nil {
			return registry.Record{}, err
		}
		for _, same := range []*string{&v.Service, &v.Repo, &v.Revision, &v.Region, &v.Zone} {
			*same = d.share([]byte(*same))
		}
	}
	if err := v.check(); err != nil {
		return registry.Record{}, err
	}
	if v.InstanceID == v.ID {
		v.InstanceID = v.ID // the same bytes in memory, too, as most hosts have it
	}
	host := &registry.Host{
		Key:     registry.Key{Service: v.Service, ID: v.ID},
		Address: v.Address, Additional: v.Additional, Repo: v.Repo, Revision: v.Revision,
		Tags: registry.Tags{
			Region: v.Region, Zone: v.Zone, InstanceID: v.InstanceID,
			Canary: v.Canary, Weight: v.Weight, Other: registry.TagListOf(v.Tags),
		},
		TTL: time.Duration(v.TTLMillis) * time.Millisecond, Draining: v.Draining,
	}
	for _, p := range v.Ports {
		host.Ports = append(host.Ports, registry.Port{Name: p.Name, Number: p.Number})
	}
	return registry.Record{
		Host: host, Lease: v.Lease,
		FirstSeen: v.FirstSeen, LastCheckIn: v.LastCheckIn, DrainingSince: v.DrainingSince,
	}, nil
}

// share returns text in memory that all hosts have in common who say it.
func (d *HostDecoder) share(text []byte) string {
	known, ok := d.known[string(text)]
	if !ok {
		if d.known == nil {
			d.known = map[string]string{}
		}
		known = string(text)
		d.known[known] = known
	}
	return known
}

// readPlain reads text if it is as an encoder of this version writes it: the fields of
// hostJSON in their order, without space, and without a character that needs an escape
// or more than a byte. That takes a fourth of the time of encoding/json. Where it
// reports false, json.Unmarshal has to say what text is.
func (d *HostDecoder) readPlain(text []byte) bool {
	v, p := &d.host, plain{rest: text}
	v.Service = d.share(p.text(`{"service":`))
	v.ID = string(p.text(`,"id":`))
	if p.has(`,"lease":`) {
		v.Lease = registry.Lease(p.number(64))
	}
	p.read(v.Address.UnmarshalText, p.text(`,"address":`))
	if p.has(`,"additional_addresses":`) {
		p.nested(&v.Additional)
	}
	if p.has(`,"ports":`) {
		p.nested(&v.Ports)
	}
	v.Repo = d.share(p.optional(`,"repo":`))
	v.Revision = d.share(p.optional(`,"revision":`))
	v.Region = d.share(p.optional(`,"region":`))
	v.Zone = d.share(p.optional(`,"zone":`))
	v.InstanceID = string(p.optional(`,"instance_id":`))
	if p.has(`,"canary":`) {
		canary := p.has("true")
		p.failed = p.failed || !canary && !p.has("false")
		v.Canary = &canary
	}
	if p.has(`,"weight":`) {
		v.Weight = uint8(p.number(8))
	}
	if p.has(`,"tags":`) {
		p.nested(&v.Tags)
	}
	p.expect(`,"ttl_ms":`)
	v.TTLMillis = int64(p.number(63))
	v.Draining = p.has(`,"draining":true`)
	p.read(v.FirstSeen.UnmarshalText, p.text(`,"first_seen":`))
	if p.has(`,"last_check_in":`) {
		p.read(v.LastCheckIn.UnmarshalText, p.text(""))
	}
	if p.has(`,"draining_since":`) {
		p.read(v.DrainingSince.UnmarshalText, p.text(""))
	}
	return p.ends()
}

// plain is JSON that is read from its beginning on. After the first part that is not
// what it is taken for, failed says so, and what is read means nothing.
type plain struct {
	rest   []byte
	failed bool
}

// has passes over token if it is next, and reports whether it was.
func (p *plain) has(token string) bool {
	if len(p.rest) < len(token) || string(p.rest[:len(token)]) != token {
		return false
	}
	p.rest = p.rest[len(token):]
	return true
}

// ends reports whether an object ends here, and with it the whole, and nothing failed.
func (p *plain) ends() bool {
	p.expect("}")
	return !p.failed && len(p.rest) == 0
}

func (p *plain) expect(token string) { p.failed = !p.has(token) || p.failed }

// text is the string after name, in the memory of the whole.
func (p *plain) text(name string) []byte {
	p.expect(name)
	p.expect(`"`)
	for i, c := range p.rest {
		if c == '"' {
			text := p.rest[:i]
			p.rest = p.rest[i+1:]
			return text
		}
		if c < ' ' || c == '\\' || c > '~' {
			break
		}
	}
	p.failed = true
	return nil
}

// optional is the string after name, or nil if there is none of that name.
func (p *plain) optional(name string) []byte {
	if !p.has(name) {
		return nil
	}
	return p.text("")
}

// read has a value read text.
func (p *plain) read(unmarshal func([]byte) error, text []byte) {
	p.failed = p.failed || unmarshal(text) != nil
}

// number is a whole number of so many bits, without a sign.
func (p *plain) number(bits int) uint64 {
	n := 0
	for n < len(p.rest) && '0' <= p.rest[n] && p.rest[n] <= '9' {
		n++
	}
	number, err := strconv.ParseUint(string(p.rest[:n]), 10, bits)
	p.failed = p.failed || err != nil || p.rest[0] == '0' && n > 1
	p.rest = p.rest[n:]
	return number
}

// nested reads a list or an object into v, which encoding/json looks at.
func (p *plain) nested(v any) {
	depth, quoted := 0, false
	for i := 0; i < len(p.rest); i++ {
		switch c := p.rest[i]; {
		case quoted && c == '\\':
			i++
		case c == '"':
			quoted = !quoted
		case quoted:
		case c == '[' || c == '{':
			depth++
		case c == ']' || c == '}':
			if depth--; depth == 0 {
				p.failed = p.failed || json.Unmarshal(p.rest[:i+1], v) != nil
				p.rest = p.rest[i+1:]
				return
			}
		}
	}
	p.failed = true
}
