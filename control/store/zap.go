package store

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime"
	"slices"
	"strings"

	"go.uber.org/zap/zapcore"
)

// zapCore hands what etcd logs at level warn and above on to slog. Once the engine is closing, etcd's complaints about
// that are of no interest.
type zapCore struct {
	log    *slog.Logger
	engine *engine
	fields []zapcore.Field
}

// Enabled reports whether an entry of this level is worth making.
func (c *zapCore) Enabled(l zapcore.Level) bool { return l >= zapcore.WarnLevel }

// With returns a core that adds fields to every entry.
func (c *zapCore) With(fields []zapcore.Field) zapcore.Core {
	return &zapCore{log: c.log, engine: c.engine, fields: append(slices.Clip(c.fields), fields...)}
}

// Check adds the core to what will write the entry.
func (c *zapCore) Check(e zapcore.Entry, ce *zapcore.CheckedEntry) *zapcore.CheckedEntry {
	if c.Enabled(e.Level) {
		return ce.AddCore(e, c)
	}
	return ce
}

// Write logs one entry.
func (c *zapCore) Write(e zapcore.Entry, fields []zapcore.Field) error {
	enc := zapcore.NewMapObjectEncoder()
	for _, f := range append(slices.Clip(c.fields), fields...) {
		f.AddTo(enc)
	}
	level := slog.LevelWarn
	switch {
	case routine(e.Message), c.engine.closing.Load():
		level = slog.LevelDebug
	case e.Level > zapcore.WarnLevel:
		level = slog.LevelError
	}
	event, detail := slog.String("event", e.Message), slog.Any("detail", enc.Fields)
	if slow(e.Message) {
		c.log.LogAttrs(context.Background(), level, "etcd is slow", event, detail)
	} else {
		c.log.LogAttrs(context.Background(), level, "etcd", event, detail)
	}
	return nil
}

// Sync has nothing to flush.
func (c *zapCore) Sync() error { return nil }

// routine reports whether a complaint says nothing: it is about how we mean to run etcd, or about a first start, at which
// etcd looks for the version of a store that it has not written yet, and writes it at the next occasion.
func routine(message string) bool {
	return slices.Contains([]string{
		"Running http and grpc server on single port. This is not recommended for production.",
		"simple token is not cryptographically signed",
		"Failed to detect schema version",
		"failed to update storage version",
	}, message)
}

// slow reports whether a complaint is that the disk or the processors are too busy. Nothing is wrong then but that it takes longer.
func slow(message string) bool {
	return slices.ContainsFunc([]string{"took too long", "taking too long", "slow fdatasync", "queueing up", "might have slow network"},
		func(part string) bool { return strings.Contains(message, part) })
}

// dying stands in for the end of the process, which is what etcd means by logging at level fatal or panic.
type dying struct{ engine *engine }

// OnWrite ends the goroutine that logged, and lets start or Run return what it died of.
func (d dying) OnWrite(ce *zapcore.CheckedEntry, fields []zapcore.Field) {
	err := errors.New(ce.Message)
	for _, f := range fields {
		if cause, ok := f.Interface.(error); ok && f.Type == zapcore.ErrorType {
			err = fmt.Errorf("%s: %w", ce.Message, cause)
		}
	}
	d.engine.died.Store(true)
	select {
	case d.engine.fatal <- err:
	default:
	}
	runtime.Goexit()
}
