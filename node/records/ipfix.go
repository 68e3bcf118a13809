package records

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/vmware/go-ipfix/pkg/entities"
	"github.com/vmware/go-ipfix/pkg/exporter"
	"github.com/vmware/go-ipfix/pkg/registry"
	"k8s.io/klog/v2"

	"github.com/etherloom/etherloom/ether"
)

// Exporter sends records to an IPFIX collector. Each segment is an observation domain, with its VNI as number, and the node is
// its observation point. What IPFIX has no standard element for, such as a grant's id, is in the JSON lines alone.
type Exporter struct {
	network, addr string
	queue         chan []Record
	report        func(error)

	domains map[uint32]*domain // by VNI
	failed  time.Time          // when sending failed last
}

// domain is the session for one segment.
type domain struct {
	process   *exporter.ExportingProcess
	templates map[shape]uint16
}

// shape is which elements a record has.
type shape struct {
	kind   string
	v4, v6 bool
	vlans  int // inside a transparent segment
}

// ParseCollector reads where a collector is: HOST:PORT, reached by UDP, or tcp://HOST:PORT.
func ParseCollector(text string) (network, addr string, err error) {
	network, addr = "udp", strings.TrimPrefix(text, "udp://")
	if rest, is := strings.CutPrefix(text, "tcp://"); is {
		network, addr = "tcp", rest
	}
	host, port, err := net.SplitHostPort(addr)
	n, bad := strconv.ParseUint(port, 10, 16)
	if err != nil || bad != nil || n == 0 || host == "" || strings.Contains(host, "/") {
		return "", "", fmt.Errorf("expected HOST:PORT or tcp://HOST:PORT, such as 192.0.2.1:4739, found %q", text)
	}
	return network, addr, nil
}

// prepare sets up what the library keeps for the whole process: its elements, and its log. What that says is in its errors, too.
var prepare = sync.OnceFunc(func() { //nolint:gochecknoglobals // the library's state is global
	klog.SetSlogLogger(slog.New(slog.DiscardHandler))
	registry.LoadRegistry()
})

// waiting is for how many intervals records wait for a slow collector; further ones are lost.
const waiting = 16

// NewExporter returns an Exporter, which sends nothing before it runs. report is called when sending fails, and with nil when it
// has worked again for a while.
func NewExporter(collector string, report func(error)) (*Exporter, error) {
	network, addr, err := ParseCollector(collector)
	if err != nil {
		return nil, err
	}
	prepare()
	return &Exporter{network: network, addr: addr, queue: make(chan []Record, waiting), report: report, domains: map[uint32]*domain{}}, nil
}

// Send hands records over. It does not wait: if the collector is slow, they are lost.
func (e *Exporter) Send(list []Record) {
	select {
	case e.queue <- list:
	default:
	}
}

// healthy is how long sending must work before it counts as working again. That nobody listens is told by UDP only now and then.
const healthy = time.Minute

// Run sends until ctx ends.
func (e *Exporter) Run(ctx context.Context) error {
	defer e.close()
	for {
		select {
		case <-ctx.Done():
			return nil
		case list := <-e.queue:
			err := e.export(ctx, list)
			if ctx.Err() != nil {
				return nil
			}
			if err != nil {
				e.failed = time.Now()
				e.close()
				e.report(fmt.Errorf("records.ipfix: %w", err))
			} else if time.Since(e.failed) > healthy {
				e.report(nil)
			}
		}
	}
}

func (e *Exporter) close() {
	for vni, d := range e.domains {
		d.process.CloseConnToCollector()
		delete(e.domains, vni)
	}
}

// export sends the records of one interval, those that are alike together.
func (e *Exporter) export(ctx context.Context, list []Record) error {
	type group struct {
		vni uint32
		shape
	}
	groups := map[group][]*Record{}
	for i := range list {
		r := &list[i]
		if r.Type != Flow && (r.Type != Denied || r.Source == nil) {
			continue
		}
		g := group{r.VNI, shape{r.Type, r.Src.Is4(), r.Src.Is6(), len(vlansOf(r))}}
		groups[g] = append(groups[g], r)
	}
	for g, part := range groups {
		d, err := e.domain(ctx, g.vni)
		if err != nil {
			return err
		}
		stop := context.AfterFunc(ctx, d.process.CloseConnToCollector)
		err = d.send(g.shape, part)
		stop()
		if err != nil {
			return err
		}
	}
	return nil
}

