package bridge

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/etherloom/etherloom/internal/atomicfile"
)

// changes is what a wire has changed on a NIC and what does not end with the process. It is written to a file before anything
// is changed, so that it can be changed back after a crash.
type changes struct {
	Schema int    `json:"schema"`
	Boot   string `json:"boot"` // what is changed is gone with a reboot
	NIC    string `json:"nic"`
	Index  int    `json:"index"`
	MAC    string `json:"mac"`
	Clsact bool   `json:"clsact"` // it had no clsact
	Flags  uint32 `json:"flags"`  // of ethtool's that it had on and must not have: flagLRO
	Down   bool   `json:"down"`   // it was down

	Host *relocation `json:"host,omitempty"` // what the host had on it, if that was moved
}

// A journal of what was moved has a schema that older versions refuse: they would leave the host's addresses where they are.
const (
	journalSchema = 1
	movedSchema   = 2
)

// look notes what will have to be changed on a NIC, on which some flags are unwanted.
func look(h *netlink.Handle, sock int, link netlink.Link, unwanted uint32) (changes, error) {
	a := link.Attrs()
	boot, err := bootID()
	if err != nil {
		return changes{}, err
	}
	has, err := hasHook(h, link)
	if err != nil {
		return changes{}, err
	}
	flags, err := ethtoolFlags{sock, a.Name}.on(unwanted)
	if err != nil {
		return changes{}, fmt.Errorf("ask for its offloads: %w", err)
	}
	return changes{
		Schema: journalSchema, Boot: boot, NIC: a.Name, Index: a.Index, MAC: a.HardwareAddr.String(),
		Clsact: !has, Flags: flags, Down: a.Flags&net.FlagUp == 0,
	}, nil
}

func bootID() (string, error) {
	text, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	return strings.TrimSpace(string(text)), err
}

func (c changes) write(path string) error {
	text, err := json.Marshal(c)
	if err != nil {
		return err
	}
	return atomicfile.Write(path, append(text, '\n'), 0o600)
}

// undo changes everything back that somebody else has not changed meanwhile. A NIC that is gone needs nothing. The journal is where it is
// taken down how far that is.
func (c *changes) undo(h *netlink.Handle, sock int, raw *rawSocket, journal string) error {
	link, err := c.find(h)
	if err != nil {
		return err
	}
	if c.Host != nil {
		if err := raw.giveBack(h, c, link, journal); err != nil {
			return fmt.Errorf("give %s back what the host had on it: %w", c.NIC, err)
		}
	}
	if link == nil {
		return nil
	}
	a := link.Attrs()
	err = stopRedirecting(h, link)
	if c.Clsact {
		err = errors.Join(err, removeHook(h, link))
	}
	if c.Flags != 0 {
		err = errors.Join(err, ethtoolFlags{sock, a.Name}.set(c.Flags, true))
	}
	if c.Down && needed(h, link) == nil { // otherwise the host has made use of it since
		err = errors.Join(err, h.LinkSetDown(link))
	}
	if err != nil {
		return fmt.Errorf("change %s back: %w", a.Name, err)
	}
	return nil
}

// find finds the NIC; nil if it is gone. Another device may have its number, and its MAC is another, perhaps, by now: a bond has that of the part which
// sends, and a network daemon may choose one. Then it is known by what we have done to it.
func (c *changes) find(h *netlink.Handle) (netlink.Link, error) {
	link, err := h.LinkByIndex(c.Index)
	if isGone(err) {
		return nil, nil //nolint:nilnil // it is no error that it is gone
	}
	if err != nil {
		return nil, fmt.Errorf("find network device %s: %w", c.NIC, err)
	}
	if link.Attrs().HardwareAddr.String() == c.MAC {
		return link, nil
	}
	if c.Host != nil {
		bridge, err := ourBridge(h, c.Host.Bridge, c.MAC)
		if err != nil || bridge == nil || link.Attrs().MasterIndex != bridge.Index {
			return nil, err
		}
		return link, nil
	}
	ours, _, err := redirections(h, link)
	if err != nil || len(ours) == 0 {
		return nil, err
	}
	return link, nil
}

// RestoreNIC changes back what a wire that was not closed has changed on its NIC, if the journal says so, and removes the journal.
// NewWire does it by itself; this is for a NIC that is no wire's any more.
func RestoreNIC(journal string) error {
	h, sock, err := sockets()
	if err != nil {
		return err
	}
	defer h.Close()
	defer unix.Close(sock) //nolint:errcheck // nothing is written to it
	raw, err := openRaw()
	if err != nil {
		return err
	}
	defer raw.close()
	return restore(h, sock, raw, journal)
}

func restore(h *netlink.Handle, sock int, raw *rawSocket, journal string) error {
	text, err := os.ReadFile(journal)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("read what was changed on a NIC: %w", err)
	}
	var c changes
	if err := json.Unmarshal(text, &c); err != nil || c.Schema != journalSchema && (c.Schema != movedSchema || c.Host == nil) {
		return fmt.Errorf("%s does not say, in this version's words, what was changed on a NIC (schema %d, want %d or %d): see what is wrong with "+
			"`tc filter show dev NIC ingress` and `ip addr`, remove what is not wanted, and the file: %w", journal, c.Schema, journalSchema, movedSchema, err)
	}
	boot, err := bootID()
	if err != nil {
		return err
	}
	if c.Boot == boot {
		if link, err := h.LinkByIndex(c.Index); err == nil {
			if err := because(h, link, joinedAlready); err != nil {
				return err
			}
		}
		if err := c.undo(h, sock, raw, journal); err != nil {
			return err
		}
	}
	return os.Remove(journal)
}

// sockets are what a wire needs to speak with the kernel about the devices of the present namespace, from any thread: netlink, and
// a packet socket that receives nothing.
func sockets() (*netlink.Handle, int, error) {
	h, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return nil, -1, fmt.Errorf("open netlink: %w", err)
	}
	sock, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		h.Close()
		return nil, -1, fmt.Errorf("open a packet socket (that needs CAP_NET_RAW): %w", err)
	}
	return h, sock, nil
}
