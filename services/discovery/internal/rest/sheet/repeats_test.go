package sheet

import (
	"bytes"
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/weirproxy/weir/internal/servicetest"
)

// list is a text of things that are alike.
func list(n int) []byte {
	var b bytes.Buffer
	for i := range n {
		fmt.Fprintf(&b, `{"service":"service-00001","ip_address":"10.0.0.%d","service_repo_name":"service-00001","port":8080,`+
			`"revision":"%040x","last_check_in":"%32s","tags":{"az":"eu-central-1%c","region":"eu-central-1","instance_id":"i-%017x"}},`,
			i, 0xfeed, "", 'a'+i%3, i)
	}
	return b.Bytes()
}

func TestWhatWasPackedIsAppendedAsItWas(t *testing.T) {
	var long []byte // enough to be looked at
	for i := range leastPacked {
		long = append(long, byte(255-i))
	}
	for name, text := range map[string][]byte{
		"nothing":          {},
		"less than a part": []byte("abc"),
		"no repetition":    []byte("the quick brown fox jumps over the lazy dog"),
		"one byte":         bytes.Repeat([]byte{0}, 1000),
		"twice":            []byte("12345678--12345678"),
		"just too short":   list(1)[:leastPacked-1],
		"long enough":      list(1)[:leastPacked],
		"more before":      []byte("ab12345678--xb12345678"),
		"a list":           list(100),
	} {
		for _, text := range [][]byte{text, append(long[:leastPacked:leastPacked], text...)} {
			packed := pack(text)
			require.Equal(t, "before"+string(text), string(unpack([]byte("before"), packed)), name)
			require.LessOrEqual(t, len(packed), len(text)+8, name)
			require.Equal(t, len(packed), cap(packed), name)
		}
	}
}

func TestAListIsAFractionOfItself(t *testing.T) {
	text := list(10)
	packed := pack(text)
	t.Logf("%d bytes of %d", len(packed), len(text))
	require.Less(t, len(packed), len(text)/3)
}

func TestToAppendTakesNoMemoryOfItsOwn(t *testing.T) {
	text := list(10)
	packed, room := pack(text), make([]byte, 0, len(text))
	servicetest.Allocations(t, 0, func() { unpack(room, packed) })
}

// FuzzPack packs any text: it must come back.
func FuzzPack(f *testing.F) {
	for _, seed := range []string{"", "12345678--12345678", strings.Repeat("a", 300), string(list(3))} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		// Twice, for long repetitions.
		text = append(text, text...)
		if got := unpack(nil, pack(text)); !bytes.Equal(text, got) {
			t.Fatalf("%q came back as %q", text, got)
		}
	})
}

func BenchmarkPack(b *testing.B) {
	text := list(10)
	b.SetBytes(int64(len(text)))
	for b.Loop() {
		pack(text)
	}
}

func BenchmarkUnpack(b *testing.B) {
	text := list(10)
	packed, room := pack(text), make([]byte, 0, len(text))
	b.SetBytes(int64(len(text)))
	b.ReportAllocs()
	for b.Loop() {
		unpack(room, packed)
	}
}
