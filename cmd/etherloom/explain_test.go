package main

import (
	"bytes"
	"fmt"
	"strings"
	"testing"

	"github.com/etherloom/etherloom/node"
)

func TestReadFrame(t *testing.T) {
	for text, want := range map[string]string{
		"0102ff":                "0102ff",
		"01:02:FF":              "0102ff",
		" 01 02\n\tff\r\n":      "0102ff",
		"0x0102 ff":             "0102ff",
		"-":                     "aabb",
		"01020":                 "error: found 5 digits",
		"01zz":                  "error: found 'z'",
		"":                      "error: found none",
		"  : ":                  "error: found none",
		"0x0000:  ffff ffff 0x": "error: found 'x'",
	} {
		frame, err := readFrame(text, strings.NewReader("aa bb\n"))
		got := fmt.Sprintf("%x", frame)
		if err != nil {
			got = "error: " + err.Error()
		}
		if wanted, bad := strings.CutPrefix(want, "error: "); bad && !strings.Contains(got, wanted) || !bad && got != want {
			t.Errorf("%q: %s, want %s", text, got, want)
		}
	}
}

func TestKindOf(t *testing.T) {
	for _, c := range []struct {
		icmp, arp, hasTCP bool
		tcp               int
		hasUDP            bool
		udp               int
		kind              string
		port              uint16
		err               string
	}{
		{},
		{icmp: true, kind: "icmp"},
		{arp: true, kind: "arp"},
		{hasTCP: true, tcp: 443, kind: "tcp", port: 443},
		{hasUDP: true, udp: 65535, kind: "udp", port: 65535},
		{hasTCP: true, err: "1 to 65535, found 0"},
		{hasUDP: true, udp: 65536, err: "--udp takes a port, 1 to 65535, found 65536"},
		{icmp: true, arp: true, err: "one of --icmp"},
	} {
		kind, port, err := kindOf(c.icmp, c.arp, c.hasTCP, c.tcp, c.hasUDP, c.udp)
		if kind != c.kind || port != c.port || (err == nil) != (c.err == "") || err != nil && !strings.Contains(err.Error(), c.err) {
			t.Errorf("%+v: %q, %d, %v", c, kind, port, err)
		}
	}
}

// What a person reads.
func TestShowExplained(t *testing.T) {
	e := &node.Explained{
		Segment: "lan", Frame: "FRAME", Check: "not-member", Text: "the receiver is not a member of this segment", On: "a",
		Steps: []node.Judgement{
			{Node: "a", Sends: true, Here: true, Passes: true, Flooded: true, Receivers: []node.Outcome{
				{Port: "b", Kind: "link", Node: "b", Passes: true, Check: "pass", Grant: 3}, {Port: "c", Kind: "link", Node: "c", Check: "not-member"},
			}},
			{Node: "b", Passes: true, Check: "pass", Grant: 3, Receivers: []node.Outcome{{Port: "host", Kind: "local", Node: "b", Passes: true}}},
		},
		Fixes: []node.Fix{{Text: "do this", Command: "command"}, {Text: "or that"}}, Notes: []string{"N"},
	}
	var out bytes.Buffer
	showExplained(&out, e)
	const want = `verdict   is dropped on a: the receiver is not a member of this segment (not-member)
frame     FRAME
segment   lan
on a      sent: shown to all; to b (grant 3), not to c (not-member)
on b      received, naming grant 3: passes; to its host by host; as far as this node knows
fix       do this:
          command
fix       or that
note      N
`
	if out.String() != want {
		t.Errorf("%s\nwant\n%s", out.String(), want)
	}
	machine := node.Judgement{Node: "gw", Sends: true, In: "site", Here: true, Passes: true, Receivers: []node.Outcome{
		{Port: "gw-b", Kind: "link", Node: "mb", Passes: true, Grant: 3}, {Port: "yard", Kind: "attached", Node: "mi", Check: "private-vlan"},
	}}
	if got, want := stepLine(machine), "came in by site: passes; to mb by link gw-b (grant 3), not to mi by yard (private-vlan)"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
	out.Reset()
	showExplained(&out, &node.Explained{Passes: true, Grant: 3})
	answered := node.Judgement{Node: "a", Sends: true, Here: true, Passes: true, Check: "answered"}
	var other bytes.Buffer
	showExplained(&other, &node.Explained{Passes: true, Check: "answered", Text: "T", On: "a", Segment: "lan", Steps: []node.Judgement{answered}})
	if want := "verdict   is answered on a: T (answered)\nsegment   lan\non a      sent: answered here\n"; other.String() != want {
		t.Errorf("%q", other.String())
	}
	if want := "verdict   passes by grant 3\nsegment   -\n"; out.String() != want {
		t.Errorf("%q", out.String())
	}
}
