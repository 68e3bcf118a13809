package node

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/etherloom/etherloom/control/controlv1"
	"github.com/etherloom/etherloom/ether"
	"github.com/etherloom/etherloom/identity"
	"github.com/etherloom/etherloom/internal/atomicfile"
)

// Declaration is a port onto a VLAN that the administrator of this machine, a gateway, wants. The controllers sign it, if the gateway may.
type Declaration struct {
	Port       string `yaml:"port" mapstructure:"port" json:"port"`
	Segment    string `yaml:"segment" mapstructure:"segment" json:"segment"`
	NIC        string `yaml:"nic,omitempty" mapstructure:"nic" json:"nic,omitempty"`
	Bridge     string `yaml:"bridge,omitempty" mapstructure:"bridge" json:"bridge,omitempty"`
	VLAN       int    `yaml:"vlan,omitempty" mapstructure:"vlan" json:"vlan,omitempty"`
	Native     string `yaml:"native,omitempty" mapstructure:"native" json:"native,omitempty"`
	Service    bool   `yaml:"service,omitempty" mapstructure:"service" json:"service,omitempty"`
	Priority   string `yaml:"priority,omitempty" mapstructure:"priority" json:"priority,omitempty"`
	Preference int    `yaml:"preference,omitempty" mapstructure:"preference" json:"preference,omitempty"`
	MoveHost   bool   `yaml:"move_host,omitempty" mapstructure:"move_host" json:"move_host,omitempty"`
	Confirm    string `yaml:"confirm,omitempty" mapstructure:"confirm" json:"confirm,omitempty"` // a time; 0: no confirmation; empty: 60s
}

// DefaultConfirm is how long a move of the host waits for its confirmation.
const DefaultConfirm = time.Minute

// check says what is wrong with a declaration by itself. The controllers hold it against the network.
func (a Declaration) check() error {
	if err := identity.CheckHostName(a.Port); err != nil {
		return fmt.Errorf("port: %w", err)
	}
	confirm, err := a.confirm()
	switch {
	case a.Segment == "":
		return fmt.Errorf("port %s: say of which segment the VLAN is", a.Port)
	case a.NIC == "" && a.Bridge == "":
		return fmt.Errorf("port %s: say on which NIC the VLAN is (--nic, such as --nic eth1), or on which bridge of this machine (--bridge)", a.Port)
	case a.NIC != "" && a.Bridge != "":
		return fmt.Errorf("port %s is on a NIC (--nic) or on a bridge (--bridge), one of the two: found NIC %q, bridge %q", a.Port, a.NIC, a.Bridge)
	case a.VLAN < 0 || a.VLAN > ether.MaxVLAN:
		return fmt.Errorf("port %s: VLAN is %d, expected 1 to %d, or none for untagged frames", a.Port, a.VLAN, ether.MaxVLAN)
	case a.Preference < 0 || a.Preference > 1<<16-1:
		return fmt.Errorf("port %s: preference is %d, expected 0 to 65535", a.Port, a.Preference)
	case err != nil || confirm < 0:
		return fmt.Errorf("port %s: confirm is %q, expected a time such as 60s, or 0", a.Port, a.Confirm)
	}
	return nil
}

func (a Declaration) confirm() (time.Duration, error) {
	if a.Confirm == "" {
		return DefaultConfirm, nil
	}
	return time.ParseDuration(a.Confirm)
}

func (a Declaration) proto() *controlv1.DeclaredAttachment {
	confirm, _ := a.confirm()
	return &controlv1.DeclaredAttachment{
		Port: a.Port, Segment: a.Segment, Nic: a.NIC, Bridge: a.Bridge, Vlan: uint32(a.VLAN), Native: a.Native, Service: a.Service, //nolint:gosec // checked
		Priority: a.Priority, Preference: uint32(a.Preference), MoveHost: a.MoveHost, Confirm: durationpb.New(confirm), //nolint:gosec // checked
	}
}

// checkDeclarations says what is wrong with a list of them.
func checkDeclarations(list []Declaration) error {
	var errs []error
	for i, a := range list {
		errs = append(errs, a.check())
		if slices.ContainsFunc(list[:i], func(o Declaration) bool { return o.Port == a.Port }) {
			errs = append(errs, fmt.Errorf("port %s is there twice", a.Port))
		}
	}
	return errors.Join(errs...)
}

// declaredFile is what is kept of attachments that were added by command.
type declaredFile struct {
	Schema      int           `json:"schema"`
	Attachments []Declaration `json:"attachments"`
}

func (d *Daemon) loadDeclared() error {
	var f declaredFile
	if err := readJSON(d.dir.Path("attachments.json"), &f, "which holds what `etherloom attachment add` has added"); err != nil {
		return err
	}
	d.declared = slices.DeleteFunc(f.Attachments, func(a Declaration) bool { return d.configured(a.Port) != nil })
	return nil
}

// readJSON reads a file of the state directory; what is not there leaves the zero value.
func readJSON[T any](path string, into *T, what string) error {
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	var f struct{ Schema int }
	err = json.Unmarshal(data, &f)
	if err == nil && f.Schema != Schema {
		err = fmt.Errorf("expected schema %d, found %d", Schema, f.Schema)
	}
	if err == nil {
		err = json.Unmarshal(data, into)
	}
	if err != nil {
		return fmt.Errorf("%s, %s, cannot be read: correct it, or move it away: %w", path, what, err)
	}
	return nil
}

