package main

import (
	"bytes"
	"encoding/json"
	"net/http"
	"strings"
	"testing"
)

// shown is a port as a daemon tells of it.
const shown = `{"schema":1,"port":{"port":"lan","kind":"attached","segment":"office","vni":5,"identity":20,"nic":"eth1","vlan":10,"up":true,"state":"disabled",` +
	`"why":"a BPDU came","stats":{"rx_frames":3,"rx_octets":180,"rx_dropped":2,"tx_frames":1,"tx_octets":60}},"attributes":{"guard":"on","description":"to sw1"},` +
	`"fault":{"reason":"a BPDU came","since":"2026-01-02T03:04:05Z","until":"2026-01-02T03:09:05Z"},` +
	`"neighbour":{"system":"sw1.example.net","chassis":"02:00:00:00:08:01","port":"ge-0/0/1","until":"2026-01-02T03:06:05Z"},"bpdus":1,"topology_changes":0}`

// aggregated is what a daemon tells of LACP.
const aggregated = `{"actor":{"system":"32768,02:00:00:00:00:01","key":1,"port":7,"state":"activity"},` +
	`"partner":{"system":"4096,00:00:5e:00:53:09","key":5,"port":3,"state":"sync"},"carries":true}`

// TestPortCommands: what is typed is what the daemon is asked, and what it answers is printed.
func TestPortCommands(t *testing.T) {
	t.Setenv("TZ", "UTC")
	f, path := newFakeDaemon(t)
	plain := strings.NewReplacer(`"disabled"`, `"on"`, `"nic":"eth1",`, "", `"vlan":10,`, "", `"up":true,`, "").Replace(shown[:strings.Index(shown, `"fault"`)]) + `"bpdus":0}`
	for _, c := range []struct {
		args        []string
		asked, says string // says is "error: ..." if that is one; of others, lines that are printed
		answer      string
	}{
		{[]string{"show", "lan"}, `POST /port/show {"port":"lan","segment":"","set":null,"enable":false}`, "lan of segment office, attached, disabled\n", shown},
		{[]string{"show", "lan"}, `POST /port/show {"port":"lan","segment":"","set":null,"enable":false}`, ": a BPDU came\n", shown},
		{[]string{"show", "lan"}, `POST /port/show {"port":"lan","segment":"","set":null,"enable":false}`, " or `etherloom port enable lan`: a BPDU", shown},
		{
			[]string{"show", "lan"},
			`POST /port/show {"port":"lan","segment":"","set":null,"enable":false}`, "until `etherloom port enable lan`: a BPDU", strings.ReplaceAll(shown, `,"until":"2026-01-02T03:09:05Z"`, ""),
		},
		{
			[]string{"show", "lan"}, `POST /port/show {"port":"lan","segment":"","set":null,"enable":false}`, "  NIC eth1 (up), VLAN 10\n" +
				"  plugged into sw1.example.net, port ge-0/0/1 (chassis 02:00:00:00:08:01), as it says by LLDP\n" +
				"  in  3 frames, 180 octets, 2 dropped\n  out 1 frames, 60 octets\n  1 BPDUs heard, 0 changes of topology\n  description=to sw1\n  guard=on\n", shown,
		},
		{
			[]string{"show", "lan"},
			`POST /port/show {"port":"lan","segment":"","set":null,"enable":false}`,
			"lan of segment office, attached, on\n  in  3 frames", plain,
		},
		{
			[]string{"show", "lan"}, `POST /port/show {"port":"lan","segment":"","set":null,"enable":false}`, "  bridge br0 (down), VLAN 10\n" +
				"  what is for those behind it goes to two\n  the attachment is of community shops, at all nodes\n  in  3 frames, 180 octets, 2 dropped\n" +
				"  out 1 frames, 60 octets\n  over its rate: 7 in, 8 out\n", `{"schema":1,"port":{"port":"lan","kind":"attached","segment":"office","nic":"br0","bridge":"br0",` +
				`"vlan":10,"up":false,"state":"on","stats":{"rx_frames":3,"rx_octets":180,"rx_dropped":2,"tx_frames":1,"tx_octets":60,"rx_over_rate":7,"tx_over_rate":8}},` +
				`"private_vlan":{"isolated":false,"community":"shops"},"backup":"two"}`,
		},
		{
			[]string{"show", "lan"},
			`POST /port/show {"port":"lan","segment":"","set":null,"enable":false}`, "  the attachment is isolated, at all nodes\n",
			strings.Replace(shown, `"bpdus"`, `"private_vlan":{"isolated":true},"bpdus"`, 1),
		},
		{
			[]string{"show", "lan"},
			`POST /port/show {"port":"lan","segment":"","set":null,"enable":false}`, "  by LACP it carries\n    system 32768,02:00:00:00:00:01, key 1, port 7: activity\n" +
				"    switch 4096,00:00:5e:00:53:09, key 5, port 3: sync\n  in  3 frames", strings.Replace(shown, `"bpdus"`, `"lacp":`+aggregated+`,"bpdus"`, 1),
		},
		{
			[]string{"show", "lan"},
			`POST /port/show {"port":"lan","segment":"","set":null,"enable":false}`, "  by LACP it is not in the aggregation: the switch does not answer\n    system",
			strings.Replace(shown, `"bpdus"`, `"lacp":`+strings.Replace(aggregated, "true", `false,"why":"the switch does not answer"`, 1)+`,"bpdus"`, 1),
		},
		{
			[]string{"show", "lan", "--segment", "office"},
			`POST /port/show {"port":"lan","segment":"office","set":null,"enable":false}`,
			"(down), untagged", strings.NewReplacer(`"vlan":10`, `"vlan":0`, `"up":true`, `"up":false`).Replace(shown),
		},
		{[]string{"show", "x"}, `POST /port/show {"port":"x","segment":"","set":null,"enable":false}`, "error: no port of this node", "no port of this node is called x"},
		{[]string{"show"}, "", "error: accepts 1 arg(s)", ""},
		{
			[]string{"set", "lan", "guard=on", "description=to sw1, port=3", "storm_broadcast=500"},
			`POST /port/set {"port":"lan","segment":"","set":{"description":"to sw1, port=3","guard":"on","storm_broadcast":"500"},"enable":false}`, "  guard=on\n", shown,
		},
		{[]string{"set", "lan", "description="}, `POST /port/set {"port":"lan","segment":"","set":{"description":""},"enable":false}`, "lan of", shown},
		{[]string{"set", "lan"}, "", "error: say of which port, and what to set, such as `etherloom port set lan guard=on`", ""},
		{[]string{"set"}, "", "error: say of which port, and what to set, such as `etherloom port set PORT guard=on`", ""},
		{[]string{"set", "lan", "guard"}, "", `error: an attribute is set by KEY=VALUE, such as guard=on, found "guard"`, ""},
		{[]string{"set", "lan", "guard=on", "guard=off"}, "", "error: guard is set twice", ""},
		{[]string{"set", "lan", "hairpin=on"}, `POST /port/set {"port":"lan","segment":"","set":{"hairpin":"on"},"enable":false}`, "error: hairpin is not", "hairpin is not an attribute here"},
		{[]string{"enable", "lan"}, `POST /port/set {"port":"lan","segment":"","set":null,"enable":true}`, "lan of", shown},
		{[]string{"enable", "lan", "now"}, "", "error: accepts 1 arg(s)", ""},
	} {
		f.asked, f.answer, f.status = "", c.answer, http.StatusOK
		says, bad := strings.CutPrefix(c.says, "error: ")
		if bad {
			f.status = http.StatusBadRequest
		}
		got, err := typed(t, path, append([]string{"port"}, c.args...)...)
		if (err != nil) != bad || !strings.Contains(got, says) {
			t.Errorf("port %q says %q, %v; want %q", c.args, got, err, says)
		}
		if f.asked != c.asked {
			t.Errorf("port %q asks %q, want %q", c.args, f.asked, c.asked)
		}
	}
	f.answer, f.status = shown, http.StatusOK
	out, err := typed(t, path, "port", "show", "lan", "--json")
	var got, want map[string]any
	if err != nil || json.Unmarshal([]byte(out), &got) != nil || json.Unmarshal([]byte(shown), &want) != nil {
		t.Fatalf("JSON is %s, %v", out, err)
	}
	for key := range want { // its readers rely on it
		if _, ok := got[key]; !ok {
			t.Errorf("JSON has no %s", key)
		}
	}
}

