// Package world is a whole Etherloom network in a lab: a controller with its relay, sites behind routers, nodes. The demo
// and the end-to-end tests are told in its terms. Every program in it is the real one, in a process and a namespace of its
// own.
//
//	[controller 203.0.113.10]--+        +--[router of site a 203.0.113.21]--192.0.2.0/24--[node]
//	                           internet-+
//	                                    +--[router of site b 203.0.113.22]--192.0.2.0/24--[node]
//
// Every site uses the same addresses inside, as sites do.
package world

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/etherloom/etherloom/internal/lab"
)

// Addresses that do not change.
const (
	ControllerAddr = "203.0.113.10"
	controllerURL  = "https://203.0.113.10:443"
	insidePrefix   = "192.0.2."
)

// World is a network in a lab.
type World struct {
	Lab        *lab.Lab
	Internet   *lab.Host
	Controller *lab.Host
	bin        string
	sites      int
	daemon     *lab.Process
}

// New builds the internet and the controller's host. bin is the directory of the two programs.
func New(prefix, bin string) (*World, error) {
	for _, p := range []string{"etherloom", "etherloom-controller"} {
		if _, err := os.Stat(filepath.Join(bin, p)); err != nil {
			return nil, fmt.Errorf("the program %s is missing: run `make build` first", filepath.Join(bin, p))
		}
	}
	l, err := lab.New(prefix)
	if err != nil {
		return nil, err
	}
	w := &World{Lab: l, bin: bin}
	if err := w.build(); err != nil {
		return nil, errors.Join(err, l.Close())
	}
	return w, nil
}

func (w *World) build() (err error) {
	if w.Internet, err = w.Lab.AddBridge("internet"); err != nil {
		return err
	}
	if w.Controller, err = w.Lab.AddHost("controller"); err != nil {
		return err
	}
	_, err = w.Controller.Join(w.Internet, "eth0", ControllerAddr+"/24", "2001:db8::10/64")
	return err
}

// Close ends every process and removes everything.
func (w *World) Close() error { return w.Lab.Close() }

// Dir returns a directory that goes with the lab.
func (w *World) Dir() string { return w.Lab.Dir() }

func (w *World) dataDir() string { return filepath.Join(w.Dir(), "controller") }

// StartController starts the controller, with its relay beside it, and waits until it serves.
func (w *World) StartController(ctx context.Context, args ...string) error {
	args = append([]string{
		"--data-dir", w.dataDir(), "--listen", ":443", "--advertise", controllerURL, "--udp", ":3478",
	}, args...)
	p, err := w.Controller.Start(ctx, filepath.Join(w.bin, "etherloom-controller"), args...)
	if err != nil {
		return err
	}
	w.daemon = p
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	if err := p.WaitLog(ctx, "controller is ready"); err != nil {
		log, _ := p.Log()
		return fmt.Errorf("the controller does not start: %w\n%s", err, log)
	}
	return nil
}

// ControllerProcess is the running controller.
func (w *World) ControllerProcess() *lab.Process { return w.daemon }

// Admin runs an administrator's command on the controller's host and returns what it prints.
func (w *World) Admin(ctx context.Context, args ...string) (string, error) {
	args = append(args, "--admin", filepath.Join(w.dataDir(), "admin.json"))
	out, err := w.Controller.Run(ctx, filepath.Join(w.bin, "etherloom"), args...)
	if err != nil {
		return out, fmt.Errorf("etherloom %s: %w: %s", strings.Join(args, " "), err, strings.TrimSpace(out))
	}
	return out, nil
}

// Grant gives a selector a segment and returns the grant's number.
func (w *World) Grant(ctx context.Context, from, to string, args ...string) (string, error) {
	out, err := w.Admin(ctx, append([]string{"grant", "add", "--from", from, "--to", to, "--json"}, args...)...)
	if err != nil {
		return "", err
	}
	var g struct {
		ID json.Number `json:"id"`
	}
	if err := json.Unmarshal([]byte(out), &g); err != nil {
		return "", fmt.Errorf("grant add printed %q: %w", out, err)
	}
	return g.ID.String(), nil
}

// Site is a LAN behind a router.
type Site struct {
	World  *World
	Name   string
	Router *lab.Host
	LAN    *lab.Host
	Public *lab.Link // the router's link to the internet
	hosts  int
}

// Site adds a site whose router guards it.
func (w *World) Site(name string, guard lab.Guard) (*Site, error) {
	w.sites++
	s := &Site{World: w, Name: name, hosts: 1}
	var err error
	if s.Router, err = w.Lab.AddRouter("router-" + name); err != nil {
		return nil, err
	}
	if s.LAN, err = w.Lab.AddBridge("lan-" + name); err != nil {
		return nil, err
	}
	if s.Public, err = s.Router.Join(w.Internet, "wan", fmt.Sprintf("203.0.113.%d/24", 20+w.sites)); err != nil {
		return nil, err
	}
	if _, err = s.Router.Join(s.LAN, "lan", insidePrefix+"1/24"); err != nil {
		return nil, err
	}
	return s, s.Router.Protect(s.Public, guard)
}

// Host adds a machine to the site.
func (s *Site) Host(name string) (*lab.Host, *lab.Link, error) {
	h, err := s.World.Lab.AddHost(name)
	if err != nil {
		return nil, nil, err
	}
	s.hosts++
	link, err := h.Join(s.LAN, "eth0", fmt.Sprintf("%s%d/24", insidePrefix, s.hosts))
	if err != nil {
		return nil, nil, err
	}
	return h, link, h.AddRoute("default", insidePrefix+"1")
}
