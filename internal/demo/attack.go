package demo

import (
	"errors"
	"fmt"
	"net"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/etherloom/etherloom/internal/lab"
)

// spoof sends, as root on site a can, a frame that claims to be from site b.
func (s *show) spoof() error {
	s.title("Root on site a cannot be site b: a spoofed frame is refused and counted")
	victim, err := macOf(s.nodes[1].Host)
	if err != nil {
		return err
	}
	marker := []byte("spoofed-" + s.secrets.payload)
	frame := append(append(append(net.HardwareAddr{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}, victim...), 0x88, 0xb5), marker...)
	if err := inject(s.nodes[0].Host, frame); err != nil {
		return err
	}
	time.Sleep(500 * time.Millisecond)
	if seen, err := s.tap.Contains(marker); err != nil || seen {
		return errors.Join(err, errors.New("the spoofed frame arrived at site b"))
	}
	out, err := s.nodes[0].Loom(s.ctx, "drops")
	if err != nil {
		return err
	}
	s.typed("site a", "etherloom drops", out)
	if !strings.Contains(out, "source-mac") {
		return errors.New("the spoofed frame was not counted")
	}
	return nil
}

func macOf(h *lab.Host) (mac net.HardwareAddr, err error) {
	err = h.Do(func() error {
		ifi, err := net.InterfaceByName("loom0")
		if err == nil {
			mac = ifi.HardwareAddr
		}
		return err
	})
	return mac, err
}

// inject sends a frame out of a host's TAP.
func inject(h *lab.Host, frame []byte) error {
	return h.Do(func() error {
		ifi, err := net.InterfaceByName("loom0")
		if err != nil {
			return err
		}
		fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW, 0)
		if err != nil {
			return err
		}
		defer unix.Close(fd) //nolint:errcheck // only written
		return unix.Sendto(fd, frame, 0, &unix.SockaddrLinklayer{Ifindex: ifi.Index})
	})
}

// underlay searches everything that was captured, from before the first handshake on, for everything that is secret.
func (s *show) underlay() error {
	s.title("What somebody on the way has seen of all this: nothing")
	markers := map[string][]byte{"the payload": []byte(s.secrets.payload), "the label": []byte(s.secrets.label)}
	for _, n := range s.nodes {
		mac, err := macOf(n.Host)
		if err != nil {
			return err
		}
		markers["the name "+n.Name] = []byte(n.Name)
		markers["the MAC of "+n.Name] = mac
		markers["the token of "+n.Name] = []byte(n.Token[len(n.Token)/2:])
	}
	if seen, err := s.tap.Contains(markers["the payload"]); err != nil || !seen {
		return errors.Join(err, errors.New("the search does not even find the payload on site b's own device, so it would prove nothing"))
	}
	s.say("(on site b's own device loom0 the search finds the payload, as it must)")
	for _, c := range s.captures {
		frames, lost := c.Frames()
		for what, marker := range markers {
			seen, err := c.Contains(marker)
			if err != nil {
				return fmt.Errorf("%s: %w", c.where, err)
			}
			if seen {
				return fmt.Errorf("%s is in clear on %s", what, c.where)
			}
		}
		s.say("%-40s %6d frames, %d lost, %d secrets searched for, 0 found", c.where, frames, lost, len(markers))
	}
	return nil
}

func (s *show) remove() error {
	s.title("The grant is taken away while a ping runs")
	stop, done := make(chan struct{}), make(chan time.Time, 1)
	go func() { done <- s.lastAnswer(stop) }()
	time.Sleep(time.Second)
	if _, err := s.Admin(s.ctx, "grant", "remove", s.grantID); err != nil {
		return err
	}
	removed := time.Now()
	s.typed("admin", "etherloom grant remove "+s.grantID, "")
	time.Sleep(1500 * time.Millisecond)
	close(stop)
	last := <-done
	if last.IsZero() || last.Sub(removed) > time.Second {
		return fmt.Errorf("the last answer came %v after the grant was removed", last.Sub(removed))
	}
	s.say("the last answer came %v before the command had ended; device, peer and name are gone", removed.Sub(last).Round(time.Millisecond))
	return nil
}

// lastAnswer pings site b from site a until stop, and says when the last answer came.
func (s *show) lastAnswer(stop chan struct{}) (last time.Time) {
	for {
		select {
		case <-stop:
			return last
		case <-s.ctx.Done():
			return last
		default:
		}
		r, err := s.nodes[0].Host.Ping(s.ctx, s.addrs[1], lab.Echo{Count: 1, Wait: 100 * time.Millisecond})
		if err == nil && r.Received > 0 {
			last = time.Now()
		}
		time.Sleep(10 * time.Millisecond)
	}
}
