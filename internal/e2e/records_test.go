package e2e

import (
	"encoding/json"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/vmware/go-ipfix/pkg/collector"
	"github.com/vmware/go-ipfix/pkg/entities"
	"github.com/vmware/go-ipfix/pkg/registry"

	"github.com/etherloom/etherloom/internal/lab"
	"github.com/etherloom/etherloom/internal/world"
	"github.com/etherloom/etherloom/node"
	"github.com/etherloom/etherloom/node/records"
)

// written is what a node has recorded.
func written(t *testing.T, path string) (out []records.Record) {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		return nil
	}
	for line := range strings.Lines(string(data)) {
		var one records.Record
		if err := json.Unmarshal([]byte(line), &one); err != nil {
			t.Fatalf("%q: %v", line, err)
		}
		out = append(out, one)
	}
	return out
}

// carried adds up what flows to a port have carried.
func carried(list []records.Record, port uint16) (octets, answers uint64) {
	for _, r := range list {
		if r.Type == records.Flow && r.DstPort == port {
			octets, answers = octets+r.Octets, answers+r.AnswerOctets
		}
	}
	return octets, answers
}

// refused adds up the frames to a port that were refused.
func refused(list []records.Record, port uint16) (frames uint64, last records.Record) {
	for _, r := range list {
		if r.Type == records.Denied && r.DstPort == port {
			frames, last = frames+r.Frames, r
		}
	}
	return frames, last
}

// Both ends record what a flow has carried; what is refused is recorded with its reason and the grant that would let it pass,
// and told to the host at once if that is set; a collector decodes all of it; a scan does not flood the log.
func TestRecords(t *testing.T) {
	r := newRig(t)
	const interval = 500 * time.Millisecond
	files := map[string]string{}
	start := func(name string, args ...string) *world.Node {
		_, n := r.unstarted(name, lab.PortPreserving, "--label", "team=x")
		files[name] = filepath.Join(r.Dir(), name+"-flows.json")
		r.ok(n.Start(r.ctx, append(args, "--records-file", files[name], "--records-interval", interval.String())...))
		return n
	}
	a := start("a", "--policy-reject", "--records-ipfix", "127.0.0.1:4739")
	b := start("b")
	export := filepath.Join(r.Dir(), "export")
	_, err := a.Host.Start(r.ctx, "socat", "-u", "UDP-RECV:4739,bind=127.0.0.1", "CREATE:"+export)
	r.ok(err)
	granted, err := r.Grant(r.ctx, "label:team=x", "segment:lan", "--allow", "tcp:5001", "--allow", "icmp")
	r.ok(err)
	observed, err := r.Grant(r.ctx, "label:team=x", "segment:lan", "--allow", "tcp:80", "--mode", "observe")
	r.ok(err)
	addr := r.addresses(a, b)
	r.pings(a.Host, addr[1], 10*time.Second)

	const size = 3_000_000
	_, err = b.Host.Start(r.ctx, "socat", "-u", "TCP-LISTEN:5001,reuseaddr", "OPEN:/dev/null")
	r.ok(err)
	r.await("the transfer", 10*time.Second, func() bool {
		_, err := a.Host.Run(r.ctx, "sh", "-c", fmt.Sprintf("head -c %d /dev/zero | socat -u - TCP:%s:5001", size, addr[1]))
		return err == nil
	})
	for _, name := range []string{"a", "b"} {
		r.await("the flow is recorded on "+name, 10*time.Second, func() bool {
			octets, answers := carried(written(t, files[name]), 5001)
			return octets >= size && octets <= size*11/10 && answers > 0 && answers < size/10
		})
	}
	var flows struct {
		Flows []node.Flow `json:"flows"`
	}
	r.ok(b.Ask(r.ctx, &flows, "flows"))
	found := false
	for _, f := range flows.Flows {
		if found = f.DstPort == 5001 && f.From == "a" && f.To == "b" && strconv.Itoa(int(f.Grant)) == granted; found {
			e := r.explain(b, "--flow", fmt.Sprintf("tcp %s:%d %s:%d", f.Dst, f.DstPort, f.Src, f.SrcPort))
			if !e.Passes || strconv.Itoa(int(e.Grant)) != granted {
				t.Errorf("the next answer: %+v", e)
			}
			break
		}
	}
	if !found {
		t.Errorf("flows on b: %+v", flows.Flows)
	}

	began := time.Now()
	out, err := a.Host.Run(r.ctx, "socat", "-u", "/dev/null", fmt.Sprintf("TCP:%s:80,connect-timeout=10", addr[1]))
	if took := time.Since(began); err == nil || !strings.Contains(out, "refused") || took > 5*time.Second {
		t.Errorf("to a port that no grant allows: %v, %q after %v", err, out, took)
	}
	out, err = b.Host.Run(r.ctx, "socat", "-u", "/dev/null", fmt.Sprintf("TCP:%s:80,connect-timeout=2", addr[0]))
	if err == nil || !strings.Contains(out, "timed out") {
		t.Errorf("where the host is not to be told: %v, %q", err, out)
	}
	out, err = a.Host.Run(r.ctx, "sh", "-c", "printf x | socat -t 5 - UDP:"+addr[1]+":53")
	if err == nil || !strings.Contains(out, "No route to host") {
		t.Errorf("UDP that no grant allows: %v, %q", err, out)
	}
	for _, name := range []string{"a", "b"} {
		r.await("the refusal is recorded on "+name, 10*time.Second, func() bool {
			n, last := refused(written(t, files[name]), 80)
			return n > 0 && last.Verdict == "not-allowed" && last.Source.Name == name && last.Target != nil && last.Target.Name != name &&
				strconv.Itoa(int(last.Observed)) == observed
		})
	}
	var grants struct {
		Grants []node.GrantUse `json:"grants"`
	}
	r.ok(a.Ask(r.ctx, &grants, "grants"))
	for _, g := range grants.Grants {
		if g.Frames == 0 || g.Last.IsZero() || g.Observe != (strconv.Itoa(int(g.ID)) == observed) {
			t.Errorf("grant %+v", g)
		}
	}
	if len(grants.Grants) != 2 {
		t.Errorf("grants on a: %+v", grants.Grants)
	}
	r.decodes(export)
	r.scanned(a, addr[1], interval)

	idle, err := r.Grant(r.ctx, "label:team=x", "segment:lan", "--allow", "udp:9")
	r.ok(err)
	r.await("the controller knows what is used", 90*time.Second, func() bool {
		out, err := r.Admin(r.ctx, "policy", "unused", "--days", "0", "--json")
		r.ok(err)
		var list struct {
			Grants []struct {
				ID json.Number `json:"id"`
			} `json:"grants"`
		}
		r.ok(json.Unmarshal([]byte(out), &list))
		return len(list.Grants) == 1 && list.Grants[0].ID.String() == idle
	})
}

