package source

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/mobileops/mobileops/internal/failure"
	"github.com/mobileops/mobileops/internal/logs/event"
)

func TestKmsg(t *testing.T) {
	h := newHost(t)
	h.spec = []Spec{{Name: "kernel", Kind: Kmsg, Include: []string{"/dev/kmsg"}}}
	if f, err := os.Open("/dev/kmsg"); err != nil {
		t.Skipf("the messages of the kernel may not be read here: %v", err)
	} else {
		f.Close()
	}
	r := h.once()
	for _, p := range r.Problems {
		t.Errorf("problem %+v", p)
	}
	n := len(h.sink.lines())
	if n == 0 {
		t.Skip("the kernel has no messages (a container without them?)")
	}
	mark := fmt.Sprintf("mobileops test %d", time.Now().UnixNano())
	f, err := os.OpenFile("/dev/kmsg", os.O_WRONLY, 0)
	if err == nil {
		_, err = fmt.Fprintf(f, "<14>%s\n", mark) // without the newline it could go on
		f.Close()
	}
	if err != nil {
		t.Skipf("no message can be given to the kernel: %v", err)
	}
	if r := h.once(); len(r.Problems) > 0 {
		t.Errorf("problems %+v", r.Problems)
	}
	var marked []event.Record
	for _, rec := range h.sink.records() {
		if strings.Contains(string(rec.Raw), mark) {
			marked = append(marked, rec)
		}
	}
	if len(marked) != 1 {
		t.Fatalf("the message is there %d times", len(marked))
	}
	if d := time.Since(marked[0].When()); d < -time.Minute || d > time.Minute || marked[0].Clock != event.ClockBoot {
		t.Errorf("its time is %s, %s", marked[0].When(), marked[0].Clock)
	}
	if len(h.sink.lines()) > n+1000 {
		t.Errorf("%d messages first, then %d: they were read again", n, len(h.sink.lines()))
	}
	// A message that was overwritten leaves a gap; after a boot there is none.
	c := h.collector()
	k, err := newKmsg(c, c.specs[0], "/dev/kmsg", []byte(`{"v":1,"boot":"another","seq":999999999}`))
	if err != nil || !k.known {
		t.Fatal(err)
	}
	if _, err := newKmsg(c, c.specs[0], "/dev/kmsg", []byte(`{"v":1`)); !errors.Is(err, ErrCursor) || failure.KindOf(err) != failure.Untrustworthy {
		t.Errorf("a damaged cursor: %v", err)
	}
}

func TestKmsgGap(t *testing.T) {
	h := newHost(t)
	h.spec = []Spec{{Name: "kernel", Kind: Kmsg, Include: []string{h.path("kmsg")}}}
	boot, err := os.ReadFile(bootIDFile)
	if err != nil {
		t.Fatal(err)
	}
	// One record is what one read gives, so this is a file with one.
	h.write("kmsg", "6,12,1000000,-;later\n")
	h.sink.cursors = map[string][]byte{"kmsg:" + h.path("kmsg"): fmt.Appendf(nil, `{"v":1,"boot":%q,"seq":7}`, strings.TrimSpace(string(boot)))}
	r := h.once()
	if len(r.Gaps) != 1 || r.Gaps[0].Records != 4 {
		t.Errorf("gaps %+v", r.Gaps)
	}
	if r := h.once(); len(r.Gaps) != 0 || len(h.sink.lines()) != 1 {
		t.Errorf("the second time: gaps %+v, lines %q", r.Gaps, h.sink.lines())
	}
}

// login is a record of wtmp.
func login(user, host string, when int64) string {
	b := make([]byte, 384)
	binary.LittleEndian.PutUint16(b, 7) // USER_PROCESS
	binary.LittleEndian.PutUint32(b[4:], 4711)
	copy(b[8:], "pts/0")
	copy(b[44:], user)
	copy(b[76:], host)
	binary.LittleEndian.PutUint32(b[340:], uint32(when))
	return string(b)
}

func TestWtmp(t *testing.T) {
	h := newHost(t)
	h.spec = []Spec{{Name: "logins", Kind: Utmp, Include: []string{h.path("wtmp")}}}
	h.write("wtmp", login("ann", "192.0.2.1", 1763790000)+login("bob", "192.0.2.2", 1763790001)[:100])
	h.once()
	h.append("wtmp", login("bob", "192.0.2.2", 1763790001)[100:])
	h.once()
	h.rename("wtmp", "wtmp.1")
	h.write("wtmp", login("cid", "", 1763790002))
	run(t, "gzip "+h.path("wtmp.1"))
	h.once()
	var users []string
	for _, l := range h.sink.lines() {
		_, rest, _ := strings.Cut(l, "user=")
		user, _, _ := strings.Cut(rest, " ")
		users = append(users, user)
	}
	if strings.Join(users, " ") != "ann bob cid" {
		t.Errorf("logins of %q: %q", users, h.sink.lines())
	}
}

