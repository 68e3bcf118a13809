package main

import (
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"github.com/etherloom/etherloom/node"
	vswitch "github.com/etherloom/etherloom/switch"
)

func explainCommand() *cobra.Command {
	l := new(local)
	var ask node.ExplainRequest
	var text string
	var tcp, udp int
	var icmp, arp bool
	cmd := &cobra.Command{
		Use:   "explain [--from X] --to Y [--icmp|--arp|--tcp PORT|--udp PORT] | --hex FRAME [--from X] | --flow FLOW",
		Short: "Say what becomes of a frame, which grant or check decides, where, and what would change it",
		Long: "A frame is made and judged by the checks that every frame passes, and goes nowhere. X and Y are names of nodes or\n" +
			"hosts, NODE/PORT for those behind an attachment whom nobody named, or IP or MAC addresses; without --from it is this node.\n" +
			"host:NAME, node:NAME and attachment:NODE/PORT are understood, too.\n\n" +
			"With --hex the frame is given, from the destination address on; - reads it from the standard input. Without --from it is\n" +
			"judged as one of this host's, or of a machine behind this gateway, by its source address; with --from as one that came over\n" +
			"that peer's link, or in by that attachment.\n\n" +
			"The exit code is 0 only if the frame passes, or is a question that the sender's own node answers.",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			var err error
			given := cmd.Flags().Changed("hex")
			if given {
				if ask.Frame, err = readFrame(text, cmd.InOrStdin()); err != nil {
					return err
				}
			}
			if ask.Kind, ask.Port, err = kindOf(icmp, arp, cmd.Flags().Changed("tcp"), tcp, cmd.Flags().Changed("udp"), udp); err != nil {
				return err
			}
			if ask.Kind == "" && !given && ask.Flow == "" {
				ask.Kind = "icmp"
			}
			d, err := l.daemon()
			if err != nil {
				return err
			}
			e, err := d.Explain(cmd.Context(), ask)
			if err != nil {
				return err
			}
			return l.explained(cmd, e)
		},
	}
	l.flags(cmd)
	f := cmd.Flags()
	f.StringVar(&ask.From, "from", "", "who sends: name, NODE/PORT or address; this node if left out")
	f.StringVar(&ask.To, "to", "", "who is to receive: name, NODE/PORT or address, also of a group")
	f.StringVar(&ask.Segment, "segment", "", "segment, if more than one fits")
	f.BoolVar(&icmp, "icmp", false, "an echo request, as of ping; the default")
	f.BoolVar(&arp, "arp", false, "an ARP request")
	f.IntVar(&tcp, "tcp", 0, "the first packet of a TCP connection to this port")
	f.IntVar(&udp, "udp", 0, "a UDP datagram to this port")
	f.StringVar(&text, "hex", "", "a whole frame, in hex; - reads it from the standard input")
	f.StringVar(&ask.VLAN, "vlan", "", "VLAN inside a transparent segment, such as 10, or 20.10 with the outer one first; s20 if its tag is 802.1ad's")
	f.StringVar(&ask.Flow, "flow", "", "the next packet of a `FLOW` of this node's, or of a machine's behind it, such as \"tcp 192.0.2.1:4242 192.0.2.2:22\": see etherloom flows")
	f.Uint32Var(&ask.Grant, "grant", 0, "with --hex and --from: the grant that the frame names; default: what an honest sender would name")
	return cmd
}

// kindOf says which frame is meant; nothing if that is not said.
func kindOf(icmp, arp, hasTCP bool, tcp int, hasUDP bool, udp int) (kind string, port uint16, err error) {
	number, n := 0, 0
	for _, k := range []struct {
		name string
		said bool
		port int
	}{{"icmp", icmp, 0}, {"arp", arp, 0}, {"tcp", hasTCP, tcp}, {"udp", hasUDP, udp}} {
		if k.said {
			kind, number, n = k.name, k.port, n+1
		}
	}
	if n > 1 {
		return "", 0, errors.New("a frame is of one kind: give one of --icmp, --arp, --tcp and --udp")
	}
	if (hasTCP || hasUDP) && (number < 1 || number > 65535) {
		return "", 0, fmt.Errorf("--%s takes a port, 1 to 65535, found %d", kind, number)
	}
	return kind, uint16(number), nil //nolint:gosec // just checked
}

