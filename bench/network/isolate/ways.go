package main

import (
	"bytes"
	"errors"
	"fmt"
	"log"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"
)

// ways makes the list of what is measured; mobileops is the first.
func (b *bench) ways() error {
	for _, w := range []struct {
		name  string
		needs string
		setUp func(name string, p *pair) (*way, error)
	}{
		{"mobileops", b.mobileops, b.mobileopsWay},
		{"nft -f", "nft", b.nftWay},
		{"iptables-nft", "iptables-nft-restore", b.iptablesWay},
		{"iptables-legacy", "iptables-legacy-restore", b.iptablesWay},
		{"ufw", "ufw", b.ufwWay},
		{"firewalld", "firewall-cmd", b.firewalldWay},
	} {
		if len(b.only) > 0 && !slices.Contains(b.only, w.name) {
			continue
		}
		if _, err := exec.LookPath(w.needs); err != nil {
			log.Printf("%s is not measured: %v", w.name, err)
			continue
		}
		dir := filepath.Join(b.dir, w.name)
		if err := os.Mkdir(dir, 0o700); err != nil {
			return err
		}
		p, err := newPair(dir)
		if err != nil {
			return fmt.Errorf("%s: %w", w.name, err)
		}
		b.pairs = append(b.pairs, p)
		made, err := w.setUp(w.name, p)
		if err != nil {
			return fmt.Errorf("%s: %w", w.name, err)
		}
		made.name, made.pair = w.name, p
		b.tests = append(b.tests, made)
	}
	if len(b.tests) == 0 {
		return errors.New("nothing to measure")
	}
	return nil
}

// silently runs a program in the host for what it does, not to measure it.
func (p *pair) silently(line ...string) error {
	_, err := p.run(program{line: line})
	return err
}

// fixed prepares the same programs for every round.
func fixed(list ...program) func() ([]program, error) {
	return func() ([]program, error) { return list, nil }
}

// file writes a file that a program reads.
func (b *bench) file(name, content string) (string, error) {
	path := filepath.Join(b.dir, name)
	return path, os.WriteFile(path, []byte(content), 0o600)
}

// isolation is mobileops network isolate with a state of its own in dir.
func (b *bench) isolation(dir string, more ...string) program {
	return program{
		line: append([]string{b.mobileops, "network", "isolate", "--allow", station4 + "/32", "--allow", station6 + "/128", "--no-guard"}, more...),
		env:  []string{"MOBILEOPS_STATE_DIR=" + dir + "/state", "MOBILEOPS_LOG_DIR=" + dir + "/log", "MOBILEOPS_RUN_DIR=" + dir + "/run"},
	}
}

func (b *bench) mobileopsWay(_ string, p *pair) (*way, error) {
	dir := filepath.Join(b.dir, "fresh")
	return &way{
		prepare: func() ([]program, error) {
			return []program{b.isolation(dir)}, os.MkdirAll(dir, 0o700)
		},
		undo: func() error { return errors.Join(p.silently("nft", "flush", "ruleset"), os.RemoveAll(dir)) },
	}, nil
}

func (b *bench) nftWay(_ string, p *pair) (*way, error) {
	path := b.ruleset
	if path == "" {
		dir := filepath.Join(b.dir, "plan")
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return nil, err
		}
		plan := b.isolation(dir, "--dry-run")
		cmd := exec.Command(plan.line[0], plan.line[1:]...)
		cmd.Env = append(os.Environ(), plan.env...)
		var out bytes.Buffer
		cmd.Stdout, cmd.Stderr = &out, os.Stderr
		// 1 says that the host is not isolated, but would be.
		if err := p.host.do(cmd.Run); err != nil && cmd.ProcessState.ExitCode() != 1 {
			return nil, fmt.Errorf("the ruleset of mobileops: %w (or give one: -ruleset FILE)", err)
		}
		var err error
		if path, err = b.file("ruleset.nft", out.String()); err != nil {
			return nil, err
		}
	}
	return &way{
		prepare: fixed(program{line: []string{"nft", "-f", path}}),
		undo:    func() error { return p.silently("nft", "flush", "ruleset") },
	}, nil
}

// iptablesRules is what mobileops has, without what iptables cannot do: there
// is no switch that falls back, and nothing at the interfaces.
func iptablesRules(station, more string) string {
	var rules strings.Builder
	rules.WriteString("*filter\n:INPUT DROP [0:0]\n:FORWARD DROP [0:0]\n:OUTPUT DROP [0:0]\n-A INPUT -i lo -j ACCEPT\n-A OUTPUT -o lo -j ACCEPT\n")
	fmt.Fprintf(&rules, "-A INPUT -s %[1]s -j ACCEPT\n-A OUTPUT -d %[1]s -j ACCEPT\n%[2]sCOMMIT\n", station, more)
	return rules.String()
}