// Times, and the longest message for UDP, in bytes (RFC 7011 section 10.3.3).
const (
	dialTime        = 3 * time.Second
	refreshTemplate = 60 // seconds
	longestUDP      = 1400
)

func (e *Exporter) domain(ctx context.Context, vni uint32) (*domain, error) {
	if d := e.domains[vni]; d != nil {
		return d, nil
	}
	in := exporter.ExporterInput{
		CollectorAddress: e.addr, CollectorProtocol: e.network, ObservationDomainID: vni, TempRefTimeout: refreshTemplate, MaxMsgSize: longestUDP,
	}
	// The library dials without a limit, so whether anybody is there is found out first.
	conn, err := (&net.Dialer{Timeout: dialTime}).DialContext(ctx, e.network, e.addr)
	if err != nil {
		return nil, err
	}
	in.CollectorAddress = conn.RemoteAddr().String()
	_ = conn.Close() // it has served
	p, err := exporter.InitExportingProcess(in)
	if err != nil {
		return nil, err
	}
	d := &domain{p, map[shape]uint16{}}
	e.domains[vni] = d
	return d, nil
}

func (d *domain) send(s shape, list []*Record) error {
	id, known := d.templates[s]
	if !known {
		id = d.process.NewTemplateID()
		var elements []*entities.InfoElement
		for _, f := range fieldsOf(s) {
			el, err := f.element()
			if err != nil {
				return err
			}
			elements = append(elements, el)
		}
		set, err := entities.MakeTemplateSet(id, elements)
		if err != nil {
			return err
		}
		if _, err := d.process.SendSet(set); err != nil {
			return err
		}
		d.templates[s] = id
	}
	var out []entities.Record
	for _, r := range list {
		var values []entities.InfoElementWithValue
		for _, f := range fieldsOf(s) {
			el, err := f.element()
			if err != nil {
				return err
			}
			values = append(values, f.value(el, r))
		}
		out = append(out, entities.NewDataRecordFromElements(id, values, false))
	}
	_, _, err := d.process.SendDataRecords(id, out, nil)
	return err
}

// field is one information element, and how its value is made.
type field struct {
	name    string
	reverse bool // of RFC 5103
	value   func(*entities.InfoElement, *Record) entities.InfoElementWithValue
}

func (f *field) element() (*entities.InfoElement, error) {
	if f.reverse {
		return registry.GetInfoElement(f.name, registry.IANAReversedEnterpriseID)
	}
	return registry.GetInfoElement(f.name, registry.IANAEnterpriseID)
}

func u8(name string, of func(*Record) uint8) field {
	return field{name, false, func(e *entities.InfoElement, r *Record) entities.InfoElementWithValue {
		return entities.NewUnsigned8InfoElement(e, of(r))
	}}
}

func u16(name string, of func(*Record) uint16) field {
	return field{name, false, func(e *entities.InfoElement, r *Record) entities.InfoElementWithValue {
		return entities.NewUnsigned16InfoElement(e, of(r))
	}}
}

func u64(name string, reverse bool, of func(*Record) uint64) field {
	return field{name, reverse, func(e *entities.InfoElement, r *Record) entities.InfoElementWithValue {
		return entities.NewUnsigned64InfoElement(e, of(r))
	}}
}

func millis(name string, of func(*Record) time.Time) field {
	return field{name, false, func(e *entities.InfoElement, r *Record) entities.InfoElementWithValue {
		return entities.NewDateTimeMillisecondsInfoElement(e, uint64(of(r).UnixMilli())) //nolint:gosec // after 1970
	}}
}

func addr(name string, of func(*Record) netip.Addr) field {
	return field{name, false, func(e *entities.InfoElement, r *Record) entities.InfoElementWithValue {
		return entities.NewIPAddressInfoElement(e, of(r).AsSlice())
	}}
}

