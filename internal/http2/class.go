package http2

// class is what the rules of messages need to know of a field, found once for
// what lies in a header table.
type class struct {
	name nameClass
	// badValue says that the value holds what none may hold (RFC 9110 §5.5): a
	// control, or space at its ends.
	badValue bool
	// tooLong says that the name or the value was longer than it may be.
	tooLong bool
}

// nameClass tells the names apart that the rules speak of.
type nameClass uint8

const (
	plainName nameClass = iota
	methodName
	schemeName
	authorityName
	pathName
	protocolName
	statusName
	unknownPseudo
	badName        // empty, upper case, or no token (RFC 9113 §8.2.1)
	connectionName // of one connection, forbidden in HTTP/2 (RFC 9113 §8.2.2)
	teName
	lengthName
	hostName
	cookieName
)

// classify looks at a field from the outside.
func classify(name, value []byte) class {
	return class{name: classifyName(name), badValue: badValue(value)}
}

func classifyName(name []byte) nameClass {
	if len(name) == 0 {
		return badName
	}
	if name[0] == ':' {
		switch string(name) {
		case ":method":
			return methodName
		case ":scheme":
			return schemeName
		case ":authority":
			return authorityName
		case ":path":
			return pathName
		case ":protocol":
			return protocolName
		case ":status":
			return statusName
		}
		return unknownPseudo
	}
	for _, c := range name {
		if !nameChar[c] {
			return badName
		}
	}
	switch len(name) {
	case 2:
		if string(name) == "te" {
			return teName
		}
	case 4:
		if string(name) == "host" {
			return hostName
		}
	case 6:
		if string(name) == "cookie" {
			return cookieName
		}
	case 7:
		if string(name) == "upgrade" {
			return connectionName
		}
	case 10:
		if string(name) == "connection" || string(name) == "keep-alive" {
			return connectionName
		}
	case 14:
		if string(name) == "content-length" {
			return lengthName
		}
	case 16:
		if string(name) == "proxy-connection" {
			return connectionName
		}
	case 17:
		if string(name) == "transfer-encoding" {
			return connectionName
		}
	}
	return plainName
}

func badValue(value []byte) bool {
	if len(value) == 0 {
		return false
	}
	if isBlank(value[0]) || isBlank(value[len(value)-1]) {
		return true
	}
	for _, c := range value {
		if !valueChar[c] {
			return true
		}
	}
	return false
}

func isBlank(c byte) bool { return c == ' ' || c == '\t' }

// nameChar marks the bytes of a token without capitals (RFC 9113 §8.2).
var nameChar = func() (t [256]bool) {
	for _, c := range "!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyz" {
		t[c] = true
	}
	return t
}()

// methodChar marks the bytes of a token.
var methodChar = func() (t [256]bool) {
	t = nameChar
	for c := 'A'; c <= 'Z'; c++ {
		t[c] = true
	}
	return t
}()

// valueChar marks the bytes of a field value: no control but the tab.
var valueChar = func() (t [256]bool) {
	for c := range t {
		t[c] = c >= 0x20 && c != 0x7f || c == '\t'
	}
	return t
}()
