package http2

// huffmanLengths holds the length in bits of the code of each byte (RFC 7541,
// appendix B). The code is canonical: codes of one length follow each other in
// the order of their symbols, shorter ones come first.
var huffmanLengths = [256]uint8{
	13, 23, 28, 28, 28, 28, 28, 28, 28, 24, 30, 28, 28, 30, 28, 28,
	28, 28, 28, 28, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 28,
	6, 10, 10, 12, 13, 6, 8, 11, 10, 10, 8, 11, 8, 6, 6, 6,
	5, 5, 5, 6, 6, 6, 6, 6, 6, 6, 7, 8, 15, 6, 12, 10,
	13, 6, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7,
	7, 7, 7, 7, 7, 7, 7, 7, 8, 7, 8, 13, 19, 13, 14, 6,
	15, 5, 6, 5, 6, 5, 6, 6, 6, 5, 7, 7, 6, 6, 6, 5,
	6, 7, 6, 5, 5, 6, 7, 7, 7, 7, 7, 15, 11, 14, 13, 28,
	20, 22, 20, 20, 22, 22, 22, 23, 22, 23, 23, 23, 23, 23, 24, 23,
	24, 24, 22, 23, 24, 23, 23, 23, 23, 21, 22, 23, 22, 23, 23, 24,
	22, 21, 20, 22, 22, 23, 23, 21, 23, 22, 22, 24, 21, 22, 23, 23,
	21, 21, 22, 21, 23, 22, 23, 23, 20, 22, 22, 22, 23, 22, 22, 23,
	26, 26, 20, 19, 22, 23, 22, 25, 26, 26, 26, 27, 27, 26, 24, 25,
	19, 21, 26, 27, 27, 26, 27, 24, 21, 21, 26, 26, 28, 27, 27, 27,
	20, 24, 20, 21, 22, 21, 21, 23, 22, 22, 25, 25, 24, 24, 26, 23,
	26, 27, 26, 26, 27, 27, 27, 27, 27, 28, 27, 27, 27, 27, 27, 26,
}

// endOfString is the symbol whose code, 30 ones, pads a string's last byte.
const endOfString = 256

// longestCode is the length of the end of string's code.
const longestCode = 30

// huffmanCodes holds the codes themselves, in the low bits.
var huffmanCodes = func() (codes [257]uint32) {
	code := uint32(0)
	for length := uint8(1); length <= longestCode; length++ {
		code <<= 1
		for symbol := range codes {
			if symbol == endOfString && length == longestCode || symbol < endOfString && huffmanLengths[symbol] == length {
				codes[symbol] = code
				code++
			}
		}
	}
	return codes
}()

// huffmanStep is what four bits do to a decoder in one state.
type huffmanStep struct {
	next   uint8 // state
	symbol uint8 // that ended within the bits, if emits
	emits  bool
	fails  bool // the bits are the code of the end of string
}

// A state is an inner node of the tree of codes; 0 is the root. huffmanSteps
// tells where four bits lead, huffmanEnds in which states a string may end:
// after less than eight ones (RFC 7541 §5.2).
var huffmanSteps, huffmanEnds = func() (steps [256][16]huffmanStep, ends [256]bool) {
	const none = -1
	type node struct{ child, symbol [2]int }
	tree := []node{{child: [2]int{none, none}, symbol: [2]int{none, none}}}
	for symbol, code := range huffmanCodes {
		length := longestCode
		if symbol < endOfString {
			length = int(huffmanLengths[symbol])
		}
		at := 0
		for i := length - 1; i > 0; i-- {
			bit := code >> i & 1
			if tree[at].child[bit] == none {
				tree[at].child[bit] = len(tree)
				tree = append(tree, node{child: [2]int{none, none}, symbol: [2]int{none, none}})
			}
			at = tree[at].child[bit]
		}
		tree[at].symbol[code&1] = symbol
	}
	for state := range tree {
		for bits := range steps[state] {
			step, at := &steps[state][bits], state
			for i := 3; i >= 0; i-- {
				bit := bits >> i & 1
				switch symbol := tree[at].symbol[bit]; symbol {
				case none:
					at = tree[at].child[bit]
				case endOfString:
					step.fails, at = true, 0
				default:
					step.symbol, step.emits, at = uint8(symbol), true, 0
				}
			}
			step.next = uint8(at)
		}
	}
	for at, ones := 0, 0; ones < 8; ones++ {
		ends[at] = true
		at = tree[at].child[1]
	}
	return steps, ends
}()

// appendHuffmanDecoded appends what the code in src stands for, and says whether
// it is a proper one.
func appendHuffmanDecoded(dst, src []byte) ([]byte, bool) {
	state := uint8(0)
	for _, c := range src {
		high := &huffmanSteps[state][c>>4]
		if high.emits {
			dst = append(dst, high.symbol)
		}
		low := &huffmanSteps[high.next][c&15]
		if low.emits {
			dst = append(dst, low.symbol)
		}
		if high.fails || low.fails {
			return dst, false
		}
		state = low.next
	}
	return dst, huffmanEnds[state]
}

// huffmanLen is the length of the code of s, in bytes.
func huffmanLen(s []byte) int {
	bits := 0
	for _, c := range s {
		bits += int(huffmanLengths[c])
	}
	return (bits + 7) / 8
}

// appendHuffman appends the code of s.
func appendHuffman(dst, s []byte) []byte {
	var bits uint64
	held := 0
	for _, c := range s {
		n := int(huffmanLengths[c])
		bits = bits<<n | uint64(huffmanCodes[c])
		for held += n; held >= 8; {
			held -= 8
			dst = append(dst, byte(bits>>held))
		}
	}
	if held > 0 {
		dst = append(dst, byte(bits<<(8-held))|0xff>>held)
	}
	return dst
}
