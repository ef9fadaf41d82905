package format

import (
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/mobileops/mobileops/pkg/pluginsdk"
)

const rsyslogConfig = `
global(workDirectory="%[1]s" maxMessageSize="64k" parser.escapeControlCharactersOnReceive="off" net.enableDNS="off")
module(load="imtcp")
module(load="mmpstrucdata")
input(type="imtcp" port="0" address="127.0.0.1" listenPortFileName="%[1]s/port" maxFrameSize="65536")
template(name="line" type="list") {
  constant(value="{") property(name="pri" format="jsonf") constant(value=",") property(name="hostname" format="jsonf") constant(value=",")
  property(name="app-name" format="jsonf") constant(value=",") property(name="msgid" format="jsonf") constant(value=",")
  property(name="structured-data" format="jsonf") constant(value=",") property(name="msg" format="jsonf") constant(value=",")
  constant(value="\"id\":\"") property(name="$!rfc5424-sd!mobileops@32473!id" format="json") constant(value="\"}\n")
}
action(type="mmpstrucdata")
action(type="omfile" file="%[1]s/out" template="line" asyncWriting="off" flushOnTXEnd="on")
`

// TestRsyslogReadsTheSame sends every event to an rsyslogd, with octet counting
// (RFC 6587), and looks at what its parser made of each.
func TestRsyslogReadsTheSame(t *testing.T) {
	program := "/usr/sbin/rsyslogd"
	if _, err := os.Stat(program); err != nil {
		t.Skip("rsyslogd is missing: messages are parsed by this test alone")
	}
	dir := t.TempDir()
	config := filepath.Join(dir, "conf")
	if err := os.WriteFile(config, fmt.Appendf(nil, rsyslogConfig, dir), 0o600); err != nil {
		t.Fatal(err)
	}
	log, err := os.Create(filepath.Join(dir, "log"))
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	daemon := exec.Command(program, "-n", "-C", "-f", config, "-i", filepath.Join(dir, "pid"))
	daemon.Stdout, daemon.Stderr = log, log
	daemon.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := daemon.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		_ = daemon.Process.Kill()
		_ = daemon.Wait()
	}()
	port := await(t, filepath.Join(dir, "port"), func(b []byte) bool { return len(b) > 0 })
	// It has written that before it listens there.
	conn, err := net.Dial("tcp", "127.0.0.1:"+strings.TrimSpace(string(port)))
	for end := time.Now().Add(time.Minute); err != nil && time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		conn, err = net.Dial("tcp", "127.0.0.1:"+strings.TrimSpace(string(port)))
	}
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	var sent []string
	var events []*pluginsdk.Event
	for _, e := range everything() {
		record := encode(t, "rfc5424", opts, e)
		if _, err := fmt.Fprintf(conn, "%d %s", len(record), record); err != nil {
			t.Fatal(err)
		}
		sent, events = append(sent, record), append(events, e)
	}
	out := await(t, filepath.Join(dir, "out"), func(b []byte) bool { return strings.Count(string(b), "\n") >= len(sent) })
	lines := strings.Split(strings.TrimSpace(string(out)), "\n")
	if len(lines) != len(sent) {
		t.Fatalf("%d messages became %d", len(sent), len(lines))
	}
	for i, line := range lines {
		var got map[string]string
		if err := json.Unmarshal([]byte(line), &got); err != nil {
			t.Fatalf("%v in %.300q", err, line)
		}
		m, err := parseSyslog(sent[i])
		if err != nil {
			t.Fatal(err)
		}
		_, data, _ := strings.Cut(sent[i], " [")
		data, _, _ = strings.Cut("["+data, " \ufeff")
		if got["pri"] != fmt.Sprint(m.priority) || got["hostname"] != m.host || got["app-name"] != "mobileops" || got["msgid"] != m.id {
			t.Errorf("%.300q was read as %v", sent[i], got)
		}
		// By the id a receiver tells what came twice; control characters in one
		// are escaped, which none of a host has.
		if id := events[i].ID; got["id"] != id && strconv.Quote(id) == `"`+id+`"` {
			t.Errorf("the id of %.300q was read as %q", sent[i], got["id"])
		}
		if got["structured-data"] != data || strings.TrimPrefix(got["msg"], "\ufeff") != m.msg {
			t.Errorf("%.500q was read as %.500q and %.500q", sent[i], got["structured-data"], got["msg"])
		}
		if t.Failed() {
			t.Fatalf("event %d: %+v", i, events[i])
		}
	}
}

// await returns what a file has once it is as wanted.
func await(t *testing.T, path string, wanted func([]byte) bool) []byte {
	t.Helper()
	deadline := time.Now().Add(60 * time.Second)
	for {
		b, err := os.ReadFile(path)
		if err == nil && wanted(b) {
			return b
		}
		if time.Now().After(deadline) {
			said, _ := os.ReadFile(filepath.Join(filepath.Dir(path), "log"))
			t.Fatalf("%s has %d bytes (%v); rsyslogd said %s", path, len(b), err, said)
		}
		time.Sleep(20 * time.Millisecond)
	}
}
