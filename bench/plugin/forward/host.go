package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/exec"
	"strconv"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/mobileops/mobileops/pkg/pluginsdk"
)

// batchEvents fit into a line of the protocol.
const batchEvents = 1000

// host is the other end of the plugin's protocol.
type host struct {
	conn   *net.UnixConn
	cmd    *exec.Cmd
	exited chan struct{}
	out    sync.Mutex
	start  chan struct{} // the plugin has subscribed
	acks   chan struct{}
}

type request struct {
	ID     int             `json:"id"`
	Method string          `json:"method"`
	Params json.RawMessage `json:"params"`
}

func startHost(b *bench, data string, config map[string]any) (*host, error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	theirs, ours := os.NewFile(uintptr(fds[1]), "plugin"), os.NewFile(uintptr(fds[0]), "host")
	c, err := net.FileConn(ours)
	ours.Close()
	if err != nil {
		return nil, err
	}
	h := &host{conn: c.(*net.UnixConn), exited: make(chan struct{}), start: make(chan struct{}), acks: make(chan struct{}, 4)}
	h.cmd = exec.Command(b.program, "serve")
	h.cmd.Dir, h.cmd.Stderr, h.cmd.ExtraFiles = data, os.Stderr, []*os.File{theirs}
	h.cmd.Env = []string{"MOBILEOPS_PLUGIN_FD=3", "MOBILEOPS_PLUGIN=siem-integration-plugin", "MOBILEOPS_PLUGIN_DATA=" + data, "MOBILEOPS_PLUGIN_ROLE=service", "HOME=" + data}
	if b.procs > 0 {
		h.cmd.Env = append(h.cmd.Env, "GOMAXPROCS="+strconv.Itoa(b.procs))
	}
	h.cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Pdeathsig: syscall.SIGKILL}
	if err := h.cmd.Start(); err != nil {
		return nil, err
	}
	theirs.Close()
	go func() {
		_ = h.cmd.Wait()
		close(h.exited)
	}()
	h.say([]byte(`{"method":"hello","params":{"protocol":"mobileops.plugin/v1","host":{"version":"0.1.0","id":"h"},"plugin":{"name":"siem-integration-plugin","version":"1.0.0"},"role":"service"}}`+"\n"), nil)
	go h.listen(config)
	return h, nil
}

func (h *host) kill() {
	_ = h.cmd.Process.Kill()
	<-h.exited
	h.conn.Close()
}

func (h *host) say(line, rights []byte) {
	h.out.Lock()
	defer h.out.Unlock()
	n := 0
	if rights != nil {
		n, _, _ = h.conn.WriteMsgUnix(line, rights, nil)
	}
	_, _ = h.conn.Write(line[n:])
}

func (h *host) answer(id int, result any, rights []byte) {
	b, _ := json.Marshal(map[string]any{"id": id, "result": result})
	h.say(append(b, '\n'), rights)
}

func (h *host) listen(config map[string]any) {
	in := bufio.NewReaderSize(h.conn, 1<<16)
	for {
		line, err := in.ReadBytes('\n')
		if err != nil {
			return
		}
		var r request
		if json.Unmarshal(line, &r) != nil {
			return
		}
		switch r.Method {
		case "config.get":
			h.answer(r.ID, map[string]any{"values": config, "secrets": []string{}}, nil)
		case "events.subscribe":
			h.answer(r.ID, map[string]any{"cursor": "0"}, nil)
			close(h.start)
		case "events.ack":
			h.answer(r.ID, struct{}{}, nil)
			h.acks <- struct{}{}
		case "dial":
			var ask struct{ Network, Address string }
			_ = json.Unmarshal(r.Params, &ask)
			c, err := net.Dial(ask.Network, ask.Address)
			if err != nil {
				b, _ := json.Marshal(map[string]any{"id": r.ID, "error": map[string]string{"code": "failed", "message": err.Error()}})
				h.say(append(b, '\n'), nil)
				continue
			}
			f, err := c.(*net.TCPConn).File()
			c.Close()
			if err != nil {
				return
			}
			h.answer(r.ID, struct{}{}, unix.UnixRights(int(f.Fd())))
			f.Close()
		}
	}
}

// feed sends so many events, in batches of which two are not acknowledged at
// most, and returns when all are. The lines are made once, and only the
// numbers in them are new, so that it is not the host that is measured.
func (h *host) feed(events int) error {
	line, numbers, err := batchLine()
	if err != nil {
		return err
	}
	select {
	case <-h.start:
	case <-h.exited:
		return fmt.Errorf("the plugin ended")
	}
	open := 0
	for n := 0; n < events; n += batchEvents {
		for open == 2 {
			select {
			case <-h.acks:
				open--
			case <-h.exited:
				return fmt.Errorf("the plugin ended")
			}
		}
		for i, at := range numbers {
			k := n + i
			for d := at + 9; d >= at; d-- {
				line[d] = byte('0' + k%10)
				k /= 10
			}
		}
		h.say(line, nil)
		open++
	}
	for ; open > 0; open-- {
		select {
		case <-h.acks:
		case <-h.exited:
			return fmt.Errorf("the plugin ended")
		}
	}
	return nil
}

// batchLine is a notification with a batch of findings, and where the ten
// digits of each id are in it.
func batchLine() (line []byte, numbers []int, err error) {
	line = append(line, `{"method":"events","params":{"events":[`...)
	for i := range batchEvents {
		e, err := json.Marshal(event())
		if err != nil {
			return nil, nil, err
		}
		if i > 0 {
			line = append(line, ',')
		}
		const before = `{"id":"finding-`
		if string(e[:len(before)]) != before {
			return nil, nil, fmt.Errorf("an event begins with %.40s", e)
		}
		numbers = append(numbers, len(line)+len(before))
		line = append(line, e...)
	}
	line = append(line, `],"cursor":"c"}}`+"\n"...)
	if len(line) > 1<<20 {
		return nil, nil, fmt.Errorf("a batch of %d bytes is too long for a line", len(line))
	}
	return line, numbers, nil
}

func event() pluginsdk.Event {
	at := benchTime()
	return pluginsdk.Event{ID: "finding-0000000000", Type: pluginsdk.TypeFinding, Time: at, Change: pluginsdk.ChangeOpened, Finding: &pluginsdk.Finding{
		Source: "integrity", Rule: "file-changed", Severity: pluginsdk.High, Title: "A file of a package was changed",
		Subject: "/usr/lib/x86_64-linux-gnu/libcrypto.so.3", Evidence: map[string]string{"digest": "was 4f0a11, is 5eb2c9", "package": "libssl3"},
		Remediation: "Compare with the package, and reinstall it", ID: "634b91900b", Fingerprint: "634b91900b9c2ddccd8c0bbe0327e83e",
		Tags: []string{"package"}, State: pluginsdk.Open, FirstSeen: at, LastSeen: at, TimesSeen: 1, Scopes: []string{"default"},
	}}
}
