package http2

import (
	"bytes"
	"fmt"
	"sync"
	"time"
)

// blockKind is what a header block should be.
type blockKind uint8

const (
	ignoredBlock blockKind = iota // is decoded for the sake of the table
	requestBlock
	responseBlock
	trailerBlock
)

// assembly makes a Head of the fields of one block, and holds them to the rules
// of messages (RFC 9113 §8).
type assembly struct {
	kind     blockKind
	options  *Options
	connect  bool // extended CONNECT is allowed
	received *received

	size     uint64 // as SETTINGS_MAX_HEADER_LIST_SIZE counts
	fields   uint64 // names and values alone
	tooLarge string // which limit the block is over, empty for none
	fault    string // what makes the message malformed, empty if nothing does
	regular  bool   // a regular field came
	seen     uint16 // pseudo-header fields, as bits of their nameClass
	pseudo   [unknownPseudo]Place
	hosts    int
	host     Place
	cookies  []Place // all but the first
	cookie   int     // index of the first, −1 without one

	scratch []byte
}

var assemblies = sync.Pool{New: func() any { return new(assembly) }}

// begin makes the assembly ready for a block; began is for Head.Began.
func (a *assembly) begin(kind blockKind, began time.Time, options *Options, connect bool) {
	*a = assembly{
		kind: kind, options: options, connect: connect, cookie: -1,
		cookies: a.cookies[:0], scratch: a.scratch,
	}
	if kind != ignoredBlock {
		a.received = heads.Get().(*received)
		a.received.head.ContentLength, a.received.head.Began = -1, began
	}
}

// end gives the assembly back, with what it made unless somebody took it.
func (a *assembly) end() {
	if a.received != nil {
		a.received.release()
		a.received = nil
	}
	if cap(a.scratch) > keepHead {
		a.scratch = nil
	}
	assemblies.Put(a)
}

func (a *assembly) refuse(format string, args ...any) {
	if a.fault == "" {
		a.fault = fmt.Sprintf(format, args...)
	}
}

// field implements fieldSink.
func (a *assembly) field(name, value []byte, c class) {
	if a.kind == ignoredBlock || a.tooLarge != "" {
		return
	}
	a.fields += uint64(len(name) + len(value))
	a.size += uint64(len(name)) + uint64(len(value)) + entryOverhead
	if a.size > uint64(a.options.MaxHeaderBytes) {
		a.tooLarge = fmt.Sprintf("more than %d bytes of fields, with %d for each", a.options.MaxHeaderBytes, entryOverhead)
		return
	}
	if c.tooLong {
		a.tooLarge = fmt.Sprintf("a name or value of more than %d bytes", a.options.MaxFieldBytes)
		return
	}
	if a.fault != "" {
		return
	}
	if c.badValue {
		a.refuse("the value of %q holds a control, or space at its ends", clip(name))
		return
	}
	if a.options.NoObsText && hasObsText(value) {
		a.refuse("the value of %q is not of ASCII", clip(name))
		return
	}
	f := &a.received.head.Fields
	if c.name >= methodName && c.name <= unknownPseudo {
		a.pseudoField(f, name, value, c.name)
		return
	}
	a.regular = true
	if len(f.Places) >= a.options.MaxHeaders {
		a.tooLarge = fmt.Sprintf("more than %d fields", a.options.MaxHeaders)
		return
	}
	place := f.place(name, value)
	switch c.name {
	case badName:
		a.refuse("field name %q", clip(name))
	case connectionName:
		a.refuse("field %q, which belongs to a connection", name)
	case teName:
		if !bytes.EqualFold(value, []byte("trailers")) {
			a.refuse("te is %q, and not trailers", clip(value))
		}
	case lengthName:
		if a.kind != trailerBlock {
			a.contentLength(value)
		}
	case hostName:
		a.hosts++
		a.host = place
	case cookieName:
		if a.kind == requestBlock {
			if a.cookie >= 0 {
				a.cookies = append(a.cookies, place)
				return
			}
			a.cookie = len(f.Places)
		}
	}
	f.Places = append(f.Places, place)
}

// hasObsText says whether a value has bytes beyond ASCII.
func hasObsText(value []byte) bool {
	for _, c := range value {
		if c >= 0x80 {
			return true
		}
	}
	return false
}

// place copies a field into the slab.
func (f *Fields) place(name, value []byte) Place {
	start := uint32(len(f.Slab))
	f.Slab = append(append(f.Slab, name...), value...)
	middle := start + uint32(len(name))
	return Place{start, middle, middle, uint32(len(f.Slab))}
}

func (a *assembly) pseudoField(f *Fields, name, value []byte, c nameClass) {
	switch {
	case a.kind == trailerBlock:
		a.refuse("pseudo-header field %q in trailers", clip(name))
	case a.regular:
		a.refuse("pseudo-header field %q behind a regular one", clip(name))
	case c == unknownPseudo || (c == statusName) != (a.kind == responseBlock) || c == protocolName && !a.connect:
		a.refuse("pseudo-header field %q", clip(name))
	case a.seen&(1<<c) != 0:
		a.refuse("pseudo-header field %q twice", name)
	}
	if a.fault != "" {
		return
	}
	a.seen |= 1 << c
	a.pseudo[c] = f.place(nil, value)
}

