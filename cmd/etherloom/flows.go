package main

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/etherloom/etherloom/node"
)

func flowsCommand() *cobra.Command {
	return asking("flows", "The flows that this node remembers: who with whom, by which grant, and how much", "flows",
		func(cmd *cobra.Command, list []node.Flow) error {
			var rows [][]string
			for _, f := range list {
				rows = append(rows, []string{
					f.Segment, f.From, f.To, dash(f.VLAN), f.Protocol, ended(f.Src, f.SrcPort), ended(f.Dst, f.DstPort), grantNumber(f.Grant), grantNumber(f.Observed),
					fmt.Sprintf("%d/%d", f.Frames, f.AnswerFrames), fmt.Sprintf("%d/%d", f.Octets, f.AnswerOctets), until(f.Began), until(f.Last),
				})
			}
			return table(cmd, "SEGMENT FROM TO VLAN PROTOCOL SOURCE DESTINATION GRANT OBSERVED FRAMES OCTETS SINCE LAST", rows)
		})
}

// ended is one end of a flow, as explain --flow takes it.
func ended(a netip.Addr, port uint16) string { return netip.AddrPortFrom(a, port).String() }

func grantNumber(id uint32) string {
	if id == 0 {
		return "-"
	}
	return strconv.Itoa(int(id))
}

func grantsCommand() *cobra.Command {
	return asking("grants", "The grants that concern this node, and what each has let pass here", "grants",
		func(cmd *cobra.Command, list []node.GrantUse) error {
			var rows [][]string
			for _, g := range list {
				to := strings.Join(g.To, ",")
				if to == "" {
					to = "segment:" + g.Segment
				}
				if g.Both {
					to += " (both ways)"
				}
				if g.Observe {
					to += " (observe)"
				}
				rows = append(rows, []string{
					strconv.Itoa(int(g.ID)), g.Segment, dash(strings.Join(g.From, ",")), to, strings.Join(g.Allow, ","),
					fmt.Sprint(g.Frames), fmt.Sprint(g.Octets), fmt.Sprint(g.Flows), until(g.Last),
				})
			}
			return table(cmd, "ID SEGMENT FROM TO ALLOW FRAMES OCTETS FLOWS LAST", rows)
		})
}