func mac(name string, of func(*Record) string) field {
	return field{name, false, func(e *entities.InfoElement, r *Record) entities.InfoElementWithValue {
		a, err := net.ParseMAC(of(r))
		if err != nil {
			a = make(net.HardwareAddr, 6)
		}
		return entities.NewMacAddressInfoElement(e, a)
	}}
}

// The lengths of an Ethernet header and of a VLAN tag in it, in bytes: IPFIX counts the octets of packets without them.
const (
	etherHeader uint64 = 14
	vlanTag     uint64 = 4
)

// vlansOf are the VLANs inside a transparent segment, the outer one first.
func vlansOf(r *Record) []uint16 {
	v, _ := ether.ParseVLANs(r.VLAN) // it was written by their String
	return v.List()
}

// fieldsOf lists the elements of records (IANA's registry for IPFIX; RFC 5103 for those of answers).
func fieldsOf(s shape) []field {
	out := []field{
		millis("flowStartMilliseconds", func(r *Record) time.Time { return r.First }),
		millis("flowEndMilliseconds", func(r *Record) time.Time { return r.Last }),
		u64("observationPointId", false, func(r *Record) uint64 { return uint64(r.Node.ID) }),
		u64("packetDeltaCount", false, func(r *Record) uint64 { return r.Frames }),
	}
	switch {
	case s.v4:
		out = append(out, addr("sourceIPv4Address", func(r *Record) netip.Addr { return r.Src }),
			addr("destinationIPv4Address", func(r *Record) netip.Addr { return r.Dst }))
	case s.v6:
		out = append(out, addr("sourceIPv6Address", func(r *Record) netip.Addr { return r.Src }),
			addr("destinationIPv6Address", func(r *Record) netip.Addr { return r.Dst }))
	}
	out = append(out,
		u8("protocolIdentifier", protocolOf),
		u16("sourceTransportPort", func(r *Record) uint16 { return r.SrcPort }),
		u16("destinationTransportPort", func(r *Record) uint16 { return r.DstPort }))
	if s.vlans > 0 {
		out = append(out, u16("dot1qVlanId", func(r *Record) uint16 { return vlansOf(r)[0] }))
	}
	if s.vlans > 1 {
		out = append(out, u16("dot1qCustomerVlanId", func(r *Record) uint16 { return vlansOf(r)[1] }))
	}
	if s.kind == Denied {
		return append(out, mac("sourceMacAddress", func(r *Record) string { return r.SrcMAC }), mac("destinationMacAddress", func(r *Record) string { return r.DstMAC }),
			u16("ethernetType", func(r *Record) uint16 {
				n, _ := strconv.ParseUint(r.EtherType, 0, 16)
				return uint16(n)
			}),
			u8("firewallEvent", func(*Record) uint8 { return flowDenied }))
	}
	header := etherHeader + vlanTag*uint64(s.vlans) //nolint:gosec // two at most
	return append(out,
		u64("octetDeltaCount", false, func(r *Record) uint64 { return r.Octets - header*r.Frames }),
		u64("reverseOctetDeltaCount", true, func(r *Record) uint64 { return r.AnswerOctets - header*r.AnswerFrames }),
		u64("reversePacketDeltaCount", true, func(r *Record) uint64 { return r.AnswerFrames }),
		u8("flowEndReason", endReason))
}

// flowDenied is a value of firewallEvent.
const flowDenied = 3

// protocolOf is the IP protocol; a Record calls ICMPv6 ICMP.
func protocolOf(r *Record) uint8 {
	const icmp, icmp6 = 1, 58
	if r.Protocol == icmp && r.Src.Is6() {
		return icmp6
	}
	return r.Protocol
}

// endReason is flowEndReason (RFC 5102 section 5.11.3).
func endReason(r *Record) uint8 {
	const idle, active, detected, forced, resources = 1, 2, 3, 4, 5
	switch r.End {
	case "idle":
		return idle
	case "closed":
		return detected
	case "cut":
		return forced
	case "evicted":
		return resources
	}
	return active
}
