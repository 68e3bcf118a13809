package settings

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
)

// Log is a program's section about its log.
type Log struct {
	Level  string `yaml:"level" mapstructure:"level" usage:"debug, info, warn or error"`
	Format string `yaml:"format" mapstructure:"format" usage:"text or json"`
}

// DefaultLog is what is logged unless something else is set.
func DefaultLog() Log { return Log{Level: "info", Format: "text"} }

// Check says what is wrong, each fault with the key it is about.
func (l Log) Check() error {
	var errs []error
	if _, err := l.level(); err != nil {
		errs = append(errs, fmt.Errorf("log.level: %q is not debug, info, warn or error", l.Level))
	}
	if l.Format != "text" && l.Format != "json" {
		errs = append(errs, fmt.Errorf("log.format: %q is neither text nor json", l.Format))
	}
	return errors.Join(errs...)
}

func (l Log) level() (level slog.Level, err error) {
	err = level.UnmarshalText([]byte(l.Level))
	return level, err
}

// New makes the log, on w. What Check refuses counts as the default.
func (l Log) New(w io.Writer) *slog.Logger {
	level, err := l.level()
	if err != nil {
		level = slog.LevelInfo
	}
	opts := &slog.HandlerOptions{Level: level}
	if l.Format == "json" {
		return slog.New(slog.NewJSONHandler(w, opts))
	}
	return slog.New(slog.NewTextHandler(w, opts))
}
