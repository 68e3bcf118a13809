package main

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	v1 "github.com/etherloom/etherloom/control/controlv1"
	rpc "github.com/etherloom/etherloom/control/controlv1/controlv1connect"
)

// This file says what somebody may have overlooked in what he has just asked for, and has got. It is for people: nothing fails by it, and
// whoever wants JSON is told nothing.

// note tells people something beside the answer.
func (a *admin) note(cmd *cobra.Command, notes ...string) {
	for _, text := range notes {
		if text != "" && !a.json {
			fmt.Fprintln(cmd.ErrOrStderr(), "note:", text)
		}
	}
}

// ungrantedNote says that nothing passes by an attachment, and what to do; empty if a grant names it.
func ungrantedNote(at *v1.AttachmentRule, named map[string]bool) string {
	if len(at.GetPorts()) == 0 || slices.ContainsFunc(at.GetHosts(), func(h string) bool { return named["host:"+h] }) ||
		slices.ContainsFunc(at.GetPorts(), func(p *v1.AttachmentPort) bool { return named["attachment:"+p.GetName()] }) {
		return ""
	}
	name := at.GetPorts()[0].GetName()
	return fmt.Sprintf("nothing passes until a grant names attachment:%s: `etherloom grant add --from attachment:%s --to segment:%s`", name, name, at.GetSegment())
}

// namedBy is what grants name, of groups also who is in them.
func namedBy(grants []*v1.GrantRule, groups []*v1.Group) map[string]bool {
	named := map[string]bool{}
	for _, g := range grants {
		named[g.GetFrom()], named[g.GetTo()] = true, true
	}
	for _, g := range groups {
		for _, member := range g.GetMembers() {
			named[member] = named[member] || named["group:"+g.GetName()]
		}
	}
	return named
}

// noteUngranted says of which attachments no grant speaks.
func (a *admin) noteUngranted(cmd *cobra.Command, list ...*v1.AttachmentRule) {
	if a.json || len(list) == 0 {
		return
	}
	grants, err := call(cmd.Context(), a, rpc.AdminServiceClient.ListGrants, &v1.ListGrantsRequest{})
	if err != nil {
		return // what was asked for is done, and this was not asked for
	}
	groups, err := call(cmd.Context(), a, rpc.AdminServiceClient.ListGroups, &v1.ListGroupsRequest{})
	if err != nil {
		return
	}
	named := namedBy(grants.GetGrants(), groups.GetGroups())
	for _, at := range list {
		a.note(cmd, ungrantedNote(at, named))
	}
}

// noteNobody says which selectors of a grant select nobody now: a word that is misspelt is as good as any other.
func (a *admin) noteNobody(cmd *cobra.Command, selectors ...string) {
	several := func(s string) bool { return strings.HasPrefix(s, "label:") || strings.HasPrefix(s, "group:") }
	if a.json || !slices.ContainsFunc(selectors, several) {
		return
	}
	nodes, err := listNodes(cmd, a, "")
	if err != nil {
		return
	}
	groups, err := call(cmd.Context(), a, rpc.AdminServiceClient.ListGroups, &v1.ListGroupsRequest{})
	if err != nil {
		return
	}
	for _, s := range selectors {
		if several(s) && !selectsAny(s, nodes.GetNodes(), groups.GetGroups()) {
			a.note(cmd, s+" selects nobody now: `etherloom node list` shows the machines' labels, `etherloom group list` who is in a group")
		}
	}
}

// selectsAny reports whether somebody in the network is selected.
func selectsAny(selector string, nodes []*v1.Node, groups []*v1.Group) bool {
	kind, name, _ := strings.Cut(selector, ":")
	switch kind {
	case "label":
		return slices.ContainsFunc(nodes, func(n *v1.Node) bool {
			return n.GetStatus() != v1.NodeStatus_NODE_STATUS_REMOVED && slices.Contains(n.GetLabels(), name)
		})
	case "group":
		i := slices.IndexFunc(groups, func(g *v1.Group) bool { return g.GetName() == name })
		return i >= 0 && slices.ContainsFunc(groups[i].GetMembers(), func(m string) bool { return selectsAny(m, nodes, nil) })
	}
	return true // somebody who is named is there, or the name would have been refused
}

// noteOutside says which addresses of a host are outside of its segment's prefix. A VLAN may have others, so they are not refused.
func (a *admin) noteOutside(cmd *cobra.Command, h *v1.HostRule) {
	if a.json || len(h.GetAddresses()) == 0 {
		return
	}
	r, err := call(cmd.Context(), a, rpc.AdminServiceClient.ListSegments, &v1.ListSegmentsRequest{})
	if err != nil {
		return
	}
	for _, seg := range r.GetSegments() {
		if seg.GetName() == h.GetSegment() {
			a.note(cmd, outsideNotes(h, seg)...)
		}
	}
}

// outsideNotes are about IPv4 alone: of IPv6 a machine has addresses of several prefixes.
func outsideNotes(h *v1.HostRule, seg *v1.Segment) (notes []string) {
	prefix, err := netip.ParsePrefix(seg.GetIpv4Prefix())
	if err != nil {
		return nil
	}
	for _, text := range h.GetAddresses() {
		if p, err := netip.ParsePrefix(text); err == nil && p.Addr().Is4() && !prefix.Contains(p.Addr()) && !p.Addr().IsLinkLocalUnicast() {
			notes = append(notes, fmt.Sprintf("%s is outside of segment %s's prefix %s: machines with addresses of that prefix reach it by a router only; "+
				"if it is misspelt, say it anew with `etherloom host set`", p.Addr(), seg.GetName(), prefix))
		}
	}
	return notes
}
