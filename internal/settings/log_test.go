package settings

import (
	"bytes"
	"strings"
	"testing"
)

func TestLog(t *testing.T) {
	for _, c := range []struct {
		level, format string
		want          string
	}{
		{"info", "text", "level=INFO msg=one\n"}, {"debug", "json", `"msg":"two"`}, {"error", "text", ""},
	} {
		var b bytes.Buffer
		log := Log{c.level, c.format}.New(&b)
		log.Info("one")
		log.Debug("two")
		if got := b.String(); !strings.Contains(got, c.want) || c.want == "" && got != "" || strings.Contains(got, "two") != (c.level == "debug") {
			t.Errorf("%s, %s: %s", c.level, c.format, got)
		}
	}
}