// typed runs a command, and returns what it prints, or its error.
func typed(t *testing.T, path string, args ...string) (string, error) {
	t.Helper()
	var out bytes.Buffer
	cmd := root()
	cmd.SetOut(&out)
	cmd.SetErr(&out)
	cmd.SetArgs(append(args, "--state-dir", path))
	err := cmd.ExecuteContext(t.Context())
	if err != nil {
		return err.Error(), err
	}
	return out.String(), nil
}

// The table of ports shows in which state each is, and where an attached one leads; below it, what is wrong.
func TestPortsTable(t *testing.T) {
	f, path := newFakeDaemon(t)
	f.status = http.StatusOK
	f.answer = `[{"port":"loom0","kind":"local","segment":"lan","vni":5,"state":"on","mac":"02:00:5e:10:00:01","addresses":["192.0.2.1/24"],"queues":2,"offloads":["checksum","tso"],` +
		`"changed":["it was renamed"],"stats":{"rx_frames":1,"tx_frames":2,"rx_dropped":3,"rx_answered":4}},` +
		`{"port":"v10","kind":"attached","segment":"lan","vni":5,"state":"disabled","why":"a BPDU came","nic":"eth1","vlan":10,"up":true},` +
		`{"port":"raw","kind":"attached","segment":"lan","vni":5,"state":"shut","nic":"eth2","up":false},{"port":"br","kind":"attached","segment":"lan","vni":5,"state":"on","nic":"br0","bridge":"br0","vlan":10,"up":true},` +
		`{"port":"gw2","kind":"link","segment":"lan","vni":5,"state":"on"}]`
	want := "PORT   KIND      SEGMENT  VNI  STATE     MAC                ADDRESSES     NIC         VLAN      QUEUES  OFFLOADS      RX  TX  DROPPED  ANSWERED\n" +
		"loom0  local     lan      5    on        02:00:5e:10:00:01  192.0.2.1/24  -           -         2       checksum tso  1   2   3        4\n" +
		"v10    attached  lan      5    disabled  -                  -             eth1        10        -       -             0   0   0        0\n" +
		"raw    attached  lan      5    shut      -                  -             eth2        untagged  -       -             0   0   0        0\n" +
		"br     attached  lan      5    on        -                  -             bridge br0  10        -       -             0   0   0        0\n" +
		"gw2    link      lan      5    on        -                  -             -           -         -       -             0   0   0        0\n" +
		"loom0: it was renamed\nv10 is disabled: a BPDU came\nraw: eth2 is not there, or has no carrier\n"
	if got, err := typed(t, path, "ports"); err != nil || got != want {
		t.Errorf("ports are\n%swant\n%s%v", got, want, err)
	}
	if f.asked != "GET /ports" {
		t.Errorf("asked was %q", f.asked)
	}
}