func writeJSON(path string, v any) error {
	data, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return err
	}
	return atomicfile.Write(path, append(data, '\n'), 0o600)
}

func (d *Daemon) saveDeclared(list []Declaration) error {
	return writeJSON(d.dir.Path("attachments.json"), declaredFile{Schema, list})
}

// configured is the declaration of a port in the configuration; nil if there is none.
func (d *Daemon) configured(port string) *Declaration {
	i := slices.IndexFunc(d.cfg.Attachments, func(a Declaration) bool { return a.Port == port })
	if i < 0 {
		return nil
	}
	return &d.cfg.Attachments[i]
}

// declarationsLocked are those of the configuration and of commands.
func (d *Daemon) declarationsLocked() []Declaration {
	return append(slices.Clone(d.cfg.Attachments), d.declared...)
}

// attachmentsLocked are the ports onto VLANs that the state gives this node, in order, but for those that were declared here and are not any
// more: the controllers need not be reached to take one away.
func (d *Daemon) attachmentsLocked() []*controlv1.Attachment {
	var out []*controlv1.Attachment
	for _, a := range d.contents.Attachments {
		if a.GetDeclared() && !slices.ContainsFunc(d.declarationsLocked(), func(w Declaration) bool { return w.Port == a.GetPort() }) {
			if d.refused[a.GetPort()] == "" {
				d.declareSoon()
			}
			continue
		}
		out = append(out, a)
	}
	slices.SortFunc(out, func(a, b *controlv1.Attachment) int { return cmp.Compare(a.GetId(), b.GetId()) })
	return out
}

// attachmentLocked is the port of the state that has a name; nil if there is none.
func (d *Daemon) attachmentLocked(port string) *controlv1.Attachment {
	if d.contents == nil {
		return nil
	}
	list := d.attachmentsLocked()
	i := slices.IndexFunc(list, func(a *controlv1.Attachment) bool { return a.GetPort() == port })
	if i < 0 {
		return nil
	}
	return list[i]
}

// declareSoon makes the controllers be told.
func (d *Daemon) declareSoon() {
	select {
	case d.undeclared <- struct{}{}:
	default:
	}
}

const (
	declareAgain = 30 * time.Second // after something was refused: the segment, or the role, may be there by then
	declareRetry = time.Second      // while no controller is reached
	declareCall  = 10 * time.Second
)

// declare tells the controllers what this gateway declares, when that has changed, until they have heard it.
func (d *Daemon) declare(ctx context.Context) error {
	d.declareSoon()
	again := time.NewTimer(time.Hour)
	defer again.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-d.undeclared:
		case <-again.C:
		}
		if wait := d.declareOnce(ctx); wait > 0 {
			again.Reset(wait)
		}
	}
}

// declareOnce says when to do so again; zero: when something has changed.
func (d *Daemon) declareOnce(ctx context.Context) time.Duration {
	if !d.hasDeclared() {
		return 0
	}
	if !d.client.Connected() {
		d.tellRefusals(errNoController)
		return declareRetry
	}
	err := d.tellControllers(ctx)
	d.tellRefusals(err)
	d.mu.Lock()
	defer d.mu.Unlock()
	if err != nil || len(d.refused) > 0 {
		return declareAgain
	}
	return 0
}

// hasDeclared reports whether there is, or was, anything to declare, or a problem about it.
func (d *Daemon) hasDeclared() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if len(d.declarationsLocked()) > 0 || len(d.refused) > 0 || len(d.waiting) > 0 {
		return true
	}
	if d.contents != nil {
		for _, a := range d.contents.Attachments {
			if a.GetDeclared() {
				return true
			}
		}
	}
	return false
}

var errNoController = errors.New("no controller can be reached")

// tellControllers declares all, and takes down what is refused.
func (d *Daemon) tellControllers(ctx context.Context) error {
	d.declaring.Lock()
	defer d.declaring.Unlock()
	ctx, cancel := context.WithTimeout(ctx, declareCall)
	defer cancel()
	d.mu.Lock()
	var list []*controlv1.DeclaredAttachment
	for _, a := range d.declarationsLocked() {
		list = append(list, a.proto())
	}
	d.mu.Unlock()
	refused, err := d.client.Declare(ctx, list)
	if err != nil {
		return err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.refused = refused
	return nil
}

// tellRefusals makes what waits, or was refused, be problems; err is why the controllers were not told.
func (d *Daemon) tellRefusals(err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for about := range d.waiting {
		if d.refused[about] == "" {
			d.problemLocked("attachment "+about, nil)
		}
	}
	d.waiting = make(map[string]bool)
	for port, text := range d.refused {
		d.waiting[port] = true
		d.problemLocked("attachment "+port, errors.New(text))
	}
	if err == nil {
		return
	}
	for _, a := range d.declarationsLocked() {
		if d.refused[a.Port] == "" && d.attachmentLocked(a.Port) == nil {
			d.waiting[a.Port] = true
			d.problemLocked("attachment "+a.Port, fmt.Errorf("it is declared here and waits for a controller to sign it: %w", err))
		}
	}
}
