package redis

import (
	"context"
	"fmt"
	"log/slog"

	goredis "github.com/redis/go-redis/v9"
)

// LogDriver sends what the Redis driver has to say to log, at level debug: what
// matters of it is also in the errors of the store. The driver has one logger for
// the whole process, so only a command calls this, at its start.
func LogDriver(log *slog.Logger) { goredis.SetLogger(driverLog{log}) }

// driverLog is the driver's idea of a logger.
type driverLog struct{ log *slog.Logger }

// Printf takes one line of the driver's.
func (d driverLog) Printf(ctx context.Context, format string, v ...any) {
	d.log.DebugContext(ctx, "redis driver", "message", fmt.Sprintf(format, v...))
}
