package records

import (
	"context"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/vmware/go-ipfix/pkg/collector"
	"github.com/vmware/go-ipfix/pkg/entities"
)

// exported sends records to a collector of the library's and returns the values of what that decodes, with the domain.
func exported(t *testing.T, network string, list []Record) []map[string]any {
	t.Helper()
	e, err := NewExporter("192.0.2.1:4739", func(error) {})
	if err != nil {
		t.Fatal(err)
	}
	c, err := collector.InitCollectingProcess(collector.CollectorInput{Address: "127.0.0.1:0", Protocol: network, MaxBufferSize: 65535})
	if err != nil {
		t.Fatal(err)
	}
	go c.Start()
	for c.GetAddress() == nil || strings.HasSuffix(c.GetAddress().String(), ":0") {
		time.Sleep(time.Millisecond)
	}
	e.network, e.addr = network, c.GetAddress().String()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- e.Run(ctx) }()
	e.Send(list)
	var out []map[string]any
	for end := time.After(5 * time.Second); len(out) < len(list); {
		select {
		case m := <-c.GetMsgChan():
			if m.GetSet().GetSetType() != entities.Data {
				continue
			}
			for _, r := range m.GetSet().GetRecords() {
				values := r.GetElementMap()
				values["domain"] = m.GetObsDomainID()
				out = append(out, values)
			}
		case <-end:
			t.Fatalf("%d of %d records within 5 s", len(out), len(list))
		}
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
	return out
}

// A collector decodes what is exported: both directions of a flow, its end, and what was refused.
func TestIPFIX(t *testing.T) {
	flow := example()
	six := flow
	six.VNI, six.Src, six.Dst, six.Protocol, six.End = 6, netip.MustParseAddr("2001:db8::1"), netip.MustParseAddr("2001:db8::2"), 1, "cut"
	denied := Record{
		Type: Denied, VNI: 5, Node: Party{1, "a"}, Source: &Party{1, "a"}, EtherType: "0x0800", Protocol: 6, Src: flow.Src, Dst: flow.Dst, DstPort: 80,
		SrcMAC: "02:00:00:00:00:01", DstMAC: "02:00:00:00:00:02", First: flow.First, Last: flow.Last, Frames: 9,
	}
	arp := denied
	arp.EtherType, arp.Protocol, arp.Src, arp.Dst, arp.DstPort = "0x88b5", 0, netip.Addr{}, netip.Addr{}, 0
	tagged, inside := denied, flow
	tagged.VLAN, tagged.Frames = "10", 8
	inside.VLAN, inside.End = "s20.10", "idle"
	for _, network := range []string{"udp", "tcp"} {
		got := exported(t, network, []Record{flow, six, denied, arp, tagged, inside})
		find := func(what string, match func(map[string]any) bool) map[string]any {
			for _, m := range got {
				if match(m) {
					return m
				}
			}
			t.Fatalf("%s: no %s in %v", network, what, got)
			return nil
		}
		has := func(what string, m, want map[string]any) {
			for k, v := range want {
				if ip, is := m[k].(net.IP); is {
					m[k] = ip.String()
				}
				if hw, is := m[k].(net.HardwareAddr); is {
					m[k] = hw.String()
				}
				if m[k] != v {
					t.Errorf("%s: %s: %s is %v, want %v", network, what, k, m[k], v)
				}
			}
		}
		at := uint64(flow.First.UnixMilli())
		has("flow", find("flow", func(m map[string]any) bool { return m["flowEndReason"] == uint8(2) }), map[string]any{
			"domain": uint32(5), "observationPointId": uint64(1), "flowStartMilliseconds": at, "flowEndMilliseconds": at + 1000,
			"sourceIPv4Address": "192.0.2.1", "destinationIPv4Address": "192.0.2.2", "protocolIdentifier": uint8(6),
			"sourceTransportPort": uint16(4242), "destinationTransportPort": uint16(22), "packetDeltaCount": uint64(3), "octetDeltaCount": uint64(300 - 42),
			"reversePacketDeltaCount": uint64(2), "reverseOctetDeltaCount": uint64(200 - 28),
		})
		has("flow of IPv6", find("flow of IPv6", func(m map[string]any) bool { return m["flowEndReason"] == uint8(4) }), map[string]any{
			"domain": uint32(6), "sourceIPv6Address": "2001:db8::1", "destinationIPv6Address": "2001:db8::2", "protocolIdentifier": uint8(58),
		})
		has("denied on a VLAN", find("denied on a VLAN", func(m map[string]any) bool { return m["packetDeltaCount"] == uint64(8) }), map[string]any{
			"dot1qVlanId": uint16(10), "dot1qCustomerVlanId": nil, "ethernetType": uint16(0x800),
		})
		has("flow on two VLANs", find("flow on two VLANs", func(m map[string]any) bool { return m["flowEndReason"] == uint8(1) }), map[string]any{
			"dot1qVlanId": uint16(20), "dot1qCustomerVlanId": uint16(10), "octetDeltaCount": uint64(300 - 3*22), "reverseOctetDeltaCount": uint64(200 - 2*22),
		})
		has("denied", find("denied", func(m map[string]any) bool { return m["ethernetType"] == uint16(0x800) && m["dot1qVlanId"] == nil }), map[string]any{
			"domain": uint32(5), "sourceIPv4Address": "192.0.2.1", "destinationTransportPort": uint16(80), "firewallEvent": uint8(3),
			"sourceMacAddress": "02:00:00:00:00:01", "destinationMacAddress": "02:00:00:00:00:02", "packetDeltaCount": uint64(9),
		})
		has("denied frame", find("denied frame", func(m map[string]any) bool { return m["ethernetType"] == uint16(0x88b5) }), map[string]any{
			"firewallEvent": uint8(3), "protocolIdentifier": uint8(0),
		})
	}
}

