package format

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/mobileops/mobileops/internal/logs/event"
)

// one reads text, which must be one record of the format that it is taken for.
func one(t *testing.T, text []byte, format string, o ReaderOptions) event.Event {
	t.Helper()
	s := builtinSet(t)
	f := s.Detect("", text)
	if f.Name() != format {
		t.Fatalf("%q is taken for %s", text, f.Name())
	}
	recs, _ := f.NewReader(o).Next(nil, text, true)
	if len(recs) != 1 {
		t.Fatalf("%q: %d records", text, len(recs))
	}
	e := event.Event{Record: recs[0]}
	f.Fill(&e)
	return e
}

// TestLogger reads what logger(1) sends in each of its forms.
func TestLogger(t *testing.T) {
	if _, err := exec.LookPath("logger"); err != nil {
		t.Skip("logger is not installed (apt-get install bsdutils)")
	}
	conn, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	port := fmt.Sprint(conn.LocalAddr().(*net.UDPAddr).Port)
	for _, c := range []struct {
		format string
		args   []string
		clock  event.Clock
		fields string
	}{
		{"syslog", []string{"--rfc3164"}, event.ClockYear, "facility=auth"},
		{"syslog5424", []string{"--rfc5424", "--msgid", "MID", "--sd-id", "ex@1", "--sd-param", `a="b c"`}, event.ClockExact, "facility=auth msgid=MID ex@1.a=b c"},
	} {
		args := append([]string{"-n", "127.0.0.1", "-P", port, "-d", "-t", "prog", "--id=77", "-p", "auth.err"}, c.args...)
		if out, err := exec.Command("logger", append(args, "hello: from 192.0.2.7")...).CombinedOutput(); err != nil {
			t.Fatalf("logger: %v %s", err, out)
		}
		buf := make([]byte, 4096)
		if err := conn.SetReadDeadline(time.Now().Add(2 * time.Minute)); err != nil {
			t.Fatal(err)
		}
		n, err := conn.Read(buf)
		if err != nil {
			t.Fatal(err)
		}
		e := one(t, append(buf[:n], '\n'), c.format, ReaderOptions{Zone: time.Local})
		host, err := os.Hostname()
		if err != nil {
			t.Fatal(err)
		}
		if d := time.Since(e.When()); d < -time.Minute || d > time.Minute || e.Clock != c.clock {
			t.Errorf("%q: time %v, %v", buf[:n], e.When(), e.Clock)
		}
		var fields []string
		for _, f := range e.Fields {
			if !strings.HasPrefix(f.Name, "timeQuality.") {
				fields = append(fields, f.Name+"="+string(f.Value))
			}
		}
		if e.Program != "prog" || e.PID != 77 || e.Severity != event.Error || string(e.Message) != "hello: from 192.0.2.7" ||
			!strings.HasPrefix(host, e.Host) || strings.Join(fields, " ") != c.fields {
			t.Errorf("%q is %+v", buf[:n], e)
		}
	}
}

// TestDmesg reads the kernel's ring buffer as dmesg(1) prints it in several
// forms, and holds times and severities of them against each other.
func TestDmesg(t *testing.T) {
	raw, err := exec.Command("dmesg", "-r").Output()
	if err != nil || len(raw) == 0 {
		t.Skipf("dmesg shows nothing (%v): the test needs root and a kernel that lets it", err)
	}
	f, _ := builtinSet(t).Lookup("dmesg")
	o := ReaderOptions{Boot: time.Unix(1e9, 0), Zone: time.Local}
	recs, n := f.NewReader(o).Next(nil, raw, true)
	if n != len(raw) {
		t.Fatalf("%d of %d bytes", n, len(raw))
	}
	for _, r := range recs {
		e := event.Event{Record: r}
		f.Fill(&e)
		if r.Clock != event.ClockBoot || e.Severity > event.Debug || e.Program != "kernel" {
			t.Fatalf("%q: %v %v", r.Raw, r.Clock, e.Severity)
		}
		head, _, _ := bytes.Cut(r.Raw, []byte("] "))
		_, stamp, _ := bytes.Cut(head, []byte("["))
		since := r.When().Sub(o.Boot)
		if got := fmt.Sprintf("%5d.%06d", int64(since/time.Second), int64(since%time.Second/time.Microsecond)); got != string(stamp) {
			t.Fatalf("%q is %s after the start", r.Raw, got)
		}
	}
	iso, err := exec.Command("dmesg", "--time-format", "iso").Output()
	if err != nil {
		t.Fatal(err)
	}
	s := builtinSet(t)
	if name := s.Detect("", iso).Name(); name != "timestamped" {
		t.Errorf("dmesg --time-format iso is taken for %s", name)
	}
}

