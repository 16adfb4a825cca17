package app

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func TestARevisionIsANumberByItsFirstDigits(t *testing.T) {
	for revision, want := range map[string]int64{
		"23d4d81c0ffee": 0x23d4d8, "ff": 0xff, "": 0, "unreleased": 0, "v1.2.3": 0,
	} {
		require.Equal(t, want, numberOf(revision), revision)
	}
}
