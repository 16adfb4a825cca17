package repeats

import (
	"bytes"
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/weirproxy/weir/internal/servicetest"
)

func TestMain(m *testing.M) { servicetest.Main(m) }

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
	for name, text := range map[string][]byte{
		"nothing":          {},
		"less than a part": []byte("abc"),
		"no repetition":    []byte("the quick brown fox jumps over the lazy dog"),
		"one byte":         bytes.Repeat([]byte{0}, 1000),
		"twice":            []byte("12345678--12345678"),
		"more before":      []byte("ab12345678--xb12345678"),
		"a list":           list(100),
	} {
		packed := Pack(text)
		require.Equal(t, "before"+string(text), string(Append([]byte("before"), packed)), name)
		require.LessOrEqual(t, len(packed), len(text)+8, name)
		require.Equal(t, len(packed), cap(packed), name)
	}
}

func TestAListIsAFractionOfItself(t *testing.T) {
	text := list(10)
	packed := Pack(text)
	t.Logf("%d bytes of %d", len(packed), len(text))
	require.Less(t, len(packed), len(text)/3)
}

func TestToAppendTakesNoMemoryOfItsOwn(t *testing.T) {
	text := list(10)
	packed, room := Pack(text), make([]byte, 0, len(text))
	servicetest.Allocations(t, 0, func() { Append(room, packed) })
}

// FuzzPack packs any text: it must come back.
func FuzzPack(f *testing.F) {
	for _, seed := range []string{"", "12345678--12345678", strings.Repeat("a", 300), string(list(3))} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		// Twice, for long repetitions.
		text = append(text, text...)
		if got := Append(nil, Pack(text)); !bytes.Equal(text, got) {
			t.Fatalf("%q came back as %q", text, got)
		}
	})
}

func BenchmarkPack(b *testing.B) {
	text := list(10)
	b.SetBytes(int64(len(text)))
	for b.Loop() {
		Pack(text)
	}
}

func BenchmarkAppend(b *testing.B) {
	text := list(10)
	packed, room := Pack(text), make([]byte, 0, len(text))
	b.SetBytes(int64(len(text)))
	b.ReportAllocs()
	for b.Loop() {
		Append(room, packed)
	}
}