// More records than fit a message go in several.
func TestIPFIXMany(t *testing.T) {
	list := make([]Record, 100)
	for i := range list {
		list[i] = example()
		list[i].SrcPort = uint16(i)
	}
	ports := map[any]bool{}
	for _, m := range exported(t, "udp", list) {
		ports[m["sourceTransportPort"]] = true
	}
	if len(ports) != len(list) {
		t.Errorf("%d ports", len(ports))
	}
}

// A collector that is not there, or takes nothing, keeps nobody waiting, and is reported.
func TestIPFIXWithoutCollector(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := l.Addr().String()
	l.Close()
	reports := make(chan error, 100)
	e, err := NewExporter("tcp://"+addr, func(err error) { reports <- err })
	if err != nil {
		t.Fatal(err)
	}
	for range 10 * waiting {
		e.Send([]Record{example()})
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- e.Run(ctx) }()
	select {
	case err := <-reports:
		if err == nil || !strings.Contains(err.Error(), "records.ipfix: ") {
			t.Errorf("%v", err)
		}
	case <-time.After(5 * time.Second):
		t.Error("nothing is reported")
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func TestParseCollector(t *testing.T) {
	for text, want := range map[string]string{
		"192.0.2.1:4739": "udp 192.0.2.1:4739", "udp://192.0.2.1:4739": "udp 192.0.2.1:4739", "tcp://flows.example.com:4739": "tcp flows.example.com:4739",
		"[2001:db8::1]:4739": "udp [2001:db8::1]:4739", "": "", "192.0.2.1": "", "http://192.0.2.1:80": "", ":4739": "", "a:0": "", "a:65536": "", "a:b": "",
	} {
		network, addr, err := ParseCollector(text)
		if got := strings.TrimSpace(network + " " + addr); got != want || (err == nil) != (want != "") {
			t.Errorf("%q: %q, %v", text, got, err)
		}
	}
}