// maxHex is more text than the longest frame takes, in bytes.
const maxHex = 1 << 19

// readFrame reads a frame in hex, in which spaces, line breaks and colons mean nothing.
func readFrame(text string, stdin io.Reader) ([]byte, error) {
	if text == "-" {
		data, err := io.ReadAll(io.LimitReader(stdin, maxHex))
		if err != nil {
			return nil, err
		}
		text = string(data)
	}
	digits := strings.Map(func(r rune) rune {
		if strings.ContainsRune(" \t\r\n:", r) {
			return -1
		}
		return r
	}, text)
	digits = strings.TrimPrefix(digits, "0x")
	frame, err := hex.DecodeString(digits)
	var bad hex.InvalidByteError
	switch {
	case errors.As(err, &bad):
		return nil, fmt.Errorf("--hex takes the bytes of a frame as hex digits, found %q: give them as `tcpdump -xx` prints them, without the offsets", rune(bad))
	case err != nil:
		return nil, fmt.Errorf("--hex takes two hex digits for each byte, found %s: one is missing, or one too many", counted(len(digits), "digit", "digits"))
	case len(frame) == 0:
		return nil, errors.New("--hex takes the bytes of a frame as hex digits, found none: begin with the destination address")
	}
	return frame, nil
}

// explained prints the answer; the error is silent if the frame does not pass.
func (l *local) explained(cmd *cobra.Command, e *node.Explained) error {
	if l.json {
		if err := printJSON(cmd, e); err != nil {
			return err
		}
	} else {
		showExplained(cmd.OutOrStdout(), e)
	}
	if !e.Passes {
		return errSilent
	}
	return nil
}

func showExplained(out io.Writer, e *node.Explained) {
	line := func(name, format string, args ...any) {
		fmt.Fprintf(out, "%-9s %s\n", name, fmt.Sprintf(format, args...))
	}
	switch {
	case e.Check == vswitch.Answered.Code():
		line("verdict", "is answered on %s: %s (%s)", e.On, e.Text, e.Check)
	case e.Passes:
		line("verdict", "passes by grant %d", e.Grant)
	default:
		line("verdict", "is dropped on %s: %s (%s)", e.On, e.Text, e.Check)
	}
	if e.Frame != "" {
		line("frame", "%s", e.Frame)
	}
	line("segment", "%s", dash(e.Segment))
	for _, j := range e.Steps {
		line("on "+j.Node, "%s", stepLine(j))
	}
	for _, f := range e.Fixes {
		if f.Command == "" {
			line("fix", "%s", f.Text)
		} else {
			line("fix", "%s:", f.Text)
			line("", "%s", f.Command)
		}
	}
	for _, n := range e.Notes {
		line("note", "%s", n)
	}
}

// cameBy says how the frame came to a node.
func cameBy(j node.Judgement) string {
	switch {
	case j.Sends && j.In != "":
		return "came in by " + j.In
	case j.Sends:
		return "sent"
	case j.Grant != 0:
		return fmt.Sprintf("received, naming grant %d", j.Grant)
	}
	return "received"
}

// receiverOf says who is behind a port, and behind which.
func receiverOf(r node.Outcome) string {
	switch {
	case r.Kind == "local":
		return "its host by " + r.Port
	case r.Kind == "attached":
		return r.Node + " by " + r.Port
	case r.Node == r.Port:
		return r.Node
	}
	return r.Node + " by link " + r.Port
}

// stepLine says in one line what one node does.
func stepLine(j node.Judgement) string {
	text := cameBy(j)
	switch {
	case j.Check == vswitch.Answered.Code():
		text += ": answered here"
	case !j.Passes:
		text += ": dropped, " + j.Check
	case j.Flooded:
		text += ": shown to all"
	default:
		text += ": passes"
	}
	var ports []string
	for _, r := range j.Receivers {
		to := receiverOf(r)
		if !r.Passes {
			to = "not to " + to + " (" + r.Check + ")"
		} else if r.Grant != 0 {
			to = fmt.Sprintf("to %s (grant %d)", to, r.Grant)
		} else {
			to = "to " + to
		}
		ports = append(ports, to)
	}
	if len(ports) > 0 {
		text += "; " + strings.Join(ports, ", ")
	}
	if !j.Here {
		text += "; as far as this node knows"
	}
	return text
}
