package http2

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/net/http2/hpack"

	"github.com/weirproxy/weir/internal/servicetest"
)

// list collects fields as text.
type list struct{ fields []string }

func (l *list) field(name, value []byte, c class) {
	l.fields = append(l.fields, fmt.Sprintf("%q: %q", name, value))
	if want := classify(name, value); c != want {
		l.fields = append(l.fields, fmt.Sprintf("class %v, and not %v", c, want))
	}
}

// TestDecodeExamples is RFC 7541, appendix C: requests and responses, without
// and with the Huffman code, each as three blocks on one connection.
func TestDecodeExamples(t *testing.T) {
	requests := []string{
		`":method": "GET" ":scheme": "http" ":path": "/" ":authority": "www.example.com"`,
		`":method": "GET" ":scheme": "http" ":path": "/" ":authority": "www.example.com" "cache-control": "no-cache"`,
		`":method": "GET" ":scheme": "https" ":path": "/index.html" ":authority": "www.example.com" "custom-key": "custom-value"`,
	}
	for _, c := range []struct {
		name   string
		blocks []string
		want   []string
	}{
		{"C.3 requests", []string{
			"\x82\x86\x84\x41\x0fwww.example.com",
			"\x82\x86\x84\xbe\x58\x08no-cache",
			"\x82\x87\x85\xbf\x40\x0acustom-key\x0ccustom-value",
		}, requests},
		{"C.4 requests in the Huffman code", []string{
			"\x82\x86\x84\x41\x8c\xf1\xe3\xc2\xe5\xf2\x3a\x6b\xa0\xab\x90\xf4\xff",
			"\x82\x86\x84\xbe\x58\x86\xa8\xeb\x10\x64\x9c\xbf",
			"\x82\x87\x85\xbf\x40\x88\x25\xa8\x49\xe9\x5b\xa9\x7d\x7f\x89\x25\xa8\x49\xe9\x5b\xb8\xe8\xb4\xbf",
		}, requests},
	} {
		t.Run(c.name, func(t *testing.T) {
			d := newDecoder()
			for i, block := range c.blocks {
				var l list
				_, err := d.decode([]byte(block), nil, &l)
				require.NoError(t, err)
				require.Equal(t, c.want[i], strings.Join(l.fields, " "))
			}
			require.Equal(t, 164, int(d.table.size), "as the RFC says")
		})
	}
}

// TestHuffmanIsXNets compares the code with that of x/net, byte by byte and in
// long strings.
func TestHuffmanIsXNets(t *testing.T) {
	texts := [][]byte{nil, []byte("www.example.com")}
	for c := range 256 {
		texts = append(texts, []byte{byte(c)}, []byte{byte(c), 'a', byte(c)})
	}
	random := rand.New(rand.NewPCG(1, 2))
	for range 200 {
		text := make([]byte, random.IntN(300))
		for i := range text {
			text[i] = byte(random.Uint32())
		}
		texts = append(texts, text)
	}
	for _, text := range texts {
		want := hpack.AppendHuffmanString(nil, string(text))
		got := appendHuffman(nil, text)
		require.Equal(t, want, got, "%q", text)
		require.Len(t, got, huffmanLen(text))
		back, ok := appendHuffmanDecoded(nil, got)
		require.True(t, ok)
		require.Equal(t, string(text), string(back))
	}
}

func TestHuffmanRefuses(t *testing.T) {
	for name, code := range map[string]string{
		"padding of a byte":        "\x1f\xff",
		"padding that is not ones": "\x18",
		"the end of string":        "\xff\xff\xff\xff",
	} {
		t.Run(name, func(t *testing.T) {
			_, ok := appendHuffmanDecoded(nil, []byte(code))
			require.False(t, ok)
			_, err := hpack.HuffmanDecodeToString([]byte(code))
			require.Error(t, err, "x/net takes it")
		})
	}
}

func TestDecodeRefuses(t *testing.T) {
	for _, c := range []struct{ name, block, want string }{
		{"index 0", "\x80", "no proper index"},
		{"an index behind the table", "\xbe", "index 62 is not in the table"},
		{"a name's index behind the table", "\x7e\x01a", "index 62 of a name is not in the table"},
		{"an integer that does not end", "\xff\xff\xff", "no proper index"},
		{"an integer of more than 32 bits", "\xff\xff\xff\xff\xff\x7f", "no proper index"},
		{"a string that does not end", "\x40\x05ab", "a name that is no proper string"},
		{"no value", "\x40\x01a", "a value that is no proper string"},
		{"a bad code", "\x40\x01a\x81\x18", "a value that is no proper string"},
		{"a table over the limit", "\x3f\xe2\x1f", "table size 4097 is over the limit of 4096"},
		{"a table's size that comes late", "\x82\x20", "table size within a header block"},
	} {
		t.Run(c.name, func(t *testing.T) {
			d := newDecoder()
			_, err := d.decode([]byte(c.block), nil, &list{})
			require.Equal(t, &ConnectionError{Code: CompressionError, Reason: c.want}, err)
		})
	}
}