// contentLength reads a content-length, of which there is one at most.
func (a *assembly) contentLength(value []byte) {
	h := &a.received.head
	switch {
	case h.ContentLength >= 0:
		a.refuse("content-length twice")
		return
	case len(value) == 0 || len(value) > 18:
		a.refuse("content-length %q", clip(value))
		return
	}
	n := int64(0)
	for _, c := range value {
		if c < '0' || c > '9' {
			a.refuse("content-length %q", clip(value))
			return
		}
		n = n*10 + int64(c-'0')
	}
	h.ContentLength = n
}

// finish makes the views of a head whose fields are all there, and checks what
// only the whole can break.
func (a *assembly) finish() {
	if a.kind == ignoredBlock || a.tooLarge != "" || a.fault != "" {
		return
	}
	h := &a.received.head
	a.joinCookies(&h.Fields)
	view := func(c nameClass) []byte {
		if p := a.pseudo[c]; a.seen&(1<<c) != 0 {
			return h.Fields.Slab[p.Value:p.ValueEnd:p.ValueEnd]
		}
		return nil
	}
	switch a.kind {
	case requestBlock:
		h.Request = Request{
			Method: view(methodName), Scheme: view(schemeName), Authority: view(authorityName),
			Path: view(pathName), Protocol: view(protocolName),
		}
		a.checkRequest(&h.Request)
		if a.fault == "" && a.hosts > 0 {
			a.checkHost(h)
		}
	case responseBlock:
		status := view(statusName)
		if len(status) != 3 || status[0] < '1' || status[0] > '9' || status[1] < '0' || status[1] > '9' || status[2] < '0' || status[2] > '9' {
			a.refuse(":status %q", clip(status))
			return
		}
		h.Status = int(status[0]-'0')*100 + int(status[1]-'0')*10 + int(status[2]-'0')
		if h.Status == 101 {
			a.refuse(":status 101, which HTTP/2 does not have")
		}
	}
}

// joinCookies makes one field of the crumbs that a client may split its cookies
// into (RFC 9113 §8.2.3).
func (a *assembly) joinCookies(f *Fields) {
	if len(a.cookies) == 0 {
		return
	}
	p := &f.Places[a.cookie]
	start := uint32(len(f.Slab))
	f.Slab = append(f.Slab, f.Slab[p.Value:p.ValueEnd]...)
	for _, crumb := range a.cookies {
		f.Slab = append(append(f.Slab, "; "...), f.Slab[crumb.Value:crumb.ValueEnd]...)
	}
	p.Value, p.ValueEnd = start, uint32(len(f.Slab))
}

// checkRequest is RFC 9113 §8.3.1, §8.5 and RFC 8441 §4.
func (a *assembly) checkRequest(r *Request) {
	if len(r.Method) == 0 {
		a.refuse("no :method")
		return
	}
	for _, c := range r.Method {
		if !methodChar[c] {
			a.refuse(":method %q", clip(r.Method))
			return
		}
	}
	connect := string(r.Method) == "CONNECT"
	extended := a.seen&(1<<protocolName) != 0
	if connect && !extended {
		if a.seen&(1<<schemeName|1<<pathName) != 0 || len(r.Authority) == 0 {
			a.refuse("CONNECT with :scheme or :path, or without :authority")
		}
		return
	}
	switch {
	case extended && (!connect || len(r.Protocol) == 0 || len(r.Authority) == 0):
		a.refuse(":protocol without CONNECT, value or :authority")
	case len(r.Scheme) == 0:
		a.refuse("no :scheme")
	case len(r.Path) == 0:
		a.refuse("no :path")
	case r.Path[0] != '/' && (string(r.Method) != "OPTIONS" || string(r.Path) != "*"):
		a.refuse(":path %q", clip(r.Path))
	case a.seen&(1<<authorityName) != 0 && len(r.Authority) == 0:
		a.refuse("an empty :authority")
	case bytes.IndexByte(r.Authority, '@') >= 0:
		a.refuse("user information in :authority")
	}
	for _, c := range r.Path {
		if c <= ' ' || c >= 0x7f || c == '#' {
			a.refuse("character %#02x in :path", c)
			return
		}
	}
	for i, c := range r.Scheme {
		letter := 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z'
		if !letter && (i == 0 || (c < '0' || c > '9') && c != '+' && c != '-' && c != '.') {
			a.refuse(":scheme %q", clip(r.Scheme))
			return
		}
	}
}

// checkHost holds a host field against :authority (RFC 9113 §8.3.1).
func (a *assembly) checkHost(h *Head) {
	host := h.Fields.Slab[a.host.Value:a.host.ValueEnd]
	switch {
	case a.hosts > 1:
		a.refuse("host twice")
	case len(h.Authority) > 0 && !bytes.EqualFold(host, h.Authority):
		a.refuse("host is %q and :authority %q", clip(host), clip(h.Authority))
	}
}

// clip shortens what a peer sent for an error text.
func clip(b []byte) []byte { return b[:min(len(b), 64)] }
