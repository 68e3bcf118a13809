package hostdns

import (
	"net/netip"
	"slices"
	"strings"
)

// conf is what resolv.conf(5) says, as glibc reads it (resolv/res_init.c): a keyword at the very beginning of a line,
// then blanks, then its values. Any other line is a comment.
type conf struct {
	nameservers []netip.Addr
	search      []string
}

func parseConf(content []byte) conf {
	var c conf
	for line := range strings.Lines(string(content)) {
		switch keyword, values := splitLine(line); keyword {
		case "nameserver":
			if a, ok := parseNameserver(values); ok {
				c.nameservers = append(c.nameservers, a)
			}
		case "search", "domain":
			c.search = values // the last line of either kind counts
		}
	}
	return c
}

func splitLine(line string) (keyword string, values []string) {
	fields := strings.FieldsFunc(line, func(c rune) bool { return strings.ContainsRune(" \t\r\n\v\f\x00", c) })
	if len(fields) == 0 || !strings.HasPrefix(line, fields[0]) {
		return "", nil
	}
	return fields[0], fields[1:]
}

// parseNameserver reads an address, which may have the scope of a link (fe80::1%eth0) and a comment right behind it.
func parseNameserver(values []string) (netip.Addr, bool) {
	if len(values) == 0 {
		return netip.Addr{}, false
	}
	text, _, _ := strings.Cut(values[0], "#")
	text, _, _ = strings.Cut(text, ";")
	a, err := netip.ParseAddr(text)
	return a.Unmap(), err == nil
}

// marker begins each line that only we write.
const marker = "# etherloom: "

// compose writes our resolv.conf: our server first, then all lines of the original, except that
//   - our server is not named twice;
//   - where no nameserver is named at all, the one on this machine is: resolv.conf(5) has it as the default;
//   - the option rotate goes, since with it other nameservers would be asked for our names;
//   - with a domain to search, the search list has it at its end.
//
// hostDomain is where glibc searches if the original does not say.
func compose(original []byte, t Target, hostDomain string) []byte {
	var b strings.Builder
	b.WriteString(marker + "The first nameserver is this host's own and knows the network's names.\n")
	b.WriteString(marker + "The file that was here comes back when the daemon stops.\n")
	b.WriteString("nameserver " + t.Server.Addr().String() + "\n")
	for line := range strings.Lines(string(original)) {
		if line, ok := adapt(strings.TrimRight(line, "\n"), t); ok {
			b.WriteString(line + "\n")
		}
	}
	was := parseConf(original)
	if len(was.nameservers) == 0 {
		b.WriteString("nameserver 127.0.0.1\n")
	}
	if t.Search != "" {
		search := was.search
		if search == nil && hostDomain != "" {
			search = []string{hostDomain}
		}
		if !slices.Contains(search, t.Search) {
			search = append(slices.Clone(search), t.Search)
		}
		b.WriteString("search " + strings.Join(search, " ") + "\n")
	}
	return []byte(b.String())
}

// adapt returns a line of the original as it shall be in ours, or false if it shall not.
func adapt(line string, t Target) (string, bool) {
	keyword, values := splitLine(line)
	switch keyword {
	case "nameserver":
		a, ok := parseNameserver(values)
		return line, !ok || a != t.Server.Addr()
	case "search", "domain":
		return line, t.Search == ""
	case "options":
		if slices.Contains(values, "rotate") {
			values = slices.DeleteFunc(slices.Clone(values), func(v string) bool { return v == "rotate" })
			return "options " + strings.Join(values, " "), len(values) > 0
		}
	}
	return line, !strings.HasPrefix(line, marker)
}