// fieldSets are heads that come one after the other on a connection.
func fieldSets(random *rand.Rand, n int) [][][2]string {
	names := []string{":method", ":path", ":status", "x-a", "x-b", "cookie", "content-length", "user-agent", "authorization", "date", strings.Repeat("long-", 30)}
	values := []string{"", "a", "GET", "200", "/", strings.Repeat("v", 70), strings.Repeat("V", 700), "\x00\xff", strings.Repeat("big", 1500)}
	var sets [][][2]string
	for range n {
		var set [][2]string
		for range random.IntN(12) {
			value := values[random.IntN(len(values))]
			if random.IntN(3) == 0 {
				value += fmt.Sprint(random.IntN(50))
			}
			set = append(set, [2]string{names[random.IntN(len(names))], value})
		}
		sets = append(sets, set)
	}
	return sets
}

func told(set [][2]string) []string {
	var l []string
	for _, f := range set {
		l = append(l, fmt.Sprintf("%q: %q", f[0], f[1]))
	}
	return l
}

// TestDecodeWhatXNetEncodes has the tables of both evict, move and shrink.
func TestDecodeWhatXNetEncodes(t *testing.T) {
	random := rand.New(rand.NewPCG(3, 4))
	for _, size := range []uint32{4096, 100, 0} {
		var wire bytes.Buffer
		e := hpack.NewEncoder(&wire)
		d := newDecoder()
		var scratch []byte
		for i, set := range fieldSets(random, 400) {
			switch i {
			case 100:
				e.SetMaxDynamicTableSize(size)
			case 300:
				e.SetMaxDynamicTableSize(4096)
			}
			wire.Reset()
			for _, f := range set {
				require.NoError(t, e.WriteField(hpack.HeaderField{Name: f[0], Value: f[1], Sensitive: random.IntN(10) == 0}))
			}
			var l list
			var err error
			scratch, err = d.decode(wire.Bytes(), scratch, &l)
			require.NoError(t, err)
			require.Equal(t, told(set), l.fields)
			require.LessOrEqual(t, cap(d.table.slab), 12<<10)
		}
	}
}

// TestXNetDecodesWhatWeEncode is the other way round, and reads it ourselves too.
func TestXNetDecodesWhatWeEncode(t *testing.T) {
	random := rand.New(rand.NewPCG(5, 6))
	for _, plain := range []bool{false, true} {
		e := newEncoder(4096, plain)
		ours := newDecoder()
		theirs := hpack.NewDecoder(4096, nil)
		for i, set := range fieldSets(random, 600) {
			switch i {
			case 100:
				e.setLimit(200)
				e.setLimit(1000)
			case 200:
				e.setLimit(0)
			case 300:
				e.setLimit(1 << 20)
			}
			b := e.begin(nil)
			for _, f := range set {
				b = e.field(b, []byte(f[0]), []byte(f[1]))
			}
			fields, err := theirs.DecodeFull(b)
			require.NoError(t, err)
			var got []string
			for _, f := range fields {
				got = append(got, fmt.Sprintf("%q: %q", f.Name, f.Value))
			}
			require.Equal(t, told(set), got)
			var l list
			_, err = ours.decode(b, nil, &l)
			require.NoError(t, err)
			require.Equal(t, told(set), l.fields)
		}
	}
}

func TestEncodeHidesSecrets(t *testing.T) {
	e := newEncoder(4096, true)
	b := e.field(nil, []byte("authorization"), []byte("secret"))
	require.Equal(t, "\x1f\x08\x06secret", string(b), "never to be added to a table")
	require.Zero(t, e.table.len())
	b = e.field(nil, []byte("x-a"), []byte("b"))
	require.Equal(t, "\x40\x03x-a\x01b", string(b))
	require.Equal(t, "\xbe", string(e.field(nil, []byte("x-a"), []byte("b"))))
}

// nothing is a sink that looks at the fields and keeps none.
type nothing struct{ bytes int }

func (n *nothing) field(name, value []byte, _ class) { n.bytes += len(name) + len(value) }

var browser = [][2]string{
	{":method", "GET"}, {":scheme", "https"}, {":authority", "api.example.com"}, {":path", "/v1/users/4711/orders?limit=20"},
	{"user-agent", "Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0"}, {"accept", "application/json"},
	{"accept-language", "en-US,en;q=0.5"}, {"accept-encoding", "gzip, deflate, br"}, {"x-request-id", "6f1d3a2e-4d6c-4f4b-9d53-0a2f9be0a4f1"},
	{"cookie", "session=0123456789abcdef0123456789abcdef"},
}