func (b *bench) iptablesWay(name string, p *pair) (*way, error) {
	dhcp := "-A INPUT -p udp --sport 67 --dport 68 -j ACCEPT\n-A OUTPUT -p udp --sport 68 --dport 67 -j ACCEPT\n"
	dhcp6 := "-A INPUT -p udp --sport 547 --dport 546 -j ACCEPT\n-A OUTPUT -p udp --sport 546 --dport 547 -j ACCEPT\n"
	for _, kind := range []int{133, 134, 135, 136} {
		dhcp6 += fmt.Sprintf("-A INPUT -p icmpv6 --icmpv6-type %[1]d -m hl --hl-eq 255 -j ACCEPT\n-A OUTPUT -p icmpv6 --icmpv6-type %[1]d -j ACCEPT\n", kind)
	}
	const open = "*filter\n:INPUT ACCEPT [0:0]\n:FORWARD ACCEPT [0:0]\n:OUTPUT ACCEPT [0:0]\nCOMMIT\n"
	rules4, err4 := b.file(name+".4", iptablesRules(station4+"/32", dhcp))
	rules6, err6 := b.file(name+".6", iptablesRules(station6+"/128", dhcp6))
	undo, err := b.file(name+".undo", open)
	v4, v6 := name+"-restore", strings.Replace(name, "ip", "ip6", 1)+"-restore"
	return &way{
		prepare: fixed(program{line: []string{v4}, stdin: rules4}, program{line: []string{v6}, stdin: rules6}),
		undo: func() error {
			for _, line := range []string{v4, v6} {
				if _, err := p.run(program{line: []string{line}, stdin: undo}); err != nil {
					return err
				}
			}
			if name == "iptables-nft" {
				return p.silently("nft", "flush", "ruleset")
			}
			return nil
		},
	}, errors.Join(err, err4, err6)
}

// ufwWay changes its own copies of the configuration only: see ownFiles.
func (b *bench) ufwWay(_ string, p *pair) (*way, error) {
	machine, err := inodes()
	if err != nil {
		return nil, err
	}
	err = p.host.do(func() error {
		own, err := inodes()
		if err != nil {
			return err
		}
		if own[0] == machine[0] || own[1] == machine[1] {
			return errors.New("its configuration is the machine's, and must not be changed")
		}
		settings, err := os.ReadFile("/etc/default/ufw")
		if err != nil {
			return err
		}
		// No module is loaded on behalf of a measurement.
		return os.WriteFile("/etc/default/ufw", append(settings, "\nIPT_MODULES=\"\"\nDEFAULT_OUTPUT_POLICY=\"DROP\"\nIPV6=yes\n"...), 0o644)
	})
	if err != nil {
		return nil, err
	}
	for _, line := range []string{"allow from " + station4, "allow from " + station6, "allow out to " + station4, "allow out to " + station6} {
		if err := p.silently(append([]string{"ufw"}, strings.Fields(line)...)...); err != nil {
			return nil, err
		}
	}
	return &way{
		prepare: fixed(program{line: []string{"ufw", "--force", "enable"}}),
		undo:    func() error { return p.silently("ufw", "disable") },
	}, nil
}

// inodes says which files ufw's configuration is, as the calling thread sees it.
func inodes() (list [2]uint64, err error) {
	for i, path := range []string{"/etc/ufw", "/etc/default/ufw"} {
		info, err := os.Stat(path)
		if err != nil {
			return list, err
		}
		list[i] = info.Sys().(*syscall.Stat_t).Ino
	}
	return list, nil
}

// firewalldTime bounds how long firewalld may take to be ready.
const firewalldTime = 30 * time.Second

// firewalldWay runs a firewalld, and a bus to talk to it, that live in /run of
// the host. What the daemon does is not in the processor time that is shown.
func (b *bench) firewalldWay(_ string, p *pair) (*way, error) {
	const config = `<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN" "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig><type>system</type><listen>unix:path=/run/dbus/system_bus_socket</listen><auth>EXTERNAL</auth>
<policy context="default"><allow own="*"/><allow send_destination="*"/><allow receive_sender="*"/></policy></busconfig>
`
	conf, err := b.file("bus.conf", config)
	if err != nil {
		return nil, err
	}
	if err := p.host.do(func() error { return os.Mkdir("/run/dbus", 0o755) }); err != nil {
		return nil, err
	}
	for _, line := range [][]string{
		{"dbus-daemon", "--nofork", "--nopidfile", "--config-file=" + conf},
		{"firewalld", "--nofork", "--nopid"},
	} {
		if err := b.daemon(p, line); err != nil {
			return nil, err
		}
	}
	began := time.Now()
	for p.silently("firewall-cmd", "--state") != nil {
		if time.Since(began) > firewalldTime {
			return nil, fmt.Errorf("it is not ready after %v", firewalldTime)
		}
		time.Sleep(100 * time.Millisecond)
	}
	return &way{
		prepare: fixed(program{line: []string{"firewall-cmd", "--quiet", "--panic-on"}}),
		undo:    func() error { return p.silently("firewall-cmd", "--quiet", "--panic-off") },
	}, nil
}

// daemon starts a program in the host that is ended with the measurement.
func (b *bench) daemon(p *pair, line []string) error {
	cmd := exec.Command(line[0], line[1:]...)
	if err := p.host.do(cmd.Start); err != nil {
		return err
	}
	b.daemons = append(b.daemons, cmd)
	return nil
}

// close ends what measuring has begun.
func (b *bench) close() {
	for _, cmd := range slices.Backward(b.daemons) {
		cmd.Process.Kill()
		cmd.Wait()
	}
	for _, p := range b.pairs {
		p.close()
	}
}
