package rls

import (
	"errors"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

func TestWhyTheStoreDoesNotAnswerIsLoggedNowAndThen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log strings.Builder
		o := outages{log: slog.New(slog.NewTextHandler(&log, nil))}
		said := func() string {
			_, text, _ := strings.Cut(log.String(), "level=")
			log.Reset()
			return text
		}
		o.add("d", errors.New("no route"))
		require.Equal(t, "WARN msg=\"the store does not count\" calls=1 domain=d error=\"no route\"\n", said())
		for range 5 {
			o.add("d", errors.New("no route"))
		}
		require.Empty(t, said())
		time.Sleep(outageEvery)
		o.add("e", errors.New("no port"))
		require.Equal(t, "WARN msg=\"the store does not count\" calls=6 domain=e error=\"no port\"\n", said())
	})
}
