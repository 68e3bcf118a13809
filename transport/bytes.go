package transport

import (
	"encoding/binary"
	"errors"
	"io"
	"log/slog"
	"net"
	"os"

	"github.com/pion/logging"
)

func appendUint64(b []byte, v uint64) []byte { return binary.BigEndian.AppendUint64(b, v) }
func readUint64(b []byte) uint64             { return binary.BigEndian.Uint64(b) }

// isClosed tells the end of a socket from an error of one datagram.
func isClosed(err error) bool {
	return errors.Is(err, os.ErrClosed) || errors.Is(err, net.ErrClosed) || errors.Is(err, io.EOF)
}

// quietFactory passes what pion says to our log, at debug level: an attempt that fails is no news.
type quietFactory struct{ log *slog.Logger }

func (f quietFactory) NewLogger(scope string) logging.LeveledLogger {
	l := logging.NewDefaultLeveledLoggerForScope(scope, logging.LogLevelDisabled, io.Discard)
	if f.log.Enabled(nil, slog.LevelDebug-4) { //nolint:staticcheck // no context exists here
		l = logging.NewDefaultLeveledLoggerForScope(scope, logging.LogLevelTrace, slog.NewLogLogger(f.log.Handler(), slog.LevelDebug).Writer())
	}
	return l
}