// decodes gives what was exported to a collector, which must understand it: the transfer, and what was refused.
func (r *rig) decodes(path string) {
	r.Helper()
	registry.LoadRegistry()
	r.await("the collector has the transfer and the refusal", 20*time.Second, func() bool {
		data, err := os.ReadFile(path)
		if err != nil || len(data) == 0 {
			return false
		}
		c, err := collector.InitCollectingProcess(collector.CollectorInput{Address: "127.0.0.1:0", Protocol: "tcp", MaxBufferSize: 65535})
		r.ok(err)
		go c.Start()
		defer c.Stop()
		for c.GetAddress() == nil || strings.HasSuffix(c.GetAddress().String(), ":0") {
			time.Sleep(time.Millisecond)
		}
		conn, err := net.Dial("tcp", c.GetAddress().String())
		r.ok(err)
		defer conn.Close()
		go func() { _, _ = conn.Write(data) }()
		octets, denied := uint64(0), false
		for {
			select {
			case m := <-c.GetMsgChan():
				if m.GetSet().GetSetType() != entities.Data {
					continue
				}
				for _, one := range m.GetSet().GetRecords() {
					v := one.GetElementMap()
					if n, is := v["octetDeltaCount"].(uint64); is && v["destinationTransportPort"] == uint16(5001) {
						octets += n
					}
					denied = denied || v["firewallEvent"] == uint8(3) && v["destinationTransportPort"] == uint16(80)
				}
			case <-time.After(500 * time.Millisecond):
				return octets >= 3_000_000 && octets < 3_300_000 && denied
			}
		}
	})
}

// scanned checks that a scan makes few lines in the log.
func (r *rig) scanned(from *world.Node, to string, interval time.Duration) {
	r.Helper()
	count := func() int {
		log, err := from.Daemon.Log()
		r.ok(err)
		return strings.Count(log, "frames were refused")
	}
	before, began := count(), time.Now()
	_, _ = from.Host.Run(r.ctx, "bash", "-c", fmt.Sprintf("for p in $(seq 2000 2300); do (echo > /dev/tcp/%s/$p) 2>/dev/null & done; sleep 4; kill $(jobs -p) 2>/dev/null", to))
	time.Sleep(2 * interval)
	intervals := int(time.Since(began)/interval) + 2
	n := count() - before
	r.Logf("%d lines in %d intervals", n, intervals)
	if n == 0 || n > 11*intervals || n > 300 {
		r.Errorf("a scan of 300 ports made %d lines in %d intervals", n, intervals)
	}
}