func TestHPACKAllocatesNothingOnceWarm(t *testing.T) {
	e, d := newEncoder(4096, false), newDecoder()
	var b, scratch []byte
	sink := &nothing{}
	path := []byte("/0")
	servicetest.Allocations(t, 0, func() {
		path[1]++ // so that something is new each time
		b = e.begin(b[:0])
		for _, f := range browserBytes {
			b = e.field(b, f[0], f[1])
		}
		b = e.field(b, []byte("x-path"), path)
		scratch, _ = d.decode(b, scratch, sink)
	})
	require.NotZero(t, sink.bytes)
}

var browserBytes = func() (fields [][2][]byte) {
	for _, f := range browser {
		fields = append(fields, [2][]byte{[]byte(f[0]), []byte(f[1])})
	}
	return fields
}()

// FuzzDecode holds the decoder against that of x/net: what one takes, the other
// takes too, as the same fields, in two blocks on one connection.
func FuzzDecode(f *testing.F) {
	for _, seed := range []string{
		"\x82\x86\x84\x41\x8c\xf1\xe3\xc2\xe5\xf2\x3a\x6b\xa0\xab\x90\xf4\xff", "\x82\x86\x84\xbe\x58\x08no-cache",
		"\x20\x3f\xe1\x1f\x40\x01a\x01b\xbe", "\x3f\x30\x40\x01a\x01b\x40\x01a\x01c\xbe\xbf", "\x10\x01a\x00", "\x0f\x2f\x03abc",
		"\xff\xff\xff\xff\xff\x0f", "\x40\x01a\x81\x18", "\x82\x20", "\x7f\x80\x01\x01a",
	} {
		f.Add([]byte(seed), []byte("\xbe\xbf\x7e\x01d"))
	}
	f.Fuzz(func(t *testing.T, first, second []byte) {
		ours := newDecoder()
		theirs := hpack.NewDecoder(4096, nil)
		for _, block := range [][]byte{first, second} {
			var l list
			_, err := ours.decode(block, nil, &l)
			fields, theirErr := theirs.DecodeFull(block)
			if theirErr != nil || err != nil {
				// Where the table's size may change x/net is stricter while there is
				// something in it, and less strict while there is not; and it takes
				// integers of more than 32 bits.
				require.True(t, err != nil || strings.Contains(theirErr.Error(), "dynamic table size update"), "we take what x/net refuses with %v", theirErr)
				require.True(t, theirErr != nil || strings.Contains(err.Error(), "proper") || strings.Contains(err.Error(), "within a header block"),
					"we refuse with %v what x/net takes", err)
				return
			}
			var want []string
			for _, field := range fields {
				want = append(want, fmt.Sprintf("%q: %q", field.Name, field.Value))
			}
			require.Equal(t, want, l.fields)
		}
	})
}

func BenchmarkDecode(b *testing.B) {
	warm := newEncoder(4096, false)
	cold := newEncoder(0, false)
	for _, c := range []struct {
		name string
		e    *encoder
	}{{"indexed", &warm}, {"literal", &cold}} {
		b.Run(c.name, func(b *testing.B) {
			d := newDecoder()
			var block, scratch []byte
			for range 3 {
				block = c.e.begin(block[:0])
				for _, f := range browserBytes {
					block = c.e.field(block, f[0], f[1])
				}
				scratch, _ = d.decode(block, scratch, &nothing{})
			}
			sink := &nothing{}
			b.ReportAllocs()
			b.SetBytes(int64(len(block)))
			for b.Loop() {
				scratch, _ = d.decode(block, scratch, sink)
			}
		})
		b.Run(c.name+" by x/net", func(b *testing.B) {
			d := hpack.NewDecoder(4096, func(hpack.HeaderField) {})
			e := newEncoder(c.e.most, false)
			var block []byte
			for range 3 {
				block = e.begin(block[:0])
				for _, f := range browserBytes {
					block = e.field(block, f[0], f[1])
				}
				_, _ = d.Write(block)
			}
			b.ReportAllocs()
			b.SetBytes(int64(len(block)))
			for b.Loop() {
				_, _ = d.Write(block)
				_ = d.Close()
			}
		})
	}
}

func BenchmarkEncode(b *testing.B) {
	e := newEncoder(4096, false)
	var block []byte
	b.ReportAllocs()
	for b.Loop() {
		block = e.begin(block[:0])
		for _, f := range browserBytes {
			block = e.field(block, f[0], f[1])
		}
	}
}