// TestKmsg reads /dev/kmsg of this machine.
func TestKmsg(t *testing.T) {
	fd, err := syscall.Open("/dev/kmsg", syscall.O_RDONLY|syscall.O_NONBLOCK|syscall.O_CLOEXEC, 0)
	if err != nil {
		t.Skipf("/dev/kmsg cannot be opened (%v): the test needs root", err)
	}
	defer syscall.Close(fd)
	var all []byte
	buf := make([]byte, 8192)
	count := 0
	for count < 200 {
		n, err := syscall.Read(fd, buf)
		if errors.Is(err, syscall.EPIPE) {
			continue // overwritten meanwhile
		}
		if err != nil {
			break
		}
		count++
		all = append(all, buf[:n]...)
	}
	if count == 0 {
		t.Skip("the kernel has no messages")
	}
	f := builtinSet(t).Detect("", all)
	if f.Name() != "kmsg" {
		t.Fatalf("/dev/kmsg is taken for %s", f.Name())
	}
	recs, _ := f.NewReader(ReaderOptions{Boot: time.Unix(1e9, 0)}).Next(nil, all, true)
	if len(recs) != count {
		t.Fatalf("%d records, %d were read", len(recs), count)
	}
	for _, r := range recs {
		e := event.Event{Record: r}
		f.Fill(&e)
		if r.Clock != event.ClockBoot || e.Severity > event.Debug || bytes.ContainsRune(e.Message, '\n') {
			t.Fatalf("%q: %v, %q", r.Raw, r.Clock, e.Message)
		}
	}
}

// TestAusearch gives the same lines to ausearch(8): which records make an
// event, and when it was.
func TestAusearch(t *testing.T) {
	if _, err := exec.LookPath("ausearch"); err != nil {
		t.Skip("ausearch is not installed (apt-get install auditd)")
	}
	var text string
	// Events that overlap as they do on machines with several processors, and
	// records of programs between them. ausearch leaves out what lacks fields.
	const who = "a0=0 a1=0 a2=0 a3=0 items=0 ppid=1 pid=7 auid=1000 uid=0 gid=0 euid=0 suid=0 fsuid=0 egid=0 sgid=0 fsgid=0 tty=pts0 ses=1"
	for i := range 300 {
		at := fmt.Sprintf("msg=audit(%d.%03d:%%d):", 1764490000+i/10, i%1000)
		a, b, c := fmt.Sprintf(at, 1000+3*i), fmt.Sprintf(at, 1001+3*i), fmt.Sprintf(at, 1002+3*i)
		text += fmt.Sprintf("type=SYSCALL %[1]s arch=c000003e syscall=59 success=yes exit=0 %[4]s comm=\"a\" exe=\"/bin/a\" key=(null)\n"+
			"type=SYSCALL %[2]s arch=c000003e syscall=42 success=yes exit=0 %[4]s comm=\"b\" exe=\"/bin/b\" key=(null)\n"+
			"type=SOCKADDR %[2]s saddr=02000016C00002070000000000000000\ntype=EXECVE %[1]s argc=1 a0=\"a\"\n"+
			"type=PROCTITLE %[1]s proctitle=\"a\"\n"+
			"type=USER_LOGIN %[3]s pid=12 uid=0 auid=1000 ses=3 msg='op=login acct=\"bob\" exe=\"/usr/sbin/sshd\" hostname=192.0.2.7 addr=192.0.2.7 terminal=ssh res=success'\n"+
			"type=PROCTITLE %[2]s proctitle=\"b\"\n", a, b, c, who)
	}
	path := filepath.Join(t.TempDir(), "audit.log")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("ausearch", "-if", path)
	cmd.Env = append(os.Environ(), "TZ=UTC", "LC_ALL=C")
	cmd.Stdin = nil
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("ausearch: %v", err)
	}
	var want []string
	for _, block := range strings.Split(string(out), "----\n") {
		if _, lines, ok := strings.Cut(block, "\n"); ok && strings.HasPrefix(block, "time->") {
			want = append(want, canonical(lines))
		}
	}
	f, _ := builtinSet(t).Lookup("audit")
	recs, _ := f.NewReader(ReaderOptions{}).Next(nil, []byte(text), true)
	var got []string
	for _, r := range recs {
		got = append(got, canonical(string(r.Raw)))
	}
	slices.Sort(want)
	slices.Sort(got)
	if len(want) != 900 {
		t.Fatalf("ausearch found %d events", len(want))
	}
	if !slices.Equal(got, want) {
		for i := range min(len(got), len(want)) {
			if got[i] != want[i] {
				t.Fatalf("%d events, ausearch has %d; the first that differs:\n%s\nausearch:\n%s", len(got), len(want), got[i], want[i])
			}
		}
		t.Fatalf("%d events, ausearch has %d", len(got), len(want))
	}
}

// canonical sorts the lines of an event and leaves out its end, which ausearch
// does not print.
func canonical(block string) string {
	lines := strings.Split(strings.TrimSpace(block), "\n")
	for i := range lines {
		lines[i] = strings.TrimSpace(lines[i])
	}
	lines = slices.DeleteFunc(lines, func(l string) bool { return strings.HasPrefix(l, "type=EOE") })
	slices.Sort(lines)
	return strings.Join(lines, "\n")
}
