package healthcheck

import (
	"bytes"
	"encoding/hex"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"

	"github.com/weirproxy/weir/services/proxy/internal/strict"
)

// parsePayload reads one payload, which may be nil, at the path at: text is
// bytes in hexadecimal, binary the bytes themselves.
func parsePayload(m *corev3.HealthCheck_Payload, at strict.Path, report *strict.Report) []byte {
	if m.GetText() == "" {
		return m.GetBinary()
	}
	block, err := hex.DecodeString(m.GetText())
	if err != nil {
		report.Add(at.Field("text"), "%q is no hexadecimal text, two digits for each byte", m.GetText())
	}
	return block
}

func parsePayloads(list []*corev3.HealthCheck_Payload, at strict.Path, report *strict.Report) (blocks [][]byte) {
	for i, m := range list {
		blocks = append(blocks, parsePayload(m, at.Index(i), report))
	}
	return blocks
}

// hasBlocks says whether all blocks are in text, in their order; there may be
// gaps between them.
func hasBlocks(text []byte, blocks [][]byte) bool {
	for _, block := range blocks {
		i := bytes.Index(text, block)
		if i < 0 {
			return false
		}
		text = text[i+len(block):]
	}
	return true
}