func TestLastlog(t *testing.T) {
	h := newHost(t)
	h.spec = []Spec{{Name: "lastlog", Kind: Lastlog, Include: []string{h.path("lastlog")}}}
	f, err := os.Create(h.path("lastlog"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	put := func(uid int64, when uint32) {
		b := make([]byte, 292)
		binary.LittleEndian.PutUint32(b, when)
		copy(b[4:], "pts/1")
		copy(b[36:], "192.0.2.9")
		if _, err := f.WriteAt(b, uid*292); err != nil {
			t.Fatal(err)
		}
	}
	put(0, 1763790000)
	put(4_000_000_000, 1763790001) // an apparent size of a terabyte
	h.once()
	h.once()
	put(0, 1763790005)
	h.once()
	got := h.sink.lines()
	if len(got) != 3 || !strings.Contains(got[0], "uid=0") || !strings.Contains(got[1], "uid=4000000000") || !strings.Contains(got[2], "uid=0") {
		t.Errorf("%q", got)
	}
}

func TestContainers(t *testing.T) {
	id := strings.Repeat("0123456789abcdef", 4)
	h := newHost(t)
	h.spec = []Spec{
		{Name: "docker", Kind: Files, Format: "docker", Include: []string{h.path("docker/containers/*/*-json.log")}},
		{Name: "pods", Kind: Files, Format: "cri", Include: []string{h.path("pods/*/*/*.log")}},
	}
	h.write("docker/containers/"+id+"/config.v2.json", `{"ID":"`+id+`","Name":"/web"}`)
	h.write("docker/containers/"+id+"/"+id+"-json.log", `{"log":"hello\n","stream":"stdout","time":"2026-11-22T06:00:00.1Z"}`+"\n")
	h.write("pods/shop_cart-7d4_0f1e/main/0.log", "2026-11-22T06:00:00.1Z stdout F hello\n")
	h.write("pods/shop_cart-7d4_0f1e/main/0.log.20261121-060000", "2026-11-21T06:00:00.1Z stdout F older\n")
	h.once()
	if got := strings.Join(h.sink.sources(), " "); got != "docker:web pod:shop/cart-7d4/main" {
		t.Errorf("sources %s", got)
	}
	if n := len(h.sink.lines()); n != 3 {
		t.Errorf("%d records: %q", n, h.sink.lines())
	}
}

func TestRoot(t *testing.T) {
	h := newHost(t)
	h.opts.Root = h.dir
	h.spec = []Spec{{Name: "all", Kind: Files, Include: []string{"/var/log/*.log"}}}
	h.write("var/log/app.log", numbered(0, 10))
	h.write("data/linked.log", numbered(10, 20))
	// Below the root an absolute link leads to what is below it.
	if err := os.Symlink("/data/linked.log", h.path("var/log/link.log")); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("../../../../../../../../etc/hostname", h.path("var/log/out.log")); err != nil {
		t.Fatal(err)
	}
	r := h.once()
	h.expect(20)
	if got := strings.Join(h.sink.sources(), " "); got != "/data/linked.log /var/log/app.log" {
		t.Errorf("sources %s", got)
	}
	if len(r.Problems) != 1 || r.Problems[0].Path != "/var/log/out.log" {
		t.Errorf("problems %+v", r.Problems)
	}
}

func TestDiscover(t *testing.T) {
	h := newHost(t)
	for _, name := range []string{"var/log/syslog", "var/log/auth.log", "var/log/auth.log.1", "var/log/nginx/access.log", "var/log/app/app.log",
		"var/log/audit/audit.log", "var/log/wtmp", "var/log/journal/0123456789abcdef0123456789abcdef/system.journal"} {
		h.write(name, "x\n")
	}
	specs, err := Discover(h.dir)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, s := range specs {
		names = append(names, s.Name)
		t.Logf("%s: %s", s.Name, s.Why)
	}
	if got := strings.Join(names, " "); got != "journal logins audit syslog web other" {
		t.Errorf("found %s", got)
	}
	if _, err := New(specs, nil, h.sink, h.opts); err != nil {
		t.Errorf("the specs cannot be collected: %v", err)
	}
	list, err := parsePlaces(places)
	if err != nil {
		t.Fatal(err)
	}
	all := make([]Spec, len(list))
	for i, p := range list {
		all[i] = p.spec()
	}
	if _, err := New(all, nil, h.sink, h.opts); err != nil {
		t.Errorf("the places cannot be collected: %v", err)
	}
}

func TestBadSpecs(t *testing.T) {
	for _, s := range []Spec{
		{Name: "a", Kind: "tape", Include: []string{"/x"}},
		{Name: "a", Kind: Files},
		{Name: "a", Kind: Files, Include: []string{"var/log"}},
		{Name: "a", Kind: Files, Include: []string{"/var/[log"}},
		{Name: "a", Kind: Files, Include: []string{"/var/{a,b"}},
		{Name: "a", Kind: Files, Include: []string{"/var/../etc"}},
		{Name: "a", Kind: Files, Include: []string{"/x"}, Format: "nonsense"},
		{Name: "a", Kind: Files, Include: []string{"/x"}, Zone: "Moon/Sea"},
	} {
		if _, err := New([]Spec{s}, nil, &memorySink{}, Options{}); failure.KindOf(err) != failure.Usage {
			t.Errorf("%+v: %v", s, err)
		}
	}
}

func TestDamagedCursor(t *testing.T) {
	h := newHost(t)
	h.sink.cursors = map[string][]byte{"file:1": []byte(`{"v":1,"path":"/x","offset":-1}`)}
	if _, err := h.collector().Once(context.Background()); !errors.Is(err, ErrCursor) {
		t.Errorf("a damaged cursor: %v", err)
	}
}
