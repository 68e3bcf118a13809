package main

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"
)

// TestMirrorCommands: what is typed is what the daemon is asked, and what it answers is printed.
func TestMirrorCommands(t *testing.T) {
	f, path := newFakeDaemon(t)
	const line = `{"from":"lan","segment":"office","direction":"both","to":"span0","made":true,"state":"copies","copied":7,"lost":1}`
	const broken = `{"from":"lan","segment":"office","direction":"in","to":"eth3","made":false,"state":"no-device","why":"eth3 is down","copied":0,"lost":0}`
	added, heading := `{"schema":1,"mirrors":[`+line+`]}`, "FROM  SEGMENT  DIRECTION  TO     STATE      COPIED  LOST\n"
	for _, c := range []struct {
		args, asked, answer string
		says                string // "error: ..." if that is one
	}{
		{
			"add --from lan --to span0", `POST /mirror/add {"from":"lan","segment":"","direction":"both","to":"span0"}`, added,
			"FROM  SEGMENT  DIRECTION  TO     STATE   COPIED  LOST\nlan   office   both       span0  copies  7       1\n",
		},
		{"add --from lan --segment office --direction in --to eth3", `POST /mirror/add {"from":"lan","segment":"office","direction":"in","to":"eth3"}`, added, "span0"},
		{"add --from lan", "", "", `error: required flag(s) "to"`},
		{"add lan --to span0", "", "", "error: unknown command"},
		{"add --from x --to span0", `POST /mirror/add {"from":"x","segment":"","direction":"both","to":"span0"}`, "no port of this node", "error: no port of this node"},
		{
			"list", "GET /mirrors", "[" + line + "," + broken + "," + broken + "]", heading + "lan   office   both       span0  copies     7       1\n" +
				strings.Repeat("lan   office   in         eth3   no-device  0       0\n", 2) + "eth3: eth3 is down\n",
		},
		{"remove --from lan --to span0", `POST /mirror/remove {"from":"lan","segment":"","to":"span0"}`, added, "1 mirror removed\n"},
		{"remove --to span0", `POST /mirror/remove {"from":"","segment":"","to":"span0"}`, `{"schema":1,"mirrors":[` + line + "," + line + `]}`, "2 mirrors removed\n"},
	} {
		f.asked, f.answer, f.status = "", c.answer, http.StatusOK
		says, bad := strings.CutPrefix(c.says, "error: ")
		if bad {
			f.status = http.StatusBadRequest
		}
		got, err := typed(t, path, append([]string{"mirror"}, strings.Fields(c.args)...)...)
		if (err != nil) != bad || !strings.Contains(got, says) || c.args == "list" && got != says {
			t.Errorf("mirror %s says %q, %v; want %q", c.args, got, err, says)
		}
		if f.asked != c.asked {
			t.Errorf("mirror %s asks %q, want %q", c.args, f.asked, c.asked)
		}
	}
	f.answer, f.status = "["+line+"]", http.StatusOK
	out, err := typed(t, path, "mirror", "list", "--json")
	var list struct {
		Schema  int
		Mirrors []map[string]any
	}
	if err != nil || json.Unmarshal([]byte(out), &list) != nil || list.Schema != 1 || len(list.Mirrors) != 1 || list.Mirrors[0]["lost"] != 1.0 {
		t.Errorf("JSON is %s, %v", out, err)
	}
}
