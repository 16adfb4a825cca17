package message

// Traffic counts the bytes of messages in one direction, as they went over the wire.
type Traffic struct {
	// Wire is all of them.
	Wire uint64
	// Headers is those of heads and trailers among them, without start lines: of HTTP/1
	// the fields, as Envoy counts them, of HTTP/2 the frames that they came in.
	Headers uint64
	// Decompressed is Headers without what HTTP/2 saves: of that the names and values
	// alone, of HTTP/1 the same as Headers.
	Decompressed uint64
}

// Plus is both together.
func (t Traffic) Plus(more Traffic) Traffic {
	return Traffic{t.Wire + more.Wire, t.Headers + more.Headers, t.Decompressed + more.Decompressed}
}

// Minus is what has come since part was counted.
func (t Traffic) Minus(part Traffic) Traffic {
	return Traffic{t.Wire - part.Wire, t.Headers - part.Headers, t.Decompressed - part.Decompressed}
}
