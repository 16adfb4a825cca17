package http2

// Traffic counts bytes of a stream's frames in one direction.
type Traffic struct {
	// Wire is all of them, with the headers of frames.
	Wire uint64
	// Headers is those of HEADERS and CONTINUATION among them.
	Headers uint64
	// Decompressed is the names and values that came in those, pseudo-header fields
	// included.
	Decompressed uint64
}

// add counts a frame with so long a payload.
func (t *Traffic) add(length int) { t.Wire += uint64(frameHeaderLen + length) }

// addBlock counts the frames of a header block, of so many bytes on the wire, and those of
// its fields.
func (t *Traffic) addBlock(wire int, fields uint64) {
	t.Wire += uint64(wire)
	t.Headers += uint64(wire)
	t.Decompressed += fields
}
