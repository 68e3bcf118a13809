package e2e

import (
	"fmt"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// answersItself tells the programs on an attacker's host, again and again, which MAC its target has: those that send raw frames ask by
// themselves. They see what goes out as well as what comes in.
func (e *evading) answersItself(a *attacker) {
	packet := ipv6(a.at.v6.AsSlice(), a.v6.AsSlice(), unix.IPPROTO_ICMPV6, neighbour(neighbourAdvertise, 0x60, a.at.v6, option(2, a.at.mac)))
	packet[7] = 255
	checksumICMP(packet)
	answer := append(ethernet(a.mac, a.mac, unix.ETH_P_IPV6), packet...) // which the switch carries nowhere
	go func() {
		for ; e.ctx.Err() == nil; time.Sleep(100 * time.Millisecond) {
			_ = unix.Send(a.socket, answer, 0) // when the test is over there is no TAP
		}
	}()
}

// evadingScans are nmap's ways around a filter.
func evadingScans(a *attacker) [][]string {
	scan := func(v6 bool, options ...string) []string {
		command := []string{"nmap", "-Pn", "-n", "--disable-arp-ping", "--send-ip", "-e", "loom0", "--max-retries", "0", "--host-timeout", "10s"}
		target := a.at.v4.String()
		if v6 {
			command, target = append(command, "-6"), a.at.v6.String()
		}
		return append(append(command, options...), target)
	}
	const four, six = false, true
	return [][]string{
		scan(four, "-p", "445", "-sS"), scan(four, "-p", "445", "-sA"), scan(four, "-p", "445", "-sF"), scan(four, "-p", "445", "-sX"),
		scan(four, "-p", "445", "-sN"), scan(four, "-p", "445", "-sM"), scan(four, "-p", "445", "-sW"),
		scan(four, "-p", "445", "-sS", "-f"), scan(four, "-p", "445", "-sS", "-f", "-f"),
		scan(four, "-p", "445", "-sS", "--mtu", "8"), scan(four, "-p", "445", "-sS", "--mtu", "16"),
		scan(four, "-p", "445", "-sS", "--mtu", "24"), scan(four, "-p", "445", "-sS", "--mtu", "32"),
		scan(four, "-p", "445", "-sS", "--mtu", "24", "--data-length", "100"), scan(four, "-p", "445", "-sF", "-f"),
		scan(four, "-p", "445", "-sS", "--data-length", "500"), scan(four, "-p", "445", "-sS", "--scanflags", "SYNFIN"),
		scan(four, "-p", "445", "-sS", "--ip-options", "R"), scan(four, "-p", "445", "-sS", "--ip-options", "T"),
		scan(four, "-p", "445", "-sS", "--ip-options", "L "+a.at.v4.String()),
		scan(four, "-p", "445", "-sS", "--ip-options", "S "+a.at.v4.String()),
		scan(four, "-p", "445", "-sS", "--ip-options", `\x01*40`), scan(four, "-p", "445", "-sS", "-f", "--ip-options", `\x01*40`),
		scan(four, "-p", "445", "-sS", "-g", "80"), scan(four, "-p", "445", "-sS", "-g", "53"), scan(four, "-p", "445", "-sS", "--badsum"),
		scan(four, "-p", "445", "-sS", "-S", a.at.v4.Next().Next().String()), scan(four, "-p", "445", "-sS", "-D", "RND:3"),
		scan(four, "-p", "445", "-sU"), scan(four, "-p", "445", "-sU", "-f", "--data-length", "100"), scan(four, "-p", "445", "-sU", "-g", "5000"),
		scan(six, "-p", "445", "-sS"), scan(six, "-p", "445", "-sA"), scan(six, "-p", "445", "-sF"), scan(six, "-p", "445", "-sS", "-g", "80"),
		scan(six, "-p", "445", "-sS", "--data-length", "500"), scan(six, "-p", "445", "-sU"), scan(six, "-p", "445", "-sU", "-g", "5000"),
	}
}

// headerTools are what thc-ipv6 knows, test by test: each program does its own one after the other, with long pauses.
func headerTools(a *attacker) (commands [][]string) {
	to := a.at.v6.String()
	for test := 1; test <= 39; test++ {
		commands = append(commands, []string{"atk6-firewall6", "loom0", to, "445", fmt.Sprint(test)})
		if test <= 38 && a.name != "alpha" {
			commands = append(commands, []string{"atk6-firewall6", "-u", "loom0", to, "445", fmt.Sprint(test)})
		}
	}
	for test := 1; test <= 57; test++ {
		commands = append(commands, []string{"atk6-implementation6", "-p", "loom0", to, fmt.Sprint(test)})
	}
	for test := 1; test <= 24; test++ {
		commands = append(commands, []string{"atk6-fragmentation6", "-p", "loom0", to, fmt.Sprint(test)})
	}
	for _, how := range [][]string{{"-s", "445"}, {"-s", "445", "-F"}, {"-s", "445", "-D"}, {"-s", "445", "-S"}, {"-s", "445", "-H"}, {"-F"}, {"-X", "-F", "-D"}} {
		commands = append(commands, append(append([]string{"atk6-fuzz_ip6", "-a"}, how...), "loom0", to))
	}
	return commands
}

// atOnce is how many programs an attacker runs at a time: most of the time they wait.
const atOnce = 12

// run runs an attacker's programs and returns what they print.
func (e *evading) run(a *attacker, most time.Duration, commands [][]string) []string {
	out := make([]string, len(commands))
	var group sync.WaitGroup
	places := make(chan struct{}, atOnce)
	for i, command := range commands {
		places <- struct{}{}
		group.Go(func() {
			out[i] = e.within(most, a.host, command)
			<-places
		})
	}
	group.Wait()
	return out
}

// programsEvade: what attackers have does not reach the port that is not granted, and does where there is no guard.
func (e *evading) programsEvade() {
	lies := e.assembled(e.bare.tap, e.cable.mac, false).overlaps
	was := sum(e.bare.kernel.to(closedPort))
	var all sync.WaitGroup
	for _, a := range []*attacker{e.alpha, e.liar, e.cable} {
		all.Go(func() { e.programsOf(a) })
	}
	all.Wait()
	e.nothingHidden()
	taken, overlaps := sum(e.bare.kernel.to(closedPort))-was, e.assembled(e.bare.tap, e.cable.mac, false).overlaps-lies
	e.Logf("where there is no guard the kernel takes %d segments of theirs, and %d fragments overlap", taken, overlaps)
	if taken < 100 || overlaps < 10 {
		e.Errorf("where there is no guard the kernel takes %d segments of theirs, and %d fragments overlap: the attacks are none", taken, overlaps)
	}
	refused := e.dropped(e.node)
	for _, reason := range []string{"not-allowed", "bad-fragment", "undetermined", "bad-header", "ip-source"} {
		if refused[reason] == 0 {
			e.Errorf("bravo has refused nothing as %s: %v", reason, refused)
		}
	}
}

// programsOf runs the programs of one attacker, and reads what they say.
func (e *evading) programsOf(a *attacker) {
	start := time.Now()
	scans := evadingScans(a)
	open, guarded := 0, a != e.cable
	for i, out := range e.run(a, time.Minute, scans) {
		reaches := strings.Contains(out, "445/tcp open ")
		if !strings.Contains(out, "Nmap done") || reaches && guarded {
			e.Errorf("%s: %s: %s", a.name, strings.Join(scans[i], " "), out)
		}
		if reaches {
			open++
		}
	}
	scanned, tools := time.Since(start), headerTools(a)
	for i, out := range e.run(a, 6*time.Second, tools) {
		reaches := strings.Contains(out, "TCP-SYN-ACK received")
		if strings.Contains(out, "resolve") || reaches && guarded {
			e.Errorf("%s: %s: %s", a.name, strings.Join(tools[i], " "), out)
		}
		if reaches {
			open++
		}
	}
	e.Logf("%s: nmap took %v, thc-ipv6 %v; %d say that the port is open", a.name, scanned, time.Since(start)-scanned, open)
	if !guarded && open < 25 {
		e.Errorf("where there is no guard %d programs say that the port is open: the others are no attacks", open)
	}
	if !guarded {
		return
	}
	// The same programs find what is granted.
	for _, options := range [][]string{{"-sS"}, {"-sS", "-g", "445"}, {"-sS", "--mtu", "24", "--data-length", "100"}, {"-6", "-sS"}} {
		command := append([]string{"nmap", "-Pn", "-n", "--disable-arp-ping", "--send-ip", "-e", "loom0", "-p", "80"}, options...)
		to := a.at.v4
		if options[0] == "-6" {
			to = a.at.v6
		}
		if out := e.within(15*time.Second, a.host, append(command, to.String())); !strings.Contains(out, "80/tcp open ") {
			e.Errorf("%s: nmap %v to port 80: %s", a.name, options, out)
		}
	}
}
